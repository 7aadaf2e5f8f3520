"""Late binding: one queue of prepared requests, each sent to a decode worker as soon as one has credit for it.

No thread and no prefill block belongs to a request that waits here. A decode worker that is full, slow or dead
delays no request that another could take. Written by the prefill role.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain, islice

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.decode_links import BLOCKED, DecodeLink
from pdcluster_worker.core.effects import ReleaseOut, ReserveOut
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.timers import Timers

SCAN = 64
"""How far behind a head that does not fit a smaller request is looked for."""
FIRST_PATIENCE = 5.0
"""Seconds in line at one decode worker before another is tried; doubled each time."""


class Binding:
    """`fail` ends a request whose attempts are used up."""

    def __init__(
        self, context: Context, links: dict[PeerId, DecodeLink], fail: Callable[[Job, str, float], None]
    ) -> None:
        self._context = context
        self._links = links
        self._fail = fail
        self._queue: OrderedDict[Job, None] = OrderedDict()
        self._held: OrderedDict[Job, None] = OrderedDict()
        """Those whose KV is held here already: before all others, as they keep blocks from being used."""
        self._parked: Job | None = None
        self._window = 0
        self._reserving = 0
        self._wakes: Timers[PeerId] = Timers()
        self._bound_at = 0.0
        self.demand_blocks = 0

    @property
    def demand_requests(self) -> int:
        return len(self._queue) + len(self._held)

    @property
    def waiting(self) -> int:
        return self.demand_requests + self._reserving

    # --- in and out of the queue --------------------------------------------------------------------

    def enqueue(self, job: Job, now: float, *, first: bool = False) -> None:
        """Wait for credit; `first` for one that has waited before. Its state is QUEUED already."""
        line = self._held if job.kv_complete else self._queue
        line[job] = None
        if first:
            line.move_to_end(job, last=False)
        self.demand_blocks += job.reserve_blocks
        job.times.enqueued = now
        self._context.set_timer(job, job.request.deadline)

    def started(self, job: Job) -> None:
        """It no longer counts as reserved but unstarted."""
        self._window -= job.window_tokens
        job.window_tokens = 0

    def leave(self, job: Job, *, aborted: bool) -> None:
        """Out of the queue, out of every line."""
        self.started(job)
        if job in self._queue or job in self._held:
            self._dequeue(job)
        if job.reserving_at is not None:
            self._withdraw(job, aborted=aborted)

    def answered(self, job: Job, link: DecodeLink, now: float) -> None:
        """The Reserve of the request has its final answer."""
        link.answered(job.key, now)
        self._no_longer_reserving(job)

    def retry(
        self, job: Job, now: float, outcome: str, reason: str = "", *, costs: bool = True, first: bool = True
    ) -> None:
        """Back to the head of the queue, unless this attempt was one too many."""
        self._context.observe("reserve_attempts_total", 1.0, outcome, reason)
        self.started(job)
        job.attempts += costs
        job.move(RequestState.QUEUED)
        if job.attempts >= self._context.config.reserve_attempts:
            self._fail(
                job,
                f"{job.attempts} attempts to hand over to a decode worker failed, the last: {outcome} {reason}",
                now,
            )
        else:
            self.enqueue(job, now, first=first)

    def holds_kv_back(self) -> bool:
        """A request whose KV is held here finds no room anywhere."""
        return bool(self._held) or (self._parked is not None and self._parked.kv_complete)

    def block(self, link: DecodeLink, retry_after: float, now: float) -> None:
        """It had no capacity: leave it alone for a moment."""
        link.blocked_until = now + max(retry_after, BLOCKED)
        self._wakes.set(link.peer, link.blocked_until)

    def queued_there(self, job: Job, now: float) -> None:
        """It is in line: wait with patience, and without the window, since no memory is held."""
        job.patience = 2 * job.patience if job.patience else FIRST_PATIENCE
        self._context.set_timer(job, now + job.patience)

    def timed_out(self, job: Job, now: float) -> None:
        """No answer to the Reserve in time, or no place at the head of that line."""
        link = self._links.get(job.reserving_at) if job.reserving_at is not None else None
        in_line = job.parked and job.patience > 0 and link is not None and link.is_usable(now)
        if link is not None and not in_line:
            link.suspect = True
        self._withdraw(job, aborted=False)
        self.retry(job, now, "timeout", "in line" if in_line else "", costs=not in_line)

    def lost(self, link: DecodeLink, now: float) -> None:
        """The link broke: what was asked on it will not be answered."""
        for job in list(link.reserving.values()):
            link.reserving.pop(job.key)
            self._no_longer_reserving(job)
            self.retry(job, now, "lost")

    # --- binding ------------------------------------------------------------------------------------

    def bind(self, now: float) -> None:
        """Send every request that fits some decode worker's credit, in order, within the window."""
        self._wakes.due(now)
        self._bound_at = now
        while (head := self._head()) is not None:
            links = [link for link in self._links.values() if link.is_usable(now)]
            if not links:
                return
            batch = (
                list(islice(chain(self._held, self._queue), SCAN)) if any(link.free_blocks for link in links) else []
            )
            sent = self._send(batch, links, now)
            if head.reserving_at is None:
                self._park(head, links, now)
            if sent < SCAN:
                return

    def next_deadline(self) -> float | None:
        """When the head of the queue grows old, or a decode worker may be asked again."""
        wake = self._wakes.next()
        head = self._head()
        if head is None or self._parked is not None:
            return wake
        old = head.times.queued + self._context.config.head_age
        if old <= self._bound_at:
            return wake
        return old if wake is None else min(old, wake)

    def _head(self) -> Job | None:
        return next(chain(self._held, self._queue), None)

    def _send(self, batch: list[Job], links: list[DecodeLink], now: float) -> int:
        """Reserve for those that fit. The first that the window has no place for keeps its turn; held KV needs none."""
        sent = 0
        window_open = True
        for job in batch:
            window_open = window_open and self._fits_window(job)
            link = self._best(job, links, now) if window_open or job.kv_complete else None
            if link is not None:
                self._reserve(job, link, queue=False, now=now)
                sent += 1
        return sent

    def _fits_window(self, job: Job) -> bool:
        """Reserve only for what is computed next, so that a backlog here hoards no decode memory."""
        if job.kv_complete or not self._window:
            return True
        return self._window + job.request.num_tokens <= 2 * self._context.config.max_batch_tokens

    def _best(self, job: Job, links: list[DecodeLink], now: float) -> DecodeLink | None:
        """The decode worker with the most credit left of those whose credit fits, a prompt answerer if possible."""
        best = None
        best_score = (False, -1)
        for link in links:
            free = link.free_blocks
            if free >= job.reserve_blocks and self._may_ask(job, link):
                score = (not link.is_slow(now), free)
                if score > best_score:
                    best, best_score = link, score
        return best

    def _may_ask(self, job: Job, link: DecodeLink) -> bool:
        return (
            job.total_blocks <= link.pool_blocks
            and link.peer not in job.too_large_at
            and link.withdrawn.get(job.key) is None
        )

    def _park(self, head: Job, links: list[DecodeLink], now: float) -> None:
        """Send an old head to wait in line at exactly one decode worker, which sets freed blocks aside for it."""
        if self._parked is not None or now < head.times.queued + self._context.config.head_age:
            return
        candidates = [link for link in links if self._may_ask(head, link)]
        if candidates and self._fits_window(head):
            best = max(candidates, key=lambda link: (link.peer != head.last_peer, link.free_blocks, link.last_granted))
            self._reserve(head, best, queue=True, now=now)

    def _reserve(self, job: Job, link: DecodeLink, *, queue: bool, now: float) -> None:
        self._dequeue(job)
        job.move(RequestState.RESERVING)
        job.reserving_at = job.last_peer = link.peer
        job.parked = queue
        self._reserving += 1
        link.reserve(job, not queue, now)
        if queue:
            self._parked = job
        elif not job.kv_complete:
            job.window_tokens = job.request.num_tokens
            self._window += job.window_tokens
        self._context.decode(link.peer).reserves.append(
            ReserveOut(
                key=job.key,
                tokens=job.request.num_tokens,
                blocks=job.reserve_blocks,
                block_hashes=job.hashes,
                deadline=job.request.deadline,
                queue=queue,
            )
        )
        self._context.set_timer(job, now + self._context.config.reserve_timeout)

    def _withdraw(self, job: Job, *, aborted: bool) -> None:
        """The answer is no longer wanted. The grant may be on its way: its lease is closed when it comes."""
        peer = job.reserving_at
        self._no_longer_reserving(job)
        link = self._links.get(peer) if peer is not None else None
        if link is None or not link.linked:
            return
        link.reserving.pop(job.key, None)
        link.withdrawn.put(job.key, True)
        self._context.decode(link.peer).releases.append(
            ReleaseOut(key=job.key, lease=LeaseId(0), writes_closed=False, aborted=aborted)
        )

    def _no_longer_reserving(self, job: Job) -> None:
        if job.reserving_at is None:
            return
        job.reserving_at = None
        self._reserving -= 1
        if self._parked is job:
            self._parked = None
        job.parked = False

    def _dequeue(self, job: Job) -> None:
        del (self._held if job.kv_complete else self._queue)[job]
        self.demand_blocks -= job.reserve_blocks
