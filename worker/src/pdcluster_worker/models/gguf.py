"""Llama from one .gguf file: metadata and tensors under the names of Hugging Face checkpoints.

The `gguf` library reads the file and dequantises; here is what its names mean. GGUF keeps the Q and K rows of
Llama reordered for a rotary that pairs neighbours.
"""

import math
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
from pdcluster_worker.models.file_range import FileRange
from pdcluster_worker.models.gguf_header import TensorPlace, read_header

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
    """Implements `Checkpoint`. Opening reads the header."""

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        stored = {name: _stored(path, name, place, header.file_bytes) for name, place in header.tensors.items()}
        factors = stored.pop(ROTARY_FACTORS, None)
        self.path = path
        self.tensors: Mapping[str, StoredTensor] = {_name(name): tensor for name, tensor in stored.items()}
        self.config = _config(Fields(str(path), header.metadata), self.tensors, factors)


def _name(name: str) -> str:
    """The Hugging Face name; a name that means nothing here stays as it is, and is refused as extra."""
    if match := _LAYER_NAME.fullmatch(name):
        layer, part, kind = match.groups()
        if part in _LAYER:
            return f"model.layers.{layer}.{_LAYER[part]}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else name


def _stored(path: Path, name: str, place: TensorPlace, file_bytes: int) -> StoredTensor:
    label = f"{path}: tensor {name}"
    try:
        kind = gguf.GGMLQuantizationType(place.type)
        row_bytes = gguf.quant_shape_to_byte_shape((1, *place.shape[-1:]), kind)[-1]
    except ValueError as error:
        raise CheckpointError(f"{label} has a type or shape that cannot be read: {error}") from error
    piece = FileRange(path, place.start, math.prod(place.shape[:-1]) * row_bytes)
    if piece.start + piece.length > file_bytes:
        raise CheckpointError(
            f"{label} ends at byte {piece.start + piece.length}, but the file has {file_bytes}: it is truncated"
        )
    return StoredTensor(label, place.shape, kind.name, piece, partial(_read_rows, label, piece, place.shape, kind))


def _read_rows(
    label: str, place: FileRange, shape: tuple[int, ...], kind: "gguf.GGMLQuantizationType", start: int, stop: int
) -> FloatArray:
    """Rows hold whole blocks, so that many can be dequantised as one long row: the library splits short ones up."""
    vector = len(shape) == 1
    row_bytes = place.length // shape[0]
    raw = place.read(0, place.length) if vector else place.read(start * row_bytes, stop * row_bytes)
    try:
        flat = np.asarray(gguf.quants.dequantize(raw.reshape(1, -1), kind), np.float32)
    except NotImplementedError as error:
        raise CheckpointError(f"{label}: cannot read its type {kind.name}: {error}") from error
    return flat[0, start:stop] if vector else flat.reshape(stop - start, *shape[1:])


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
