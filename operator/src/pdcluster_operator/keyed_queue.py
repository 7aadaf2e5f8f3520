"""Work by key: events only add keys, and each key is worked on by one worker at a time.

A key that is added again before its turn is worked on once; one that is added while it is being worked on has another
turn afterwards. A turn that fails is repeated with a growing pause. All on one event loop.
"""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from pdcluster_operator.pace import scatter

Key = TypeVar("Key", bound=Hashable)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
EVENT_PAUSE = 2.0
"""Events bring a failed key forward to this long after its failure: a storm of them is no storm of calls."""


class KeyedQueue(Generic[Key]):
    """`work` returns after how many seconds the key is due again, or None; what it raises goes to `failed`.

    `failed` may answer with the seconds for which the key must be left alone, whatever happens.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        failed: Callable[[Key, Exception], float | None],
        *,
        debounce: float = 0.1,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._failed = failed
        self._debounce = debounce
        self._random = random_source
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._running: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._earliest: dict[Key, float] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key, delay: float | None = None) -> None:
        """The key is due after `delay` seconds, by default the debounce, or earlier if it already was."""
        due = asyncio.get_running_loop().time() + (self._debounce if delay is None else delay)
        due = max(due, self._earliest.get(key, due))
        if key in self._running:
            self._again[key] = min(due, self._again.get(key, due))
        elif due < self._due.get(key, float("inf")):
            self._schedule(key, due)

    def __len__(self) -> int:
        """Keys that wait, whenever they are due."""
        return len(self._due)

    async def run(self, workers: int = 8) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            key = await self._next()
            self._running.add(key)
            try:
                again = await self._turn(key)
            finally:
                self._running.discard(key)
            wanted = self._again.pop(key, None)
            loop_time = asyncio.get_running_loop().time()
            times = [time for time in (wanted, None if again is None else loop_time + again) if time is not None]
            if times:
                self._schedule(key, max(min(times), self._earliest.get(key, loop_time)))

    async def _turn(self, key: Key) -> float | None:
        try:
            again = await self._work(key)
        except Exception as error:  # the top of a worker: the key's turn failed, the others go on
            self._failures[key] = self._failures.get(key, 0) + 1
            asked = min(self._failed(key, error) or 0.0, LONGEST_PAUSE)
            pause = max(self._pause(self._failures[key]), asked)
            self._earliest[key] = asyncio.get_running_loop().time() + max(min(pause, EVENT_PAUSE), asked)
            return pause
        self._failures.pop(key, None)
        self._earliest.pop(key, None)
        return again

    def _pause(self, failures: int) -> float:
        """Grows with each failure in a row; random, so that keys that failed together do not return together."""
        return scatter(min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE), self._random)

    def _schedule(self, key: Key, due: float) -> None:
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._changed.set()

    async def _next(self) -> Key:
        """Waits for the key that is due first, and takes it."""
        while True:
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            left = self._heap[0][0] - asyncio.get_running_loop().time() if self._heap else None
            if left is not None and left <= 0:
                key = heapq.heappop(self._heap)[2]
                del self._due[key]
                return key
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
