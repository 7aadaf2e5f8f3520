"""Random faults of a deployment whose workers are reached through proxies: deaths, pauses, cut and stalled links.

Every fault heals by itself: what is killed is started again, what is stopped goes on, what is stalled passes. Pauses
and stalls are sometimes longer than a lease lives.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from link_proxy import LinkMode, ThreadedLinkProxy
from load_deployment import Deployment
from load_disturbed import kill_and_start

SHORT_PAUSE = (0.2, 3.0)
LONG_PAUSE = (10.5, 13.0)
"""Beyond the lease's time to live."""
LONG_SHARE = 0.15


class FaultStorm:
    """`run` for so many seconds; when it returns everything is healed and every worker ready."""

    def __init__(self, cluster: Deployment, proxies: Sequence[ThreadedLinkProxy], seed: int) -> None:
        self._cluster = cluster
        self._proxies = proxies
        self._random = random.Random(seed)
        self._busy: set[int] = set()
        """Workers that suffer a fault now: one at a time each."""
        self._healing: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self._faults: list[Callable[[int], Awaitable[None]]] = [
            self.kill,
            self.kill_executor,
            self.stop_engine,
            self.stop_executor,
            self.cut_links,
            self.stall_links,
        ]

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            self._strike()
            await asyncio.sleep(self._random.uniform(0.2, 1.5))
        await asyncio.gather(*self._healing)
        await asyncio.to_thread(self._cluster.wait_workers)

    def _strike(self) -> None:
        free = [number for number in range(len(self._cluster.workers)) if number not in self._busy]
        if not free:
            return
        number, fault = self._random.choice(free), self._random.choice(self._faults)
        self._busy.add(number)
        self.counts[fault.__name__] += 1
        task = asyncio.ensure_future(self._suffer(number, fault))
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _suffer(self, number: int, fault: Callable[[int], Awaitable[None]]) -> None:
        try:
            await fault(number)
        finally:
            self._busy.discard(number)

    # --- faults -------------------------------------------------------------------------------------

    async def kill(self, number: int) -> None:
        """The engine; its executor dies with it."""
        await kill_and_start(self._cluster, [number])

    async def kill_executor(self, number: int) -> None:
        """The engine ends by itself; a new pod follows. A pod that has no executor yet is left alone."""
        worker = self._cluster.workers[number]
        executors = worker.executor_pids()
        if not executors:
            return
        for pid in executors:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(worker.wait_ended)
        await kill_and_start(self._cluster, [number])

    async def stop_engine(self, number: int) -> None:
        await self._stop_for_a_while([self._cluster.workers[number].pid])

    async def stop_executor(self, number: int) -> None:
        await self._stop_for_a_while(self._cluster.workers[number].executor_pids())

    async def cut_links(self, number: int) -> None:
        self._proxies[number].cut()

    async def stall_links(self, number: int) -> None:
        self._proxies[number].set_mode(LinkMode.STALL)
        try:
            await asyncio.sleep(self._pause())
        finally:
            self._proxies[number].set_mode(LinkMode.PASS)

    async def _stop_for_a_while(self, pids: Sequence[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._pause())
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _pause(self) -> float:
        return self._random.uniform(*(LONG_PAUSE if self._random.random() < LONG_SHARE else SHORT_PAUSE))
