"""A checkpoint as the loader sees it: a config and named tensors whose rows are read a piece at a time.

Names are those of Hugging Face checkpoints, whatever the file calls them. Nothing here keeps a tensor in memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.file_range import FileRange

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`read(start, stop)` gives those rows (of the first axis) as a new float32 array.

    `label` names it in messages: the file, and the tensor's own name there. `place` is where its bytes are.
    """

    label: str
    shape: tuple[int, ...]
    dtype: str
    place: FileRange
    read: Callable[[int, int], FloatArray]


class Checkpoint(Protocol):
    path: Path
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the model needs."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        projections = {
            "self_attn.q_proj": (config.q_size, hidden, config.attention_bias),
            "self_attn.k_proj": (config.kv_size, hidden, config.attention_bias),
            "self_attn.v_proj": (config.kv_size, hidden, config.attention_bias),
            "self_attn.o_proj": (hidden, config.q_size, config.attention_bias),
            "mlp.gate_proj": (inner, hidden, config.mlp_bias),
            "mlp.up_proj": (inner, hidden, config.mlp_bias),
            "mlp.down_proj": (hidden, inner, config.mlp_bias),
        }
        for name, (rows, columns, bias) in projections.items():
            shapes[f"{prefix}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{prefix}.{name}.bias"] = (rows,)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tied_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def check_tensors(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError naming the first tensor that is missing, mis-shaped or not of this model."""
    expected = expected_tensors(checkpoint.config)
    for name, shape in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is None:
            raise CheckpointError(f"{checkpoint.path}: tensor {name} is missing")
        if stored.shape != shape:
            raise CheckpointError(f"{stored.label} has shape {list(stored.shape)}, expected {list(shape)}")
    for name, stored in checkpoint.tensors.items():
        if name not in expected and not _harmless(name, checkpoint.config):
            raise CheckpointError(f"{stored.label} does not belong to this model")


def _harmless(name: str, config: ModelConfig) -> bool:
    """Buffers that older versions saved, and a copy of the embeddings that they are tied to."""
    return name.endswith("rotary_emb.inv_freq") or (config.tied_embeddings and name == "lm_head.weight")
