"""Keeps the planned pods running until it is told to stop. One asyncio loop; each pod's task owns that pod."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from pdcluster_operator.errors import StartError
from pdcluster_operator.local.events import LogLine
from pdcluster_operator.local.lifecycle import PodState
from pdcluster_operator.local.pod import Pod
from pdcluster_operator.local.probe import until_serving
from pdcluster_operator.local.reaper import Reaper, kill_descendants
from pdcluster_operator.local.report import Reporter, endpoint
from pdcluster_operator.local.screen import Screen
from pdcluster_operator.plan.plan import Plan

PAIR_LIMIT = 60.0
"""Seconds that the router may take to find a usable pair once every process is ready."""
CHANGE_LIMIT = 5.0
"""The same after a change; the line is written even so."""


class Supervisor:
    def __init__(self, plan: Plan, program: Sequence[str], screen: Screen, reporter: Reporter, limit: float) -> None:
        self._screen, self._reporter = screen, reporter
        self._reaper = Reaper()
        self._stop = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._returned: asyncio.Queue[Pod] = asyncio.Queue()
        self._endpoint = endpoint(plan.router)
        self._has_workers = bool(plan.workers)
        self.pods = [Pod(pod, program, self, self._reaper, limit) for pod in plan.pods]

    def stop(self) -> None:
        """Asking again changes nothing."""
        if not self._stop.is_set():
            self._stop.set()
            self._screen.say("stopping")

    async def run(self) -> None:
        """Until stop(). Raises StartError when a pod fails before it was ever ready. Leaves no process behind."""
        self._screen.begin(self.pods)
        tasks = [asyncio.create_task(pod.run(), name=pod.plan.name) for pod in self.pods]
        serving = asyncio.create_task(self._serve(), name="serve")
        try:
            done, _ = await asyncio.wait([serving, *tasks], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._stop.set()
            for pod in self.pods:
                pod.stop()
            await asyncio.gather(serving, *tasks, return_exceptions=True)
            kill_descendants(limit=1.0)
            self._reaper.close()

    async def _serve(self) -> None:
        """Announce the first readiness, then every process that came back; on stop, tell the pods."""
        stop = asyncio.create_task(self._stop.wait())
        try:
            await _first(self._all_ready.wait(), stop)
            if not self._stop.is_set():
                await self._announce_first()
            while not self._stop.is_set():
                await _first(self._returned.get(), stop)
                if not self._stop.is_set():
                    await until_serving(self._endpoint, self._stop, CHANGE_LIMIT)
                    self._reporter.write(self.pods)
        finally:
            stop.cancel()
            for pod in self.pods:
                pod.stop()

    async def _announce_first(self) -> None:
        if self._has_workers and not await until_serving(self._endpoint, self._stop, PAIR_LIMIT):
            if self._stop.is_set():
                return
            raise StartError(f"every process is ready, but the router found no usable workers within {PAIR_LIMIT:g} s")
        self._screen.ready(self.pods)
        self._reporter.write(self.pods)

    def moved(self, pod: Pod) -> None:
        self._screen.moved(pod)
        if pod.state is not PodState.READY:
            return
        if self._all_ready.is_set():
            self._returned.put_nowait(pod)
        elif all(other.is_ready for other in self.pods):
            self._all_ready.set()

    def heard(self, pod: Pod, raw: str) -> None:
        self._screen.heard(pod, raw)

    def said(self, pod: Pod, line: LogLine) -> None:
        self._screen.said(pod, line)

    def died(self, pod: Pod, reason: str, delay: float) -> None:
        self._screen.died(pod, reason, delay)


async def _first(wanted: Coroutine[Any, Any, object], stop: asyncio.Task[bool]) -> None:
    """Until `wanted` is done or `stop` is."""
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
