"""The HTTP surface: OpenAI's routes, health, readiness, metrics, and errors in OpenAI's shape."""

import re
import uuid

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pdcluster_worker.router.api_keys import APIKeys
from pdcluster_worker.router.errors import APIError, internal
from pdcluster_worker.router.fleet import Fleet
from pdcluster_worker.router.serving import GenerationResponse, Serving, client_gone, read_body

_TRACE_PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_log = structlog.get_logger()


class API:
    """The handlers; all state is in what they are given."""

    def __init__(self, serving: Serving, fleet: Fleet, keys: APIKeys, created: int) -> None:
        self._serving = serving
        self._fleet = fleet
        self._keys = keys
        self._created = created

    async def completions(self, request: Request) -> Response:
        return await self._generate(request, chat=False)

    async def chat_completions(self, request: Request) -> Response:
        return await self._generate(request, chat=True)

    async def _generate(self, request: Request, *, chat: bool) -> Response:
        self._keys.check(request.headers.get("authorization", ""))
        body = await read_body(request, self._serving.config.max_body_bytes)
        asked = await self._serving.accept(body, chat=chat)
        parent = request.headers.get("traceparent", "")
        parent = parent if _TRACE_PARENT.fullmatch(parent) else ""
        return GenerationResponse(self._serving, asked, request.url.path, _request_id(request), parent)

    async def models(self, request: Request) -> Response:
        self._keys.check(request.headers.get("authorization", ""))
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._keys.check(request.headers.get("authorization", ""))
        name = request.path_params["name"]
        if name != self._serving.config.model_name:
            raise APIError(404, f"the model {name!r} does not exist", param="model", code="model_not_found")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, object]:
        limits = self._fleet.limits()
        return {
            "id": self._serving.config.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "pdcluster",
            "max_model_len": limits.max_model_length,
        }

    async def health(self, request: Request) -> Response:
        """The process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """A prompt could be served now, and new ones are taken."""
        if self._serving.draining or not self._fleet.ready():
            return JSONResponse({"status": "not ready"}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        self._fleet.count(self._serving.metrics)
        return Response(self._serving.metrics.exposition(), media_type="text/plain; version=0.0.4")

    # --- errors -------------------------------------------------------------------------------------

    async def api_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, APIError)
        if error.status >= 500 and error.code != "overloaded":
            _log.error("request failed", request_id=_request_id(request), reason=error.message)
        headers = {**error.headers(), "x-request-id": _request_id(request)}
        if not request.scope.get("pdcluster.recorded"):
            self._serving.metrics.requests.labels(_route(request), str(error.status)).inc()
        return Response(error.body(), error.status, headers, media_type="application/json")

    async def http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        texts = {404: f"no such path: {request.url.path}", 405: f"{request.method} is not allowed here"}
        wrapped = APIError(error.status_code, texts.get(error.status_code, error.detail))
        response = await self.api_error(request, wrapped)
        response.headers.update(error.headers or {})
        return response

    async def disconnected(self, request: Request, error: Exception) -> Response:
        return await self.api_error(request, client_gone())

    async def crash(self, request: Request, error: Exception) -> Response:
        _log.error("unexpected error", request_id=_request_id(request), exc_info=error)
        return await self.api_error(request, internal("the router failed; see its log"))


def _route(request: Request) -> str:
    """Known paths only, so that clients cannot make up metric labels."""
    path = request.url.path
    return path if path in ("/v1/completions", "/v1/chat/completions", "/v1/models") else "other"


def _request_id(request: Request) -> str:
    """The client's own, when it is short and printable; else a new one. For people and logs, never a key."""
    given = request.headers.get("x-request-id", "")
    if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    if not hasattr(request.state, "request_id"):
        request.state.request_id = uuid.uuid4().hex
    made: str = request.state.request_id
    return made


def make_app(api: API) -> Starlette:
    return Starlette(
        routes=[
            Route("/v1/completions", api.completions, methods=["POST"]),
            Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
            Route("/v1/models", api.models, methods=["GET"]),
            Route("/v1/models/{name:path}", api.model, methods=["GET"]),
            Route("/health", api.health, methods=["GET"]),
            Route("/ready", api.ready, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
        ],
        exception_handlers={
            APIError: api.api_error,
            HTTPException: api.http_error,
            ClientDisconnect: api.disconnected,
            Exception: api.crash,
        },
    )
