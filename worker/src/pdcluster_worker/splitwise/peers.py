"""Which decode workers a prefill worker links to: the union of what its routers know. Pure; owned by the I/O loop."""

from collections.abc import Iterable

from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.core.wire import Role
from pdcluster_worker.splitwise.inference_messages import PeerRecord

FORGET_AFTER = 30.0
"""Seconds that a peer stays after the last router has dropped it."""


class PeerDirectory:
    """Keyed by address: a worker that restarts there has another instance id. Times in seconds, given by the caller."""

    def __init__(self, revision: str, layout_hash: str, forget_after: float = FORGET_AFTER) -> None:
        self._revision = revision
        self._layout_hash = layout_hash
        self._forget_after = forget_after
        self._lists: dict[StreamId, frozenset[str]] = {}
        self._records: dict[str, PeerRecord] = {}
        self._dropped_at: dict[str, float] = {}

    def update(self, stream: StreamId, records: Iterable[PeerRecord] | None, now: float) -> None:
        """A router's whole list; None when its stream has closed."""
        if records is None:
            self._lists.pop(stream, None)
        else:
            fitting = {record.address: record for record in records if self._fits(record)}
            self._lists[stream] = frozenset(fitting)
            self._records.update(fitting)
        named = frozenset[str]().union(*self._lists.values())
        for address in self._records:
            if address in named:
                self._dropped_at.pop(address, None)
            else:
                self._dropped_at.setdefault(address, now)

    def wanted(self, now: float) -> dict[str, PeerRecord]:
        """By address. Forgets what has been dropped for long enough."""
        for address in [a for a, since in self._dropped_at.items() if now >= since + self._forget_after]:
            del self._dropped_at[address]
            del self._records[address]
        return dict(self._records)

    def next_expiry(self) -> float | None:
        """When `wanted` will give another answer without an update."""
        return min(self._dropped_at.values()) + self._forget_after if self._dropped_at else None

    def _fits(self, record: PeerRecord) -> bool:
        return (
            record.role is Role.DECODE
            and record.revision == self._revision
            and record.layout_hash in ("", self._layout_hash)
        )
