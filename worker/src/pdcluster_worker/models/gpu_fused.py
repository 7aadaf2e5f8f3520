"""Paddle's fused operations for GPUs, all of them behind this one adapter.

Builds of Paddle differ: at start every function is looked up and its parameters are checked, so that an unfit
build is named before a request meets it.
"""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pdcluster_worker.errors import ConfigError
from pdcluster_worker.models.paddle_library import paddle

Tensor = Any
"""A paddle.Tensor; Paddle carries no usable types."""

_FUNCTIONAL = "paddle.incubate.nn.functional"
_NEEDED: dict[tuple[str, str], tuple[str, ...]] = {
    (_FUNCTIONAL, "fused_rms_norm"): ("x", "norm_weight", "norm_bias", "epsilon", "begin_norm_axis", "residual"),
    (_FUNCTIONAL, "swiglu"): ("x",),
    (_FUNCTIONAL, "block_multihead_attention"): (
        *("qkv", "key_cache", "value_cache", "seq_lens_encoder", "seq_lens_decoder", "seq_lens_this_time"),
        *(
            "padding_offsets",
            "cum_offsets",
            "cu_seqlens_q",
            "cu_seqlens_k",
            "block_tables",
            "max_seq_len",
            "block_size",
        ),
    ),
    ("paddle.nn.functional.flash_attention", "flash_attn_unpadded"): (
        *("query", "key", "value", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "scale", "causal"),
    ),
}


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """What block_multihead_attention needs to know of a batch; int32 tensors. One of the first two is 0 per entry.

    prompt_lengths: tokens of a prompt that starts here; contexts: tokens in the blocks of an entry that continues
    with one token; lengths: tokens of this step. All [n, 1]; paddings: [total]; shifts: [n]; ends: [n + 1].
    """

    prompt_lengths: Tensor
    contexts: Tensor
    lengths: Tensor
    paddings: Tensor
    shifts: Tensor
    ends: Tensor
    block_tables: Tensor
    max_length: int
    block_size: int


class FusedCalls:
    """Raises ConfigError when this build of Paddle lacks a function or a parameter."""

    def __init__(self) -> None:
        found = {name: _checked(module, name, needed) for (module, name), needed in _NEEDED.items()}
        self._rms_norm = found["fused_rms_norm"]
        self._swiglu = found["swiglu"]
        self._block_attention = found["block_multihead_attention"]
        self._flash_attention = found["flash_attn_unpadded"]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._rms_norm(x, weight, None, eps, begin_norm_axis=1)[0]

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        normed, total = self._rms_norm(x, weight, None, eps, begin_norm_axis=1, residual=residual)[:2]
        return normed, total

    def swiglu(self, gate_up: Tensor) -> Tensor:
        return self._swiglu(gate_up)

    def block_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, batch: BlockBatch) -> Tensor:
        """qkv: [total, (heads + 2 kv_heads) * head_dim], rotated. Writes K and V into the blocks and attends."""
        return self._block_attention(
            qkv,
            keys,
            values,
            batch.prompt_lengths,
            batch.contexts,
            batch.lengths,
            batch.paddings,
            batch.shifts,
            batch.ends,
            batch.ends,
            batch.block_tables,
            max_seq_len=batch.max_length,
            block_size=batch.block_size,
        )[0]

    def flash_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, q_ends: list[int], k_ends: list[int], scale: float
    ) -> Tensor:
        """Entries end to end; the last query of each sees all of its keys. q: [queries, heads, head_dim]."""
        longest = [max(b - a for a, b in itertools.pairwise(ends)) for ends in (q_ends, k_ends)]
        cumulative = [paddle.to_tensor(ends, "int32") for ends in (q_ends, k_ends)]
        return self._flash_attention(q, keys, values, *cumulative, *longest, scale, causal=True)[0]


def _checked(module: str, name: str, needed: tuple[str, ...]) -> Callable[..., Any]:
    function = getattr(import_module(module), name, None)
    if function is None:
        raise ConfigError(f"Paddle {paddle.__version__} lacks {module}.{name}")
    missing = [parameter for parameter in needed if parameter not in inspect.signature(function).parameters]
    if missing:
        raise ConfigError(f"{module}.{name} of Paddle {paddle.__version__} lacks {', '.join(missing)}")
    return function  # type: ignore[no-any-return]
