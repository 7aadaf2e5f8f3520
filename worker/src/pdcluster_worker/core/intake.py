"""What a router asks: submit, attach, abort; and what the prepare pool answers."""

import struct
from typing import Protocol

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.endings import Endings
from pdcluster_worker.core.events import Aborted, Attached, Prepared, PrepareFailed, StreamClosed, Submitted
from pdcluster_worker.core.ids import RequestKey, StreamId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.streams import Streams
from pdcluster_worker.core.wire import FailureCode, Role


class Intake(Protocol):
    """The role's part."""

    def prepared(self, job: Job, now: float) -> None:
        """The request is valid and its blocks are hashed: set it going."""

    def attach_elsewhere(self, event: Attached, now: float) -> bool:
        """No such request runs here. True: it is leased, and the attach waits for its commit."""

    def abort_elsewhere(self, key: RequestKey, now: float) -> None:
        """No such request runs here: drop or forward whatever is left of it."""


class RequestIntake:
    """Turns router and prepare events into jobs."""

    def __init__(self, context: Context, streams: Streams, endings: Endings, role: Intake) -> None:
        self._context = context
        self._streams = streams
        self._endings = endings
        self._role = role

    def submitted(self, event: Submitted, now: float) -> None:
        """A duplicate binds the stream to the request that runs already; a newer epoch ends the older one."""
        request = event.request
        job = self._context.jobs.get(request.request_id)
        if job is not None and job.key.epoch >= request.epoch:
            if job.key.epoch == request.epoch:
                self._rebind(job, event)
            else:
                self._streams.refuse(event.stream, event.handle, FailureCode.ABORTED, "a newer epoch is here")
            return
        if job is not None:
            self.supersede(job, now)
        if self._context.broken or self._context.draining:
            code = FailureCode.EXECUTOR_LOST if self._context.broken else FailureCode.DRAINING
            self._streams.refuse(event.stream, event.handle, code, self._context.broken or "the worker is draining")
            return
        limit = min(request.prompt_length + request.sampling.max_tokens, self._context.config.max_model_length)
        job = Job(request, limit, now)
        self._context.jobs[request.request_id] = job
        self._streams.bind(job, event.stream, event.handle)
        self._streams.accept(job)
        self._context.job_timers.set(job, request.deadline)
        self._context.outbox.prepare.append(request)

    def supersede(self, job: Job, now: float) -> None:
        if job.ended:
            self._endings.forget(job)
        else:
            self._endings.fail(job, FailureCode.ABORTED, "superseded by a newer epoch", now)

    def prepared(self, event: Prepared, now: float) -> None:
        job = self._context.jobs.get(event.request.request_id)
        if job is None or job.ended or job.key != event.request.key:
            return
        job.hashes = event.block_hashes
        job.times.prepare = event.seconds
        job.times.queued = now
        self._context.observe("prepare_seconds", event.seconds)
        refusal = self._too_large(job)
        if refusal:
            self._endings.fail(job, FailureCode.INVALID_ARGUMENT, refusal, now)
        elif not self._already_over(job, now):
            self._role.prepared(job, now)

    def prepare_failed(self, event: PrepareFailed, now: float) -> None:
        job = self._context.jobs.get(event.key.request_id)
        if job is not None and job.key == event.key:
            self._endings.fail(job, FailureCode.INVALID_ARGUMENT, event.reason, now)

    def attached(self, event: Attached, now: float) -> None:
        """Replays from `next_index`; an unknown request fails at once."""
        job = self._context.jobs.get(event.key.request_id)
        if job is None or job.key != event.key:
            if not self._role.attach_elsewhere(event, now):
                reason = "no such request here"
                self._streams.refuse(event.stream, event.handle, FailureCode.UNKNOWN_REQUEST, reason)
            return
        self.listen(job, event.stream, event.handle, event.next_index)

    def aborted(self, event: Aborted, now: float) -> None:
        """Idempotent. A request that has gone on to a peer is aborted there."""
        job = self._streams.by_handle(event.stream, event.handle) if event.key is None else None
        if event.key is not None:
            job = self._context.jobs.get(event.key.request_id)
            if job is None or job.key != event.key:
                self._role.abort_elsewhere(event.key, now)
                return
        if job is None:
            return
        if job.ended:
            self._endings.forget(job)
            self._role.abort_elsewhere(job.key, now)
        else:
            self._endings.fail(job, FailureCode.ABORTED, "aborted by the router", now)

    def stream_closed(self, event: StreamClosed, now: float) -> None:
        for job in self._streams.close(event.stream):
            self.await_attach(job, now + self._context.config.reattach_timeout)

    def await_attach(self, job: Job, until: float) -> None:
        """Unless somebody attaches by then, the request is aborted, or what is left of it forgotten."""
        self._context.attach_timers.set(job, until)

    def nobody_came(self, job: Job, now: float) -> None:
        """Time is up for a router to attach."""
        if job.stream is not None:
            return
        if job.ended:
            self._endings.forget(job)
        else:
            self._endings.fail(job, FailureCode.ABORTED, "no router attached in time", now)

    def _rebind(self, job: Job, event: Submitted) -> None:
        self.listen(job, event.stream, event.handle, job.base_index)
        self._streams.accept(job)

    def listen(self, job: Job, stream: StreamId, handle: int, next_index: int) -> None:
        """The router is there: everything from `next_index` on goes to it, the note of the end last."""
        self._context.attach_timers.cancel(job)
        self._streams.bind(job, stream, handle)
        self._streams.replay(job, next_index)
        if job.note is not None and self._streams.end(job, job.note):
            self._endings.forget(job)

    def _too_large(self, job: Job) -> str:
        """Why the request can never run here, naming the limit; empty if it can."""
        config = self._context.config
        request = job.request
        if request.prompt_length >= config.max_model_length or request.num_tokens > config.max_model_length:
            return f"prompt: {request.prompt_length} tokens; the model's limit is {config.max_model_length} in all"
        computed = request.num_tokens if config.role is Role.PREFILL else max(request.num_tokens, job.limit - 1)
        if config.blocks_for(computed) > config.num_blocks:
            capacity = config.num_blocks * config.block_size
            return f"prompt and max_tokens: {computed} tokens; the KV cache of a worker holds {capacity}"
        return ""

    def _already_over(self, job: Job, now: float) -> bool:
        """A resubmitted request whose output is complete: only the router had not heard."""
        request = job.request
        if request.num_tokens > request.prompt_length:
            last = struct.unpack_from("<I", request.tokens, len(request.tokens) - 4)[0]
            if last in job.stop_tokens and job.base_index > request.sampling.min_tokens:
                self._endings.finish(job, "stop", last, now)
                return True
        if request.num_tokens >= job.limit:
            self._endings.finish(job, "length", None, now)
            return True
        return False
