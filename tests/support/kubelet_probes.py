"""Probes and hooks of a container, carried out against its process on this host."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Manifest = dict[str, Any]
Execute = Callable[[list[str], float], Awaitable[bool]]
"""Runs a command beside the container, with a time limit; true when it exits with 0."""


@dataclass(frozen=True)
class Prober:
    """Where the probes of one container go."""

    address: str
    ports: dict[str, int]
    execute: Execute

    async def holds(self, probe: Manifest) -> bool:
        """One attempt; every failure, including a time-out, is a plain False."""
        seconds = float(probe.get("timeoutSeconds", 1))
        with contextlib.suppress(TimeoutError, OSError, aiohttp.ClientError, grpc.aio.AioRpcError):
            async with asyncio.timeout(seconds):
                return await self._attempt(probe, seconds)
        return False

    async def _attempt(self, probe: Manifest, seconds: float) -> bool:
        if "httpGet" in probe:
            return await self._get(probe["httpGet"], seconds)
        if "exec" in probe:
            return await self.execute(probe["exec"]["command"], seconds)
        if "grpc" in probe:
            return await self._grpc(probe["grpc"])
        if "sleep" in probe:
            await asyncio.sleep(probe["sleep"]["seconds"])
            return True
        host = probe["tcpSocket"].get("host", self.address)
        _, writer = await asyncio.open_connection(host, self._port(probe["tcpSocket"]["port"]))
        writer.close()
        return True

    async def _get(self, action: Manifest, seconds: float) -> bool:
        scheme, host = action.get("scheme", "HTTP").lower(), action.get("host", self.address)
        url = f"{scheme}://{host}:{self._port(action['port'])}{action.get('path', '/')}"
        headers = {header["name"]: header["value"] for header in action.get("httpHeaders", [])}
        limit = aiohttp.ClientTimeout(total=seconds)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer,
        ):
            return 200 <= answer.status < 400

    async def _grpc(self, action: Manifest) -> bool:
        async with grpc.aio.insecure_channel(f"{self.address}:{action['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=action.get("service", ""))
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _port(self, port: int | str) -> int:
        return port if isinstance(port, int) else self.ports[port]
