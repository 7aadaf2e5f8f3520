"""A TCP proxy on loopback that stands for a bad network: each connection passes, stalls, is delayed or is cut.

A stalled connection stays open and carries nothing, in either direction; what had been read is kept and goes on when
it passes again. A cut one is reset. Only the proxy's asyncio loop writes its state; `ThreadedLinkProxy` brings a loop
of its own for callers that have none.
"""

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

LINGER_RESET = struct.pack("ii", 1, 0)
START_TIMEOUT = 5.0


class LinkMode(enum.Enum):
    """What happens to the bytes of a connection."""

    PASS = "pass"
    STALL = "stall"
    CUT = "cut"


class Side(asyncio.Protocol):
    """One end of a proxied connection: what it receives goes to `other`, unless it is held."""

    def __init__(self, on_connected: Callable[["Side"], None]) -> None:
        self._on_connected = on_connected
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.mode = LinkMode.PASS
        self.delay = 0.0
        self._held: list[bytes] = []
        """Received and not passed on; an empty entry is the end of the stream."""
        self._last_due = 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if not self.delay:
            self._pass_on(data)
            return
        self._last_due = max(loop.time() + self.delay, self._last_due + 1e-6)
        loop.call_at(self._last_due, self._pass_on, data)

    def eof_received(self) -> bool:
        self.data_received(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and self.other.mode is LinkMode.PASS:
            self.other.transport.resume_reading()

    def set_mode(self, mode: LinkMode, delay: float) -> None:
        self.mode, self.delay = mode, delay
        if self.transport is None or self.transport.is_closing():
            return
        if mode is LinkMode.CUT:
            self._reset()
        elif mode is LinkMode.STALL:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
            held, self._held = self._held, []
            for data in held:
                self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        if self.mode is LinkMode.STALL or self.other is None:
            self._held.append(data)
        elif self.other.transport is not None and not self.other.transport.is_closing():
            if data:
                self.other.transport.write(data)
            else:
                self.other.transport.write_eof()

    def _reset(self) -> None:
        assert self.transport is not None
        raw = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self.transport.abort()


class LinkProxy:
    """Forwards a loopback port of its own to `target_port`; new connections start in the mode that was set last."""

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, target_port)
        self._server: asyncio.Server | None = None
        self._sides: set[Side] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mode = LinkMode.PASS
        self._delay = 0.0
        self.port = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Side(self._accepted), self._target[0], 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        self.cut()
        await asyncio.gather(*(side.closed for side in self._sides), *self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def address(self) -> str:
        return f"{self._target[0]}:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._sides) // 2

    def set_mode(self, mode: LinkMode, delay: float = 0.0) -> None:
        """For the connections there are and those to come. CUT: resets what is open, and what comes at once."""
        self._mode, self._delay = mode, delay
        for side in list(self._sides):
            side.set_mode(mode, delay)

    def cut(self) -> None:
        """Reset the open connections; new ones are served as before."""
        for side in list(self._sides):
            side.set_mode(LinkMode.CUT, 0.0)

    def _accepted(self, client: Side) -> None:
        client.mode, client.delay = self._mode, self._delay
        task = asyncio.get_running_loop().create_task(self._join(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, client: Side) -> None:
        target = Side(lambda side: None)
        pair = (client, target)
        self._sides.update(pair)
        try:
            if self._mode is not LinkMode.CUT:
                await asyncio.get_running_loop().create_connection(lambda: target, *self._target)
                client.other, target.other = target, client
            for side in pair:
                side.set_mode(self._mode, self._delay)
            await client.closed
        except OSError:
            client.set_mode(LinkMode.CUT, 0.0)
        finally:
            if target.transport is not None:
                target.transport.abort()
            self._sides.difference_update(pair)


class ThreadedLinkProxy:
    """A LinkProxy for callers without a loop: a context manager; methods may be called from any thread."""

    def __init__(self, target_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = LinkProxy(target_port)
        self.thread = threading.Thread(target=self._loop.run_forever, name="link-proxy", daemon=True)

    def __enter__(self) -> "ThreadedLinkProxy":
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result(START_TIMEOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.stop(), self._loop).result(START_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.thread.join(START_TIMEOUT)
        self._loop.close()

    @property
    def address(self) -> str:
        return self._proxy.address

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def connections(self) -> int:
        return self._proxy.connections

    def set_mode(self, mode: LinkMode, delay: float = 0.0) -> None:
        self._loop.call_soon_threadsafe(self._proxy.set_mode, mode, delay)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.cut)
