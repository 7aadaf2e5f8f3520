"""KV memory of the simulated runner: bytes that say which token, position, layer, half and head they stand for."""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from pdcluster_worker.executor.runner import IntArray
from pdcluster_worker.kv.layout import ITEM_BYTES, KVLayout

Words = npt.NDArray[np.unsignedinteger[Any]]
WORD_TYPES: dict[int, type[np.unsignedinteger[Any]]] = {2: np.uint16, 4: np.uint32}
HALVES = 2
"""K and V."""


class SimulatedKV:
    """One region per layer in page-aligned anonymous memory. Written by the step thread and by peers."""

    def __init__(self, layout: KVLayout, filled: bool = False) -> None:
        """Zero at first, its pages not there before their first use; `filled`: all there, not zero, and huge."""
        self._layout = layout
        self._word_type = WORD_TYPES[ITEM_BYTES[layout.dtype]]
        shape = (HALVES, layout.num_blocks, layout.kv_heads, layout.block_size, layout.head_dim)
        self._layers = [
            np.frombuffer(_memory(layout.region_bytes, filled), dtype=self._word_type).reshape(shape)
            for _ in range(layout.layers)
        ]
        if filled:
            for layer in self._layers:
                layer.fill(1)

    def regions(self) -> list[tuple[int, int, int]]:
        return [(layer.ctypes.data, self._layout.region_bytes, 0) for layer in self._layers]

    def write(self, layer: int, tokens: IntArray, positions: IntArray, blocks: IntArray) -> None:
        """Entry i: the KV of tokens[i] at positions[i], into blocks[i]."""
        words = self.pattern(layer, tokens, positions)
        offsets = positions % self._layout.block_size
        for half in range(HALVES):
            self._layers[layer][half, blocks, :, offsets, :] = words[half][:, :, None]

    def matches(self, layer: int, tokens: IntArray, positions: IntArray, blocks: IntArray) -> npt.NDArray[np.bool_]:
        """[n]: whether each entry's KV is what `write` would have put there."""
        words = self.pattern(layer, tokens, positions)
        offsets = positions % self._layout.block_size
        found = [self._layers[layer][half, blocks, :, offsets, :] for half in range(HALVES)]
        equal = [(found[half] == words[half][:, :, None]).all(axis=(1, 2)) for half in range(HALVES)]
        return np.asarray(equal[0] & equal[1], dtype=bool)

    def pattern(self, layer: int, tokens: IntArray, positions: IntArray) -> Words:
        """[2, n, kv_heads], never zero: fresh memory matches nothing."""
        heads = np.arange(self._layout.kv_heads, dtype=np.uint32)
        halves = np.arange(HALVES, dtype=np.uint32)
        base = spread_bits(tokens.astype(np.uint32) * np.uint32(0x9E3779B1) + positions.astype(np.uint32))
        base = base + np.uint32(layer * 0x85EBCA6B & 0xFFFFFFFF)
        words = spread_bits(base[None, :, None] + halves[:, None, None] * np.uint32(0xC2B2AE35) + heads[None, None, :])
        kept = words >> np.uint32(32 - 8 * np.dtype(self._word_type).itemsize)
        return (kept | np.uint32(1)).astype(self._word_type)


def spread_bits(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A bijection that spreads every input bit; arithmetic is modulo 2**32."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> np.uint32(15))) * np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def _memory(size: int, huge: bool) -> mmap.mmap:
    """Of this process alone. Writes between processes pin page by page: huge ones take them half as fast again."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
