"""Which stream leads where: deliveries of the engine loop go out to routers and peers. Lives on the I/O loop."""

from collections.abc import Callable

from pdcluster_worker.core.effects import RouterOut, ToDecode, ToPrefill
from pdcluster_worker.core.ids import PeerId, StreamId
from pdcluster_worker.engine.ports import Outgoing, Status

RouterSink = Callable[[RouterOut], None]
DecodeSink = Callable[[ToDecode], None]
PrefillSink = Callable[[ToPrefill], None]


class Switchboard:
    """A part for a stream that is gone is dropped: the core hears of the loss through an event."""

    def __init__(self) -> None:
        self.routers: dict[StreamId, RouterSink] = {}
        self.decodes: dict[PeerId, DecodeSink] = {}
        self.prefills: dict[PeerId, PrefillSink] = {}
        self._status: Status | None = None
        self._watchers: set[Callable[[Status], None]] = set()

    @property
    def status(self) -> Status | None:
        return self._status

    def deliver(self, outgoing: Outgoing) -> None:
        for stream, out in outgoing.routers.items():
            if stream in self.routers:
                self.routers[stream](out)
        for peer, to_decode in outgoing.decodes.items():
            if peer in self.decodes:
                self.decodes[peer](to_decode)
        for peer, to_prefill in outgoing.prefills.items():
            if peer in self.prefills:
                self.prefills[peer](to_prefill)
        if outgoing.status is not None:
            self._status = outgoing.status
            for watcher in list(self._watchers):
                watcher(outgoing.status)

    def watch(self, watcher: Callable[[Status], None]) -> Callable[[], None]:
        """Calls `watcher` with every new status until the returned function is called."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)
