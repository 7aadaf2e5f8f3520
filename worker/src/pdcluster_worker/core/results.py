"""Tokens come back from the executor: into the requests, out to the routers, and on to what follows from them."""

from pdcluster_worker.core.drafts import IssuedPlan
from pdcluster_worker.core.effects import RouterOut
from pdcluster_worker.core.events import NO_TOKEN, SampledTokens
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.roles import WorkerRole
from pdcluster_worker.core.streams import append_token
from pdcluster_worker.core.wire import FailureCode


def deliver(role: WorkerRole, issued: IssuedPlan, sampled: SampledTokens, now: float) -> None:
    """Entry i of `sampled` belongs to entry i of `issued.sampling`; a token of a request that ended is dropped.

    The loop runs once per token of every step, so it looks up the router's part only when the stream changes.
    """
    logprobs = sampled.logprobs
    stream = None
    out = RouterOut()
    for entry, (job, token) in enumerate(zip(issued.sampling, sampled.tokens, strict=True)):
        job.in_flight -= 1
        if job.ended:
            continue
        if token == NO_TOKEN:
            role.endings.fail(job, FailureCode.INTERNAL, "the model's logits are not finite numbers", now)
            continue
        index = job.base_index + len(job.outputs)
        job.outputs.append(token)
        logprob = logprobs.get(entry) if logprobs else None
        if logprob is not None:
            job.logprobs[index] = logprob
        if job.stream is not None:
            if job.stream != stream:
                stream = job.stream
                out = role.context.router(stream)
            append_token(out, job.handle, index, token, logprob)
        _after_token(role, job, index, token, now)


def _after_token(role: WorkerRole, job: Job, index: int, token: int, now: float) -> None:
    if not job.times.first_token:
        job.times.first_token = now
    if token in job.stop_tokens and index >= job.request.sampling.min_tokens:
        role.endings.finish(job, "stop", token, now)
    elif index + 1 >= job.output_limit:
        role.endings.finish(job, "length", None, now)
    else:
        role.token_known(job, now)


def fail_all(role: WorkerRole, jobs: list[Job], suspects: set[Job], reason: str, now: float) -> None:
    """The executor died: every request fails, those of issued plans as suspects."""
    for job in jobs:
        role.endings.fail(job, FailureCode.EXECUTOR_LOST, reason, now, was_running=job in suspects)
