"""The facade of the sans-I/O core: events in, one outbox out. Only the engine loop thread calls it.

No threads, sockets, clock or environment: `now` is an argument, in seconds on the caller's monotonic clock.
"""

from collections.abc import Callable
from typing import Any

from pdcluster_worker.core import events, wire
from pdcluster_worker.core.config import CoreConfig, Snapshot
from pdcluster_worker.core.context import Context
from pdcluster_worker.core.decode import DecodeRole
from pdcluster_worker.core.effects import Outbox
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.prefill import PrefillRole
from pdcluster_worker.core.results import deliver, fail_all
from pdcluster_worker.core.roles import WorkerRole
from pdcluster_worker.core.wire import FailureCode, Heartbeat

ROLES: dict[wire.Role, type[WorkerRole]] = {
    wire.Role.PREFILL: PrefillRole,
    wire.Role.DECODE: DecodeRole,
    wire.Role.MIXED: WorkerRole,
}


class Core:
    """A prefill, decode or mixed worker, by `config.role`."""

    def __init__(self, config: CoreConfig, now: float) -> None:
        self._context = Context(config)
        self._role = ROLES[config.role](self._context)
        self._drain_deadline: float | None = None
        intake = self._role.intake
        self._handlers: dict[type[events.Event], Callable[[Any, float], None]] = {
            events.StreamOpened: lambda event, now: self._role.streams.open(event.stream),
            events.StreamClosed: intake.stream_closed,
            events.Submitted: intake.submitted,
            events.Attached: intake.attached,
            events.Aborted: intake.aborted,
            events.Prepared: intake.prepared,
            events.PrepareFailed: intake.prepare_failed,
            events.StepDone: self._step_done,
            events.ExecutorLost: self._executor_lost,
            events.DrainAsked: self._drain_asked,
            events.Resumed: self._resumed,
        }

    def handle(self, event: events.Event, now: float) -> None:
        """Take in one event. What follows from it is in the next `take`."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now)
        else:
            self._role.handle(event, now)

    def take(self, now: float) -> Outbox:
        """Expire what is due, make plans while fewer than `plans_in_flight` are out, return all since the last take."""
        context = self._context
        self._expire(now)
        self._role.before_plans(now)
        scheduler = self._role.scheduler
        while len(scheduler.outstanding) < context.config.plans_in_flight and not context.broken:
            plan = scheduler.make_plan(now)
            if plan is None:
                break
            context.outbox.plans.append(plan)
        self._role.after_plans(now)
        outbox, context.outbox = context.outbox, Outbox()
        outbox.drained = context.draining and not context.jobs and self._role.may_leave()
        return outbox

    def next_deadline(self) -> float | None:
        """When `take` must be called even without an event."""
        context = self._context
        candidates = (
            context.job_timers.next(),
            context.attach_timers.next(),
            self._role.next_deadline(),
            self._drain_deadline,
        )
        return min((when for when in candidates if when is not None), default=None)

    def snapshot(self) -> Snapshot:
        scheduler = self._role.scheduler
        rate = scheduler.tokens_per_second
        return Snapshot(
            requests_waiting=self._role.waiting(),
            requests_running=scheduler.running,
            queued_tokens=scheduler.queued_tokens,
            prefill_tokens_per_second=rate,
            prefill_queue_seconds=scheduler.queued_tokens / rate if rate else 0.0,
            blocks=self._context.pool.counts(),
            leases=self._role.leases(),
            kv_peers=self._role.kv_peers(),
            draining=self._context.draining,
            free_slots=scheduler.free_slots,
        )

    def lease_set(self, peer: PeerId) -> Heartbeat:
        """For the first message of a link: the uncommitted leases of the pair, in full."""
        return self._role.lease_set(peer)

    def is_empty(self) -> bool:
        """No request, lease, transfer or plan is held."""
        return not self._context.jobs and not self._role.scheduler.outstanding and self._role.is_empty()

    def check_integrity(self) -> None:
        """Raises StateError where the books do not balance. For tests and debugging: slow."""
        jobs = self._context.jobs.values()
        owned = [job.blocks for job in jobs if not job.ended]
        self._context.pool.check_integrity([*owned, *self._role.owned_blocks()])

    def may_be_written(self, block: int) -> bool:
        """Whether a lease, live or quarantined, lets a peer write the block. For tests and debugging: slow."""
        return any(block in blocks for blocks in self._role.writable_blocks())

    def _expire(self, now: float) -> None:
        for job in self._context.job_timers.due(now):
            if now >= job.request.deadline:
                self._role.endings.fail(job, FailureCode.DEADLINE, "the request's deadline has passed", now)
            else:
                self._role.timed_out(job, now)
        for job in self._context.attach_timers.due(now):
            self._role.intake.nobody_came(job, now)
        if self._drain_deadline is not None and now >= self._drain_deadline:
            self._drain_deadline = None
            for job in list(self._context.jobs.values()):
                if job.ended:
                    self._role.endings.forget(job)
                else:
                    self._role.endings.fail(job, FailureCode.DRAINING, "the worker had to leave", now)
            self._role.drain_expired(now)

    def _step_done(self, event: events.StepDone, now: float) -> None:
        issued = self._role.scheduler.step_done(event.plan, event.seconds)
        if issued is None:
            return
        self._context.observe("step_seconds", event.seconds, issued.phase)
        deliver(self._role, issued, event.sampled, now)

    def _executor_lost(self, event: events.ExecutorLost, now: float) -> None:
        self._context.broken = reason = event.reason or "the executor died"
        outstanding = self._role.scheduler.outstanding
        suspects = {job for issued in outstanding for job in issued.jobs}
        outstanding.clear()
        fail_all(self._role, list(self._context.jobs.values()), suspects, reason, now)
        self._context.pool.executor_gone()
        self._role.executor_lost(reason, now)

    def _drain_asked(self, event: events.DrainAsked, now: float) -> None:
        self._context.draining = True
        self._drain_deadline = event.deadline

    def _resumed(self, event: events.Resumed, now: float) -> None:
        self._context.draining = False
        self._drain_deadline = None
