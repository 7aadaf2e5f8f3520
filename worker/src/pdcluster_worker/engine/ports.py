"""What the engine loop needs of its surroundings; processes, sockets and threads in a worker, fakes in tests."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.core.effects import Observation, RouterOut, ToDecode, ToPrefill
from pdcluster_worker.core.ids import PeerId, RequestKey, StreamId
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import RankMetadata
from pdcluster_worker.ipc.messages import FromExecutor, ToExecutor


@dataclass(frozen=True, slots=True)
class Status:
    """How the core stood a moment ago. `drained`: it drains and holds nothing any more."""

    snapshot: Snapshot
    drained: bool


@dataclass(slots=True)
class Outgoing:
    """Everything of one turn that leaves through gRPC streams."""

    routers: dict[StreamId, RouterOut] = field(default_factory=dict)
    decodes: dict[PeerId, ToDecode] = field(default_factory=dict)
    prefills: dict[PeerId, ToPrefill] = field(default_factory=dict)
    status: Status | None = None

    def __bool__(self) -> bool:
        return bool(self.routers or self.decodes or self.prefills or self.status)


class Outlet(Protocol):
    def deliver(self, outgoing: Outgoing) -> None:
        """Called on the engine thread; must not wait."""
        ...


class Executors(Protocol):
    """All ranks. Every method is called on the engine thread."""

    def send(self, message: ToExecutor) -> None:
        """The same to every rank."""
        ...

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> None:
        """To each rank the metadata of its like. Raises TransportError when the numbers of ranks differ."""
        ...


class Preparation(Protocol):
    def submit(self, request: Request) -> None: ...

    def skip(self, key: RequestKey) -> None:
        """The request has ended: its job need not run."""
        ...


class Recorder(Protocol):
    def observe(self, observations: list[Observation]) -> None: ...

    def said(self, routers: Iterable[RouterOut]) -> None:
        """To routers, in this turn."""
        ...

    def executor_said(self, message: FromExecutor) -> None: ...

    def snapshot(self, snapshot: Snapshot) -> None: ...
