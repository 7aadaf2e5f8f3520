"""A decode worker's links to prefill workers: heartbeats, lease expiry, credits. Written by the decode role."""

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.credits import Credits
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.leases import Lease, LeaseTable
from pdcluster_worker.core.timers import Timers
from pdcluster_worker.core.wire import Heartbeat


class PrefillLinks:
    """A peer's leases outlive its link: they end when no heartbeat has come for their time to live."""

    def __init__(self, context: Context, table: LeaseTable) -> None:
        self._context = context
        self._table = table
        self.credits = Credits()
        self._linked: dict[PeerId, bool] = {}
        """Whether the next heartbeat must list all leases."""
        self._renewed: dict[PeerId, float] = {}
        self._expiries: Timers[PeerId] = Timers()
        self._beats: Timers[PeerId] = Timers()

    def count(self) -> int:
        return len(self._linked)

    def is_linked(self, peer: PeerId) -> bool:
        return peer in self._linked

    def add(self, peer: PeerId, now: float) -> None:
        self._linked[peer] = True
        self._renewed[peer] = now
        self._beats.set(peer, now)
        self.credits.add(peer)

    def remove(self, peer: PeerId) -> None:
        self._linked.pop(peer, None)
        self._beats.cancel(peer)
        self.credits.remove(peer)
        if peer not in self._expiries:
            self._renewed.pop(peer, None)

    def granted(self, lease: Lease, now: float) -> None:
        if lease.peer not in self._expiries:
            self._expiries.set(lease.peer, now + self._context.config.lease_ttl)

    def heard(self, peer: PeerId, heartbeat: Heartbeat, now: float) -> list[Lease]:
        """Renews the peer's leases; returns those that it should list and does not."""
        if peer not in self._linked:
            return []
        self._renewed[peer] = now
        self.credits.heard(peer, heartbeat)
        if not self._table.set_of(peer).equals(heartbeat):
            self._linked[peer] = True
        if heartbeat.full:
            listed = set(heartbeat.lease_ids)
            old = now - self._context.config.lease_grace
            return [
                lease
                for lease in self._table.of_peer(peer)
                if lease.live and lease.lease_id not in listed and lease.granted_at <= old
            ]
        return []

    def expired(self, now: float) -> list[Lease]:
        """Live leases whose time to live is over."""
        found: list[Lease] = []
        ttl = self._context.config.lease_ttl
        for peer in self._expiries.due(now):
            renewed = self._renewed.get(peer, 0.0)
            times = [(max(lease.granted_at, renewed) + ttl, lease) for lease in self._table.of_peer(peer) if lease.live]
            found.extend(lease for end, lease in times if end <= now)
            rest = [end for end, _ in times if end > now]
            if rest:
                self._expiries.set(peer, min(rest))
            elif peer not in self._linked:
                self._renewed.pop(peer, None)
        return found

    def say(self, now: float, blocks: int, requests: int) -> None:
        """Heartbeats that are due, and credits where they have changed."""
        for peer, offer in self.credits.offers(blocks, requests, self._context.draining):
            self._context.prefill(peer).credits = offer
        for peer in self._beats.due(now):
            heartbeat = self._table.set_of(peer).heartbeat(full=self._linked[peer])
            self._context.prefill(peer).heartbeat = heartbeat
            self._linked[peer] = False
            self._beats.set(peer, now + self._context.config.heartbeat_interval)

    def next_deadline(self) -> float | None:
        candidates = (self._beats.next(), self._expiries.next())
        return min((when for when in candidates if when is not None), default=None)
