"""The I/O thread: one asyncio loop that owns every gRPC server, channel and stream of the process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

JOIN_TIMEOUT = 10.0


class IoThread:
    """`post` and `call` are for other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="io", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Runs `function` on the loop soon. After `stop` it does nothing."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def call(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """The result comes to the caller's thread, which brings its own deadline."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """What still runs is cancelled."""
        self.post(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
