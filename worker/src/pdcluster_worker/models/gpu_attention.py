"""Paged attention on a GPU: rotate, write into the blocks, attend.

Decodes and prompts that start in this step go through block attention. A prompt that continues a context gets its
KV written first and runs flash attention over its blocks gathered: block attention knows no such case.
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.gpu_fused import BlockBatch, FusedCalls
from pdcluster_worker.models.ops import Tokens
from pdcluster_worker.models.paddle_library import paddle
from pdcluster_worker.models.rotary import FloatArray, cos_sin

Tensor = Any
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Continued:
    """Entries that continue a context with several tokens: rows of the step, where their KV goes, what they see."""

    rows: Tensor
    token_blocks: Tensor
    token_offsets: Tensor
    gathered: Tensor
    """Rows of [blocks * block_size] of all entries' contexts, end to end."""
    context_blocks: Tensor
    q_ends: list[int]
    k_ends: list[int]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """cos, sin: [total, 1, head_dim / 2], float32: angles need it.

    `order` puts block-attention rows followed by continued rows back in place.
    """

    cos: Tensor
    sin: Tensor
    block_rows: Tensor
    block_batch: BlockBatch | None
    continued: Continued | None
    order: Tensor


class GpuAttention:
    """`regions`: per layer [2, num_blocks, kv_heads, block_size, head_dim]; peers write into them meanwhile."""

    def __init__(self, config: ModelConfig, regions: list[Tensor], max_length: int, fused: FusedCalls) -> None:
        self._config = config
        self._regions = regions
        self._caches = [(region[0], region[1]) for region in regions]
        self._max_length = max_length
        self._block_size = regions[0].shape[3]
        self._fused = fused

    def layout(self, tokens: Tokens, frequencies: FloatArray) -> StepLayout:
        cos, sin = (paddle.to_tensor(part[:, None, :]) for part in cos_sin(tokens.positions, frequencies))
        continues = (tokens.counts > 1) & (tokens.starts > 0)
        first = np.cumsum(tokens.counts) - tokens.counts
        split = [_rows(first, tokens.counts, np.flatnonzero(part)) for part in (~continues, continues)]
        return StepLayout(
            cos=cos,
            sin=sin,
            block_rows=paddle.to_tensor(split[0], "int64"),
            block_batch=self._block_batch(tokens, np.flatnonzero(~continues)),
            continued=self._continued(tokens, np.flatnonzero(continues), split[1]),
            order=paddle.to_tensor(np.argsort(np.concatenate(split)), "int64"),
        )

    def attend(self, qkv: Tensor, layer: int, step: StepLayout) -> Tensor:
        """[total, heads * head_dim]. When its kernels are done, K and V of all tokens are in the blocks."""
        qkv = self._rotated(qkv, step)
        if step.continued is None:
            return self._block_attention(qkv, layer, step)
        continued = self._flash_attention(qkv, layer, step.continued)
        if step.block_batch is None:
            return continued
        others = self._block_attention(paddle.index_select(qkv, step.block_rows), layer, step)
        return paddle.index_select(paddle.concat([others, continued]), step.order)

    def _rotated(self, qkv: Tensor, step: StepLayout) -> Tensor:
        config = self._config
        size, half = config.q_size + config.kv_size, config.head_dim // 2
        pairs = qkv[:, :size].astype("float32").reshape([-1, config.heads + config.kv_heads, config.head_dim])
        first, second = pairs[:, :, :half], pairs[:, :, half:]
        turned = [first * step.cos - second * step.sin, second * step.cos + first * step.sin]
        rotated = paddle.concat(turned, axis=-1).reshape([-1, size]).astype(qkv.dtype)
        return paddle.concat([rotated, qkv[:, size:]], axis=-1)

    def _block_attention(self, qkv: Tensor, layer: int, step: StepLayout) -> Tensor:
        assert step.block_batch is not None
        keys, values = self._caches[layer]
        return self._fused.block_attention(qkv, keys, values, step.block_batch)

    def _flash_attention(self, qkv: Tensor, layer: int, chunk: Continued) -> Tensor:
        config = self._config
        rows = paddle.index_select(qkv, chunk.rows)
        q, k, v = paddle.split(rows, [config.q_size, config.kv_size, config.kv_size], axis=-1)
        heads = paddle.arange(config.kv_heads)[None, :]
        for part, new in enumerate((k, v)):
            place = (paddle.full_like(heads, part), chunk.token_blocks, heads, chunk.token_offsets)
            paddle.index_put_(self._regions[layer], place, new.reshape([-1, config.kv_heads, config.head_dim]))
        keys, values = (self._context(cache, chunk) for cache in self._caches[layer])
        q = q.reshape([-1, config.heads, config.head_dim])
        scale = 1 / math.sqrt(config.head_dim)
        out = self._fused.flash_attention(q, keys, values, chunk.q_ends, chunk.k_ends, scale)
        return out.reshape([-1, config.q_size])

    def _context(self, cache: Tensor, chunk: Continued) -> Tensor:
        """[keys, kv_heads, head_dim]"""
        blocks = paddle.index_select(cache, chunk.context_blocks).transpose([0, 2, 1, 3])
        return paddle.index_select(blocks.reshape([-1, *blocks.shape[2:]]), chunk.gathered)

    def _block_batch(self, tokens: Tokens, entries: Int) -> BlockBatch | None:
        if not len(entries):
            return None
        starts, counts = tokens.starts[entries], tokens.counts[entries]
        decodes = starts > 0
        shifts = np.cumsum(self._max_length - counts) - (self._max_length - counts)
        return BlockBatch(
            prompt_lengths=paddle.to_tensor(np.where(decodes, 0, counts)[:, None], "int32"),
            contexts=paddle.to_tensor(np.where(decodes, starts, 0)[:, None], "int32"),
            lengths=paddle.to_tensor(counts[:, None], "int32"),
            paddings=paddle.to_tensor(np.repeat(shifts, counts), "int32"),
            shifts=paddle.to_tensor(shifts, "int32"),
            ends=paddle.to_tensor(np.concatenate(([0], np.cumsum(counts))), "int32"),
            block_tables=paddle.to_tensor(tokens.block_tables[entries], "int32"),
            max_length=self._max_length,
            block_size=self._block_size,
        )

    def _continued(self, tokens: Tokens, entries: Int, rows: Int) -> Continued | None:
        if not len(entries):
            return None
        size = self._block_size
        counts = tokens.counts[entries]
        contexts = tokens.starts[entries] + counts
        needed = -(-contexts // size)
        tables = [tokens.block_tables[entry, :blocks] for entry, blocks in zip(entries, needed, strict=True)]
        first = (np.cumsum(needed) - needed) * size
        positions = tokens.positions[rows]
        owner = np.repeat(entries, counts)
        return Continued(
            rows=paddle.to_tensor(rows, "int64"),
            token_blocks=paddle.to_tensor(tokens.block_tables[owner, positions // size][:, None], "int64"),
            token_offsets=paddle.to_tensor((positions % size)[:, None], "int64"),
            gathered=paddle.to_tensor(_rows(first, contexts, np.arange(len(entries))), "int64"),
            context_blocks=paddle.to_tensor(np.concatenate(tables), "int64"),
            q_ends=[0, *accumulate(counts.tolist())],
            k_ends=[0, *accumulate(contexts.tolist())],
        )


def _rows(first: npt.NDArray[Any], counts: npt.NDArray[Any], entries: Int) -> Int:
    """The rows of some entries, each `counts` rows from its `first`."""
    parts = [np.arange(first[entry], first[entry] + counts[entry]) for entry in entries]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
