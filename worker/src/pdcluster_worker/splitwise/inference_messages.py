"""What routers and workers say to each other, as values. Meanings: proto/pdcluster/v1/inference.proto."""

import msgspec

from pdcluster_worker.core.effects import RouterOut
from pdcluster_worker.core.ids import RequestKey
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import Role
from pdcluster_worker.splitwise.limits import PROTOCOL_VERSION


class RouterHello(msgspec.Struct, frozen=True):
    router_id: str
    model: str = ""
    protocol_version: int = PROTOCOL_VERSION


class PeerRecord(msgspec.Struct, frozen=True):
    """A worker that the router knows of."""

    instance_id: str
    address: str
    role: Role
    revision: str = ""
    layout_hash: str = ""


class SubmitItem(msgspec.Struct, frozen=True):
    handle: int
    request: Request


class AttachItem(msgspec.Struct, frozen=True):
    handle: int
    key: RequestKey
    next_index: int
    prefill_lost: bool = False


class AbortItem(msgspec.Struct, frozen=True):
    """`key` None: only the handle is known."""

    key: RequestKey | None = None
    handle: int = 0


class RouterBatch(msgspec.Struct, frozen=True):
    """One message of a router. Parts take effect in this order; `hello` comes first and alone."""

    hello: RouterHello | None = None
    peers: tuple[PeerRecord, ...] | None = None
    submits: tuple[SubmitItem, ...] = ()
    attaches: tuple[AttachItem, ...] = ()
    aborts: tuple[AbortItem, ...] = ()
    gone_pods: tuple[str, ...] = ()


class WorkerHello(msgspec.Struct, frozen=True):
    instance_id: str
    name: str
    role: Role
    revision: str
    layout_hash: str
    model: str
    max_model_length: int
    vocab_size: int
    block_size: int
    pool_tokens: int
    protocol_version: int = PROTOCOL_VERSION


class WorkerState(msgspec.Struct, frozen=True):
    queued_tokens: int = 0
    prefill_tokens_per_second: float = 0.0
    kv_usage: float = 0.0
    running: int = 0
    waiting: int = 0
    free_slots: int = 0
    draining: bool = False
    kv_peers: int = 0
    ready: bool = True


class WorkerBatch(msgspec.Struct, frozen=True):
    """One message of a worker. `out` is what its core said: columnar tokens, then the notes that end requests."""

    hello: WorkerHello | None = None
    out: RouterOut | None = None
    state: WorkerState | None = None
