"""Attaches to requests that are leased here but not committed yet. Written by the decode role."""

from pdcluster_worker.core.events import Attached
from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.core.streams import Streams
from pdcluster_worker.core.wire import FailureCode


class WaitingAttaches:
    """At most one per request: a later one takes the place of an earlier."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._attaches: dict[RequestId, Attached] = {}

    def add(self, event: Attached) -> None:
        self._attaches[event.key.request_id] = event

    def take(self, key: RequestKey) -> Attached | None:
        """The request has come."""
        attach = self._attaches.pop(key.request_id, None)
        return attach if attach is not None and attach.key == key else None

    def forget(self, key: RequestKey) -> None:
        """The router itself gave the request up."""
        self._attaches.pop(key.request_id, None)

    def drop(self, key: RequestKey) -> None:
        """The lease has ended: the request will not come."""
        attach = self._attaches.pop(key.request_id, None)
        if attach is not None and self._streams.is_open(attach.stream):
            reason = "its lease ended before it was committed"
            self._streams.refuse(attach.stream, attach.handle, FailureCode.UNKNOWN_REQUEST, reason)
