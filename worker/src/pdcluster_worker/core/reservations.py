"""How a decode worker answers Reserve: with a lease, a place in line, or a reason. Written by the decode role."""

from collections import OrderedDict
from collections.abc import Callable

from pdcluster_worker.core.blocks import Holder
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.effects import CommittedOut, GrantOut, RefuseOut
from pdcluster_worker.core.events import ReserveAsked
from pdcluster_worker.core.hashing import HASH_BYTES
from pdcluster_worker.core.ids import PeerId, RequestId, RequestKey
from pdcluster_worker.core.leases import Lease, LeaseTable
from pdcluster_worker.core.prefill_links import PrefillLinks
from pdcluster_worker.core.recent import Recent
from pdcluster_worker.core.scheduler import Scheduler
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.timers import Timers
from pdcluster_worker.core.wire import RefuseReason

HEADROOM = 50
"""At least one block in so many stays out of credit while anything is held, so that running requests can grow."""


class Reservations:
    """Every Reserve gets one final answer, Grant or Refuse; with `queue` it may come later."""

    def __init__(
        self,
        context: Context,
        table: LeaseTable,
        scheduler: Scheduler,
        links: PrefillLinks,
        end_lease: Callable[[Lease, str], None],
    ) -> None:
        config = context.config
        self._context = context
        self._table = table
        self._scheduler = scheduler
        self._links = links
        self._end_lease = end_lease
        self._queue: OrderedDict[RequestKey, ReserveAsked] = OrderedDict()
        self._deadlines: Timers[RequestKey] = Timers()
        self._set_aside = 0
        self._epochs: Recent[RequestId, int] = Recent(2 * config.lease_ttl)
        self._max_requests = config.max_running_requests + max(1, config.max_running_requests // 4)

    def asked(self, event: ReserveAsked, now: float) -> None:
        """Answer now, or put the request in line."""
        if not event.queue:
            self._links.credits.used(event.peer, event.blocks)
        reason = self._refusal(event, now)
        if reason is not None:
            self._refuse(event.peer, event.key, reason)
            return
        if self._answered_before(event):
            return
        self._epochs.put(event.key.request_id, event.key.epoch)
        if self._grant(event, self._set_aside, now):
            return
        if not event.queue:
            self._refuse(event.peer, event.key, RefuseReason.NO_CAPACITY)
            return
        self._queue[event.key] = event
        self._set_aside += event.blocks
        self._deadlines.set(event.key, event.deadline)
        self._context.prefill(event.peer).queued.append(event.key)

    def serve(self, now: float) -> None:
        """Give freed blocks to those in line, first come first served."""
        self._epochs.expire(now)
        for key in self._deadlines.due(now):
            self.refuse_queued(key)
        if self._context.draining or self._context.broken:
            for key in list(self._queue):
                self.refuse_queued(key, RefuseReason.DRAINING)
        while self._queue:
            key, event = next(iter(self._queue.items()))
            if not self._grant(event, 0, now):
                break
            self._leave_line(key)

    def cancel(self, peer: PeerId, key: RequestKey) -> None:
        """The prefill side no longer wants its place in line."""
        event = self._queue.get(key)
        if event is not None and event.peer == peer:
            self.refuse_queued(key)

    def refuse_queued(self, key: RequestKey, reason: RefuseReason = RefuseReason.NO_CAPACITY) -> None:
        event = self._queue.get(key)
        if event is not None:
            self._leave_line(key)
            self._refuse(event.peer, key, reason)

    def drop_peer(self, peer: PeerId) -> None:
        """The link is gone, and with it all places in line."""
        for key in [key for key, event in self._queue.items() if event.peer == peer]:
            self._leave_line(key)

    def room(self) -> tuple[int, int]:
        """Blocks and requests to give out as credit."""
        if self._context.draining or self._context.broken:
            return 0, 0
        config = self._context.config
        holding = self._scheduler.running + self._scheduler.waiting
        headroom = max(holding, -(-config.num_blocks // HEADROOM)) if holding or self._table.live_count else 0
        blocks = self._context.pool.available - headroom - self._set_aside - self._scheduler.missing_blocks()
        return max(blocks, 0), max(self._free_requests() - len(self._queue), 0)

    def next_deadline(self) -> float | None:
        return self._deadlines.next()

    def is_empty(self) -> bool:
        return not self._queue

    def _free_requests(self) -> int:
        held = self._scheduler.running + self._scheduler.waiting + self._table.live_count
        return self._max_requests - held

    def _refusal(self, event: ReserveAsked, now: float) -> RefuseReason | None:
        """Why the request cannot be reserved here at all, or not now."""
        config = self._context.config
        needed = config.blocks_for(event.tokens)
        if self._is_stale(event.key):
            return RefuseReason.STALE_EPOCH
        if len(event.block_hashes) % HASH_BYTES or len(event.block_hashes) // HASH_BYTES > needed:
            return RefuseReason.INVALID
        if event.tokens < 1 or not needed <= event.blocks <= needed + 1:
            return RefuseReason.INVALID
        if event.blocks > config.num_blocks:
            return RefuseReason.TOO_LARGE
        known = self._context.jobs.get(event.key.request_id) or self._table.live(event.key.request_id)
        leaving = self._context.draining or self._context.broken
        if leaving and (known is None or known.key != event.key):
            return RefuseReason.DRAINING
        return RefuseReason.NO_CAPACITY if event.deadline <= now else None

    def _is_stale(self, key: RequestKey) -> bool:
        job = self._context.jobs.get(key.request_id)
        lease = self._table.live(key.request_id)
        latest = max(
            self._epochs.get(key.request_id) or 0,
            job.key.epoch if job is not None else 0,
            lease.key.epoch if lease is not None else 0,
        )
        return key.epoch < latest

    def _answered_before(self, event: ReserveAsked) -> bool:
        """A duplicate gets the same answer; what an older epoch or another worker held for the request ends."""
        job = self._context.jobs.get(event.key.request_id)
        if job is not None and job.key == event.key and job.state is not RequestState.FAILED:
            self._context.prefill(event.peer).committed.append(CommittedOut(key=job.key, lease=job.lease_id))
            return True
        for key in [key for key in self._queue if key.request_id == event.key.request_id]:
            self._leave_line(key)
        lease = self._table.live(event.key.request_id)
        if lease is None:
            return False
        if lease.key == event.key and lease.peer == event.peer and lease.tokens == event.tokens:
            self._say_grant(lease)
            return True
        self._end_lease(lease, "superseded")
        return False

    def _grant(self, event: ReserveAsked, set_aside: int, now: float) -> bool:
        """All or nothing. A matched prefix is referenced, never written."""
        pool = self._context.pool
        matched = pool.match(event.block_hashes, event.tokens // self._context.config.block_size)
        needed = event.blocks - len(matched)
        spare = set_aside + self._scheduler.missing_blocks()
        blocks = None
        if self._free_requests() > 0 and pool.available >= needed + spare:
            blocks = pool.allocate(needed, Holder.LEASED)
        if blocks is None:
            pool.release(matched)
            return False
        lease_id = self._table.next_id()
        lease = Lease(lease_id, event.key, event.peer, event.tokens, event.block_hashes, matched, blocks, now)
        self._table.add(lease)
        self._links.granted(lease, now)
        self._say_grant(lease)
        return True

    def _say_grant(self, lease: Lease) -> None:
        config = self._context.config
        block_ids = (lease.matched + lease.blocks)[: config.blocks_for(lease.tokens)]
        self._context.prefill(lease.peer).grants.append(
            GrantOut(
                key=lease.key,
                lease=lease.lease_id,
                ttl=config.lease_ttl,
                matched_blocks=len(lease.matched),
                block_ids=tuple(block_ids),
            )
        )

    def _refuse(self, peer: PeerId, key: RequestKey, reason: RefuseReason) -> None:
        if self._links.is_linked(peer):
            self._context.prefill(peer).refusals.append(RefuseOut(key=key, reason=reason))

    def _leave_line(self, key: RequestKey) -> None:
        event = self._queue.pop(key)
        self._set_aside -= event.blocks
        self._deadlines.cancel(key)
