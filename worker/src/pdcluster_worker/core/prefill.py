"""The prefill role: computes prompts, moves their KV into leased blocks and hands the requests over.

A request takes no block here before it has its lease, and gives none back before the decode worker has
committed. If anything fails in between, it is leased elsewhere from the KV that is still held.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pdcluster_worker.core import events
from pdcluster_worker.core.binding import Binding
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.decode_links import DecodeLink
from pdcluster_worker.core.decode_peers import DecodePeers
from pdcluster_worker.core.effects import CommitOut, ReleaseOut, WritesClosedOut
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestKey
from pdcluster_worker.core.job import HeldLease, Job
from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.core.recent import Recent
from pdcluster_worker.core.roles import WorkerRole
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.transfers import Transfers
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RefuseReason

RETRY_AFTER = 1.0


class PrefillRole(WorkerRole):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.links: dict[PeerId, DecodeLink] = {}
        self.transfers = Transfers(context)
        self.binding = Binding(context, self.links, self._no_decode)
        self.peers = DecodePeers(context, self.links, self.binding, self)
        self._tombstones: Recent[RequestKey, tuple[PeerId, LeaseId]] = Recent(context.config.lease_ttl)
        self._handlers: dict[type[events.Event], Callable[[Any, float], None]] = {
            events.DecodeLinked: self.peers.linked,
            events.DecodeLost: self.peers.lost,
            events.DecodeHeartbeat: self.peers.heartbeat,
            events.CreditsChanged: self.peers.credits_changed,
            events.Granted: self._granted,
            events.QueuedThere: self._queued_there,
            events.Refused: self._refused,
            events.CommitAccepted: self._commit_accepted,
            events.LeaseEnded: self._lease_ended,
            events.TransferFinished: self._transfer_finished,
        }

    def handle(self, event: events.Event, now: float) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now)

    # --- a request's life ---------------------------------------------------------------------------

    def prepared(self, job: Job, now: float) -> None:
        config = self.context.config
        tokens = job.request.num_tokens
        job.final_position = tokens
        job.total_blocks = config.blocks_for(max(tokens, job.limit - 1))
        job.reserve_blocks = min(config.blocks_for(tokens) + 1, job.total_blocks)
        largest = self.peers.largest_pool()
        if largest is not None and job.total_blocks > largest:
            self.endings.fail(job, FailureCode.INVALID_ARGUMENT, self._too_large_there(job, largest), now)
            return
        job.move(RequestState.QUEUED)
        self.scheduler.set_pending(job, self.uncached_tokens(job))
        self.binding.enqueue(job, now)

    def admitted(self, job: Job, now: float) -> TransferSpec | None:
        super().admitted(job, now)
        self.binding.started(job)
        return self.transfers.start(job, job.lease, now) if job.lease is not None else None

    def token_known(self, job: Job, now: float) -> None:
        """The first token: the prompt is computed, what is left is to hand it over."""
        lease = job.lease
        if lease is None:
            job.move(RequestState.QUEUED)
            self.binding.enqueue(job, now, first=True)
            return
        job.move(RequestState.TRANSFERRING)
        if lease.transferred:
            self._commit(job, lease, now)

    def timed_out(self, job: Job, now: float) -> None:
        self.context.set_timer(job, job.request.deadline)
        if job.state is RequestState.RESERVING:
            self.binding.timed_out(job, now)
        elif job.state is RequestState.COMMITTING:
            self.lease_lost(job, now, "commit timed out", aborted=True)

    def let_go(self, job: Job, now: float) -> None:
        if job.state is RequestState.HANDED_OFF:
            return
        peer = job.reserving_at or (job.lease.peer if job.lease is not None else None)
        if peer is not None:
            lease_id = job.lease.lease_id if job.lease is not None else LeaseId(0)
            self._tombstones.put(job.key, (peer, lease_id))
        self.binding.leave(job, aborted=True)
        self._give_up_lease(job, aborted=True)

    def _too_large_there(self, job: Job, largest: int) -> str:
        wanted = max(job.request.num_tokens, job.limit - 1)
        capacity = largest * self.context.config.block_size
        return f"prompt and max_tokens: {wanted} tokens; the KV cache of a decode worker holds {capacity}"

    def _no_decode(self, job: Job, reason: str, now: float) -> None:
        self.context.observe("reserve_seconds", now - job.times.queued, "failed")
        self.endings.fail(job, FailureCode.NO_DECODE, reason, now, retry_after=RETRY_AFTER)

    # --- leases -------------------------------------------------------------------------------------

    def _granted(self, event: events.Granted, now: float) -> None:
        link = self.links.get(event.peer)
        if link is None:
            return
        job = link.reserving.get(event.key)
        known = event.lease in link.leases or link.ended.get(event.lease) is not None
        if job is None or known:
            self._unwanted(link, event, known, now)
            return
        self.binding.answered(job, link, now)
        link.last_granted = now
        link.leases.add(event.lease)
        link.jobs[event.lease] = job
        job.lease = HeldLease(event.lease, event.peer, event.matched_blocks, event.block_ids, now)
        if len(event.block_ids) != self.context.config.blocks_for(job.request.num_tokens):
            self._give_up_lease(job, aborted=False)
            self.binding.retry(job, now, "refused", "INVALID")
            return
        self._leased(job, job.lease, now)

    def _leased(self, job: Job, lease: HeldLease, now: float) -> None:
        job.times.leased = now
        self.context.observe("reserve_attempts_total", 1.0, "granted", "")
        self.context.observe("reserve_seconds", now - job.times.enqueued, "granted")
        self.context.set_timer(job, job.request.deadline)
        self.streams.reserved(job)
        if not job.kv_complete:
            job.move(RequestState.WAITING)
            self.scheduler.add(job)
            return
        job.move(RequestState.TRANSFERRING)
        transfer = self.transfers.start(job, lease, now)
        if transfer is not None:
            self.context.outbox.transfers.append(transfer)
        else:
            self._commit(job, lease, now)

    def _unwanted(self, link: DecodeLink, event: events.Granted, known: bool, now: float) -> None:
        """A duplicate, or an answer that comes too late: nothing is or will be written there but what is known."""
        link.heard(now)
        if not known:
            link.answered(event.key, now)
        if event.lease in link.leases:
            return
        link.close_lease(event.lease)
        if link.linked:
            aborted = event.key.request_id not in self.context.jobs
            # How the writes of a lease that has ended went is forgotten, so they count as failed.
            release = ReleaseOut(
                key=event.key, lease=event.lease, writes_closed=True, aborted=aborted, write_failed=known
            )
            self.context.decode(link.peer).releases.append(release)

    def _queued_there(self, event: events.QueuedThere, now: float) -> None:
        link = self.links.get(event.peer)
        if link is None:
            return
        link.heard(now)
        job = link.reserving.get(event.key)
        if job is not None and job.parked:
            self.binding.queued_there(job, now)

    def _refused(self, event: events.Refused, now: float) -> None:
        link = self.links.get(event.peer)
        if link is None:
            return
        if event.lease:
            self._commit_refused(link, event, now)
            return
        job = link.reserving.get(event.key)
        if job is None:
            link.answered(event.key, now)
            return
        self.binding.answered(job, link, now)
        costs = False
        if event.reason is RefuseReason.NO_CAPACITY:
            self.binding.block(link, event.retry_after, now)
        elif event.reason is RefuseReason.DRAINING:
            link.draining = True
        elif event.reason is RefuseReason.TOO_LARGE:
            job.too_large_at |= {link.peer}
            if all(peer in job.too_large_at for peer, other in self.links.items() if other.linked):
                reason = self._too_large_there(job, link.pool_blocks)
                self.endings.fail(job, FailureCode.INVALID_ARGUMENT, reason, now)
                return
        elif event.reason is RefuseReason.STALE_EPOCH:
            self.endings.fail(job, FailureCode.ABORTED, "superseded by a newer epoch", now)
            return
        else:
            costs = True
        self.binding.retry(job, now, "refused", event.reason.name, costs=costs)

    def _lease_ended(self, event: events.LeaseEnded, now: float) -> None:
        link = self.links.get(event.peer)
        job = link.jobs.get(event.lease) if link is not None else None
        if job is not None:
            self.lease_lost(job, now, event.reason)
        elif link is not None:
            link.ended.put(event.lease, True)

    def lease_lost(self, job: Job, now: float, reason: str, *, aborted: bool = False, yielded: bool = False) -> None:
        """The decode worker, or the way to it, is no good any more: hand over elsewhere, from the KV held."""
        self._give_up_lease(job, aborted=aborted)
        if job.state is RequestState.RUNNING:
            job.attempts += 1
            return
        if job.state is RequestState.WAITING:
            pending = job.pending_tokens
            self.scheduler.remove(job)
            self.scheduler.set_pending(job, pending)
        self.binding.retry(job, now, "lost", reason, costs=not yielded, first=not yielded)

    def _give_up_lease(self, job: Job, *, aborted: bool) -> None:
        """Our side of a lease's end; WritesClosed follows when the transfer is final, if it is not yet."""
        lease, job.lease = job.lease, None
        if lease is None:
            return
        link = self.links[lease.peer]
        outstanding = self.transfers.cancel(lease)
        link.jobs.pop(lease.lease_id, None)
        if not outstanding:
            link.close_lease(lease.lease_id)
        if link.linked:
            self.context.decode(link.peer).releases.append(
                ReleaseOut(
                    key=job.key,
                    lease=lease.lease_id,
                    writes_closed=not outstanding,
                    aborted=aborted,
                    write_failed=lease.write_failed,
                )
            )

    # --- transfer and commit ------------------------------------------------------------------------

    def _transfer_finished(self, event: events.TransferFinished, now: float) -> None:
        transfer = self.transfers.finished(event)
        if transfer is None:
            return
        job, lease = transfer.job, transfer.lease
        lease.write_failed = transfer.write_failed
        self.context.observe("kv_transfer_seconds", transfer.seconds)
        self.context.observe("kv_transfer_bytes_total", float(transfer.bytes))
        if job.lease is not lease:
            self._close_writes(job, lease)
        elif not transfer.ok:
            self.lease_lost(job, now, f"transfer failed: {transfer.reason}")
        else:
            lease.transferred = True
            job.transferred_bytes += transfer.bytes
            job.times.transfer += transfer.seconds
            if job.state is RequestState.TRANSFERRING:
                self._commit(job, lease, now)
        if job.ended:
            self.scheduler.free_blocks(job)

    def _close_writes(self, job: Job, lease: HeldLease) -> None:
        """A lease that we gave up earlier has no write outstanding any more."""
        link = self.links.get(lease.peer)
        if link is None:
            return
        link.close_lease(lease.lease_id)
        if link.linked:
            closed = WritesClosedOut(lease=lease.lease_id, epoch=job.key.epoch, write_failed=lease.write_failed)
            self.context.decode(link.peer).writes_closed.append(closed)

    def _commit(self, job: Job, lease: HeldLease, now: float) -> None:
        job.move(RequestState.COMMITTING)
        self.context.set_timer(job, now + self.context.config.commit_timeout)
        self.send_commit(job, lease)

    def send_commit(self, job: Job, lease: HeldLease) -> None:
        """Harmless to repeat; on a broken link it is sent again when the link is back."""
        if self.links[lease.peer].linked:
            self.context.decode(lease.peer).commits.append(
                CommitOut(
                    lease=lease.lease_id,
                    request=job.request,
                    outputs=job.output_tokens(),
                    completed_ranks=self.context.config.ranks,
                    transferred_bytes=job.transferred_bytes,
                )
            )

    def _commit_accepted(self, event: events.CommitAccepted, now: float) -> None:
        link = self.links.get(event.peer)
        if link is None:
            return
        link.heard(now)
        job = link.reserving.get(event.key)
        if job is not None and job.kv_complete:
            # It had committed before we asked again: its first answer was lost.
            self.binding.answered(job, link, now)
            self._hand_off(job, link, event.lease, now)
            return
        job = link.jobs.get(event.lease)
        if job is not None and job.key == event.key and job.state is RequestState.COMMITTING:
            job.lease = None
            self._hand_off(job, link, event.lease, now)

    def _hand_off(self, job: Job, link: DecodeLink, lease: LeaseId, now: float) -> None:
        link.close_lease(lease)
        self._tombstones.put(job.key, (link.peer, lease))
        self.endings.hand_off(job, link.peer, now)

    def _commit_refused(self, link: DecodeLink, event: events.Refused, now: float) -> None:
        link.heard(now)
        job = link.jobs.get(event.lease)
        if job is not None and job.state is RequestState.COMMITTING:
            self.lease_lost(job, now, f"commit refused: {event.reason.name}")

    # --- requests that are gone ---------------------------------------------------------------------

    def abort_elsewhere(self, key: RequestKey, now: float) -> None:
        """The tombstone knows where the request went."""
        tombstone = self._tombstones.get(key)
        link = self.links.get(tombstone[0]) if tombstone is not None else None
        if tombstone is not None and link is not None and link.linked:
            lease = tombstone[1]
            release = ReleaseOut(
                key=key, lease=lease, writes_closed=bool(lease) and lease not in link.leases, aborted=True
            )
            self.context.decode(link.peer).releases.append(release)

    # --- the whole ----------------------------------------------------------------------------------

    def before_plans(self, now: float) -> None:
        self._tombstones.expire(now)
        self.peers.expire(now)

    def after_plans(self, now: float) -> None:
        """What has just started makes room in the window, so new requests are bound after that."""
        if not self.context.broken:
            self.binding.bind(now)
            self._yield_lease(now)
        self.peers.say(now)

    def _yield_lease(self, now: float) -> None:
        """Requests that hold blocks here wait for room there, which those hold who wait for blocks here: let one go."""
        job = self.scheduler.stuck() if self.binding.holds_kv_back() else None
        if job is not None and job.lease is not None:
            self.lease_lost(job, now, "yielded", yielded=True)

    def next_deadline(self) -> float | None:
        candidates = (self.binding.next_deadline(), self.peers.next_deadline())
        return min((when for when in candidates if when is not None), default=None)

    def executor_lost(self, reason: str, now: float) -> None:
        for job in self.transfers.executor_gone():
            self.scheduler.free_blocks(job)

    def lease_set(self, peer: PeerId) -> Heartbeat:
        link = self.links.get(peer)
        return link.leases.heartbeat(full=True) if link is not None else Heartbeat(full=True)

    def leases(self) -> dict[str, int]:
        held = sum(len(link.leases) for link in self.links.values())
        return {"live": 0, "quarantined": 0, "held": held}

    def kv_peers(self) -> int:
        return sum(link.linked for link in self.links.values())

    def waiting(self) -> int:
        return self.binding.waiting + self.scheduler.waiting

    def owned_blocks(self) -> Iterator[Sequence[int]]:
        return (job.blocks for job in self.transfers.pinned_after_end())

    def is_empty(self) -> bool:
        return not len(self.transfers)

    def may_leave(self) -> bool:
        return not len(self.transfers)
