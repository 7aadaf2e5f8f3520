"""What gRPC code needs of the engine: somewhere to put events, and a few questions. Safe from every thread."""

from concurrent.futures import Future
from typing import Protocol

from pdcluster_worker.core.events import Event
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import Heartbeat, RankMetadata


class EnginePort(Protocol):
    def post(self, *events: Event) -> None: ...

    def lease_set(self, peer: PeerId) -> "Future[Heartbeat]":
        """For the first message of a link."""
        ...

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> "Future[None]":
        """Done when every rank's executor can write into the peer's blocks; a TransportError otherwise."""
        ...

    def remove_peer(self, peer: PeerId) -> None:
        """The peer's process is gone or no longer wanted."""
        ...
