"""A decode worker takes over a request whose KV is complete in its leased blocks."""

from typing import TYPE_CHECKING

from pdcluster_worker.core.effects import CommittedOut, RefuseOut
from pdcluster_worker.core.events import CommitAsked
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.leases import Lease
from pdcluster_worker.core.state import RequestState
from pdcluster_worker.core.wire import RefuseReason

if TYPE_CHECKING:
    from pdcluster_worker.core.decode import DecodeRole


def accept_commit(role: "DecodeRole", event: CommitAsked, now: float) -> Job | None:
    """Answers the peer. Returns the request if it starts with this commit; a duplicate is only answered again."""
    key = event.request.key
    answer = role.context.prefill(event.peer)
    job = role.context.jobs.get(key.request_id)
    if job is not None and job.key == key and job.lease_id == event.lease:
        answer.committed.append(CommittedOut(key=key, lease=event.lease))
        return None
    lease = role.table.get(event.lease)
    if lease is None or not lease.live or lease.key != key or lease.peer != event.peer:
        answer.refusals.append(RefuseOut(key=key, reason=RefuseReason.UNKNOWN_LEASE, lease=event.lease))
        return None
    lease.writes_closed = True
    if not _is_valid(role, event, lease):
        role.end_lease(lease, "the commit does not fit the lease", tell=False)
        answer.refusals.append(RefuseOut(key=key, reason=RefuseReason.INVALID, lease=event.lease))
        return None
    answer.committed.append(CommittedOut(key=key, lease=event.lease))
    return _start(role, event, lease, now)


def _is_valid(role: "DecodeRole", event: CommitAsked, lease: Lease) -> bool:
    request = event.request
    first = request.num_tokens - request.prompt_length
    return (
        event.completed_ranks == role.context.config.ranks
        and request.num_tokens == lease.tokens
        and first >= 0
        and len(event.outputs) > 0
        and all(output.index == index for index, output in enumerate(event.outputs, first))
    )


def _start(role: "DecodeRole", event: CommitAsked, lease: Lease, now: float) -> Job:
    config = role.context.config
    request = event.request
    before = role.context.jobs.get(request.request_id)
    if before is not None:
        role.intake.supersede(before, now)
    limit = min(request.prompt_length + request.sampling.max_tokens, config.max_model_length)
    job = Job(request, limit, now)
    job.lease_id = lease.lease_id
    job.hashes = lease.hashes
    job.outputs = [output.token for output in event.outputs]
    job.logprobs = {output.index: output.logprob for output in event.outputs if output.logprob is not None}
    job.blocks = role.table.commit(lease)
    job.computed = request.num_tokens
    job.final_position = limit - 1
    complete = request.num_tokens // config.block_size
    role.context.pool.index.add(job.blocks, job.hashes, len(lease.matched), complete)
    job.indexed = complete
    job.transferred_bytes = event.transferred_bytes
    job.times.first_token = now
    job.move(RequestState.WAITING)
    role.context.jobs[request.request_id] = job
    role.context.job_timers.set(job, request.deadline)
    last = job.outputs[-1]
    if last in job.stop_tokens and job.next_index > request.sampling.min_tokens:
        role.endings.finish(job, "stop", last, now)
    elif job.next_index >= job.output_limit:
        role.endings.finish(job, "length", None, now)
    else:
        role.scheduler.add(job)
    return job
