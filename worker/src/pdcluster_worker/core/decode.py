"""The decode role: reserves blocks for prefill workers, takes over what they commit, and generates.

What it holds for peers is in the lease table, the queue of reservations and the credits; all of it is written
here, by the engine loop thread.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pdcluster_worker.core import events
from pdcluster_worker.core.attach import WaitingAttaches
from pdcluster_worker.core.commits import accept_commit
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.effects import LeaseLostOut
from pdcluster_worker.core.ids import PeerId, RequestKey
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.leases import Lease, LeaseTable
from pdcluster_worker.core.prefill_links import PrefillLinks
from pdcluster_worker.core.reservations import Reservations
from pdcluster_worker.core.roles import WorkerRole
from pdcluster_worker.core.wire import FailureCode, Heartbeat


class DecodeRole(WorkerRole):
    """Prompts come only through commits."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.table = LeaseTable(context.pool)
        self.links = PrefillLinks(context, self.table)
        self.attaches = WaitingAttaches(self.streams)
        self.reservations = Reservations(context, self.table, self.scheduler, self.links, self.end_lease)
        self._fences = 0
        self._handlers: dict[type[events.Event], Callable[[Any, float], None]] = {
            events.PrefillLinked: self._linked,
            events.PrefillLost: self._lost,
            events.PrefillDied: self._died,
            events.ReserveAsked: self._reserve_asked,
            events.CommitAsked: self._commit_asked,
            events.Released: self._released,
            events.WritesClosed: self._writes_closed,
            events.PrefillHeartbeat: self._heartbeat,
            events.FenceDrained: lambda event, now: self.table.fence_drained(event.fence),
        }

    def handle(self, event: events.Event, now: float) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now)

    def end_lease(self, lease: Lease, reason: str, *, tell: bool = True) -> None:
        """The lease ends here; its sender learns of it unless it asked for it."""
        self.table.end(lease)
        self.attaches.drop(lease.key)
        if tell and self.links.is_linked(lease.peer):
            self.context.prefill(lease.peer).leases_lost.append(
                LeaseLostOut(lease=lease.lease_id, key=lease.key, reason=reason)
            )

    # --- links --------------------------------------------------------------------------------------

    def _linked(self, event: events.PrefillLinked, now: float) -> None:
        self.links.add(event.peer, now)

    def _lost(self, event: events.PrefillLost, now: float) -> None:
        self.links.remove(event.peer)
        self.reservations.drop_peer(event.peer)

    def _died(self, event: events.PrefillDied, now: float) -> None:
        """Its writes have all been issued, so a fence from now on proves that they have landed."""
        self._lost(events.PrefillLost(peer=event.peer), now)
        for lease in self.table.of_peer(event.peer):
            if lease.live:
                self.end_lease(lease, "the prefill worker died")
        for lease in self.table.of_peer(event.peer):
            self._fence(lease)

    def _heartbeat(self, event: events.PrefillHeartbeat, now: float) -> None:
        for lease in self.links.heard(event.peer, event.heartbeat, now):
            self.end_lease(lease, "the prefill worker does not hold it")

    # --- leases -------------------------------------------------------------------------------------

    def _reserve_asked(self, event: events.ReserveAsked, now: float) -> None:
        if not self.links.is_linked(event.peer):
            return
        job = self.context.jobs.get(event.key.request_id)
        if job is not None and job.key.epoch < event.key.epoch:
            self.intake.supersede(job, now)
        self.reservations.asked(event, now)

    def _commit_asked(self, event: events.CommitAsked, now: float) -> None:
        if not self.links.is_linked(event.peer):
            return
        job = accept_commit(self, event, now)
        if job is None:
            return
        attach = self.attaches.take(job.key)
        if attach is not None and self.streams.is_open(attach.stream):
            self.intake.listen(job, attach.stream, attach.handle, attach.next_index)
        elif job.stream is None:
            self.intake.await_attach(job, now + self.context.config.attach_timeout)

    def _released(self, event: events.Released, now: float) -> None:
        """The prefill side gives up: a queued reservation, a lease, or with `aborted` even a committed request."""
        self.reservations.cancel(event.peer, event.key)
        lease = self.table.get(event.lease) if event.lease else self.table.live(event.key.request_id)
        if lease is not None and lease.peer == event.peer and lease.key == event.key:
            if event.writes_closed and not event.write_failed:
                self.table.close_writes(lease)
            if lease.live:
                self.end_lease(lease, "released", tell=False)
            if event.writes_closed and event.write_failed:
                self._fence(lease)
        job = self.context.jobs.get(event.key.request_id)
        if event.aborted and job is not None and job.key == event.key and event.lease in (0, job.lease_id):
            self.endings.fail(job, FailureCode.ABORTED, "aborted by the prefill worker", now)

    def _writes_closed(self, event: events.WritesClosed, now: float) -> None:
        lease = self.table.get(event.lease)
        if lease is None or lease.peer != event.peer:
            return
        if event.write_failed:
            if lease.live:
                self.end_lease(lease, "its writes failed")
            self._fence(lease)
            return
        self.table.close_writes(lease)
        if lease.live:  # its Release was lost with a link; asked for again, the request gets blocks that count as open
            self.end_lease(lease, "the prefill worker gave it up", tell=False)

    def _fence(self, lease: Lease) -> None:
        """Frees an ended lease once all that was on its way has landed. One fence serves all that this turn needs."""
        if lease.live or lease.fence or self.table.get(lease.lease_id) is None:
            return
        fences = self.context.outbox.fences
        if not fences:
            self._fences += 1
            fences.append(self._fences)
        lease.fence = fences[-1]

    # --- requests -----------------------------------------------------------------------------------

    def prepared(self, job: Job, now: float) -> None:
        self.endings.fail(job, FailureCode.INTERNAL, "a decode worker takes no prompts", now)

    def preempted(self, job: Job, now: float) -> None:
        if job.preemptions >= self.context.config.max_preemptions:
            self.endings.fail(job, FailureCode.PREEMPTED, "preempted again: no room to go on here", now)

    def attach_elsewhere(self, event: events.Attached, now: float) -> bool:
        lease = self.table.live(event.key.request_id)
        if lease is None or lease.key != event.key or event.prefill_lost:
            return False
        self.streams.open(event.stream)
        self.attaches.add(event)
        return True

    def abort_elsewhere(self, key: RequestKey, now: float) -> None:
        self.reservations.refuse_queued(key)
        lease = self.table.live(key.request_id)
        if lease is not None and lease.key == key:
            self.attaches.forget(key)
            self.end_lease(lease, "aborted by the router")

    # --- the whole ----------------------------------------------------------------------------------

    def before_plans(self, now: float) -> None:
        for lease in self.links.expired(now):
            self.end_lease(lease, "no heartbeat for its time to live")

    def after_plans(self, now: float) -> None:
        self.reservations.serve(now)
        self.links.say(now, *self.reservations.room())

    def next_deadline(self) -> float | None:
        candidates = (self.links.next_deadline(), self.reservations.next_deadline())
        return min((when for when in candidates if when is not None), default=None)

    def executor_lost(self, reason: str, now: float) -> None:
        for lease in self.table.all_live():
            self.end_lease(lease, reason)
        self.table.memory_gone()

    def drain_expired(self, now: float) -> None:
        for lease in self.table.all_live():
            self.end_lease(lease, "the decode worker had to leave")

    def lease_set(self, peer: PeerId) -> Heartbeat:
        return self.table.set_of(peer).heartbeat(full=True)

    def leases(self) -> dict[str, int]:
        return {"live": self.table.live_count, "quarantined": self.table.quarantined_count, "held": 0}

    def kv_peers(self) -> int:
        return self.links.count()

    def owned_blocks(self) -> Iterator[Sequence[int]]:
        return self.table.owned_blocks()

    def writable_blocks(self) -> Iterator[Sequence[int]]:
        return self.table.writable_blocks()

    def is_empty(self) -> bool:
        return not len(self.table) and self.reservations.is_empty()

    def may_leave(self) -> bool:
        return not self.table.live_count and self.reservations.is_empty()
