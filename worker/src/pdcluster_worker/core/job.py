"""One request at this worker, in one of its lives: the only mutable record of it. Written by `core/` alone."""

import struct

from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestKey, StreamId
from pdcluster_worker.core.request import OutputToken, Request, TokenLogprob
from pdcluster_worker.core.state import TRANSITIONS, RequestState
from pdcluster_worker.errors import StateError

NO_TOKENS: frozenset[int] = frozenset()


class HeldLease:
    """What a prefill worker knows of a lease that a decode worker gave it."""

    __slots__ = (
        "block_ids",
        "granted_at",
        "lease_id",
        "matched_blocks",
        "peer",
        "transfer_id",
        "transferred",
        "write_failed",
    )

    def __init__(
        self, lease_id: LeaseId, peer: PeerId, matched_blocks: int, block_ids: tuple[int, ...], granted_at: float
    ) -> None:
        self.lease_id = lease_id
        self.peer = peer
        self.matched_blocks = matched_blocks
        self.block_ids = block_ids
        self.granted_at = granted_at
        self.transfer_id = 0
        """0: no transfer has been asked for."""
        self.transferred = False
        """All ranks' writes are final and successful, or there was nothing to write."""
        self.write_failed = False


class Times:
    """Seconds on the engine's clock when the request passed each point; 0 where it did not."""

    __slots__ = (
        "accepted",
        "enqueued",
        "first_token",
        "leased",
        "prepare",
        "queued",
        "started",
        "transfer",
    )

    def __init__(self, accepted: float) -> None:
        self.accepted = accepted
        self.prepare = 0.0
        self.queued = accepted
        """Prepared, for the first time in line."""
        self.enqueued = accepted
        """In line for a decode worker, for the last time."""
        self.leased = 0.0
        self.started = 0.0
        self.first_token = 0.0
        self.transfer = 0.0
        """From the first write to the last completion, for the most part while prefill still computes."""


class Job:
    """Hashable by identity. `outputs` are the tokens sampled since `request.tokens`, index `base_index` first."""

    __slots__ = (
        "alone",
        "arrival",
        "attempts",
        "base_index",
        "blocks",
        "cached_tokens",
        "capacity",
        "computed",
        "ended",
        "final_position",
        "handle",
        "hashes",
        "in_flight",
        "indexed",
        "key",
        "last_peer",
        "last_plan",
        "lease",
        "lease_id",
        "limit",
        "logprobs",
        "note",
        "output_limit",
        "outputs",
        "parked",
        "patience",
        "pending_tokens",
        "pins",
        "preemptions",
        "request",
        "reserve_blocks",
        "reserving_at",
        "slot",
        "state",
        "stop_tokens",
        "stored",
        "stream",
        "target",
        "times",
        "too_large_at",
        "total_blocks",
        "transferred_bytes",
        "window_tokens",
    )

    def __init__(self, request: Request, limit: int, now: float) -> None:
        self.request = request
        self.key: RequestKey = request.key
        self.state = RequestState.PREPARING
        self.ended = False
        self.stream: StreamId | None = None
        self.handle = 0
        self.note: FinishedNote | FailedNote | HandedOffNote | None = None
        """How it ended, kept for a router that is not attached."""
        self.hashes = b""
        self.alone = request.alone
        self.arrival = 0
        """Order of first admission to a slot; smaller is older, 0 before it."""

        self.limit = limit
        """Tokens, prompt included, after which it ends."""
        self.output_limit = limit - request.prompt_length
        self.base_index = request.num_tokens - request.prompt_length
        self.outputs: list[int] = []
        self.logprobs: dict[int, TokenLogprob] = {}
        """By output index, for requests that asked."""
        sampling = request.sampling
        self.stop_tokens = NO_TOKENS if sampling.ignore_eos else frozenset(sampling.stop_token_ids)
        self.times = Times(now)
        self._start_scheduling()
        self._start_handover()

    def _start_scheduling(self) -> None:
        """What the scheduler keeps."""
        self.slot = -1
        self.blocks: list[int] = []
        self.capacity = 0
        """Tokens that the blocks can hold."""
        self.indexed = 0
        """Leading blocks that are in the prefix index or need not be."""
        self.computed = 0
        """Positions whose KV is computed or scheduled to be."""
        self.stored = 0
        """Those whose KV was in its blocks before the plan that admitted it: what others compute in it is not."""
        self.target = 0
        """Tokens known when it got its slot: up to there it prefills, in chunks."""
        self.final_position = 0
        """No position from here on is ever computed at this worker."""
        self.in_flight = 0
        """Tokens that issued plans will sample for it."""
        self.last_plan = 0
        """The last issued plan that names its blocks."""
        self.pins = 0
        """Transfers that still read its blocks."""
        self.cached_tokens = 0
        self.pending_tokens = 0
        """Its part of the scheduler's queued tokens."""
        self.preemptions = 0

    def _start_handover(self) -> None:
        """What the two halves of the splitwise protocol keep."""
        self.lease: HeldLease | None = None
        self.lease_id = LeaseId(0)
        """At a decode worker: the lease that its commit turned into blocks."""
        self.reserving_at: PeerId | None = None
        self.last_peer: PeerId | None = None
        self.reserve_blocks = 0
        self.total_blocks = 0
        """The most that it can come to hold at a decode worker."""
        self.parked = False
        """It was sent to wait in line at `reserving_at`."""
        self.patience = 0.0
        """How long it waits in line before it tries another decode worker."""
        self.window_tokens = 0
        """Its part of the window of reserved but unstarted prompts."""
        self.attempts = 0
        self.too_large_at: frozenset[PeerId] = frozenset()
        self.transferred_bytes = 0

    def move(self, state: RequestState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise StateError(f"a request cannot go from {self.state.value} to {state.value}")
        self.state = state

    @property
    def known_tokens(self) -> int:
        return self.request.num_tokens + len(self.outputs)

    @property
    def next_index(self) -> int:
        """Output index of the token that comes next."""
        return self.base_index + len(self.outputs)

    @property
    def kv_complete(self) -> bool:
        """On a prefill worker: everything is computed and the first token is known."""
        return bool(self.outputs)

    def token_bytes(self) -> bytes:
        """All tokens known, as Request.tokens has them."""
        if not self.outputs:
            return self.request.tokens
        return self.request.tokens + struct.pack(f"<{len(self.outputs)}I", *self.outputs)

    def output_tokens(self) -> tuple[OutputToken, ...]:
        return tuple(
            OutputToken(index=index, token=token, logprob=self.logprobs.get(index))
            for index, token in enumerate(self.outputs, self.base_index)
        )
