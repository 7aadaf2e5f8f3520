"""One multiplexed Inference.Stream to one worker address: connect, speak, and connect again when it breaks.

The router's loop is the only writer. What goes out in one turn of the loop is one message. The owner hears of every
change through `LinkOwner`; handles are names of this stream alone and die with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc
import grpc.aio
import msgspec
import structlog

from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.router.backoff import Backoff
from pdcluster_worker.router.job import Job
from pdcluster_worker.router.life import Life
from pdcluster_worker.splitwise.channel import INFERENCE_STREAM
from pdcluster_worker.splitwise.inference_codec import decode_worker, encode_router
from pdcluster_worker.splitwise.inference_messages import (
    AbortItem,
    AttachItem,
    PeerRecord,
    RouterBatch,
    RouterHello,
    SubmitItem,
    WorkerBatch,
    WorkerHello,
    WorkerState,
)
from pdcluster_worker.splitwise.outbound import Outbound, SlowPeerError

CONNECT_TIMEOUT = 5.0
FIRST_BACKOFF, LAST_BACKOFF = 0.05, 1.0
_log = structlog.get_logger()

Call = grpc.aio.StreamStreamCall[bytes, bytes]


class LinkOwner(Protocol):
    """Called from the router's loop; none may wait."""

    def link_up(self, link: Link, previous: WorkerHello | None) -> None: ...
    def link_message(self, link: Link, batch: WorkerBatch) -> None: ...
    def link_down(self, link: Link, refused: bool) -> None: ...


class LinkSettings(msgspec.Struct, frozen=True):
    """What all links of a router share. An empty revision accepts any. `open_channel` takes an address and a role."""

    router_id: str
    model: str
    revision: str
    open_channel: Callable[[str, str], grpc.aio.Channel]


class _Turn(msgspec.Struct):
    """What is said in one turn of the loop: one batch."""

    peers: tuple[PeerRecord, ...] | None = None
    submits: list[SubmitItem] = []
    attaches: list[AttachItem] = []
    aborts: list[AbortItem] = []
    gone_pods: tuple[str, ...] = ()

    def batch(self) -> RouterBatch:
        return RouterBatch(
            peers=self.peers,
            submits=tuple(self.submits),
            attaches=tuple(self.attaches),
            aborts=tuple(self.aborts),
            gone_pods=self.gone_pods,
        )


