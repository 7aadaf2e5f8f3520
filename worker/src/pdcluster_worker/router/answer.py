"""What one HTTP request asked for and what both kinds of answer, streamed or whole, need to know."""

import time
import uuid
from collections.abc import Sequence

import msgspec

from pdcluster_worker.models.tokenizer import Tokenizer
from pdcluster_worker.router.job import Job
from pdcluster_worker.router.metrics import stage_seconds
from pdcluster_worker.router.sampling import Choice
from pdcluster_worker.router.schemas import ChatRequest, CompletionRequest


class Asked(msgspec.Struct, frozen=True):
    """`prompts` counts distinct prompts: each is counted once in the usage, however many choices it has."""

    chat: bool
    model: str
    tokenizer: Tokenizer
    choices: tuple[Choice, ...]
    prompts: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    token_ids: bool
    stages: bool
    cache_salt: str
    id: str
    created: int


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


def asked(request: CompletionRequest | ChatRequest, choices: Sequence[Choice], tokenizer: Tokenizer) -> Asked:
    chat = isinstance(request, ChatRequest)
    return Asked(
        chat=chat,
        model=request.model,
        tokenizer=tokenizer,
        choices=tuple(choices),
        prompts=len(choices) // (request.n or 1),
        stop=request.stop_strings(),
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        token_ids=bool(request.return_token_ids),
        stages=bool(request.return_stages),
        cache_salt=request.cache_salt or "",
        id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


def usage(asked: Asked, jobs: Sequence[Job]) -> Usage:
    per_prompt = len(jobs) // asked.prompts
    firsts = jobs[::per_prompt]
    prompt = sum(job.prompt_tokens for job in firsts)
    output = sum(len(job.life.tokens) for job in jobs)
    cached = sum(job.life.stages.cached_tokens for job in firsts)
    return Usage(prompt, output, prompt + output, {"cached_tokens": cached})


class StageReport(msgspec.Struct, frozen=True):
    """Where a request's time went, in seconds: of its slowest choice where there are several."""

    stages: dict[str, float]
    prefill_worker: str
    decode_worker: str
    resubmissions: int
    transferred_bytes: int


def stage_report(jobs: Sequence[Job]) -> StageReport:
    every = [stage_seconds(job) for job in jobs]
    slowest = {name: round(max(each[name] for each in every), 6) for name in every[0]}
    return StageReport(
        stages=slowest,
        prefill_worker=jobs[0].prefill_worker,
        decode_worker=jobs[0].decode_worker,
        resubmissions=sum(job.life.resubmissions for job in jobs),
        transferred_bytes=sum(job.life.stages.transferred_bytes for job in jobs),
    )
