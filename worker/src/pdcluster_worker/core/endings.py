"""The one way out: a request ends exactly once, frees what it holds here, and its router is told or finds a note."""

from typing import Protocol

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.scheduler import Scheduler
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.streams import Streams
from pdcluster_worker.core.wire import FailureCode, Stages


class LetGo(Protocol):
    def let_go(self, job: Job, now: float) -> None:
        """The request has ended: give back what the role holds for it at peers."""


class Endings:
    def __init__(self, context: Context, streams: Streams, scheduler: Scheduler, role: LetGo) -> None:
        self._context = context
        self._streams = streams
        self._scheduler = scheduler
        self._role = role

    def finish(self, job: Job, reason: str, stop_token: int | None, now: float) -> None:
        """`reason` is stop or length. The tokens are out already."""
        note = FinishedNote(
            handle=job.handle,
            reason=reason,
            output_tokens=job.next_index,
            stop_token=stop_token,
            stages=stages(job, now),
        )
        self._end(job, RequestState.FINISHED, note, now)

    def fail(
        self,
        job: Job,
        code: FailureCode,
        reason: str,
        now: float,
        *,
        retry_after: float = 0.0,
        was_running: bool = False,
    ) -> None:
        if job.ended:
            return
        note = FailedNote(handle=job.handle, code=code, reason=reason, retry_after=retry_after, was_running=was_running)
        self._end(job, RequestState.FAILED, note, now)

    def hand_off(self, job: Job, decode: PeerId, now: float) -> None:
        note = HandedOffNote(handle=job.handle, decode=decode, stages=stages(job, now))
        self._end(job, RequestState.HANDED_OFF, note, now)

    def forget(self, job: Job) -> None:
        """Nothing of the request remains but what transfers and plans still pin."""
        self._streams.unbind(job)
        self._context.job_timers.cancel(job)
        self._context.attach_timers.cancel(job)
        if self._context.jobs.get(job.key.request_id) is job:
            del self._context.jobs[job.key.request_id]

    def _end(self, job: Job, state: RequestState, note: FinishedNote | FailedNote | HandedOffNote, now: float) -> None:
        job.move(state)
        job.ended = True
        self._scheduler.remove(job)
        self._role.let_go(job, now)
        self._scheduler.free_blocks(job)
        told = self._streams.end(job, note)
        nobody_cares = isinstance(note, FailedNote) and note.code is FailureCode.ABORTED
        if told or nobody_cares:
            self.forget(job)
        else:
            self._context.job_timers.cancel(job)
            self._context.attach_timers.set(job, now + self._context.config.attach_timeout)


def stages(job: Job, now: float) -> Stages:
    """What each stage took here, as far as the request got."""
    times = job.times
    waited_until = times.started or now
    return Stages(
        queue=max(waited_until - (times.leased or times.queued), 0.0),
        prepare=times.prepare,
        reserve=max(times.leased - times.queued, 0.0) if times.leased else 0.0,
        prefill=max(times.first_token - times.started, 0.0) if times.first_token else 0.0,
        transfer=times.transfer,
        cached_tokens=job.cached_tokens,
        decode=max(now - times.first_token, 0.0) if times.first_token else 0.0,
        transferred_bytes=job.transferred_bytes,
    )
