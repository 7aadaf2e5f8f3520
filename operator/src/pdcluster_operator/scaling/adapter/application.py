"""HTTP of the adapter: the questions, behind the door; and health and its own metrics, in the open."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pdcluster_operator.scaling.adapter.answerer import Answerer
from pdcluster_operator.scaling.adapter.answers import (
    GROUP,
    VERSION,
    RefusedError,
    api_group,
    failure,
    resource_list,
)
from pdcluster_operator.scaling.adapter.door import Door
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REFUSED_PARAMETERS = ("fieldSelector", "watch")
"""What would change the meaning of an answer and is not supported must not be ignored."""


def questions(answerer: Answerer, door: Door, metrics: AdapterMetrics) -> web.Application:
    """What the API server forwards."""

    async def read(request: web.Request) -> web.Response:
        metric = request.match_info["metric"]
        counted = metric if metric in GAUGES else "unknown"
        try:
            _check(request)
            found = await answerer.answer(
                request.match_info["namespace"], metric, request.query.get("labelSelector", "")
            )
        except RefusedError as refusal:
            metrics.asked(counted, refusal.status)
            return _refuse(refusal.status, str(refusal))
        metrics.asked(counted, HTTPStatus.OK)
        return web.json_response(found)

    app = web.Application(middlewares=[_guard(door)])
    app.router.add_get(f"/apis/{GROUP}", _show(api_group))
    app.router.add_get(f"/apis/{VERSION}", _show(resource_list))
    app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{{metric}}", read)
    return app


def health(metrics: AdapterMetrics, is_ready: Callable[[], bool]) -> web.Application:
    """`/health`: the process lives. `/ready`: the API server would get answers. `/metrics`."""

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": is_ready()}, status=HTTPStatus.OK if is_ready() else 503)

    async def tell(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/health", alive)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", tell)
    return app


def _guard(door: Door) -> Any:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        connection = transport.get_extra_info("ssl_object") if transport else None
        admitted = door.admits(connection if isinstance(connection, ssl.SSLObject) else None)
        if admitted is None and isinstance(transport, asyncio.Transport):
            transport.abort()
        if not admitted:
            return _refuse(HTTPStatus.UNAUTHORIZED, "only the API server's front proxy may ask")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _refuse(HTTPStatus(error.status), error.reason)

    return guarded


def _check(request: web.Request) -> None:
    for name in REFUSED_PARAMETERS:
        if request.query.get(name):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is not supported")


def _show(make: Callable[[], dict[str, Any]]) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(make())

    return handler


def _refuse(status: HTTPStatus, message: str) -> web.Response:
    return web.json_response(failure(status, message), status=status)
