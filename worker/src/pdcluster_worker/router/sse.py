"""An open HTTP response of server-sent events: buffered, one write per turn of the loop, dropped when the client lags.

The status line waits for the first event, so that an error before it is a proper status; a stream that stays idle gets
its status line and a comment instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pdcluster_worker.router.errors import APIError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
COMMENT = b": waiting\n\n"


class EventStream:
    """`failure` is the error that came before the first byte; the caller answers with it."""

    def __init__(self, keepalive: float, most_behind: int, dropped: Callable[[], None]) -> None:
        self.failure: APIError | None = None
        self.lagged = False
        self._loop = asyncio.get_running_loop()
        self._keepalive = keepalive
        self._most_behind = most_behind
        self._dropped = dropped
        self._parts: list[bytes] = []
        self._size = 0
        self._last = self._loop.time()
        self._closed = False
        self._started = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(keepalive, self._tick)

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._parts.append(data)
        self._size += len(data)
        self._last = self._loop.time()
        if self._size > self._most_behind:
            self.lagged = True
            self.close()
            self._dropped()
        self._wake()

    def fail(self, error: APIError) -> None:
        """Before the first byte `failure` is set; after it the client gets an event."""
        if self._closed:
            return
        if self._started or self._parts:
            self.write(b"event: error\ndata: " + error.body() + b"\n\n")
        else:
            self.failure = error
        self.close()

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        self._wake()

    async def send_all(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        """Returns when all is sent, at a failure before the first byte, or when the client lags."""
        while not self.lagged:
            if not self._parts:
                if self._closed:
                    break
                self._waiter = self._loop.create_future()
                await self._waiter
                continue
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if self._started and not self.lagged:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tick(self) -> None:
        if self._loop.time() - self._last >= self._keepalive:
            self.write(COMMENT)
        self._timer = self._loop.call_at(self._last + self._keepalive, self._tick)
