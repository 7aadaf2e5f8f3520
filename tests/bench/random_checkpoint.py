"""A random checkpoint of ERNIE-4.5-0.3B's shape, kept in a cache folder between runs.

Speed does not depend on the weights.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "tests/golden/ernie45-tiny"
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY = 1024, 18, 16, 2, 128, 3072, 103424


def config(layers: int = LAYERS) -> dict[str, object]:
    """As the published model's config.json has it."""
    return {
        "architectures": ["Ernie4_5ForCausalLM"],
        "model_type": "ernie4_5",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "use_bias": False,
        "vocab_size": VOCABULARY,
        "dtype": "float16",
    }


def random_checkpoint(layers: int = LAYERS) -> Path:
    """The folder; made at the first call (0.7 GB, some seconds)."""
    cache = Path(os.environ.get("PDC_CACHE", ROOT / ".cache")) / "bench"
    folder = cache / f"ernie45-0.3b-random-{layers}"
    if folder.exists():
        return folder
    partial = cache / f".{folder.name}.{os.getpid()}"
    partial.mkdir(parents=True)
    for path in TOKENIZER.iterdir():
        if path.name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
            shutil.copy(path, partial)
    (partial / "config.json").write_text(json.dumps(config(layers)))
    save_file(_tensors(layers), partial / "model.safetensors")
    partial.rename(folder)
    return folder


def _tensors(layers: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def weight(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns), np.float32) * np.float32(0.02)).astype(np.float16)

    tensors = {
        "model.embed_tokens.weight": weight(VOCABULARY, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float16),
    }
    for layer in range(layers):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": np.ones(HIDDEN, np.float16),
            f"{name}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float16),
            f"{name}.self_attn.q_proj.weight": weight(HEADS * HEAD_DIM, HIDDEN),
            f"{name}.self_attn.k_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{name}.self_attn.v_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{name}.self_attn.o_proj.weight": weight(HIDDEN, HEADS * HEAD_DIM),
            f"{name}.mlp.gate_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{name}.mlp.up_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{name}.mlp.down_proj.weight": weight(HIDDEN, INTERMEDIATE),
        }
    return tensors
