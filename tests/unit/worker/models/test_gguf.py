"""Llama from .gguf files that the gguf library writes, and files that are damaged."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy_reference
import pytest
from model_checkpoints import random_tensors, tiny_config
from model_runs import generate, paddle_runner

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.config import LinearScaling, ListedScaling
from pdcluster_worker.models.files import load_config, open_checkpoint

Type = gguf.GGMLQuantizationType
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONFIG = tiny_config("llama", hidden_size=64, intermediate_size=96, head_dim=16)
PROMPT = [5, 17, 40, 3, 3, 88, 21]


def gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """The order in which GGUF keeps the rows of Q and K: pairs that were half a head apart become neighbours."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def write(
    path: Path,
    kind: Type = Type.F32,
    config: dict[str, Any] = CONFIG,
    leave: str = "",
    extra: dict[str, np.ndarray] | None = None,
    **metadata: Any,
) -> dict[str, np.ndarray]:
    """Returns the weights as a reader should get them, under Hugging Face names."""
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_eos_token_id(2)
    for key, value in metadata.items():
        getattr(writer, key)(value)
    weights: dict[str, np.ndarray] = {}
    for name, values in random_tensors(config, seed=2):
        if name == leave:
            continue
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        part = name.split(".")[-2]
        stored = permuted(values, heads[part]) if part in heads else values
        use = Type.F32 if values.ndim == 1 else kind
        raw = gguf.quants.quantize(stored, use)
        restored = gguf.quants.dequantize(raw, use)
        weights[name] = unpermuted(restored, heads[part]) if part in heads else restored
        writer.add_tensor(gguf_name(name), raw, raw_dtype=use)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def unpermuted(values: np.ndarray, heads: int) -> np.ndarray:
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1], ids=lambda k: k.name)
def test_tokens_of_every_type(kind: Type, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    weights = write(path, kind)
    runner = paddle_runner(path, block_size=8, kv_blocks=64)
    assert generate(runner, PROMPT, 12) == numpy_reference.greedy(CONFIG, weights, PROMPT, 12)


def test_untied_and_biased(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}
    path = tmp_path / "model.gguf"
    weights = write(path, config=config)
    read = load_config(path)
    assert (read.tied_embeddings, read.attention_bias, read.mlp_bias) == (False, True, True)
    runner = paddle_runner(path, block_size=8, kv_blocks=64)
    assert generate(runner, PROMPT, 12) == numpy_reference.greedy(config, weights, PROMPT, 12)


def test_what_the_metadata_says(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, add_eot_token_id=7)
    config = load_config(path)
    assert (config.heads, config.kv_heads, config.head_dim, config.max_position) == (4, 2, 16, 512)
    assert (config.rotary.theta, config.rotary.interleaved, config.eos_token_ids) == (10000.0, True, (2, 7))


def test_linear_scaling_of_positions(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, add_rope_scaling_type=gguf.RopeScalingType.LINEAR, add_rope_scaling_factor=4.0)
    assert load_config(path).rotary.scaling == LinearScaling(4.0)


def test_listed_scaling_of_positions(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    factors = np.linspace(1, 4, 8).astype(np.float32)
    write(path, extra={"rope_freqs.weight": factors})
    assert load_config(path).rotary.scaling == ListedScaling(tuple(factors.tolist()))


def test_listed_scaling_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, extra={"rope_freqs.weight": np.ones(7, np.float32)})
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight has shape \[7\], expected \[8\]"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"architecture": "mamba"}, ["general.architecture", "mamba"]),
        ({"add_expert_count": 8}, ["llama.expert_count"]),
        ({"add_rope_dimension_count": 8}, ["llama.rope.dimension_count"]),
        ({"add_rope_scaling_type": gguf.RopeScalingType.YARN}, ["llama.rope.scaling.type", "yarn"]),
        ({"leave": "model.layers.1.mlp.up_proj.weight"}, ["model.layers.1.mlp.up_proj.weight", "missing"]),
        ({"leave": "model.embed_tokens.weight"}, ["token_embd.weight", "missing"]),
    ],
)
def test_refusals_name_the_entry(tmp_path: Path, metadata: dict[str, Any], names: list[str]) -> None:
    path = tmp_path / "model.gguf"
    write(path, **metadata)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    for name in names:
        assert name in str(caught.value)


def test_a_misshaped_tensor_is_named_as_the_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, add_feed_forward_length=100)
    with pytest.raises(CheckpointError, match=r"model\.gguf: tensor blk\.0\.ffn_gate\.weight has shape \[96, 64\]"):
        open_checkpoint(path)


def test_truncated_at_any_point(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path)
    whole = path.read_bytes()
    for length in (0, 3, 20, 200, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.gguf"):
            open_checkpoint(path)


def test_not_gguf_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        open_checkpoint(path)
