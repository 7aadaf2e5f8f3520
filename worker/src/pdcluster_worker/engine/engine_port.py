"""The engine loop as gRPC code sees it (`splitwise/engine_port.py`)."""

from concurrent.futures import Future

from pdcluster_worker.core.events import Event
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import Heartbeat, RankMetadata
from pdcluster_worker.engine.items import AddPeer, RemovePeer
from pdcluster_worker.engine.loop import EngineLoop


class LoopPort:
    """Safe from every thread."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop

    def post(self, *events: Event) -> None:
        self._loop.post(*events)

    def lease_set(self, peer: PeerId) -> "Future[Heartbeat]":
        return self._loop.ask(lambda core: core.lease_set(peer))

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> "Future[None]":
        item = AddPeer(peer, ranks)
        self._loop.post(item)
        return item.added

    def remove_peer(self, peer: PeerId) -> None:
        self._loop.post(RemovePeer(peer))
