"""Answers fences: tells the engine once what had arrived at the transport has landed in memory.

A thread of its own, for a fence over TCP waits until connections have been silent for a while. One drain answers
all fences that were asked before it began. A drain that runs out of time is tried again: until it succeeds, the
blocks that wait for it stay quarantined.
"""

import queue
import threading
from collections.abc import Callable

import structlog

from pdcluster_worker.kv.transport import KVTransport

log = structlog.get_logger(__name__)

DRAIN_TIMEOUT = 2.0
CLOSE_TIMEOUT = DRAIN_TIMEOUT + 1
_END = -1


class FenceKeeper:
    """`answer(fences)` is called on the inner thread."""

    def __init__(self, transport: KVTransport, answer: Callable[[tuple[int, ...]], None]) -> None:
        self._transport = transport
        self._answer = answer
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fences", daemon=True)
        self._thread.start()

    def ask(self, fence: int) -> None:
        self._queue.put(fence)

    def close(self) -> None:
        """Fences that are still out are not answered."""
        self._queue.put(_END)
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        asked: list[int] = []
        while _END not in asked:
            if not asked:
                asked.append(self._queue.get())
            while not self._queue.empty():
                asked.append(self._queue.get_nowait())
            if _END not in asked and self._transport.drain(DRAIN_TIMEOUT):
                self._answer(tuple(asked))
                asked = []
