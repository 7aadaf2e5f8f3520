"""What the executor process needs of something that computes: the Paddle model, or the simulated one.

One runner per executor process, used by its one step thread only. The slot table (`executor/slots.py`) turns
a StepPlan into a StepBatch; the runner owns the weights and the KV blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.request import SamplingParams, TokenLogprob
from pdcluster_worker.kv.layout import KVLayout

IntArray = npt.NDArray[np.int32]

LayerWritten = Callable[[int], None]
"""Called with the layer's index once the KV of all the batch's tokens is in the blocks of that layer,
before its attention runs. On a device: recorded in stream order, called when the write is done."""


class SamplingState:
    """What the sampler needs of one batch entry: made once per request, moved on for each token.

    `tokens` is all tokens up to and including the last computed position; `prompt_length` splits it into
    prompt and output. The token to sample has output index len(tokens) - prompt_length.
    """

    __slots__ = ("length", "mark", "params", "prompt_length", "row")

    def __init__(self, params: SamplingParams, tokens: IntArray, prompt_length: int) -> None:
        self.params = params
        self.prompt_length = prompt_length
        self.row = tokens
        """Those known, and room for more."""
        self.length = len(tokens)
        self.mark = -1
        """A number that the runner may keep here, and only it knows."""

    @property
    def tokens(self) -> IntArray:
        return self.row[: self.length]

    @property
    def output_index(self) -> int:
        return self.length - self.prompt_length


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step, flattened. Entries with count > 1 are prefill chunks, with count 1 mostly decodes.

    token_ids, positions: [total]; starts, counts: [n] (context after the step is starts + counts);
    block_tables: [n, max_blocks], -1 where unused; sample_entries: [m], the entries that sample, ascending;
    sampling: m states in the same order, valid until the next batch;
    arrived: when the plan was here, on the monotonic clock, 0 if nobody says.
    """

    token_ids: IntArray
    positions: IntArray
    starts: IntArray
    counts: IntArray
    block_tables: IntArray
    sample_entries: IntArray
    sampling: tuple[SamplingState, ...]
    arrived: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """tokens: [m], NO_TOKEN where the logits were not numbers; logprobs by index into tokens, where asked for."""

    tokens: list[int]
    logprobs: dict[int, TokenLogprob]


class ModelRunner(Protocol):
    """Loaded and allocated when constructed. Raises errors of `pdcluster_worker.errors` from construction."""

    layout: KVLayout
    max_model_length: int
    vocab_size: int
    device: str
    model_bytes: int

    def regions(self) -> list[tuple[int, int, int]]:
        """(address, length in bytes, device index) per layer, each [2, num_blocks, kv_heads, block_size, head_dim]."""
        ...

    def execute(self, batch: StepBatch, on_layer: LayerWritten) -> Sampled:
        """Write the batch's KV, attend, sample. Blocks until the tokens are known."""
        ...
