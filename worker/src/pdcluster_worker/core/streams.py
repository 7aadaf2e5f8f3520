"""Router streams: which request goes by which handle where, and everything that is said on them.

A request outlives its stream for a while: what it produces meanwhile is kept and replayed on Attach.
"""

import msgspec

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote, ReservedNote, RouterOut
from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.core.wire import FailureCode


class Streams:
    """Owns the handle tables and writes the routers' part of the outbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._handles: dict[StreamId, dict[int, Job]] = {}

    def open(self, stream: StreamId) -> None:
        self._handles.setdefault(stream, {})

    def is_open(self, stream: StreamId) -> bool:
        return stream in self._handles

    def close(self, stream: StreamId) -> list[Job]:
        """Returns the requests that nobody listens to any more."""
        jobs = list(self._handles.pop(stream, {}).values())
        for job in jobs:
            job.stream = None
        return jobs

    def by_handle(self, stream: StreamId, handle: int) -> Job | None:
        return self._handles.get(stream, {}).get(handle)

    def bind(self, job: Job, stream: StreamId, handle: int) -> None:
        """From now on the request is `handle` on `stream`, and nothing elsewhere."""
        self.unbind(job)
        job.stream = stream
        job.handle = handle
        self._handles.setdefault(stream, {})[handle] = job

    def unbind(self, job: Job) -> None:
        if job.stream is None:
            return
        handles = self._handles.get(job.stream, {})
        if handles.get(job.handle) is job:
            del handles[job.handle]
        job.stream = None

    def accept(self, job: Job) -> None:
        if job.stream is not None:
            self._context.router(job.stream).accepted.append(job.handle)

    def emit(self, job: Job, index: int, token: int, logprob: TokenLogprob | None = None) -> None:
        if job.stream is not None:
            append_token(self._context.router(job.stream), job.handle, index, token, logprob)

    def replay(self, job: Job, next_index: int) -> None:
        """Everything from `next_index` on that is known here, then the note of its end if it has ended."""
        first = max(next_index - job.base_index, 0)
        for index, token in enumerate(job.outputs[first:], job.base_index + first):
            self.emit(job, index, token, job.logprobs.get(index))
        if job.lease is not None:
            self.reserved(job)

    def reserved(self, job: Job) -> None:
        if job.stream is not None and job.lease is not None:
            seconds = job.times.leased - job.times.queued
            note = ReservedNote(handle=job.handle, decode=job.lease.peer, reserve_seconds=seconds)
            self._context.router(job.stream).reserved.append(note)

    def end(self, job: Job, note: FinishedNote | FailedNote | HandedOffNote) -> bool:
        """Tell how the request ended. False: nobody is attached, the note waits on the job."""
        if job.stream is None:
            job.note = note
            return False
        out = self._context.router(job.stream)
        note = msgspec.structs.replace(note, handle=job.handle)
        if isinstance(note, FinishedNote):
            out.finished.append(note)
        elif isinstance(note, HandedOffNote):
            out.handed_off.append(note)
        else:
            out.failed.append(note)
        job.note = None
        self.unbind(job)
        return True

    def refuse(self, stream: StreamId, handle: int, code: FailureCode, reason: str, retry_after: float = 0.0) -> None:
        """The end of a request that never got in."""
        note = FailedNote(handle=handle, code=code, reason=reason, retry_after=retry_after)
        self._context.router(stream).failed.append(note)


def append_token(out: RouterOut, handle: int, index: int, token: int, logprob: TokenLogprob | None) -> None:
    if logprob is not None:
        out.logprobs[len(out.tokens)] = logprob
    out.handles.append(handle)
    out.indices.append(index)
    out.tokens.append(token)