class Link:
    """`hello` is of the last successful connection and stays while the stream is broken; `state` does not."""

    def __init__(self, address: str, role: Role, owner: LinkOwner, settings: LinkSettings) -> None:
        self.address = address
        self.role = role
        self.hello: WorkerHello | None = None
        self.state: WorkerState | None = None
        self.connected = False
        self.retired = False
        """Discovery no longer lists it: nothing new goes there, and it is not waited for when it breaks."""
        self.entries: dict[int, Job] = {}
        """By handle: the jobs whose present epoch this worker holds or is asked for."""
        self.outstanding_tokens = 0
        """Prompt tokens sent from here whose first output token is not back."""
        self._owner = owner
        self._settings = settings
        self._next_handle = 1
        self._loop = asyncio.get_running_loop()
        self._outbound = Outbound()
        self._backoff = Backoff(FIRST_BACKOFF, LAST_BACKOFF)
        self._task: asyncio.Task[None] | None = None
        self._turn: _Turn | None = None
        self._last_reason = ""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"link {self.address}")

    async def close(self) -> None:
        """Ends the stream; the owner hears of it as a break."""
        self._backoff.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def instance(self) -> str:
        """Of the process last connected; empty before the first."""
        return self.hello.instance_id if self.hello is not None else ""

    # --- jobs ---------------------------------------------------------------------------------------

    def handle_of(self, job: Job) -> int:
        """The job's handle here, made when it has none."""
        handle = job.handles.get(self)
        if handle is None:
            handle, self._next_handle = self._next_handle, self._next_handle + 1
            self.entries[handle] = job
            job.handles[self] = handle
        return handle

    def forget(self, job: Job) -> None:
        handle = job.handles.pop(self, None)
        if handle is not None:
            self.entries.pop(handle, None)

    def take_entries(self) -> list[Job]:
        """All jobs here; their handles are void."""
        jobs = list(self.entries.values())
        for job in jobs:
            self.forget(job)
        return jobs

    # --- sending: nobody hears it while the stream is broken ------------------------------------------

    def submit(self, handle: int, request: Request) -> None:
        self._this_turn().submits.append(SubmitItem(handle, request))

    def attach(self, handle: int, life: Life, *, prefill_lost: bool) -> None:
        self._this_turn().attaches.append(AttachItem(handle, life.key, len(life.tokens), prefill_lost))

    def abort(self, item: AbortItem) -> None:
        self._this_turn().aborts.append(item)

    def peers(self, peers: tuple[PeerRecord, ...]) -> None:
        self._this_turn().peers = peers

    def gone_pods(self, names: tuple[str, ...]) -> None:
        self._this_turn().gone_pods = names

    def _this_turn(self) -> _Turn:
        if self._turn is None:
            self._turn = _Turn()
            self._loop.call_soon(self._flush, self._turn)
        return self._turn

    def _flush(self, turn: _Turn) -> None:
        if self._turn is turn:
            self._turn = None
            if self.connected:
                self._outbound.push(encode_router(turn.batch(), self._loop.time()))

    # --- the connection -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._backoff.closed:
            refused = await self._refused()
            if not refused and await self._connection():
                self._backoff.reset()
            else:
                self._owner.link_down(self, refused)
                await self._backoff.wait()
            if self.retired:
                return

    async def _refused(self) -> bool:
        """True when nobody listens at the address: the process is gone, there is nothing to wait for."""
        host, _, port = self.address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        writer.close()
        return False

    async def _connection(self) -> bool:
        """One connection from hello to break. False when it never got as far as the worker's hello."""
        channel = self._settings.open_channel(self.address, self.role.value)
        try:
            await self._talk(channel.stream_stream(INFERENCE_STREAM)())
        except grpc.aio.AioRpcError as error:
            self._broken(error.details() or error.code().name)
        except (TimeoutError, ProtocolError, SlowPeerError, asyncio.InvalidStateError) as error:
            self._broken(str(error) or type(error).__name__)
        except asyncio.CancelledError:  # how grpc.aio says that the call was cancelled, by the peer too
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._broken("the peer cancelled the call")
        finally:
            greeted, self.connected = self.connected, False
            if greeted:
                self.state = None
                self._owner.link_down(self, refused=False)
            await channel.close(None)
        return greeted

    def _broken(self, reason: str) -> None:
        """Said once for as long as it stays the same: a worker that loads its model refuses again and again."""
        if reason != self._last_reason:
            self._last_reason = reason
            _log.info("link_broken", worker=self.address, reason=reason)

    async def _talk(self, call: Call) -> None:
        try:
            self._open(await self._greet(call))
            await self._outbound.run(call.write, self._read(call))
        finally:
            call.cancel()

    async def _greet(self, call: Call) -> WorkerHello:
        settings = self._settings
        async with asyncio.timeout(CONNECT_TIMEOUT):
            for message in encode_router(RouterBatch(hello=RouterHello(settings.router_id, settings.model)), 0.0):
                await call.write(message)
            answer = await call.read()
        if not isinstance(answer, bytes):
            raise ProtocolError("the worker closed the stream before its hello")
        hello = decode_worker(answer).hello
        if hello is None:
            raise ProtocolError("the worker's first message is no hello")
        if settings.revision and hello.revision != settings.revision:
            raise ProtocolError(f"the worker's revision is {hello.revision!r}, not {settings.revision!r}")
        if hello.model != settings.model:
            raise ProtocolError(f"the worker serves {hello.model!r}, not {settings.model!r}")
        return hello

    def _open(self, hello: WorkerHello) -> None:
        previous, self.hello = self.hello, hello
        self.role = hello.role
        self.connected = True
        self._next_handle = 1
        self._outbound = Outbound()
        self._turn = None
        self._last_reason = ""
        self._owner.link_up(self, previous)

    async def _read(self, call: Call) -> None:
        while isinstance(message := await call.read(), bytes):
            batch = decode_worker(message)
            if batch.state is not None:
                self.state = batch.state
            self._owner.link_message(self, batch)
