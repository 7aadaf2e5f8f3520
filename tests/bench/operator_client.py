"""A bare client of the API server: bytes out, bytes in, over so many connections that stay open."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CONNECTIONS = 16
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
SECONDS = 60.0


class RefusedError(RuntimeError):
    """The API server's words."""


class BareClient:
    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def send(self, verb: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        headers = {"Content-Type": content_type}
        async with self._session.request(verb, self._server + path, data=body or None, headers=headers) as answer:
            text = await answer.read()
            if answer.status >= 400:
                raise RefusedError(f"{verb} {path}: {answer.status} {text[:500]!r}")
            return text

    async def post(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(await self.send("POST", path, json.dumps(manifest).encode())))

    async def apply(self, path: str, body: bytes) -> None:
        await self.send("PATCH", f"{path}?fieldManager=bare&force=true", body, APPLY)


@asynccontextmanager
async def connected(server: str, trust: Path, token: str) -> AsyncIterator[BareClient]:
    context = ssl.create_default_context(cafile=str(trust))
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context)
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        yield BareClient(session, server)


async def side_by_side(work: Callable[[int], Awaitable[None]], numbers: Iterable[int]) -> None:
    """Each number once, as many at a time as there are connections."""
    left = iter(numbers)

    async def serve() -> None:
        for number in left:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(serve())
