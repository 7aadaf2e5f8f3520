"""Admin: Drain, Resume, Describe, for the operator and the own pod. Lives on the I/O loop."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc.aio

from pdcluster_proto.v1 import admin_pb2, admin_pb2_grpc
from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.core.events import DrainAsked, Resumed
from pdcluster_worker.engine.ports import Status
from pdcluster_worker.engine.switchboard import Switchboard
from pdcluster_worker.splitwise.engine_port import EnginePort
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.incoming import authorise_admin
from pdcluster_worker.splitwise.inference_codec import ROLE_TO_WIRE
from pdcluster_worker.splitwise.tls import TLSIdentity

PROGRESS_INTERVAL = 1.0
"""Progress is told at every change, and at least this often."""
GIVE_UP_MARGIN = 2.0
"""Seconds after the deadline in which the core ends what is left."""

DrainContext = grpc.aio.ServicerContext[admin_pb2.DrainRequest, admin_pb2.DrainProgress]
ResumeContext = grpc.aio.ServicerContext[admin_pb2.ResumeRequest, admin_pb2.ResumeReply]
DescribeContext = grpc.aio.ServicerContext[admin_pb2.DescribeRequest, admin_pb2.DescribeReply]


class AdminService(admin_pb2_grpc.AdminServicer):
    """Before the model is loaded every call is UNAVAILABLE."""

    def __init__(self, tls: TLSIdentity | None, board: Switchboard) -> None:
        self._tls = tls
        self._board = board
        self._identity: WorkerIdentity | None = None
        self._engine: EnginePort | None = None

    def open(self, identity: WorkerIdentity, engine: EnginePort) -> None:
        self._identity = identity
        self._engine = engine

    async def Drain(  # noqa: N802 - the name in the service
        self, request: admin_pb2.DrainRequest, context: DrainContext
    ) -> AsyncIterator[admin_pb2.DrainProgress]:
        """Ends with `drained`, or when the deadline has passed. A caller that leaves does not resume the worker."""
        _, engine = await self._ready(context)
        deadline = time.monotonic() + request.deadline_ms / 1000
        news: asyncio.Queue[Status] = asyncio.Queue()
        unwatch = self._board.watch(news.put_nowait)
        try:
            engine.post(DrainAsked(deadline=deadline))
            while (left := deadline + GIVE_UP_MARGIN - time.monotonic()) > 0:
                status = await _next(news, min(left, PROGRESS_INTERVAL)) or self._board.status
                if status is None or not status.snapshot.draining:
                    continue
                yield _progress(status)
                if status.drained:
                    return
        finally:
            unwatch()

    async def Resume(  # noqa: N802
        self, request: admin_pb2.ResumeRequest, context: ResumeContext
    ) -> admin_pb2.ResumeReply:
        _, engine = await self._ready(context)
        engine.post(Resumed())
        return admin_pb2.ResumeReply()

    async def Describe(  # noqa: N802
        self, request: admin_pb2.DescribeRequest, context: DescribeContext
    ) -> admin_pb2.DescribeReply:
        me, _ = await self._ready(context)
        reply = admin_pb2.DescribeReply(
            instance_id=me.instance_id,
            name=me.name,
            role=ROLE_TO_WIRE[me.role],
            revision=me.revision,
            layout_hash=me.layout_hash,
            model=me.model,
        )
        if self._board.status is not None:
            _describe(self._board.status.snapshot, reply)
        return reply

    async def _ready(
        self, context: "DrainContext | ResumeContext | DescribeContext"
    ) -> tuple[WorkerIdentity, EnginePort]:
        await authorise_admin(context, self._tls, self._identity.role if self._identity is not None else "")
        if self._identity is None or self._engine is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        return self._identity, self._engine


async def _next(news: "asyncio.Queue[Status]", timeout: float) -> Status | None:
    """The latest status, if one comes in time."""
    try:
        async with asyncio.timeout(timeout):
            status = await news.get()
    except TimeoutError:
        return None
    while not news.empty():
        status = news.get_nowait()
    return status


def _held(snapshot: Snapshot) -> tuple[int, int]:
    """(requests, leases)"""
    requests = snapshot.requests_waiting + snapshot.requests_running
    return requests, snapshot.leases.get("live", 0) + snapshot.leases.get("held", 0)


def _progress(status: Status) -> admin_pb2.DrainProgress:
    requests, leases = _held(status.snapshot)
    return admin_pb2.DrainProgress(requests=requests, leases=leases, drained=status.drained)


def _describe(snapshot: Snapshot, reply: admin_pb2.DescribeReply) -> None:
    reply.draining = snapshot.draining
    reply.requests, reply.leases = _held(snapshot)
    reply.kv_peers = snapshot.kv_peers
    for holder, count in snapshot.blocks.items():
        reply.blocks[holder] = count
