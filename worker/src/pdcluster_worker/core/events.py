"""Everything that may enter the core, and from where. The engine loop thread is the only caller.

Router streams, prefill links (this worker prefills, the peer decodes), decode links (the reverse), the
executor, the prepare pool and Admin each have their own few events. All are values; none holds a socket.
"""

import msgspec

from pdcluster_worker.core.ids import LeaseId, PeerId, PlanId, RequestKey, StreamId, TransferId
from pdcluster_worker.core.request import OutputToken, Request, TokenLogprob
from pdcluster_worker.core.wire import Heartbeat, RankMetadata, RefuseReason


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events."""


# --- router streams ---------------------------------------------------------------------------------


class StreamOpened(Event, frozen=True, kw_only=True):
    stream: StreamId


class StreamClosed(Event, frozen=True, kw_only=True):
    """The router may come back within 5 s and attach; then its requests end."""

    stream: StreamId


class Submitted(Event, frozen=True, kw_only=True):
    """A new request; the core answers with `Outbox.prepare` and waits for Prepared or PrepareFailed."""

    stream: StreamId
    handle: int
    request: Request


class Attached(Event, frozen=True, kw_only=True):
    stream: StreamId
    handle: int
    key: RequestKey
    next_index: int
    prefill_lost: bool = False


class Aborted(Event, frozen=True, kw_only=True):
    """`key` is None when the router knows only the stream-local handle."""

    stream: StreamId
    key: RequestKey | None = None
    handle: int = 0


# --- prepare pool -----------------------------------------------------------------------------------


class Prepared(Event, frozen=True, kw_only=True):
    """`block_hashes`: SHA-256 of each full block of the tokens, chained; 32 bytes each, concatenated."""

    request: Request
    block_hashes: bytes
    seconds: float


class PrepareFailed(Event, frozen=True, kw_only=True):
    key: RequestKey
    reason: str
    """Names the field and the limit; reaches the client as a 400."""


# --- this worker prefills, the peer decodes ---------------------------------------------------------


class DecodeLinked(Event, frozen=True, kw_only=True):
    """Handshake done: version, layout hash and model agree, the executor knows the peer's regions."""

    peer: PeerId
    pool_blocks: int
    ranks: int
    lease_ttl: float


class DecodeLost(Event, frozen=True, kw_only=True):
    """The link broke or the peer's process is gone. Its leases may live on until their TTL."""

    peer: PeerId


class Granted(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey
    lease: LeaseId
    ttl: float
    matched_blocks: int
    block_ids: tuple[int, ...]


class QueuedThere(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey


class Refused(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey
    reason: RefuseReason
    retry_after: float = 0.0
    lease: LeaseId = LeaseId(0)


class CommitAccepted(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey
    lease: LeaseId


class LeaseEnded(Event, frozen=True, kw_only=True):
    peer: PeerId
    lease: LeaseId
    key: RequestKey
    reason: str


class CreditsChanged(Event, frozen=True, kw_only=True):
    """Cumulative since the handshake."""

    peer: PeerId
    sequence: int
    blocks: int
    requests: int
    draining: bool = False


class DecodeHeartbeat(Event, frozen=True, kw_only=True):
    peer: PeerId
    heartbeat: Heartbeat


# --- this worker decodes, the peer prefills ---------------------------------------------------------


class PrefillLinked(Event, frozen=True, kw_only=True):
    peer: PeerId
    ranks: tuple[RankMetadata, ...] = ()


class PrefillLost(Event, frozen=True, kw_only=True):
    peer: PeerId


class PrefillDied(Event, frozen=True, kw_only=True):
    """Proof that the peer's process is dead (replaced instance id, gone pod): its writes have been issued."""

    peer: PeerId


class ReserveAsked(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey
    tokens: int
    blocks: int
    block_hashes: bytes
    deadline: float
    queue: bool = False


class CommitAsked(Event, frozen=True, kw_only=True):
    peer: PeerId
    lease: LeaseId
    request: Request
    outputs: tuple[OutputToken, ...]
    completed_ranks: int
    transferred_bytes: int = 0


class Released(Event, frozen=True, kw_only=True):
    peer: PeerId
    key: RequestKey
    lease: LeaseId
    writes_closed: bool = False
    aborted: bool = False
    write_failed: bool = False


class WritesClosed(Event, frozen=True, kw_only=True):
    peer: PeerId
    lease: LeaseId
    epoch: int
    write_failed: bool = False
    """Bytes of the failed write may be on their way still: only a fence proves that they have landed."""


class PrefillHeartbeat(Event, frozen=True, kw_only=True):
    peer: PeerId
    heartbeat: Heartbeat


# --- executor ---------------------------------------------------------------------------------------


NO_TOKEN = -1
"""In the place of a token: the request's logits were not numbers, and it fails."""


class SampledTokens(msgspec.Struct, frozen=True):
    """Columnar: entry i is the token sampled for slots[i], or NO_TOKEN."""

    slots: list[int]
    tokens: list[int]
    logprobs: dict[int, TokenLogprob] = {}
    """By entry, for the requests that asked."""


class StepDone(Event, frozen=True, kw_only=True):
    """The plan ran on every rank."""

    plan: PlanId
    sampled: SampledTokens
    seconds: float


class TransferFinished(Event, frozen=True, kw_only=True):
    """All handles of one rank are final: nothing more will be written for this transfer by that rank."""

    transfer: TransferId
    rank: int
    ok: bool
    bytes: int = 0
    seconds: float = 0.0
    reason: str = ""
    write_failed: bool = False


class FenceDrained(Event, frozen=True, kw_only=True):
    """What had arrived at this worker's agent before the fence has landed."""

    fence: int


class ExecutorLost(Event, frozen=True, kw_only=True):
    """The executor process died. The engine ends after the core has failed all it held."""

    reason: str


# --- admin ------------------------------------------------------------------------------------------


class DrainAsked(Event, frozen=True, kw_only=True):
    """Take nothing new; finish or hand back what is held by `deadline`."""

    deadline: float


class Resumed(Event, frozen=True, kw_only=True):
    pass
