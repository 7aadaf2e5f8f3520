"""Paged attention on a CPU: rotate, write into the blocks, attend. Reads the blocks where they are.

Prompt chunks run per entry and KV head as matrix products over query tiles, each over no more context than it may
see. Decodes run in small groups of equally many blocks, so that a group's blocks stay in the cache between the
copy out of the pool and the products.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.cpu_workers import Scratch, Task, Workers
from pdcluster_worker.models.ops import Tokens
from pdcluster_worker.models.rotary import cos_sin

FloatArray = npt.NDArray[np.float32]
IntpArray = npt.NDArray[np.intp]

TILE_ROWS = 512
"""Query rows (queries x group) of one product of a prompt chunk."""
CHUNK_QUERIES = 512
"""Queries of one task: what is left to share among threads when a step is one long prompt."""
SCORE_ELEMENTS = 1 << 18
GROUP_ELEMENTS = 1 << 18
"""Of K, over the entries of one group of decodes: larger ones leave the cache before they are used."""


@dataclass(frozen=True, slots=True)
class PromptChunk:
    """Queries [row, row + count) of the step; query i sees the first `seen + i + 1` tokens of the blocks."""

    row: int
    count: int
    seen: int
    blocks: IntpArray


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Rows of the step, one query each, that see `lengths` tokens in equally many blocks. blocks: [n, blocks]."""

    rows: IntpArray
    lengths: list[int]
    blocks: IntpArray


@dataclass(frozen=True, slots=True)
class StepLayout:
    """What all layers of a step share. cos and sin: [total, head_dim / 2]; q_* times the softmax scale."""

    cos: FloatArray
    sin: FloatArray
    q_cos: FloatArray
    q_sin: FloatArray
    token_blocks: IntpArray
    token_offsets: IntpArray
    chunks: list[PromptChunk]
    groups: list[DecodeGroup]


