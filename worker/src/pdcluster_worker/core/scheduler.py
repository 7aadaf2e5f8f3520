"""Which request computes what in the next step: continuous batching with chunked prefill.

Running requests come first: one token for each that decodes, then chunks of those that prefill, then new
admissions, within one token budget. Plan k+1 is made before the tokens of plan k are known: a request advances
when it is scheduled, and a token for a request that has ended meanwhile is dropped.

Counters are kept, never recomputed: a step costs a few operations per running request and nothing per waiting one.
"""

from collections import OrderedDict, deque
from operator import attrgetter
from typing import Protocol

from pdcluster_worker.core.blocks import Holder
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.drafts import Draft, IssuedPlan
from pdcluster_worker.core.ids import PlanId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.wire import Role

RATE_WEIGHT = 0.2
"""Of the newest step in the moving average of the prefill rate."""

by_arrival = attrgetter("arrival")


class Hooks(Protocol):
    """What the role has to say about scheduling."""

    def admitted(self, job: Job, now: float) -> TransferSpec | None:
        """The request has slot and blocks; returns the transfer that goes with it."""

    def preempted(self, job: Job, now: float) -> None:
        """The request lost slot and blocks, and waits again; the role may end it instead."""


class Scheduler:
    """Owns slots and batches. `final_position` of a job says where it stops computing here."""

    def __init__(self, context: Context, hooks: Hooks) -> None:
        config = context.config
        self._config = config
        self._context = context
        self._pool = context.pool
        self._hooks = hooks
        self._waiting: OrderedDict[Job, None] = OrderedDict()
        self._ready: OrderedDict[Job, None] = OrderedDict()
        self._prefilling: list[Job] = []
        self._decoding: list[Job] = []
        self._stale = False
        self._free_slots = list(range(config.max_running_requests - 1, -1, -1))
        self._dropped: list[int] = []
        self._retired: list[int] = []
        """Slots that the plan being made uses for the last time."""
        self._alone: Job | None = None
        self._last_plan = 0
        self._arrivals = 0
        self._grows = config.role is not Role.PREFILL
        self.outstanding: deque[IssuedPlan] = deque()
        self.queued_tokens = 0
        self.tokens_per_second = 0.0

    # --- what waits ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._ready)

    @property
    def running(self) -> int:
        return self._config.max_running_requests - len(self._free_slots)

    @property
    def free_slots(self) -> int:
        return len(self._free_slots)

    def add(self, job: Job) -> None:
        """Line up for a slot: behind those that hold their KV already, or those that do not."""
        if job.blocks:
            self._ready[job] = None
        else:
            self._waiting[job] = None

    def remove(self, job: Job) -> None:
        """Take the request out of lines and batches. Its blocks stay: see `free_blocks`."""
        self._waiting.pop(job, None)
        self._ready.pop(job, None)
        self.set_pending(job, 0)
        if job.slot >= 0:
            self._drop_slot(job)
            self._stale = True

    def free_blocks(self, job: Job) -> None:
        """Give its blocks back, unless a transfer still reads them."""
        if job.blocks and not job.pins:
            self._pool.release(job.blocks, job.last_plan)
            job.blocks = []
            job.capacity = 0

    def set_pending(self, job: Job, tokens: int) -> None:
        """How many tokens the request still has to compute before its first token."""
        self.queued_tokens += tokens - job.pending_tokens
        job.pending_tokens = tokens

    def stuck(self) -> Job | None:
        """The newest in line, when nothing runs and nobody can start for lack of blocks."""
        if self.outstanding or self.running or not self._waiting:
            return None
        return next(reversed(self._waiting))

    def missing_blocks(self) -> int:
        """Blocks that the first request in line needs to go on: not to be given away."""
        for job in self._waiting:
            return self._config.blocks_for(job.known_tokens)
        return 0

    # --- making a plan ------------------------------------------------------------------------------

    def make_plan(self, now: float) -> StepPlan | None:
        """The next step, or None when there is nothing to compute."""
        if not (self._decoding or self._prefilling or self._waiting or self._ready):
            return None
        if self._stale:
            self._decoding = [job for job in self._decoding if job.slot >= 0]
            self._prefilling = [job for job in self._prefilling if job.slot >= 0]
            self._stale = False
        draft = Draft(PlanId(self._last_plan + 1), self._config.max_batch_tokens)
        starved = self._grow(draft, now)
        self._add_decodes(draft, starved)
        self._add_chunks(draft)
        self._admit(draft, now)
        if not draft.jobs:
            return None
        self._last_plan = draft.plan_id
        self.outstanding.append(IssuedPlan(draft))
        dropped, self._dropped = self._dropped, self._retired
        self._free_slots.extend(self._retired)
        self._retired = []
        return draft.plan(dropped)

    def _grow(self, draft: Draft, now: float) -> bool:
        """Give a block to each request that has filled its last one. True: some got none and must wait."""
        needy = [job for job in self._decoding if job.computed == job.capacity]
        short = 0
        for job in sorted(needy, key=by_arrival):
            if job.slot < 0:
                continue
            blocks = self._pool.allocate(1, Holder.RUNNING)
            if blocks is None and self._pool.pending <= short:
                self._preempt_newest(job, now)
                blocks = self._pool.allocate(1, Holder.RUNNING) if job.slot >= 0 else None
            if blocks is None:
                short += 1
                continue
            job.blocks.extend(blocks)
            job.capacity += self._config.block_size
            draft.appended.append((job.slot, tuple(blocks)))
        if short or self._stale:
            self._decoding = [job for job in self._decoding if job.slot >= 0]
            self._prefilling = [job for job in self._prefilling if job.slot >= 0]
            self._stale = False
            draft.appended = [entry for entry in draft.appended if entry[0] not in self._dropped]
        return short > 0

    def _preempt_newest(self, needy: Job, now: float) -> None:
        """Make room for `needy` at the cost of the newest request, `needy` itself if that is it; never the oldest."""
        if self._ready:
            self._preempt(next(reversed(self._ready)), now)
            return
        running = [job for job in (*self._decoding, *self._prefilling) if job.slot >= 0]
        newest = max(running, key=by_arrival)
        if newest is not min(running, key=by_arrival):
            self._preempt(newest, now)

    def _preempt(self, job: Job, now: float) -> None:
        """Blocks and slot go; the tokens stay, and the KV is computed again later."""
        self._ready.pop(job, None)
        if job.slot >= 0:
            self._drop_slot(job)
            self._stale = True
        self.free_blocks(job)
        job.computed = 0
        job.indexed = 0
        job.preemptions += 1
        self._context.observe("preemptions_total", 1)
        if job.state is RequestState.RUNNING:
            job.move(RequestState.WAITING)
        self.set_pending(job, job.known_tokens)
        self._waiting[job] = None
        self._waiting.move_to_end(job, last=False)
        self._hooks.preempted(job, now)

    def _add_decodes(self, draft: Draft, starved: bool) -> None:
        batch = [job for job in self._decoding if job.computed < job.capacity] if starved else self._decoding
        batch = batch[: draft.budget]
        if not batch:
            return
        plan = draft.plan_id
        starts = draft.starts
        done = False
        for job in batch:
            position = job.computed
            starts.append(position)
            job.computed = position + 1
            job.in_flight += 1
            job.last_plan = plan
            if position + 1 == job.final_position:
                done = True
        number = len(batch)
        draft.slots.extend([job.slot for job in batch])
        draft.counts.extend([1] * number)
        draft.samples.extend([True] * number)
        draft.jobs.extend(batch)
        draft.sampling.extend(batch)
        draft.budget -= number
        draft.decodes = number
        if done:
            for job in batch:
                if job.computed == job.final_position:
                    self._retire_slot(job)
            self._decoding = [job for job in self._decoding if job.slot >= 0]

    def _add_chunks(self, draft: Draft) -> None:
        unfinished = []
        for job in self._prefilling:
            if not draft.budget or not self._add_chunk(draft, job):
                unfinished.append(job)
        self._prefilling = unfinished

    def _add_chunk(self, draft: Draft, job: Job) -> bool:
        """Schedule as much of the request's known tokens as fits. True: all of it; then it samples."""
        count = min(job.target - job.computed, draft.budget)
        draft.slots.append(job.slot)
        draft.starts.append(job.computed)
        draft.counts.append(count)
        draft.jobs.append(job)
        draft.budget -= count
        draft.prefill_tokens += count
        job.computed += count
        job.last_plan = draft.plan_id
        self.set_pending(job, job.target - job.computed)
        complete = job.computed // self._config.block_size
        if complete > job.indexed:
            self._pool.index.add(job.blocks, job.hashes, job.indexed, complete)
            draft.indexed.update(job.blocks[job.indexed : complete])
            job.indexed = complete
        samples = job.computed == job.target
        draft.samples.append(samples)
        if samples:
            draft.sampling.append(job)
            job.in_flight += 1
            if job.computed == job.final_position:
                self._retire_slot(job)
            else:
                self._decoding.append(job)
        return samples

    # --- admission ----------------------------------------------------------------------------------

    def _admit(self, draft: Draft, now: float) -> None:
        """New requests, oldest first: those that need blocks as long as there are some, then those that have them."""
        if self._alone is not None:
            if self._alone.slot >= 0 or self.outstanding:
                return
            self._alone = None
        for line in (self._waiting, self._ready):
            while line and draft.budget and self._free_slots and self._alone is None:
                job = next(iter(line))
                if not self._may_start(job, draft) or not self._take_blocks(job, draft):
                    break
                del line[job]
                self._start(draft, job, now)
                if not self._add_chunk(draft, job):
                    self._prefilling.append(job)

    def _may_start(self, job: Job, draft: Draft) -> bool:
        """Tokens sampled before a preemption must be known; a suspect runs without neighbours."""
        if job.in_flight:
            return False
        return not job.alone or not (self.outstanding or draft.jobs or self.running)

    def _take_blocks(self, job: Job, draft: Draft) -> bool:
        """All blocks of the tokens known, prefix hits included, or none. One per running request is left for growth."""
        if job.blocks:
            return True
        config = self._config
        job.target = job.known_tokens
        matched = self._pool.match(job.hashes, (job.target - 1) // config.block_size)
        needed = config.blocks_for(job.target) - len(matched)
        spare = self.running if self._grows else 0
        blocks = self._pool.allocate(needed, Holder.RUNNING) if self._pool.available >= needed + spare else None
        if blocks is None:
            self._pool.release(matched)
            return False
        job.blocks = matched + blocks
        job.indexed = len(matched)
        job.computed = len(matched) * config.block_size
        job.stored = draft.computed_before(matched) * config.block_size
        if not job.preemptions:
            job.cached_tokens = job.computed
        return True

    def _start(self, draft: Draft, job: Job, now: float) -> None:
        job.target = job.known_tokens
        job.capacity = len(job.blocks) * self._config.block_size
        job.slot = self._free_slots.pop()
        if not job.arrival:
            self._arrivals += 1
            job.arrival = self._arrivals
        if job.alone:
            self._alone = job
        self.set_pending(job, job.target - job.computed)
        job.move(RequestState.RUNNING)
        transfer = self._hooks.admitted(job, now)
        if transfer is not None:
            draft.transfers.append(transfer)
        draft.admissions.append(
            Admission(
                slot=job.slot,
                request_id=job.key.request_id,
                epoch=job.key.epoch,
                tokens=job.token_bytes(),
                prompt_length=job.request.prompt_length,
                sampling=job.request.sampling,
                block_ids=tuple(job.blocks),
            )
        )

    def _drop_slot(self, job: Job) -> None:
        self._dropped.append(job.slot)
        self._free_slots.append(job.slot)
        job.slot = -1

    def _retire_slot(self, job: Job) -> None:
        """Drop the slot with the next plan: this one still names it."""
        self._retired.append(job.slot)
        job.slot = -1

    # --- results ------------------------------------------------------------------------------------

    def step_done(self, plan: PlanId, seconds: float) -> IssuedPlan | None:
        """The oldest plan out is done: blocks that waited for it are released. None: not the one expected."""
        if not self.outstanding or self.outstanding[0].plan_id != plan:
            return None
        issued = self.outstanding.popleft()
        self._pool.plan_done(plan)
        if issued.prefill_tokens and seconds > 0:
            rate = issued.prefill_tokens / seconds
            weight = RATE_WEIGHT if self.tokens_per_second else 1.0
            self.tokens_per_second += weight * (rate - self.tokens_per_second)
        return issued
