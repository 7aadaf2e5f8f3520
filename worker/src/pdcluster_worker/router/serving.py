"""Serves one completion or chat request: checks it, opens its jobs, answers, and closes what the client leaves."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import structlog
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope
from starlette.types import Send as ASGISend

from pdcluster_worker.core.ids import RequestId
from pdcluster_worker.models.tokenizer import Tokenizer
from pdcluster_worker.router.answer import Asked, asked, stage_report, usage
from pdcluster_worker.router.config import RouterConfig
from pdcluster_worker.router.dispatcher import Dispatcher
from pdcluster_worker.router.errors import APIError, bad_request, overloaded
from pdcluster_worker.router.job import Job, Listener
from pdcluster_worker.router.metrics import RouterMetrics
from pdcluster_worker.router.parse import MAX_NAME, parse_body
from pdcluster_worker.router.sampling import Choice, Limits, chat_choices, completion_choices
from pdcluster_worker.router.schemas import ChatRequest, CompletionRequest
from pdcluster_worker.router.sse import EventStream
from pdcluster_worker.router.streamed import StreamedAnswer
from pdcluster_worker.router.tracing import Tracing
from pdcluster_worker.router.whole import WholeAnswer

LONG_BODY = 32 << 10
"""Bytes that take about a millisecond to check and tokenise."""
_log = structlog.get_logger()


def client_gone() -> APIError:
    return APIError(499, "the client closed the connection", kind="client_error", code="client_gone")


class Serving:
    """`draining`: refuse new requests; those that are open go on."""

    def __init__(
        self,
        config: RouterConfig,
        tokenizer: Tokenizer,
        dispatcher: Dispatcher,
        metrics: RouterMetrics,
        tracing: Tracing,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.draining = False
        self._tokenizer = tokenizer
        self._dispatcher = dispatcher
        self._tracing = tracing

    async def accept(self, body: bytes, *, chat: bool) -> Asked:
        """The checked request, or an APIError. A long one is checked beside the loop, not in its way."""
        if self.draining:
            raise overloaded("the router is shutting down", 1.0)
        self._dispatcher.admit(1)
        limits = self._dispatcher.fleet.limits()
        if len(body) < LONG_BODY:
            found = self._checked(body, chat, limits)
        else:
            found = await asyncio.to_thread(self._checked, body, chat, limits)
        self._dispatcher.admit(len(found.choices))
        return found

    def _checked(self, body: bytes, chat: bool, limits: Limits) -> Asked:
        """From any thread."""
        kind: type[ChatRequest] | type[CompletionRequest] = ChatRequest if chat else CompletionRequest
        request = parse_body(body, kind)
        if request.model != self.config.model_name:
            asked_for = request.model[:MAX_NAME]
            message = f"the model {asked_for!r} does not exist; this endpoint serves {self.config.model_name!r}"
            raise APIError(404, message, param="model", code="model_not_found")
        choices = self._choices(request, limits)
        if len(choices) > self.config.max_queue:
            raise bad_request(f"{len(choices)} choices are more than the queue holds ({self.config.max_queue})", "n")
        return asked(request, choices, self._tokenizer)

    def _choices(self, request: ChatRequest | CompletionRequest, limits: Limits) -> list[Choice]:
        if isinstance(request, ChatRequest):
            return chat_choices(request, self._tokenizer, limits)
        return completion_choices(request, self._tokenizer, limits)

    def open(self, asked: Asked, listeners: Sequence[Listener], trace_parent: str) -> list[Job]:
        now = asyncio.get_running_loop().time()
        jobs = []
        for choice, listener in zip(asked.choices, listeners, strict=True):
            job = Job(RequestId(uuid.uuid4().bytes), choice, listener, now, now + self.config.request_timeout)
            job.cache_salt = asked.cache_salt
            job.trace_parent = trace_parent
            jobs.append(job)
        for job in jobs:
            self._dispatcher.open(job)
        return jobs

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._dispatcher.cancel(job, client_gone())

    def record(self, path: str, status: int, request_id: str, asked: Asked | None, jobs: Sequence[Job]) -> None:
        """The one log line of a request, its trace and its count."""
        self.metrics.requests.labels(path, str(status)).inc()
        fields: dict[str, Any] = {"path": path, "status": status, "request_id": request_id}
        if asked is not None and jobs:
            counts, report = usage(asked, jobs), stage_report(jobs)
            fields |= {
                "stream": asked.stream,
                "choices": len(jobs),
                "prompt_tokens": counts.prompt_tokens,
                "output_tokens": counts.completion_tokens,
                "cached_tokens": counts.prompt_tokens_details["cached_tokens"],
                "stages": report.stages,
                "prefill_worker": report.prefill_worker,
                "decode_worker": report.decode_worker,
                "transferred_bytes": report.transferred_bytes,
                "resubmissions": report.resubmissions,
            }
            self._tracing.record(jobs, path, request_id)
        _log.info("request", **fields)


class GenerationResponse(Response):
    """Runs the request when Starlette sends the response, so that it sees the client leave."""

    def __init__(self, serving: Serving, asked: Asked, path: str, request_id: str, trace_parent: str) -> None:
        self._serving = serving
        self._asked = asked
        self._path = path
        self._request_id = request_id
        self._jobs: list[Job] = []
        self._trace_parent = trace_parent
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        status = 500
        left = asyncio.create_task(_disconnected(receive))
        try:
            answer = self._stream(left, send) if self._asked.stream else self._whole(left, scope, receive, send)
            status = await answer
        finally:
            left.cancel()
            self._serving.cancel(self._jobs)
            self._serving.record(self._path, status, self._request_id, self._asked, self._jobs)

    async def _whole(self, left: "asyncio.Task[None]", scope: Scope, receive: Receive, send: ASGISend) -> int:
        answer = WholeAnswer(self._asked)
        self._jobs = self._serving.open(self._asked, answer.listeners, self._trace_parent)
        await asyncio.wait({answer.result, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.result.done():
            answer.result.cancel()
            return 499
        answer.result.result()
        response = Response(answer.document(self._jobs), media_type="application/json")
        response.headers["x-request-id"] = self._request_id
        await response(scope, receive, send)
        return 200

    async def _stream(self, left: "asyncio.Task[None]", send: ASGISend) -> int:
        config = self._serving.config
        stream = EventStream(config.keepalive, config.max_behind_bytes, lambda: self._lagged(sender))
        answer = StreamedAnswer(self._asked, stream, lambda: self._jobs)
        self._jobs = self._serving.open(self._asked, answer.listeners, self._trace_parent)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"x-request-id", self._request_id.encode("latin-1")),
        ]
        sender = asyncio.create_task(stream.send_all(send, headers))
        try:
            await asyncio.wait({sender, left}, return_when=asyncio.FIRST_COMPLETED)
            if stream.failure is not None:
                raise stream.failure
            return 200 if sender.done() and not stream.lagged else 499
        finally:
            stream.close()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _lagged(self, sender: "asyncio.Task[None]") -> None:
        self._serving.metrics.dropped_clients.inc()
        self._serving.cancel(self._jobs)
        sender.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(request: HTTPRequest, most: int) -> bytes:
    """APIError 413 as soon as it is known to be too long."""
    too_long = APIError(413, f"the body is longer than the limit of {most} bytes", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_long
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_long
    return b"".join(parts)
