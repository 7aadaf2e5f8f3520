"""Carries out what lives decide: sends requests to workers, hears from them, keeps every deadline.

The router's loop is the only writer of jobs, links and queues. Nothing here waits: messages, breaks and timers come in,
actions go out. A job is open from `open` to exactly one `Listener.ended`.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from pdcluster_worker.core.effects import FailedNote, FinishedNote, RouterOut
from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.core.wire import FailureCode
from pdcluster_worker.router.config import RouterConfig
from pdcluster_worker.router.errors import APIError, overloaded, timed_out
from pdcluster_worker.router.fleet import Fleet
from pdcluster_worker.router.job import Job
from pdcluster_worker.router.life import Abort, Action, Attach, End, Resubmit, State
from pdcluster_worker.router.link import Link
from pdcluster_worker.router.metrics import RouterMetrics
from pdcluster_worker.router.policy import Chooser
from pdcluster_worker.splitwise.inference_messages import AbortItem, WorkerBatch, WorkerHello

DISTURBANCE = 30.0
"""Seconds after a worker's death in which want of room is waited for, not reported."""
_log = structlog.get_logger()


class Dispatcher:
    def __init__(self, config: RouterConfig, metrics: RouterMetrics) -> None:
        self.fleet: Fleet
        self._config = config
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._chooser = Chooser(config.policy, config.min_disagg_tokens)
        self._jobs: dict[RequestId, Job] = {}
        self._queue: OrderedDict[RequestId, Job] = OrderedDict()
        self._grace: dict[Link, asyncio.TimerHandle] = {}
        self._strangers: dict[str, list[Job]] = {}
        """Jobs whose decode worker is named by a prefill worker but not linked yet."""
        self._last_death = float("-inf")
        self._without_token = 0
        self._pump_scheduled = False
        self._no_jobs = asyncio.Event()
        self._no_jobs.set()

    # --- for the API --------------------------------------------------------------------------------

    def admit(self, choices: int) -> None:
        """APIError when the queue has no room for so many."""
        if self._without_token + choices > self._config.max_queue:
            message = f"the queue is full ({self._config.max_queue} requests wait)"
            raise overloaded(message, self._drain_seconds(), status=429)

    def open(self, job: Job) -> None:
        self._jobs[job.life.request_id] = job
        self._no_jobs.clear()
        self._queue[job.life.request_id] = job
        self._without_token += 1
        self._metrics.waiting.inc()
        job.timers.append(self._loop.call_at(job.deadline, self._deadline_passed, job))
        job.timers.append(self._loop.call_at(job.times.received + self._config.queue_timeout, self._queue_timeout, job))
        self._schedule_pump()

    def cancel(self, job: Job, error: APIError) -> None:
        """The client is gone, or wants no more."""
        self._perform(job, job.life.end(End(error=error)))

    @property
    def open_jobs(self) -> int:
        return len(self._jobs)

    def cancel_all(self, error: APIError) -> None:
        for job in list(self._jobs.values()):
            self.cancel(job, error)

    async def idle(self, timeout: float) -> None:
        """Returns when no job is open, or after `timeout`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._no_jobs.wait(), timeout)

    def _drain_seconds(self) -> float:
        candidates = self.fleet.candidates()
        rate = sum(worker.tokens_per_second for worker in candidates) or 1.0
        return min(60.0, max(1.0, sum(worker.queued_tokens for worker in candidates) / rate))

    # --- links --------------------------------------------------------------------------------------

    def link_up(self, link: Link, previous: WorkerHello | None) -> None:
        assert link.hello is not None
        timer = self._grace.pop(link, None)
        if timer is not None:
            timer.cancel()
        _log.info("worker_connected", worker=link.address, name=link.hello.name, instance=link.instance)
        if previous is not None and previous.instance_id != link.instance:
            self._lost(link, previous.instance_id)
        for job in [*link.take_entries(), *self._strangers.pop(link.instance, ())]:
            if link.instance in job.life.holders():
                self._attach(job, link, prefill_lost=job.life.state is State.ADOPTING)
        self.fleet.push_peers()

    def link_down(self, link: Link, refused: bool) -> None:
        if link.retired:
            self.fleet.remove(link)
        if refused or link.retired:
            self._gave_up(link)
        elif link not in self._grace and link.entries:
            self._grace[link] = self._loop.call_later(self._config.reattach_grace, self._gave_up, link)
        self.fleet.push_peers()

    def drop_link(self, link: Link) -> None:
        """Nothing more is expected of it; the caller closes it."""
        self.fleet.remove(link)
        self._gave_up(link)

    def _gave_up(self, link: Link) -> None:
        timer = self._grace.pop(link, None)
        if timer is not None:
            timer.cancel()
        self._lost(link, link.instance)

    def _lost(self, link: Link, instance: str) -> None:
        jobs = link.take_entries()
        if jobs:
            self._last_death = self._loop.time()
            _log.warning("worker_lost", worker=link.address, instance=instance, requests=len(jobs))
        link.outstanding_tokens = 0
        for job in jobs:
            self._perform(job, job.life.lost(instance))

    # --- what workers say ---------------------------------------------------------------------------

    def link_message(self, link: Link, batch: WorkerBatch) -> None:
        """Parts take effect in the order of the wire's fields. Notes for unknown handles are of old epochs."""
        if batch.state is not None and self._queue:
            self._schedule_pump()
        out = batch.out
        if out is None:
            return
        for reserved in out.reserved:
            if (job := link.entries.get(reserved.handle)) is not None:
                self._reserved(job, reserved.decode, reserved.reserve_seconds)
        if out.tokens:
            self._tokens(link, out)
        for note in out.handed_off:
            if (job := link.entries.get(note.handle)) is not None:
                link.forget(job)
                self._perform(job, job.life.handed_off(note.decode, note.stages))
        for finished in out.finished:
            if (job := link.entries.get(finished.handle)) is not None:
                self._finished(link, job, finished)
        for failed in out.failed:
            if (job := link.entries.get(failed.handle)) is not None:
                self._failed(link, job, failed)

    def _reserved(self, job: Job, decode: str, seconds: float) -> None:
        before = job.life.decode
        actions = job.life.reserved(decode, seconds)
        if before not in (None, job.life.decode):
            for link in [link for link in job.handles if link.instance == before]:
                link.forget(job)
        self._perform(job, actions)

    def _tokens(self, link: Link, out: RouterOut) -> None:
        now, instance, entries, logprobs = self._loop.time(), link.instance, link.entries, out.logprobs
        unknown = set()
        for place, (handle, index, token) in enumerate(zip(out.handles, out.indices, out.tokens, strict=True)):
            job = entries.get(handle)
            if job is None:
                unknown.add(handle)
                continue
            for fresh, logprob in job.life.token(instance, index, token, logprobs.get(place)):
                if self._deliver(job, fresh, logprob, now):
                    break
        for handle in unknown:
            link.abort(AbortItem(handle=handle))

    def _deliver(self, job: Job, token: int, logprob: TokenLogprob | None, now: float) -> bool:
        """True when the choice has ended because of this token."""
        times = job.times
        if times.first_token:
            self._metrics.inter_token.observe(now - times.last_token)
        else:
            times.first_token = now
            self._without_token -= 1
            self._metrics.waiting.dec()
            self._metrics.running.inc()
            self._settle(job)
        times.last_token = now
        if not job.listener.token(token, logprob):
            return False
        self._perform(job, job.life.end(End(reason="stop")))
        return True

    def _finished(self, link: Link, job: Job, note: FinishedNote) -> None:
        if link.hello is not None:
            job.decode_worker = link.hello.name
        known = len(job.life.tokens)
        if note.stop_token is not None and note.output_tokens == known + 1:
            for token, logprob in job.life.token(link.instance, known, note.stop_token, None):
                if self._deliver(job, token, logprob, self._loop.time()):
                    return
        self._perform(job, job.life.finished(link.instance, note))

    def _failed(self, link: Link, job: Job, note: FailedNote) -> None:
        if note.code is FailureCode.EXECUTOR_LOST:
            self._last_death = self._loop.time()
        job.life.disturbed = self._last_death > job.times.received - DISTURBANCE
        link.forget(job)
        self._perform(job, job.life.failed(link.instance, note))

    # --- actions ------------------------------------------------------------------------------------

    def _perform(self, job: Job, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Attach(worker, prefill_lost):
                    self._attach_at(job, worker, prefill_lost)
                case Abort(worker, epoch):
                    link = self.fleet.by_instance(worker)
                    if link is not None:
                        link.abort(AbortItem(RequestKey(job.life.request_id, epoch)))
                case Resubmit():
                    self._requeue(job, action)
                case End(reason, error):
                    self._end(job, reason, error)

    def _attach_at(self, job: Job, worker: str, prefill_lost: bool) -> None:
        link = self.fleet.by_instance(worker)
        if link is not None:
            self._attach(job, link, prefill_lost=prefill_lost)
            return
        self._strangers.setdefault(worker, []).append(job)
        job.timers.append(self._loop.call_later(self._config.reattach_grace, self._stranger_missing, worker, job))

    def _attach(self, job: Job, link: Link, *, prefill_lost: bool) -> None:
        """While the link is broken only the handle is made: the job is attached when the worker is back."""
        link.attach(link.handle_of(job), job.life, prefill_lost=prefill_lost)
        if not link.connected and link not in self._grace:
            self._grace[link] = self._loop.call_later(self._config.reattach_grace, self._gave_up, link)

    def _stranger_missing(self, worker: str, job: Job) -> None:
        waiting = self._strangers.get(worker, [])
        if job in waiting:
            waiting.remove(job)
            if not waiting:
                del self._strangers[worker]
            self._perform(job, job.life.lost(worker))

    def _requeue(self, job: Job, action: Resubmit) -> None:
        self._release(job)
        self._metrics.resubmissions.labels(action.reason).inc()
        _log.info("resubmitted", request=job.life.request_id.hex(), reason=action.reason, epoch=job.life.epoch)
        job.avoid = action.avoid
        job.not_before = self._loop.time() + action.delay
        self._queue[job.life.request_id] = job
        if action.delay:
            job.timers.append(self._loop.call_at(job.not_before, self._schedule_pump))
        self._schedule_pump()

    def _end(self, job: Job, reason: str, error: APIError | None) -> None:
        self._release(job)
        self._queue.pop(job.life.request_id, None)
        self._jobs.pop(job.life.request_id, None)
        for timer in job.timers:
            timer.cancel()
        job.timers.clear()
        job.times.ended = self._loop.time()
        if job.times.first_token:
            self._metrics.running.dec()
        else:
            self._without_token -= 1
            self._metrics.waiting.dec()
        self._metrics.ended(job)
        if not self._jobs:
            self._no_jobs.set()
        job.listener.ended(reason, error)

    def _release(self, job: Job) -> None:
        """No link knows the job any more."""
        for link in list(job.handles):
            link.forget(job)
        for worker in [worker for worker, waiting in self._strangers.items() if job in waiting]:
            self._strangers[worker].remove(job)
            if not self._strangers[worker]:
                del self._strangers[worker]
        self._settle(job)

    def _settle(self, job: Job) -> None:
        """Its prompt is no longer outstanding at the prefill worker."""
        if job.outstanding is not None:
            job.outstanding.outstanding_tokens = max(0, job.outstanding.outstanding_tokens - job.prompt_tokens)
            job.outstanding = None

    # --- the queue ----------------------------------------------------------------------------------

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Sends what waits to whoever can take it."""
        self._pump_scheduled = False
        now = self._loop.time()
        for job in list(self._queue.values()):
            if job.not_before > now:
                continue
            tokens = job.prompt_tokens + len(job.life.tokens)
            best = self._chooser.choose(self.fleet.candidates(), tokens, job.hashes, job.avoid)
            if best is None:
                return
            link = self.fleet.by_instance(best.instance)
            assert link is not None
            self._submit(job, link, now)

    def _submit(self, job: Job, link: Link, now: float) -> None:
        assert link.hello is not None
        del self._queue[job.life.request_id]
        job.life.submitted(link.instance)
        job.times.submitted = job.times.submitted or now
        job.prefill_worker = link.hello.name
        job.outstanding = link
        link.outstanding_tokens += job.prompt_tokens
        link.submit(link.handle_of(job), job.request())

    def _deadline_passed(self, job: Job) -> None:
        self._perform(job, job.life.end(End(error=timed_out("the request's deadline has passed"))))

    def _queue_timeout(self, job: Job) -> None:
        if job.life.state is State.QUEUED and not job.times.submitted:
            error = overloaded("no worker could take the request in time", 5.0)
            self._perform(job, job.life.end(End(error=error)))
