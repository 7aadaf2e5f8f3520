"""What happens on the links to decode workers apart from requests: handshakes, heartbeats, credits, loss.

Written by the prefill role.
"""

from typing import Protocol

from pdcluster_worker.core.binding import Binding
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.decode_links import DecodeLink
from pdcluster_worker.core.effects import WritesClosedOut
from pdcluster_worker.core.events import CreditsChanged, DecodeHeartbeat, DecodeLinked, DecodeLost
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.job import HeldLease, Job
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.timers import Timers
from pdcluster_worker.core.wire import Heartbeat


class Handover(Protocol):
    def lease_lost(self, job: Job, now: float, reason: str, *, aborted: bool = False) -> None: ...

    def send_commit(self, job: Job, lease: HeldLease) -> None: ...


class DecodePeers:
    def __init__(self, context: Context, links: dict[PeerId, DecodeLink], binding: Binding, handover: Handover) -> None:
        self._context = context
        self._links = links
        self._binding = binding
        self._handover = handover
        self._beats: Timers[PeerId] = Timers()
        self._graces: Timers[PeerId] = Timers()
        """Links that broke: when their leases are no longer counted on."""

    def largest_pool(self) -> int | None:
        """In blocks; None while nobody is linked."""
        return max((link.pool_blocks for link in self._links.values() if link.linked), default=None)

    def linked(self, event: DecodeLinked, now: float) -> None:
        link = self._links.get(event.peer)
        if link is None:
            link = self._links[event.peer] = DecodeLink(event.peer, self._context.config, now)
        self._binding.lost(link, now)
        link.open(event.pool_blocks, now)
        self._graces.cancel(event.peer)
        self._beats.set(event.peer, now)
        for job in list(link.jobs.values()):
            if job.state is RequestState.COMMITTING and job.lease is not None:
                self._handover.send_commit(job, job.lease)

    def lost(self, event: DecodeLost, now: float) -> None:
        """Unstarted requests go elsewhere at once; those whose KV is on its way wait a moment for the link."""
        link = self._links.get(event.peer)
        if link is None or not link.linked:
            return
        link.linked = False
        self._beats.cancel(event.peer)
        self._graces.set(event.peer, now + self._context.config.relink_grace)
        self._binding.lost(link, now)
        for job in [job for job in link.jobs.values() if job.state is RequestState.WAITING]:
            self._handover.lease_lost(job, now, "link lost")

    def credits_changed(self, event: CreditsChanged, now: float) -> None:
        link = self._links.get(event.peer)
        if link is not None:
            link.set_credits(event, now)

    def heartbeat(self, event: DecodeHeartbeat, now: float) -> None:
        link = self._links.get(event.peer)
        if link is None:
            return
        link.heard(now)
        if not link.leases.equals(event.heartbeat):
            link.send_full = True
        if event.heartbeat.full:
            self._compare(link, event.heartbeat, now)

    def expire(self, now: float) -> None:
        for peer in self._graces.due(now):
            link = self._links[peer]
            for job in list(link.jobs.values()):
                self._handover.lease_lost(job, now, "link lost")
            if not len(link.leases):
                del self._links[peer]
            else:
                self._graces.set(peer, now + self._context.config.lease_ttl)

    def say(self, now: float) -> None:
        """Heartbeats that are due, and at once to who does not know yet that requests wait."""
        due = self._beats.due(now)
        waiting = self._binding.demand_requests
        if waiting:
            due.extend(peer for peer, link in self._links.items() if link.linked and not link.told_demand)
        for peer in dict.fromkeys(due):
            self._links[peer].fade(now)
            heartbeat = self._links[peer].heartbeat(self._binding.demand_blocks, waiting)
            self._context.decode(peer).heartbeat = heartbeat
            self._beats.set(peer, now + self._context.config.heartbeat_interval)

    def next_deadline(self) -> float | None:
        candidates = (self._beats.next(), self._graces.next())
        return min((when for when in candidates if when is not None), default=None)

    def _compare(self, link: DecodeLink, heartbeat: Heartbeat, now: float) -> None:
        """Leases that it does not list have ended; those that we do not hold are never going to be written."""
        listed = set(heartbeat.lease_ids)
        old = now - self._context.config.lease_grace
        for lease_id, job in list(link.jobs.items()):
            lease = job.lease
            settled = lease is not None and lease.granted_at <= old and job.state is not RequestState.COMMITTING
            if settled and lease_id not in listed:
                self._handover.lease_lost(job, now, "the decode worker does not hold it")
        unknown = [LeaseId(lease) for lease in heartbeat.lease_ids if LeaseId(lease) not in link.leases]
        for unknown_id in unknown if link.linked else ():
            link.close_lease(unknown_id)
            # How its writes ended is forgotten, so they count as failed.
            closed = WritesClosedOut(lease=unknown_id, epoch=0, write_failed=True)
            self._context.decode(link.peer).writes_closed.append(closed)
