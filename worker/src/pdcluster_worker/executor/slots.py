"""What the executor knows of each request in a slot, and how a plan becomes arrays. Written by the step thread only.

Per slot: all tokens (given at admission, then each token sampled here), the block table, the sampling parameters.
A plan that the table cannot carry out is a bug of the engine: StateError, and the process ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.plan import Admission, StepPlan
from pdcluster_worker.errors import StateError
from pdcluster_worker.executor.runner import IntArray, SamplingState, StepBatch
from pdcluster_worker.kv.layout import KVLayout

BoolArray = npt.NDArray[np.bool_]
UNUSED = -1
MAX_SLOTS = 1 << 16
LONG_ENTRY = 16
"""Tokens per entry from which slices cost less than an index per token."""


class Columns(NamedTuple):
    """A plan's batch as arrays, each [n]."""

    slots: IntArray
    starts: IntArray
    counts: IntArray
    samples: BoolArray

    @classmethod
    def of(cls, plan: StepPlan) -> "Columns":
        slots, starts, counts = (np.array(part, dtype=np.int32) for part in (plan.slots, plan.starts, plan.counts))
        return cls(slots, starts, counts, np.array(plan.samples, dtype=bool))


class SlotTable:
    """Rows are slots; they grow as slots are named. `max_length` is the model's limit in tokens."""

    def __init__(self, layout: KVLayout, max_length: int, vocab_size: int, slots: int = 16) -> None:
        self._block_size = layout.block_size
        self._num_blocks = layout.num_blocks
        self._max_length = max_length
        self._max_blocks = -(-(max_length + 1) // layout.block_size)
        self._vocab_size = vocab_size
        self._tokens: IntArray = np.zeros((slots, max_length + 1), dtype=np.int32)
        self._positions: IntArray = np.arange(max_length + 1, dtype=np.int32)
        self._tables: IntArray = np.full((slots, self._max_blocks), UNUSED, dtype=np.int32)
        self._lengths = np.full(slots, UNUSED, dtype=np.int32)
        """Known tokens; UNUSED marks a free slot."""
        self._blocks = np.zeros(slots, dtype=np.int32)
        self._computed = np.zeros(slots, dtype=np.int32)
        self._states: dict[int, SamplingState] = {}
        """Of each slot that is held."""

    @property
    def occupied(self) -> int:
        return len(self._states)

    def computed(self, slot: int) -> int:
        """How far the steps run here have filled the slot's KV; 0 for a free slot."""
        return int(self._computed[slot]) if 0 <= slot < len(self._computed) else 0

    def apply(self, plan: StepPlan) -> None:
        """Drops, admissions, appended blocks, in this order. Raises StateError; the table is then not to be used."""
        for slot in plan.drop_slots:
            self._drop(slot)
        for admission in plan.admissions:
            self._admit(admission)
        for slot, blocks in plan.appended_blocks:
            self._require_occupied(slot)
            self._append_blocks(slot, blocks)

    def batch(self, plan: StepPlan, columns: Columns | None = None, arrived: float = 0.0) -> StepBatch:
        """The arrays of the plan's batch. Raises StateError on what the slots cannot serve."""
        slots, starts, counts, samples = columns = columns or Columns.of(plan)
        self._check_batch(plan.plan_id, columns)
        ends = starts + counts
        token_ids, positions = self._flatten(slots, starts, counts)
        width = int(self._blocks[slots].max(initial=0))
        sampling_entries = np.flatnonzero(samples).astype(np.int32)
        return StepBatch(
            token_ids=token_ids,
            positions=positions,
            starts=starts,
            counts=counts,
            block_tables=self._tables[slots, :width],
            sample_entries=sampling_entries,
            sampling=tuple(map(self._sampling, slots[sampling_entries].tolist(), ends[sampling_entries].tolist())),
            arrived=arrived,
        )

    def commit(self, plan: StepPlan, tokens: Sequence[int], columns: Columns | None = None) -> list[int]:
        """After the step ran: notes what is computed and appends the sampled tokens. Returns the slots that sampled."""
        slots, starts, counts, samples = columns or Columns.of(plan)
        self._computed[slots] = starts + counts
        sampled = slots[samples]
        if len(sampled) != len(tokens):
            raise StateError(f"plan {plan.plan_id}: {len(sampled)} entries sample, {len(tokens)} tokens came")
        if len(sampled):
            known = np.maximum(tokens, 0)  # of a request that has no token and ends, a plan may be under way still
            self._tokens[sampled, self._lengths[sampled]] = known
            self._lengths[sampled] += 1
        chosen: list[int] = sampled.tolist()
        return chosen

    def _flatten(self, slots: IntArray, starts: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
        """(token ids, positions) of all entries: by index where they are short, by slices where they are long."""
        total = int(counts.sum())
        if total == len(slots):
            return self._tokens[slots, starts], starts
        if total < LONG_ENTRY * len(slots):
            entry = np.repeat(np.arange(len(slots)), counts)
            first = np.cumsum(counts) - counts
            positions = (np.arange(total) + (starts - first)[entry]).astype(np.int32)
            return self._tokens[slots[entry], positions], positions
        spans = list(zip(slots.tolist(), starts.tolist(), (starts + counts).tolist(), strict=True))
        tokens: IntArray = np.concatenate([self._tokens[slot, start:end] for slot, start, end in spans])
        return tokens, np.concatenate([self._positions[start:end] for _, start, end in spans])

    def _sampling(self, slot: int, end: int) -> SamplingState:
        state = self._states[slot]
        state.length = end
        return state

    def _check_batch(self, plan_id: int, columns: Columns) -> None:
        slots, starts, counts, samples = columns
        if not len(slots) == len(starts) == len(counts) == len(samples):
            raise StateError(f"plan {plan_id}: the batch's columns differ in length")
        if len(slots) == 0:
            return
        if slots.min() < 0 or slots.max() >= len(self._lengths) or self._lengths[slots].min() == UNUSED:
            raise StateError(f"plan {plan_id}: the batch names a slot that holds no request")
        if len(set(slots.tolist())) != len(slots):
            raise StateError(f"plan {plan_id}: the batch names a slot twice")
        lengths, ends = self._lengths[slots], starts + counts
        if starts.min() < 0 or counts.min() < 1 or (ends > np.minimum(lengths, self._max_length)).any():
            raise StateError(f"plan {plan_id}: the batch computes positions whose tokens are not known")
        if (ends > self._blocks[slots] * self._block_size).any():
            raise StateError(f"plan {plan_id}: the batch writes beyond a slot's blocks")
        if (ends != lengths)[samples].any():
            raise StateError(f"plan {plan_id}: an entry samples before its last token is computed")

    def _drop(self, slot: int) -> None:
        self._require_occupied(slot)
        self._lengths[slot] = UNUSED
        self._tables[slot, : self._blocks[slot]] = UNUSED
        self._blocks[slot] = 0
        self._computed[slot] = 0
        del self._states[slot]

    def _admit(self, admission: Admission) -> None:
        slot, tokens = admission.slot, np.frombuffer(admission.tokens, dtype="<u4")
        if not 0 <= slot < MAX_SLOTS or slot in self._states:
            raise StateError(f"slot {slot} cannot take a request: it holds one, or is outside 0 to {MAX_SLOTS - 1}")
        if not 0 < len(tokens) <= self._max_length or not 0 < admission.prompt_length <= len(tokens):
            raise StateError(
                f"slot {slot}: {len(tokens)} tokens, prompt {admission.prompt_length}, limit {self._max_length}"
            )
        if int(tokens.max()) >= self._vocab_size:
            raise StateError(f"slot {slot}: token {tokens.max()} is outside the vocabulary of {self._vocab_size}")
        self._grow(slot)
        self._tokens[slot, : len(tokens)] = tokens
        self._lengths[slot] = len(tokens)
        self._states[slot] = SamplingState(admission.sampling, self._tokens[slot], admission.prompt_length)
        self._append_blocks(slot, admission.block_ids)

    def _append_blocks(self, slot: int, blocks: tuple[int, ...]) -> None:
        if blocks and not (min(blocks) >= 0 and max(blocks) < self._num_blocks):
            raise StateError(f"slot {slot}: a block is outside 0 to {self._num_blocks - 1}")
        held = int(self._blocks[slot])
        if held + len(blocks) > self._max_blocks:
            raise StateError(f"slot {slot}: {held + len(blocks)} blocks exceed the limit of {self._max_blocks}")
        self._tables[slot, held : held + len(blocks)] = blocks
        self._blocks[slot] = held + len(blocks)

    def _require_occupied(self, slot: int) -> None:
        if slot not in self._states:
            raise StateError(f"slot {slot} holds no request")

    def _grow(self, slot: int) -> None:
        """Rows are made in zeroed memory that costs nothing until it is written."""
        have = len(self._lengths)
        if slot < have:
            return
        rows = max(slot + 1, 2 * have)
        old_tokens, self._tokens = self._tokens, np.zeros((rows, self._max_length + 1), dtype=np.int32)
        for used, state in self._states.items():
            self._tokens[used, : self._lengths[used]] = old_tokens[used, : self._lengths[used]]
            state.row = self._tokens[used]
        extra = rows - have
        self._tables = np.concatenate((self._tables, np.full((extra, self._max_blocks), UNUSED, dtype=np.int32)))
        self._lengths = np.concatenate((self._lengths, np.full(extra, UNUSED, dtype=np.int32)))
        self._blocks = np.concatenate((self._blocks, np.zeros(extra, dtype=np.int32)))
        self._computed = np.concatenate((self._computed, np.zeros(extra, dtype=np.int32)))
