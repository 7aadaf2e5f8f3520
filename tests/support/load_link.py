"""One stream of `Inference.Stream` to one worker, as a router holds it: opened again whenever it breaks.

Runs on one asyncio loop. What is sent within one turn of the loop leaves as one message: parts are joined as bytes,
since protobuf messages that are concatenated are merged.
"""

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import grpc.aio

from pdcluster_proto.v1.inference_pb2 import RouterHello, RouterMessage, WorkerHello, WorkerMessage

PROTOCOL_VERSION = 1
METHOD = "/pdcluster.v1.Inference/Stream"
MAX_PART_BYTES = 1 << 20
RECONNECT_SECONDS = 0.05
OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]


class WorkerLink:
    """`hello` is None while no stream is up. Callbacks run on the loop; `on_lost` once per stream that was up."""

    def __init__(
        self,
        address: str,
        on_hello: Callable[["WorkerLink"], None],
        on_message: Callable[["WorkerLink", WorkerMessage], None],
        on_lost: Callable[["WorkerLink"], None],
    ) -> None:
        self.address = address
        self.hello: WorkerHello | None = None
        self.kv_peers = 0
        self._callbacks = (on_hello, on_message, on_lost)
        self._parts: list[bytes] = []
        self._wake = asyncio.Event()
        self._task = asyncio.ensure_future(self._keep_open())

    def send(self, message: RouterMessage) -> None:
        """Parts sent while no stream is up are lost, as the worker at its end would lose them."""
        if self.hello is not None:
            self._parts.append(message.SerializeToString())
            self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _keep_open(self) -> None:
        while True:
            async with grpc.aio.insecure_channel(self.address, options=OPTIONS) as channel:
                with contextlib.suppress(grpc.RpcError, asyncio.TimeoutError):
                    await self._one_stream(channel)
                self._lost()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _one_stream(self, channel: grpc.aio.Channel) -> None:
        await asyncio.wait_for(channel.channel_ready(), 2.0)
        call: grpc.aio.StreamStreamCall[bytes, WorkerMessage]
        call = channel.stream_stream(METHOD, None, WorkerMessage.FromString)()
        hello = RouterMessage(hello=RouterHello(protocol_version=PROTOCOL_VERSION, router_id="load-client"))
        await call.write(hello.SerializeToString())
        first = await asyncio.wait_for(call.read(), 5.0)
        if not isinstance(first, WorkerMessage):
            return
        self.hello = first.hello
        self._callbacks[0](self)
        writer = asyncio.ensure_future(self._write(call))
        try:
            while isinstance(message := await call.read(), WorkerMessage):
                if message.HasField("state"):
                    self.kv_peers = message.state.kv_peers
                self._callbacks[1](self, message)
        finally:
            writer.cancel()
            call.cancel()

    async def _write(self, call: "grpc.aio.StreamStreamCall[bytes, WorkerMessage]") -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._parts:
                await call.write(self._next_message())

    def _next_message(self) -> bytes:
        """The parts that fit into one message, at least one."""
        size = number = 0
        for part in self._parts:
            size += len(part)
            if number and size > MAX_PART_BYTES:
                break
            number += 1
        message = b"".join(self._parts[:number])
        del self._parts[:number]
        return message

    def _lost(self) -> None:
        was_up = self.hello is not None
        self.hello = None
        self.kv_peers = 0
        self._parts.clear()
        if was_up:
            self._callbacks[2](self)
