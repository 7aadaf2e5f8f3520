"""What a device must be able to do for the decoder: one adapter per device, chosen once.

`T` is the adapter's own array type. Results may live in buffers that the next call of the same operation
overwrites; the decoder uses each before it makes that call again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.models.weights import Linear, ModelWeights

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One step's tokens, flattened over its entries.

    ids, positions: [total]; starts, counts: [n]; block_tables: [n, max_blocks], -1 where unused; output_rows: [m],
    rows of the flattened tokens whose logits are wanted, ascending.
    """

    ids: IntArray
    positions: IntArray
    starts: IntArray
    counts: IntArray
    block_tables: IntArray
    output_rows: IntArray


class Ops(Protocol[T]):
    dtype: str
    device: str

    def place(self, array: FloatArray) -> T:
        """A parameter, in the device's memory and the computing type. May keep the array itself."""
        ...

    def tune(self, weights: ModelWeights[T]) -> None:
        """Chooses by measurement what depends on the machine."""
        ...

    def free_bytes(self) -> int | None:
        """Device memory that KV may take now; None where memory is the host's."""
        ...

    def allocate_kv(self, layout: KVLayout, max_model_length: int) -> list[tuple[int, int, int]]:
        """One zeroed region per layer; (address, bytes, device index) of each. They never move."""
        ...

    def begin(self, tokens: Tokens, weights: ModelWeights[T]) -> None:
        """Prepares what all layers of a step share: positions, block tables, masks."""
        ...

    def embed(self, weights: ModelWeights[T], ids: IntArray) -> T:
        """[total, hidden]"""
        ...

    def rms_norm(self, x: T, weight: T, eps: float) -> T: ...

    def add_rms_norm(self, x: T, residual: T, weight: T, eps: float) -> tuple[T, T]:
        """Norm of x + residual, and that sum (which may be written over residual)."""
        ...

    def linear(self, x: T, layer: Linear[T]) -> T: ...

    def attend(self, qkv: T, layer: int, on_written: Callable[[int], None]) -> T:
        """Rotates Q and K, writes K and V into the blocks, attends: [total, q_size].

        on_written(layer) hears when they are in place: before attention, or once a device has come so far.
        """
        ...

    def finish(self) -> None:
        """Returns when every layer has been reported to on_written."""
        ...

    def swiglu(self, gate_up: T) -> T: ...

    def take(self, x: T, rows: IntArray) -> T: ...

    def host(self, x: T) -> FloatArray:
        """As float32 in host memory; waits for the device."""
        ...

    def argmax(self, x: T) -> tuple[list[int], FloatArray]:
        """Per row the position of the largest value, the lowest among equals, and that value. NaN is largest."""
        ...
