"""A proxy between the operator and the API server that sees every call, can strike at one, and can spoil others.

It speaks plain HTTP to the operator, adds nothing, and passes watches on as they come.
"""

import asyncio
import contextlib
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp
from aiohttp import web
from cluster_control_plane import TRUST, ControlPlane, write_kubeconfig
from cluster_identity import chart_token
from cluster_process import Reservation

MUTATING = {"POST", "PUT", "PATCH", "DELETE"}
UNCOUNTED = ("/leases/", "/leases", "/events")
HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host"}


class Moment(StrEnum):
    """When the proxy strikes: the call never reaches the API server, or its answer never reaches the operator."""

    BEFORE = "before"
    AFTER = "after"


class Spoiling(StrEnum):
    """What becomes of a call that is no plain status: never answered, its answer cut off in the middle, or a watch that
    is told, as the API server does it, that the version it asks for is no longer known."""

    SILENCE = "silence"
    CUT = "cut"
    EXPIRED = "expired"


@dataclass
class Fault:
    """What happens to the next `times` calls whose name matches `pattern`, a regular expression."""

    pattern: str
    does: int | Spoiling
    times: int = 1
    retry_after: int | None = None
    hits: int = 0

    def takes(self, name: str) -> bool:
        if self.hits >= self.times or not re.search(self.pattern, name):
            return False
        self.hits += 1
        return True


@dataclass
class Trap:
    """Strikes at the mutating call of that name, leases and events apart."""

    name: str
    moment: Moment
    strike: Callable[[], None]
    sprung: bool = False


class Hold:
    """Keeps one mutating call of that name from the API server until `release` is set, whoever sent it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The status that the API server answered in the end."""


class Proxy:
    """`calls` are the mutating calls so far, as `VERB kind name#occurrence`; `seen` counts all, watches as WATCH.

    `made` counts the mutating calls that were granted, by their names without the occurrence.
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session
        self._occurrences: Counter[str] = Counter()
        self.calls: list[str] = []
        self.seen: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.trap: Trap | None = None
        self.faults: list[Fault] = []
        self.hold: Hold | None = None
        self.is_mute = False
        """While set, watches that are open fall silent, for good, and stay open."""

    def begin(self, trap: Trap | None) -> None:
        """Calls are numbered from here on, and the trap, if any, is set."""
        self._occurrences.clear()
        self.calls.clear()
        self.made.clear()
        self.trap = trap

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = self._name(request)
        fault = next((fault for fault in self.faults if fault.takes(name)), None)
        if fault and isinstance(fault.does, int):
            return _refusal(fault.does, fault.retry_after)
        if fault and fault.does is Spoiling.SILENCE:
            await asyncio.Event().wait()
        if fault and fault.does is Spoiling.EXPIRED:
            return web.json_response({"type": "ERROR", "object": _status(410, "Expired")})
        trap = self.trap if self.trap and name == self.trap.name and not self.trap.sprung else None
        if trap and trap.moment is Moment.BEFORE:
            return self._spring(request, trap)
        body = await request.read() or None
        hold = self.hold if self.hold and name == self.hold.name else None
        if hold:
            hold.arrived.set()
            await hold.release.wait()
        async with self._session.request(
            request.method,
            f"{self._upstream}{request.rel_url}",
            headers=_passed_on(dict(request.headers)),
            data=body,
            skip_auto_headers=["Content-Type"],
        ) as answer:
            if hold:
                hold.answered.set_result(answer.status)
            if "#" in name and answer.ok:
                self.made[name.partition("#")[0]] += 1
            if trap:
                await answer.read()
                return self._spring(request, trap)
            return await self._pass_on(request, answer, is_cut=fault is not None)

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, *, is_cut: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_passed_on(dict(answer.headers)))
        response.enable_chunked_encoding()
        await response.prepare(request)
        is_silent = False
        async for part in answer.content.iter_any():
            is_silent = is_silent or (self.is_mute and _is_watch(request))
            if is_cut:
                await response.write(part[: len(part) // 2])
                _hang_up(request)
                break
            if not is_silent:
                await response.write(part)
        return response

    def _name(self, request: web.Request) -> str:
        """What the call is called; only mutating ones have an occurrence."""
        bare = f"{'WATCH' if _is_watch(request) else request.method} {_object_of(request.path)}"
        self.seen[bare] += 1
        if request.method not in MUTATING or any(part in request.path for part in UNCOUNTED):
            return bare
        self._occurrences[bare] += 1
        name = f"{bare}#{self._occurrences[bare]}"
        self.calls.append(name)
        return name

    def _spring(self, request: web.Request, trap: Trap) -> web.StreamResponse:
        trap.sprung = True
        trap.strike()
        _hang_up(request)
        return web.Response(status=502)


def _object_of(path: str) -> str:
    """`statefulsets demo-prefill` or `pdclusters demo status`, a revision's hash apart."""
    _, _, tail = path.partition("/namespaces/")
    parts = tail.split("/")[1:] if tail else path.split("/")[-1:]
    return re.sub(r"-[0-9a-f]{10}\b", "-REVISION", " ".join(parts))


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch") in {"true", "1"}


def _hang_up(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()


def _status(code: int, reason: str) -> dict[str, object]:
    message = "made by the test"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def _refusal(status: int, retry_after: int | None) -> web.Response:
    answer = _status(status, "")
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return web.json_response(answer, status=status, headers=headers)


@contextlib.asynccontextmanager
async def proxied(plane: ControlPlane, namespace: str, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy, and a kubeconfig that leads through it as the chart's account in `namespace`, with its rights alone."""
    trust, token = plane.folder / TRUST, chart_token(plane, namespace)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(trust)), limit=0)
    endless = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=endless, auto_decompress=False) as session:
        proxy = Proxy(plane.server, session)
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
