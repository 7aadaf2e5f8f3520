"""A runner without a model: real KV memory with recognisable bytes, made-up tokens, and time by a profile.

Everything around the model is real, so transfers, schedules and bytes on the decode side can be judged. What it
writes for a token depends on token, position and place alone; what it samples on seed, output index and prompt
alone: any worker at any epoch says the same. See docs/simulated-runner.md.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.errors import StateError
from pdcluster_worker.executor.profile import (
    Profile,
    Verification,
    decode_seconds,
    load_profile,
    load_shape,
    prefill_seconds,
)
from pdcluster_worker.executor.runner import IntArray, LayerWritten, Sampled, StepBatch
from pdcluster_worker.executor.simulated_kv import SimulatedKV
from pdcluster_worker.executor.simulated_model import SimulatedModel, resolve_layout, resolve_model

PROGRESS_STEPS = 10


class SimulatedRunner:
    """ModelRunner by a profile."""

    def __init__(self, config: ExecutorConfig, on_progress: Callable[[float], None]) -> None:
        profile, shape = load_profile(config.engine.profile), load_shape(config.model_path)
        self._profile = profile
        self._model: SimulatedModel = resolve_model(config.engine, profile, shape)
        self.layout = resolve_layout(config, profile, shape, self._model.max_model_length)
        self.max_model_length = self._model.max_model_length
        self.vocab_size = self._model.vocab_size
        self.device = "cpu"
        self.model_bytes = 0
        self._kv = SimulatedKV(self.layout, filled=profile.verification is Verification.OFF)
        self._steps = 0
        self._free_at = 0.0
        """When the made-up device is done with the last step. The next one starts then, or when its plan arrives, as
        behind a queue of launches: what the process does between two steps takes none of the device's time."""
        self._never = threading.Event()
        _load(profile.load_seconds, on_progress, self._never)

    def regions(self) -> list[tuple[int, int, int]]:
        return self._kv.regions()

    def execute(self, batch: StepBatch, on_layer: LayerWritten) -> Sampled:
        """Raises StateError when the KV that an entry would read is not that of its tokens."""
        start = max(batch.arrived or time.monotonic(), self._free_at)
        duration = step_seconds(self._profile, batch)
        self._free_at = start + duration
        self._verify(batch)
        tokens = self._model.tokens(batch.sampling)
        sampled = Sampled(tokens, self._logprobs(batch, tokens))
        self._write_layers(batch, on_layer, start, duration)
        self._wait_until(self._free_at)
        self._steps += 1
        return sampled

    def _write_layers(self, batch: StepBatch, on_layer: LayerWritten, start: float, duration: float) -> None:
        """Layer by layer over the duration; in a step of single tokens, whose KV nobody waits to send, at once."""
        writes, paced = self._profile.verification is not Verification.OFF, bool((batch.counts > 1).any())
        blocks = self._blocks(batch) if writes else None
        for layer in range(self.layout.layers):
            if blocks is not None:
                self._kv.write(layer, batch.token_ids, batch.positions, blocks)
            if paced:
                self._wait_until(start + duration * (layer + 1) / (self.layout.layers + 1))
            on_layer(layer)

    def _blocks(self, batch: StepBatch) -> IntArray:
        entries = np.repeat(np.arange(len(batch.counts)), batch.counts)
        blocks: IntArray = batch.block_tables[entries, batch.positions // self.layout.block_size]
        return blocks

    def _verify(self, batch: StepBatch) -> None:
        if self._profile.verification is Verification.OFF:
            return
        full = self._profile.verification is Verification.FULL
        for layer in range(self.layout.layers) if full else [self._steps % self.layout.layers]:
            entries, positions = read_positions(batch, self._steps, full)
            if not len(entries):
                return
            rows = batch.sample_entries[entries]
            tokens = np.array(
                [batch.sampling[i].tokens[p] for i, p in zip(entries.tolist(), positions.tolist(), strict=True)],
                dtype=np.int32,
            )
            blocks = batch.block_tables[rows, positions // self.layout.block_size]
            wrong = np.flatnonzero(~self._kv.matches(layer, tokens, positions, blocks))
            if len(wrong):
                place = int(wrong[0])
                raise StateError(
                    f"KV of batch entry {rows[place]}, position {positions[place]}, layer {layer}, "
                    f"block {blocks[place]} is not that of token {tokens[place]}"
                )

    def _logprobs(self, batch: StepBatch, tokens: list[int]) -> dict[int, TokenLogprob]:
        return {
            index: self._model.logprob(tokens[index], state.params.logprobs)
            for index, state in enumerate(batch.sampling)
            if state.params.logprobs >= 0
        }

    def _wait_until(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining > 0:
            self._never.wait(remaining)


def step_seconds(profile: Profile, batch: StepBatch) -> float:
    """Entries of one token with a context are decodes, the others prefill chunks; a step with both takes both times."""
    counts, starts = batch.counts.astype(np.float64), batch.starts.astype(np.float64)
    decodes = (batch.counts == 1) & (batch.starts > 0)
    chunk_counts, chunk_starts = counts[~decodes], starts[~decodes]
    contexts = float((chunk_counts * (chunk_starts + chunk_counts / 2)).sum())
    prefill = prefill_seconds(profile, float(chunk_counts.sum()), contexts)
    return prefill + decode_seconds(profile, int(decodes.sum()), float((starts[decodes] + 1).sum()))


def read_positions(batch: StepBatch, step: int, full: bool) -> tuple[IntArray, IntArray]:
    """(index into `sampling`, position) pairs to compare: all, or the first, the last and one more of each entry.

    Only entries that sample carry their tokens; positions are those that earlier steps, or a peer, wrote.
    """
    starts = batch.starts[batch.sample_entries]
    if full:
        entries = np.repeat(np.arange(len(starts)), starts)
        first = np.cumsum(starts) - starts
        return entries.astype(np.int32), (np.arange(len(entries)) - first[entries]).astype(np.int32)
    readers = np.flatnonzero(starts > 0)
    last = starts[readers] - 1
    another = (step * 7919 + readers * 104729) % np.maximum(starts[readers], 1)
    entries = np.tile(readers, 3)
    return entries.astype(np.int32), np.concatenate((np.zeros_like(last), last, another)).astype(np.int32)


def _load(seconds: float, on_progress: Callable[[float], None], pause: threading.Event) -> None:
    for step in range(PROGRESS_STEPS):
        on_progress(step / PROGRESS_STEPS)
        if seconds:
            pause.wait(seconds / PROGRESS_STEPS)
    on_progress(1.0)
