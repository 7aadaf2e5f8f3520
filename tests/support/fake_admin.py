"""A worker's Admin service on a pod's own loopback address, with nothing behind it: it drains when the test says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from pdcluster_operator.plan.site import GRPC_PORT
from pdcluster_proto.v1 import admin_pb2, admin_pb2_grpc


class FakeAdmin(admin_pb2_grpc.AdminServicer):
    """`empty` set: it holds no request. `calls`: what it was asked, in order; `asked` wakes who waits for one."""

    def __init__(self) -> None:
        self.empty = asyncio.Event()
        self.calls: list[str] = []
        self._asked = asyncio.Condition()

    async def Drain(  # noqa: N802
        self, request: admin_pb2.DrainRequest, context: object
    ) -> AsyncIterator[admin_pb2.DrainProgress]:
        await self._note("Drain")
        yield admin_pb2.DrainProgress(requests=1)
        await self.empty.wait()
        yield admin_pb2.DrainProgress(drained=True)

    async def Resume(self, request: admin_pb2.ResumeRequest, context: object) -> admin_pb2.ResumeReply:  # noqa: N802
        await self._note("Resume")
        return admin_pb2.ResumeReply()

    async def wait_for(self, *calls: str, seconds: float = 30.0) -> None:
        """Returns when exactly these calls were made; raises TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds), self._asked:
            await self._asked.wait_for(lambda: self.calls == list(calls))

    async def _note(self, call: str) -> None:
        async with self._asked:
            self.calls.append(call)
            self._asked.notify_all()


@contextlib.asynccontextmanager
async def admin_of(address: str) -> AsyncIterator[FakeAdmin]:
    """Served without TLS at a pod's address while the context lasts."""
    fake, server = FakeAdmin(), grpc.aio.server()
    admin_pb2_grpc.add_AdminServicer_to_server(fake, server)
    server.add_insecure_port(f"{address}:{GRPC_PORT}")
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(grace=None)
