"""Llama from one .gguf file: metadata and tensors under the names of Hugging Face checkpoints.

The `gguf` library reads the file and dequantises; here is what its names mean. GGUF keeps the Q and K rows of
Llama reordered for a rotary that pairs neighbours.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import gguf
import numpy as np

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.checkpoint import FloatArray, StoredTensor
from pdcluster_worker.models.config import (
    Fields,
    LinearScaling,
    ListedScaling,
    ModelConfig,
    RotaryConfig,
    RotaryScaling,
)

ARCHITECTURE = "llama"
ROTARY_FACTORS = "rope_freqs.weight"

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


class GGUFCheckpoint:
    """Implements `Checkpoint`. Opening maps the file and reads its metadata."""

    def __init__(self, path: Path) -> None:
        reader = _open(path)
        self.path = path
        stored = {str(tensor.name): _stored(path, tensor) for tensor in reader.tensors}
        factors = stored.pop(ROTARY_FACTORS, None)
        self.tensors: Mapping[str, StoredTensor] = {_name(name): tensor for name, tensor in stored.items()}
        self.config = _config(_metadata(path, reader), self.tensors, factors)


def _open(path: Path) -> "gguf.GGUFReader":
    try:
        return gguf.GGUFReader(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{path}: truncated or not a GGUF file: {error}") from error


def _name(name: str) -> str:
    """The Hugging Face name; a name that means nothing here stays as it is, and is refused as extra."""
    if match := _LAYER_NAME.fullmatch(name):
        layer, part, kind = match.groups()
        if part in _LAYER:
            return f"model.layers.{layer}.{_LAYER[part]}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else name


def _stored(path: Path, tensor: "gguf.ReaderTensor") -> StoredTensor:
    label = f"{path}: tensor {tensor.name}"
    shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
    raw = np.asarray(tensor.data).reshape(-1).view(np.uint8)
    if raw.size != int(tensor.n_bytes):
        raise CheckpointError(f"{label} has {raw.size} of {tensor.n_bytes} bytes: the file is truncated")
    return StoredTensor(label, shape, tensor.tensor_type.name, raw, partial(_read_rows, label, tensor))


def _read_rows(label: str, tensor: "gguf.ReaderTensor", start: int, stop: int) -> FloatArray:
    try:
        rows = gguf.quants.dequantize(tensor.data[start:stop], tensor.tensor_type)
    except NotImplementedError as error:
        raise CheckpointError(f"{label}: cannot read its type {tensor.tensor_type.name}: {error}") from error
    return np.asarray(rows, np.float32)


def _metadata(path: Path, reader: "gguf.GGUFReader") -> Fields:
    wanted = {}
    for name, field in reader.fields.items():
        if name.startswith(("general.architecture", "llama.")) or name.endswith(("eos_token_id", "eot_token_id")):
            wanted[name] = field.contents()
    return Fields(str(path), wanted)


def _config(fields: Fields, tensors: Mapping[str, StoredTensor], factors: StoredTensor | None) -> ModelConfig:
    if (architecture := fields.string("general.architecture", "none named")) != ARCHITECTURE:
        raise fields.error("general.architecture", f"unknown architecture {architecture}; supported: {ARCHITECTURE}")
    if fields.has("llama.expert_count") and fields.integer("llama.expert_count", minimum=0):
        raise fields.error("llama.expert_count", "is not supported: only dense models are")
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None:
        raise fields.error("tensor token_embd.weight", "is missing")
    hidden, heads = fields.integer("llama.embedding_length"), fields.integer("llama.attention.head_count")
    kv_heads = fields.integer("llama.attention.head_count_kv", heads)
    head_dim = fields.integer("llama.attention.key_length", hidden // heads)
    if heads % kv_heads or head_dim % 2:
        raise fields.error("llama.attention.head_count_kv", f"({kv_heads}) must divide head_count ({heads})")
    for name in ("llama.rope.dimension_count", "llama.attention.value_length"):
        if fields.integer(name, head_dim) != head_dim:
            raise fields.error(name, f"other than the head size ({head_dim}) is not supported")
    end_tokens = fields.integers("tokenizer.ggml.eos_token_id") + fields.integers("tokenizer.ggml.eot_token_id")
    return ModelConfig(
        family=ARCHITECTURE,
        vocab_size=embedding.shape[0],
        hidden_size=hidden,
        intermediate_size=fields.integer("llama.feed_forward_length"),
        layers=fields.integer("llama.block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("llama.attention.layer_norm_rms_epsilon"),
        max_position=fields.integer("llama.context_length"),
        rotary=RotaryConfig(fields.number("llama.rope.freq_base", 10000.0), True, _scaling(fields, factors, head_dim)),
        tied_embeddings="lm_head.weight" not in tensors,
        attention_bias="model.layers.0.self_attn.q_proj.bias" in tensors,
        mlp_bias="model.layers.0.mlp.gate_proj.bias" in tensors,
        eos_token_ids=tuple(dict.fromkeys(end_tokens)),
    )


def _scaling(fields: Fields, factors: StoredTensor | None, head_dim: int) -> RotaryScaling | None:
    if factors is not None:
        if factors.shape != (head_dim // 2,):
            raise CheckpointError(f"{factors.label} has shape {list(factors.shape)}, expected {[head_dim // 2]}")
        return ListedScaling(tuple(factors.read(0, head_dim // 2).tolist()))
    kind = fields.string("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise fields.error("llama.rope.scaling.type", f"{kind!r} is not supported")
    return LinearScaling(fields.number("llama.rope.scaling.factor"))
