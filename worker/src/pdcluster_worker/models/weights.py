"""The model's parameters in the form that the forward pass multiplies with, streamed from a checkpoint.

Projections that read the same input are merged (Q, K and V; gate and up) and stored [inputs, outputs]. Tensors
are read in pieces, so that loading needs little memory beside the parameters themselves.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pdcluster_worker.kv.layout import ITEM_BYTES
from pdcluster_worker.models.checkpoint import Checkpoint, FloatArray, expected_tensors
from pdcluster_worker.models.rotary import halves_order, inverse_frequencies

T = TypeVar("T")
"""A parameter where it is computed with: a NumPy array, or a tensor on a device."""

PIECE_ROWS = 64
"""Rows of a tensor that are read and transposed at a time."""
PADDING = 16
"""Elements that keep the piece's columns out of one cache set, where a power of two would put them all."""
PROGRESS_STEP = 0.01


@dataclass(frozen=True, slots=True)
class Linear(Generic[T]):
    """y = x @ weight + bias; weight [inputs, outputs]."""

    weight: T
    bias: T | None


@dataclass(frozen=True, slots=True)
class LayerWeights(Generic[T]):
    input_norm: T
    qkv: Linear[T]
    output: Linear[T]
    post_norm: T
    gate_up: Linear[T]
    down: Linear[T]


@dataclass(frozen=True, slots=True)
class ModelWeights(Generic[T]):
    """`head` [hidden, vocabulary] multiplies; `embedding` [vocabulary, hidden] is None where the two are tied."""

    embedding: T | None
    layers: tuple[LayerWeights[T], ...]
    norm: T
    head: T
    frequencies: FloatArray
    bytes: int


class WeightLoader(Generic[T]):
    """Reads one checkpoint once. `place` moves a finished parameter to where it is computed with, in `dtype`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        place: Callable[[FloatArray], T],
        dtype: str,
        on_progress: Callable[[float], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._config = checkpoint.config
        self._place = place
        self._item_bytes = ITEM_BYTES[dtype]
        self._on_progress = on_progress
        self._total = sum(functools.reduce(int.__mul__, s) for s in expected_tensors(self._config).values())
        self._read = 0
        self._bytes = 0
        self._reported = 0.0

    def load(self) -> ModelWeights[T]:
        config = self._config
        tied = config.tied_embeddings
        embedding = None if tied else self._finish(self._rows("model.embed_tokens.weight"))
        head = self._linear(["model.embed_tokens" if tied else "lm_head"], bias=False).weight
        layers = tuple(self._layer(f"model.layers.{index}") for index in range(config.layers))
        norm = self._finish(self._rows("model.norm.weight"))
        frequencies = inverse_frequencies(config.rotary, config.head_dim)
        return ModelWeights(embedding, layers, norm, head, frequencies, self._bytes)

    def _layer(self, prefix: str) -> LayerWeights[T]:
        config = self._config
        attention = f"{prefix}.self_attn"
        order = [halves_order(heads, config.head_dim) for heads in (config.heads, config.kv_heads)]
        orders = dict(zip((f"{attention}.q_proj", f"{attention}.k_proj"), order, strict=True))
        return LayerWeights(
            input_norm=self._finish(self._rows(f"{prefix}.input_layernorm.weight")),
            qkv=self._linear(
                [f"{attention}.{name}_proj" for name in "qkv"],
                config.attention_bias,
                orders if config.rotary.interleaved else {},
            ),
            output=self._linear([f"{attention}.o_proj"], config.attention_bias),
            post_norm=self._finish(self._rows(f"{prefix}.post_attention_layernorm.weight")),
            gate_up=self._linear([f"{prefix}.mlp.gate_proj", f"{prefix}.mlp.up_proj"], config.mlp_bias),
            down=self._linear([f"{prefix}.mlp.down_proj"], config.mlp_bias),
        )

    def _linear(self, names: list[str], bias: bool, orders: dict[str, npt.NDArray[np.intp]] | None = None) -> Linear[T]:
        """Merges projections side by side; `orders` says for some in which order to take their rows."""
        tensors = [self._checkpoint.tensors[f"{name}.weight"] for name in names]
        weight = np.empty((tensors[0].shape[1], sum(tensor.shape[0] for tensor in tensors)), np.float32)
        start = 0
        for name, tensor in zip(names, tensors, strict=True):
            stop = start + tensor.shape[0]
            self._transpose_into(weight[:, start:stop], f"{name}.weight", (orders or {}).get(name))
            start = stop
        biases = self._biases(names, orders or {}) if bias else None
        return Linear(self._finish(weight), biases)

    def _biases(self, names: list[str], orders: dict[str, npt.NDArray[np.intp]]) -> T:
        parts = [self._rows(f"{name}.bias") for name in names]
        ordered = [part[orders[name]] if name in orders else part for name, part in zip(names, parts, strict=True)]
        return self._finish(np.concatenate(ordered))

    def _transpose_into(self, target: FloatArray, name: str, order: npt.NDArray[np.intp] | None) -> None:
        if order is not None:
            np.copyto(target, self._rows(name)[order].T)
            return
        tensor = self._checkpoint.tensors[name]
        rows, columns = tensor.shape
        padded = np.empty((min(PIECE_ROWS, rows), columns + PADDING), np.float32)
        for start in range(0, rows, PIECE_ROWS):
            stop = min(start + PIECE_ROWS, rows)
            piece = padded[: stop - start, :columns]
            piece[...] = tensor.read(start, stop)
            np.copyto(target[:, start:stop], piece.T)
            self._advance(piece.size)

    def _rows(self, name: str) -> FloatArray:
        tensor = self._checkpoint.tensors[name]
        rows = tensor.read(0, tensor.shape[0])
        self._advance(rows.size)
        return rows

    def _advance(self, elements: int) -> None:
        self._read += elements
        fraction = self._read / self._total
        if fraction - self._reported >= PROGRESS_STEP or self._read == self._total:
            self._reported = fraction
            self._on_progress(fraction)

    def _finish(self, array: FloatArray) -> T:
        self._bytes += array.size * self._item_bytes
        return self._place(array)
