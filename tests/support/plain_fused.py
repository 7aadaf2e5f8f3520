"""What Paddle's fused GPU calls compute, in plain NumPy: their contracts, as the code for GPUs relies on them."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from pdcluster_worker.models.gpu_fused import BlockBatch
from pdcluster_worker.models.paddle_library import paddle


def attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """q: [queries, heads, d]; keys, values: [context, kv_heads, d]; the last query sees everything."""
    group = q.shape[1] // keys.shape[1]
    keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, keys) / math.sqrt(q.shape[2])
    positions = np.arange(len(q))[:, None] + len(keys) - len(q)
    scores = np.where(np.arange(len(keys)) <= positions, scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", shares / shares.sum(axis=-1, keepdims=True), values)


class PlainCalls:
    """Stands in for `FusedCalls`. Caches are views of the regions, changed in place through their addresses."""

    def rms_norm(self, x: Any, weight: Any, eps: float) -> Any:
        return x / paddle.sqrt((x * x).mean(axis=-1, keepdim=True) + eps) * weight

    def add_rms_norm(self, x: Any, residual: Any, weight: Any, eps: float) -> tuple[Any, Any]:
        return self.rms_norm(x + residual, weight, eps), x + residual

    def swiglu(self, gate_up: Any) -> Any:
        return paddle.nn.functional.swiglu(gate_up)

    def block_attention(self, qkv: Any, keys: Any, values: Any, batch: BlockBatch) -> Any:
        rows, size = qkv.numpy(), batch.block_size
        caches = [np.from_dlpack(cache) for cache in (keys, values)]
        kv_heads, head_dim = caches[0].shape[1], caches[0].shape[3]
        ends, tables = batch.ends.numpy().tolist(), batch.block_tables.numpy()
        contexts, prompts = batch.contexts.numpy()[:, 0], batch.prompt_lengths.numpy()[:, 0]
        out = []
        for entry, (start, stop) in enumerate(pairwise(ends)):
            assert batch.lengths.numpy()[entry, 0] == stop - start
            assert (contexts[entry] > 0, prompts[entry]) in ((True, 0), (False, stop - start))
            padded = np.arange(start, stop) + batch.paddings.numpy()[start:stop]
            assert padded.tolist() == list(range(entry * batch.max_length, entry * batch.max_length + stop - start))
            heads = rows[start:stop].reshape(stop - start, -1, head_dim)
            q, new = heads[:, : -2 * kv_heads], heads[:, -2 * kv_heads :]
            for offset, position in enumerate(range(contexts[entry], contexts[entry] + stop - start)):
                for cache, part in zip(caches, (new[:, :kv_heads], new[:, kv_heads:]), strict=True):
                    cache[tables[entry, position // size], :, position % size] = part[offset]
            context = contexts[entry] + stop - start
            seen = [cache[tables[entry]].transpose(0, 2, 1, 3).reshape(-1, kv_heads, head_dim) for cache in caches]
            out.append(attention(q, seen[0][:context], seen[1][:context]).reshape(stop - start, -1))
        return paddle.to_tensor(np.concatenate(out).astype(np.float32))

    def flash_attention(
        self, q: Any, keys: Any, values: Any, q_ends: list[int], k_ends: list[int], scale: float
    ) -> Any:
        assert scale == 1 / math.sqrt(q.shape[2])
        parts = [
            attention(q.numpy()[a:b], keys.numpy()[c:d], values.numpy()[c:d])
            for (a, b), (c, d) in zip(pairwise(q_ends), pairwise(k_ends), strict=True)
        ]
        return paddle.to_tensor(np.concatenate(parts).astype(np.float32))
