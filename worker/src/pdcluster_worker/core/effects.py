"""Everything that may leave the core. After each batch of events the engine loop takes the outbox and acts.

Lists keep their order; the engine sends each destination's part as one message.
"""

import msgspec

from pdcluster_worker.core.ids import LeaseId, PeerId, RequestKey, StreamId
from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.core.request import OutputToken, Request, TokenLogprob
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RefuseReason, Stages

# --- to a router stream -----------------------------------------------------------------------------


class ReservedNote(msgspec.Struct, frozen=True):
    handle: int
    decode: PeerId
    reserve_seconds: float


class HandedOffNote(msgspec.Struct, frozen=True):
    handle: int
    decode: PeerId
    stages: Stages


class FinishedNote(msgspec.Struct, frozen=True):
    handle: int
    reason: str
    """stop or length"""
    output_tokens: int
    stop_token: int | None
    stages: Stages


class FailedNote(msgspec.Struct, frozen=True):
    handle: int
    code: FailureCode
    reason: str
    retry_after: float = 0.0
    was_running: bool = False


class RouterOut(msgspec.Struct):
    """One stream's part. Tokens go before the notes that end their requests."""

    accepted: list[int] = msgspec.field(default_factory=list)
    reserved: list[ReservedNote] = msgspec.field(default_factory=list)
    handles: list[int] = msgspec.field(default_factory=list)
    indices: list[int] = msgspec.field(default_factory=list)
    tokens: list[int] = msgspec.field(default_factory=list)
    logprobs: dict[int, TokenLogprob] = msgspec.field(default_factory=dict)
    handed_off: list[HandedOffNote] = msgspec.field(default_factory=list)
    finished: list[FinishedNote] = msgspec.field(default_factory=list)
    failed: list[FailedNote] = msgspec.field(default_factory=list)


# --- to a decode worker (this one prefills) ---------------------------------------------------------


class ReserveOut(msgspec.Struct, frozen=True):
    key: RequestKey
    tokens: int
    blocks: int
    block_hashes: bytes
    deadline: float
    queue: bool


class CommitOut(msgspec.Struct, frozen=True):
    lease: LeaseId
    request: Request
    outputs: tuple[OutputToken, ...]
    completed_ranks: int
    transferred_bytes: int


class ReleaseOut(msgspec.Struct, frozen=True):
    key: RequestKey
    lease: LeaseId
    writes_closed: bool
    aborted: bool
    write_failed: bool = False


class WritesClosedOut(msgspec.Struct, frozen=True):
    lease: LeaseId
    epoch: int
    write_failed: bool = False


class ToDecode(msgspec.Struct):
    commits: list[CommitOut] = msgspec.field(default_factory=list)
    writes_closed: list[WritesClosedOut] = msgspec.field(default_factory=list)
    releases: list[ReleaseOut] = msgspec.field(default_factory=list)
    reserves: list[ReserveOut] = msgspec.field(default_factory=list)
    heartbeat: Heartbeat | None = None


# --- to a prefill worker (this one decodes) ---------------------------------------------------------


class GrantOut(msgspec.Struct, frozen=True):
    key: RequestKey
    lease: LeaseId
    ttl: float
    matched_blocks: int
    block_ids: tuple[int, ...]


class RefuseOut(msgspec.Struct, frozen=True):
    key: RequestKey
    reason: RefuseReason
    retry_after: float = 0.0
    lease: LeaseId = LeaseId(0)


class CommittedOut(msgspec.Struct, frozen=True):
    key: RequestKey
    lease: LeaseId


class LeaseLostOut(msgspec.Struct, frozen=True):
    lease: LeaseId
    key: RequestKey
    reason: str


class CreditsOut(msgspec.Struct, frozen=True):
    """Cumulative since the handshake."""

    sequence: int
    blocks: int
    requests: int
    draining: bool


class ToPrefill(msgspec.Struct):
    grants: list[GrantOut] = msgspec.field(default_factory=list)
    queued: list[RequestKey] = msgspec.field(default_factory=list)
    refusals: list[RefuseOut] = msgspec.field(default_factory=list)
    committed: list[CommittedOut] = msgspec.field(default_factory=list)
    leases_lost: list[LeaseLostOut] = msgspec.field(default_factory=list)
    credits: CreditsOut | None = None
    heartbeat: Heartbeat | None = None


# --- measurements -----------------------------------------------------------------------------------


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One sample of a metric, by its name without the pdc_ prefix (metrics.py)."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class Outbox(msgspec.Struct):
    """All that the last events brought about."""

    prepare: list[Request] = msgspec.field(default_factory=list)
    routers: dict[StreamId, RouterOut] = msgspec.field(default_factory=dict)
    decodes: dict[PeerId, ToDecode] = msgspec.field(default_factory=dict)
    prefills: dict[PeerId, ToPrefill] = msgspec.field(default_factory=dict)
    plans: list[StepPlan] = msgspec.field(default_factory=list)
    transfers: list[TransferSpec] = msgspec.field(default_factory=list)
    """For KV that is already computed (a new lease elsewhere); the others travel in their plan."""
    cancel_transfers: list[int] = msgspec.field(default_factory=list)
    """Post nothing more; TransferFinished still comes, once per rank."""
    fences: list[int] = msgspec.field(default_factory=list)
    drained: bool = False
    observations: list[Observation] = msgspec.field(default_factory=list)
