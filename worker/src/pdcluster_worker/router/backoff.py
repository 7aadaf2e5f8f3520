"""Waiting before the next attempt: longer each time, cut short by whoever closes."""

import asyncio
import contextlib


class Backoff:
    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._next = first
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def wait(self) -> None:
        delay, self._next = self._next, min(2 * self._next, self._last)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), delay)

    def reset(self) -> None:
        """The last attempt got somewhere."""
        self._next = self._first

    def close(self) -> None:
        """No further attempt; `wait` returns at once."""
        self._closed.set()
