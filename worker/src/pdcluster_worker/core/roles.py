"""What the facade asks of a role. The defaults are those of a worker without peers."""

from collections.abc import Iterator, Sequence

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.endings import Endings
from pdcluster_worker.core.events import Attached, Event
from pdcluster_worker.core.ids import PeerId, RequestKey
from pdcluster_worker.core.intake import RequestIntake
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.core.scheduler import Scheduler
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.streams import Streams
from pdcluster_worker.core.wire import Heartbeat


class WorkerRole:
    """Base of the three roles: local behaviour, which the splitwise roles extend."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.streams = Streams(context)
        self.scheduler = Scheduler(context, self)
        self.endings = Endings(context, self.streams, self.scheduler, self)
        self.intake = RequestIntake(context, self.streams, self.endings, self)

    # --- a request's life ---------------------------------------------------------------------------

    def prepared(self, job: Job, now: float) -> None:
        """The request is valid and its blocks are hashed: set it going."""
        job.final_position = job.limit - 1
        job.move(RequestState.WAITING)
        self.scheduler.set_pending(job, self.uncached_tokens(job))
        self.scheduler.add(job)

    def admitted(self, job: Job, now: float) -> TransferSpec | None:
        """The request has slot and blocks; returns the transfer that goes with it."""
        if not job.times.started:
            job.times.started = now
            self.context.observe("prefill_queue_seconds", now - job.times.queued)
        return None

    def preempted(self, job: Job, now: float) -> None:
        """The request lost slot and blocks, and waits again; a role may end it instead."""

    def token_known(self, job: Job, now: float) -> None:
        """A token is out and the request has not ended."""

    def let_go(self, job: Job, now: float) -> None:
        """The request has ended: give back what the role holds for it at peers."""

    def timed_out(self, job: Job, now: float) -> None:
        """The time of the request's present state is up; its deadline is not."""

    # --- requests that are not here -----------------------------------------------------------------

    def attach_elsewhere(self, event: Attached, now: float) -> bool:
        """No such request runs here. True: it is leased, and the attach waits for its commit."""
        return False

    def abort_elsewhere(self, key: RequestKey, now: float) -> None:
        """No such request runs here: drop or forward whatever is left of it."""

    # --- the whole ----------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> None:
        """Events of the role's own links."""

    def before_plans(self, now: float) -> None:
        """Time has passed: expire, bind, grant."""

    def after_plans(self, now: float) -> None:
        """What depends on all that has happened: credits, heartbeats."""

    def executor_lost(self, reason: str, now: float) -> None:
        """All requests have been failed; end what else depends on the executor."""

    def drain_expired(self, now: float) -> None:
        """The drain's deadline has passed: hand back everything."""

    def owned_blocks(self) -> Iterator[Sequence[int]]:
        """Block lists that are referenced by something other than live requests."""
        return iter(())

    def writable_blocks(self) -> Iterator[Sequence[int]]:
        """Block lists that peers may write."""
        return iter(())

    def next_deadline(self) -> float | None:
        return None

    def lease_set(self, peer: PeerId) -> Heartbeat:
        return Heartbeat()

    def leases(self) -> dict[str, int]:
        return {"live": 0, "quarantined": 0, "held": 0}

    def kv_peers(self) -> int:
        return 0

    def waiting(self) -> int:
        """Requests here that have no slot yet."""
        return self.scheduler.waiting

    def is_empty(self) -> bool:
        """Nothing is held for or at peers."""
        return True

    def may_leave(self) -> bool:
        """Nothing is held that a draining worker would wait for."""
        return True

    # --- helpers ------------------------------------------------------------------------------------

    def uncached_tokens(self, job: Job) -> int:
        """Tokens that the request has to compute, as far as the prefix cache tells now."""
        config = self.context.config
        known = job.known_tokens
        matched = self.context.pool.index.match(job.hashes, (known - 1) // config.block_size)
        return known - config.block_size * len(matched)
