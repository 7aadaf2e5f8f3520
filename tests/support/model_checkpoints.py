"""Random checkpoints in Hugging Face's layout, written tensor by tensor."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]

ERNIE_03B: Config = {
    "architectures": ["Ernie4_5ForCausalLM"],
    "model_type": "ernie4_5",
    "vocab_size": 103424,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 18,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "use_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}


def tiny_config(family: str = "ernie4_5", **changes: Any) -> Config:
    """A model of a few thousand parameters; `changes` replace fields, None removes one."""
    config: Config = {
        "architectures": [{"ernie4_5": "Ernie4_5ForCausalLM", "llama": "LlamaForCausalLM"}[family]],
        "model_type": family,
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "hidden_act": "silu",
    }
    config.update(changes)
    return {name: value for name, value in config.items() if value is not None}


def tensor_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Weights as the Hugging Face implementations of both families name them."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv = (config.get("num_key_value_heads") or heads) * head_dim
    every = bool(config.get("use_bias"))
    attention_bias, mlp_bias = every or bool(config.get("attention_bias")), every or bool(config.get("mlp_bias"))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        for name, rows, columns, bias in (
            ("self_attn.q_proj", heads * head_dim, hidden, attention_bias),
            ("self_attn.k_proj", kv, hidden, attention_bias),
            ("self_attn.v_proj", kv, hidden, attention_bias),
            ("self_attn.o_proj", hidden, heads * head_dim, attention_bias),
            ("mlp.gate_proj", inner, hidden, mlp_bias),
            ("mlp.up_proj", inner, hidden, mlp_bias),
            ("mlp.down_proj", hidden, inner, mlp_bias),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"model.layers.{layer}.{name}.bias"] = (rows,)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"model.layers.{layer}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def random_tensor(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Values of a size that keeps activations near 1, so that the argmax is no near-tie."""
    values = generator.standard_normal(shape, dtype=np.float32)
    if "norm" in name:
        return 1 + values / 10
    if name.endswith("bias"):
        return values / 5
    if "embed" in name or "lm_head" in name:
        return values
    return values * np.float32(1.5 / math.sqrt(shape[-1]))


def random_tensors(config: Config, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    for name, shape in tensor_shapes(config).items():
        yield name, random_tensor(name, shape, generator)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """The values' bytes in a safetensors type; bfloat16 by rounding to nearest even."""
    if dtype == "F32":
        return np.ascontiguousarray(values, "<f4")
    if dtype == "F16":
        return values.astype("<f2")
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def restored(values: np.ndarray, dtype: str) -> np.ndarray:
    """What a reader of the type gets back, in float32."""
    data = stored(values, dtype)
    return (data.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else data.astype(np.float32)


def write_safetensors(
    path: Path, tensors: Iterator[tuple[str, np.ndarray]], shapes: dict[str, tuple[int, ...]], dtype: str
) -> None:
    """`tensors` in the order of `shapes`, each written as it comes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, values in tensors:
            stored(values, dtype).tofile(file)


def write_config(path: Path, config: Config) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))


def write_checkpoint(path: Path, config: Config, seed: int = 0, dtype: str = "F32") -> Path:
    """One file; returns the folder."""
    write_config(path, config)
    write_safetensors(path / "model.safetensors", random_tensors(config, seed), tensor_shapes(config), dtype)
    return path


def write_sharded(path: Path, config: Config, shards: int, seed: int = 0, dtype: str = "F32") -> Path:
    """Tensors dealt out over files in turn, with the index that names them."""
    write_config(path, config)
    everything = dict(random_tensors(config, seed))
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: values for index, (name, values) in enumerate(everything.items()) if index % shards == shard}
        write_safetensors(path / file, iter(part.items()), {name: v.shape for name, v in part.items()}, dtype)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path
