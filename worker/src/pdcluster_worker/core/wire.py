"""Parts of wire messages that the core itself reads or writes. Meanings: proto/pdcluster/v1/*.proto."""

import enum

import msgspec


class Role(enum.StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


class FailureCode(enum.IntEnum):
    """Values equal those of the proto enum."""

    INVALID_ARGUMENT = 1
    OVERLOADED = 2
    NO_DECODE = 3
    DEADLINE = 4
    PREEMPTED = 5
    DRAINING = 6
    UNKNOWN_REQUEST = 7
    EXECUTOR_LOST = 8
    ABORTED = 9
    INTERNAL = 10


class RefuseReason(enum.IntEnum):
    """Values equal those of the proto enum."""

    NO_CAPACITY = 1
    TOO_LARGE = 2
    DRAINING = 3
    UNKNOWN_LEASE = 4
    STALE_EPOCH = 5
    INVALID = 6


class Heartbeat(msgspec.Struct, frozen=True):
    """The sender's set of uncommitted leases of the pair, and the prefill side's demand."""

    lease_count: int = 0
    lease_xor: int = 0
    full: bool = False
    lease_ids: tuple[int, ...] = ()
    demand_blocks: int = 0
    demand_requests: int = 0
    reserved_blocks: int = 0
    reserved_requests: int = 0


class Region(msgspec.Struct, frozen=True, gc=False):
    address: int
    length: int
    device: int


class RankMetadata(msgspec.Struct, frozen=True):
    """How to reach one rank's KV blocks. `regions` is one per layer, in order."""

    rank: int
    agent_name: str
    agent_metadata: bytes
    regions: tuple[Region, ...]
    num_blocks: int
    block_bytes: int


class Stages(msgspec.Struct, frozen=True, gc=False):
    """Seconds of each stage of a request on one worker, by that worker's clock."""

    queue: float = 0.0
    prepare: float = 0.0
    reserve: float = 0.0
    prefill: float = 0.0
    transfer: float = 0.0
    cached_tokens: int = 0
    decode: float = 0.0
    transferred_bytes: int = 0
