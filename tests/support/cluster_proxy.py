"""A proxy between the operator and the API server that sees every call, and can strike at one of them.

It speaks plain HTTP to the operator, adds nothing, and passes watches on as they come.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp
from aiohttp import web
from cluster_control_plane import write_kubeconfig
from cluster_process import Reservation

MUTATING = {"POST", "PUT", "PATCH", "DELETE"}
UNCOUNTED = ("/leases/", "/leases", "/events")
HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host"}


class Moment(StrEnum):
    """When the proxy strikes: the call never reaches the API server, or its answer never reaches the operator."""

    BEFORE = "before"
    AFTER = "after"


@dataclass
class Trap:
    """Strikes at the `number`-th mutating call, leases and events apart, counted from 0."""

    number: int
    moment: Moment
    strike: Callable[[], None]
    sprung: bool = False


class Proxy:
    """`calls` are the mutating calls so far, as `VERB path`."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session
        self.calls: list[str] = []
        self.trap: Trap | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        number = self._count(request)
        trap = self.trap if self.trap and number == self.trap.number and not self.trap.sprung else None
        if trap and trap.moment is Moment.BEFORE:
            return self._spring(request, trap)
        async with self._session.request(
            request.method,
            f"{self._upstream}{request.rel_url}",
            headers=_passed_on(dict(request.headers)),
            data=await request.read() or None,
            skip_auto_headers=["Content-Type"],
        ) as answer:
            if trap:
                await answer.read()
                return self._spring(request, trap)
            response = web.StreamResponse(status=answer.status, headers=_passed_on(dict(answer.headers)))
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            return response

    def _count(self, request: web.Request) -> int | None:
        if request.method not in MUTATING or any(part in request.path for part in UNCOUNTED):
            return None
        self.calls.append(f"{request.method} {request.path}")
        return len(self.calls) - 1

    def _spring(self, request: web.Request, trap: Trap) -> web.StreamResponse:
        trap.sprung = True
        trap.strike()
        if request.transport:
            request.transport.abort()
        return web.Response(status=502)


@contextlib.asynccontextmanager
async def proxied(server: str, folder: Path, trust: Path, token: str) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy, and a kubeconfig that leads through it."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(trust)), limit=0)
    endless = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=endless, auto_decompress=False) as session:
        proxy = Proxy(server, session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await runner.setup()
        with contextlib.closing(Reservation()) as reserved:
            await web.TCPSite(runner, "127.0.0.1", reserved.port).start()
            path = write_kubeconfig(folder / "proxied.kubeconfig", f"http://127.0.0.1:{reserved.port}", trust, token)
            try:
                yield proxy, path
            finally:
                await runner.cleanup()


def _passed_on(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}