class PagedAttention:
    """`regions`: per layer [2, num_blocks, kv_heads, block_size, head_dim]; peers write into them meanwhile."""

    def __init__(self, config: ModelConfig, regions: list[FloatArray], workers: Workers) -> None:
        self._heads = config.heads
        self._kv_heads = config.kv_heads
        self._group = config.group
        self._head_dim = config.head_dim
        self._block_size = regions[0].shape[3]
        self._regions = regions
        self._workers = workers
        self._scratch = Scratch()

    def layout(self, tokens: Tokens, frequencies: FloatArray) -> StepLayout:
        cos, sin = cos_sin(tokens.positions, frequencies)
        scale = np.float32(1 / math.sqrt(self._head_dim))
        entries = np.repeat(np.arange(len(tokens.counts)), tokens.counts)
        token_blocks = tokens.block_tables[entries, tokens.positions // self._block_size].astype(np.intp)
        chunks, groups = self._entries(tokens)
        offsets = (tokens.positions % self._block_size).astype(np.intp)
        return StepLayout(cos, sin, cos * scale, sin * scale, token_blocks, offsets, chunks, groups)

    def _entries(self, tokens: Tokens) -> tuple[list[PromptChunk], list[DecodeGroup]]:
        chunks: list[PromptChunk] = []
        decodes: dict[int, list[tuple[int, int, IntpArray]]] = {}
        row = 0
        for start, count, table in zip(
            tokens.starts.tolist(), tokens.counts.tolist(), tokens.block_tables, strict=True
        ):
            blocks = table[: -(-(start + count) // self._block_size)].astype(np.intp)
            if count == 1:
                decodes.setdefault(len(blocks), []).append((row, start + 1, blocks))
            for first in range(0, count if count > 1 else 0, CHUNK_QUERIES):
                queries = min(CHUNK_QUERIES, count - first)
                needed = -(-(start + first + queries) // self._block_size)
                chunks.append(PromptChunk(row + first, queries, start + first, blocks[:needed]))
            row += count
        return chunks, self._groups(decodes)

    def _groups(self, decodes: dict[int, list[tuple[int, int, IntpArray]]]) -> list[DecodeGroup]:
        groups: list[DecodeGroup] = []
        threads = self._workers.threads
        for blocks, entries in sorted(decodes.items(), reverse=True):
            elements = len(entries) * blocks * self._block_size * self._kv_heads * self._head_dim
            shares = -(-elements // (GROUP_ELEMENTS * threads)) * threads
            size = -(-len(entries) // shares)
            for first in range(0, len(entries), size):
                rows, lengths, tables = zip(*entries[first : first + size], strict=True)
                groups.append(DecodeGroup(np.array(rows, np.intp), list(lengths), np.stack(tables)))
        return groups

    def attend(self, qkv: FloatArray, layer: int, step: StepLayout, on_written: Callable[[int], None]) -> FloatArray:
        """[total, heads * head_dim], in a buffer that the next call overwrites."""
        total = qkv.shape[0]
        queries = self._scratch.array("queries", (self._kv_heads, total, self._group, self._head_dim))
        self._rotate_and_write(qkv, queries, self._regions[layer], step)
        on_written(layer)
        out = self._scratch.array("out", (total, self._kv_heads, self._group, self._head_dim))
        region = self._regions[layer]
        tasks: list[Task] = [
            self._chunk_task(c, h, queries, region, out) for c in step.chunks for h in self._each_head()
        ]
        tasks += [self._group_task(group, queries, region, out) for group in step.groups]
        self._workers.run(tasks)
        return out.reshape(total, self._heads * self._head_dim)

    def _each_head(self) -> range:
        return range(self._kv_heads)

    def _rotate_and_write(self, qkv: FloatArray, queries: FloatArray, region: FloatArray, step: StepLayout) -> None:
        kv_heads, group, half = self._kv_heads, self._group, self._head_dim // 2
        q_size = self._heads * self._head_dim
        k_end = q_size + kv_heads * self._head_dim
        q_out = queries.reshape(kv_heads, -1, group, 2, half).transpose(1, 0, 2, 3, 4)

        def tile(start: int, stop: int, scratch: Scratch) -> None:
            rows = slice(start, stop)
            count = stop - start
            q = qkv[rows, :q_size].reshape(count, kv_heads, group, 2, half)
            k = qkv[rows, q_size:k_end].reshape(count, kv_heads, 2, half)
            rotated = scratch.array("rotated", k.shape)
            _rotate(q, step.q_cos[rows, None, None], step.q_sin[rows, None, None], q_out[rows], scratch)
            _rotate(k, step.cos[rows, None], step.sin[rows, None], rotated, scratch)
            blocks, offsets = step.token_blocks[rows], step.token_offsets[rows]
            region[0][blocks, :, offsets] = rotated.reshape(count, kv_heads, self._head_dim)
            region[1][blocks, :, offsets] = qkv[rows, k_end:].reshape(count, kv_heads, self._head_dim)

        self._workers.rows(qkv.shape[0], qkv.shape[1], tile)

    def _chunk_task(
        self, chunk: PromptChunk, head: int, queries: FloatArray, region: FloatArray, out: FloatArray
    ) -> Task:
        def task(scratch: Scratch) -> None:
            blocks = chunk.blocks * self._kv_heads + head
            keys, values = self._gather(region, blocks, scratch)
            context = chunk.seen + chunk.count
            tile = max(1, min(TILE_ROWS // self._group, SCORE_ELEMENTS // (context * self._group)))
            tile = max(tile, 16)
            for first in range(0, chunk.count, tile):
                rows = slice(chunk.row + first, chunk.row + min(first + tile, chunk.count))
                self._attend_tile(queries[head, rows], keys, values, chunk.seen + first, out[rows, head], scratch)

        return task

    def _attend_tile(
        self, q: FloatArray, keys: FloatArray, values: FloatArray, seen: int, out: FloatArray, scratch: Scratch
    ) -> None:
        """q, out: [queries, group, head_dim]; query i sees keys[: seen + i + 1]."""
        count, group, head_dim = q.shape
        context = seen + count
        scores = scratch.array("scores", (count * group, context))
        np.matmul(q.reshape(count * group, head_dim), keys[:context].T, out=scores)
        hidden = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        scores.reshape(count, group, context)[:, :, seen:] += hidden[:, None]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        mixed = scratch.array("mixed", (count * group, head_dim))
        np.matmul(scores, values[:context], out=mixed)
        mixed /= scores.sum(axis=1, keepdims=True)
        out[...] = mixed.reshape(count, group, head_dim)

    def _group_task(self, decodes: DecodeGroup, queries: FloatArray, region: FloatArray, out: FloatArray) -> Task:
        heads = np.arange(self._kv_heads)[None, :, None]

        def task(scratch: Scratch) -> None:
            blocks = decodes.blocks[:, None] * self._kv_heads + heads
            keys, values = self._gather(region, blocks, scratch)
            q = queries[:, decodes.rows].swapaxes(0, 1)
            scores = scratch.array("scores", (*q.shape[:3], keys.shape[2]))
            np.matmul(q, keys.swapaxes(-1, -2), out=scores)
            for index, length in enumerate(decodes.lengths):
                scores[index, :, :, length:] = -np.inf
                values[index, :, length:] = 0
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            mixed = scratch.array("mixed", q.shape)
            np.matmul(scores, values, out=mixed)
            mixed /= scores.sum(axis=-1, keepdims=True)
            out[decodes.rows] = mixed

        return task

    def _gather(self, region: FloatArray, blocks: IntpArray, scratch: Scratch) -> tuple[FloatArray, FloatArray]:
        """K and V, [..., tokens, head_dim], of blocks [..., n] counted per KV head."""
        size = self._block_size * self._head_dim
        keys, values = scratch.array("keys", (*blocks.shape, size)), scratch.array("values", (*blocks.shape, size))
        np.take(region[0].reshape(-1, size), blocks, axis=0, out=keys, mode="clip")
        np.take(region[1].reshape(-1, size), blocks, axis=0, out=values, mode="clip")
        shape = (*blocks.shape[:-1], -1, self._head_dim)
        return keys.reshape(shape), values.reshape(shape)


def _rotate(x: FloatArray, cos: FloatArray, sin: FloatArray, out: FloatArray, scratch: Scratch) -> None:
    """x, out: [..., 2, half]; cos, sin broadcast to [..., half]."""
    first, second = x[..., 0, :], x[..., 1, :]
    product = scratch.array("product", first.shape)
    np.multiply(first, cos, out=out[..., 0, :])
    np.multiply(second, sin, out=product)
    out[..., 0, :] -= product
    np.multiply(second, cos, out=out[..., 1, :])
    np.multiply(first, sin, out=product)
    out[..., 1, :] += product
