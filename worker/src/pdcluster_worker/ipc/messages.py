"""Engine to executor and back, over ZeroMQ as msgpack. Each message is a batch; absent parts cost nothing."""

import msgspec

from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.core.wire import RankMetadata


class PeerInfo(msgspec.Struct, frozen=True):
    """A peer whose blocks this executor may write: the metadata of the peer's same-numbered rank."""

    peer: str
    metadata: RankMetadata


class ToExecutor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parts take effect in this order."""

    add_peers: tuple[PeerInfo, ...] = ()
    remove_peers: tuple[str, ...] = ()
    cancel_transfers: tuple[int, ...] = ()
    transfers: tuple[TransferSpec, ...] = ()
    plans: tuple[StepPlan, ...] = ()
    fences: tuple[int, ...] = ()
    """Answer each once everything that had arrived at the transport agent has landed in memory."""
    shutdown: bool = False
    sent_at: float = 0.0
    """The engine's monotonic clock when the message was made; lifetimes of transfers count from here. Engine and
    executor share a machine, hence the clock. 0: from receipt."""


class ExecutorReady(msgspec.Struct, frozen=True):
    """Model loaded, KV allocated and registered. All counts are per rank."""

    rank: int
    world_size: int
    layout_hash: str
    num_blocks: int
    block_size: int
    layers: int
    max_model_length: int
    vocab_size: int
    metadata: RankMetadata
    load_seconds: float
    device: str
    dtype: str
    model_bytes: int


class StepReport(msgspec.Struct, frozen=True):
    plan_id: int
    slots: list[int]
    tokens: list[int]
    logprobs: dict[int, TokenLogprob]
    seconds: float
    prefill_tokens: int
    decode_tokens: int


class TransferReport(msgspec.Struct, frozen=True):
    transfer_id: int
    ok: bool
    bytes: int
    seconds: float
    reason: str = ""
    write_failed: bool = False


class FromExecutor(msgspec.Struct, frozen=True, omit_defaults=True):
    rank: int
    loading: float = -1.0
    """Share of the weights loaded so far, before `ready`."""
    ready: ExecutorReady | None = None
    steps: tuple[StepReport, ...] = ()
    transfers: tuple[TransferReport, ...] = ()
    fences: tuple[int, ...] = ()
    peers_added: tuple[str, ...] = ()
    peers_failed: tuple[tuple[str, str], ...] = ()
    """(peer, reason)"""
    fatal: str = ""
    """One clear sentence; the process ends after it."""
