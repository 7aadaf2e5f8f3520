"""What waits to leave on one stream. Lives on the event loop of that stream; nothing here blocks the engine."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from pdcluster_worker.errors import WorkerError
from pdcluster_worker.splitwise.limits import MAX_PENDING_BYTES

LAST_WRITE_TIMEOUT = 2.0
"""Seconds for a write that has begun when its stream ends."""


class SlowPeerError(WorkerError):
    """A peer reads so slowly that what waits for it would fill the memory."""


class Outbound:
    """A bounded queue of encoded messages and the one task that writes them."""

    def __init__(self, limit: int = MAX_PENDING_BYTES) -> None:
        self._limit = limit
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._overflow = asyncio.Event()
        self._finished = False

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    def push(self, messages: Iterable[bytes]) -> None:
        """Never waits; too much ends `run` with SlowPeerError."""
        if self._finished or self._overflow.is_set():
            return
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message)
        if self._bytes > self._limit:
            self._overflow.set()
        self._wake.set()

    def finish(self) -> None:
        """`run` ends once all is written."""
        self._finished = True
        self._wake.set()

    async def run(self, write: Callable[[bytes], Awaitable[Any]], *others: Coroutine[Any, Any, None]) -> None:
        """Writes what is pushed, beside `others`, until the first of them all ends; raises what ended it.

        A write that has begun is not cut off in the middle: the call could not be ended properly any more.
        """
        pump = asyncio.ensure_future(self._pump(write))
        tasks = [asyncio.ensure_future(other) for other in (*others, self._overflowed())]
        try:
            done, _ = await asyncio.wait({pump, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._messages.clear()
            self.finish()
            for task in tasks:
                task.cancel()
            await asyncio.wait({pump}, timeout=LAST_WRITE_TIMEOUT)
            pump.cancel()
            await asyncio.gather(pump, *tasks, return_exceptions=True)
        for task in (*tasks, pump):  # a call that has been given up fails its next write: that is not why it ended
            if task in done:
                task.result()

    async def _pump(self, write: Callable[[bytes], Awaitable[Any]]) -> None:
        while True:
            while self._messages:
                message = self._messages.popleft()
                await write(message)
                self._bytes -= len(message)
            if self._finished:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _overflowed(self) -> None:
        """Waits for the queue to run over. Raises SlowPeerError."""
        await self._overflow.wait()
        raise SlowPeerError(f"{self._bytes} bytes wait for a peer that does not read; the limit is {self._limit}")
