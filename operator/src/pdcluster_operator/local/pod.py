"""One planned pod as a process that is started again when it dies. Its task is the only writer of its state."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from pdcluster_operator.desired.pod import PodPlan
from pdcluster_operator.errors import StartError
from pdcluster_operator.local.child import Child, start_child
from pdcluster_operator.local.events import Failed, Loading, LogLine, Ready, read_line
from pdcluster_operator.local.lifecycle import (
    TRANSITIONS,
    GiveUp,
    History,
    PodState,
    after_exit,
    describe,
)
from pdcluster_operator.local.reaper import Reaper

GRACE, START_GRACE = 7.0, 2.0
"""Seconds from SIGTERM to SIGKILL: more than a local pod's drain takes, and when it has nothing to drain yet."""
KEPT_LINES = 20


class Watcher(Protocol):
    """Whoever is told. Called in the loop's thread; must not wait."""

    def moved(self, pod: "Pod") -> None:
        """Its state or its fraction changed."""

    def heard(self, pod: "Pod", raw: str) -> None:
        """A line of its output, whatever it means."""

    def said(self, pod: "Pod", line: LogLine) -> None:
        """A line that is for people."""

    def died(self, pod: "Pod", reason: str, delay: float) -> None:
        """It starts again after `delay` seconds."""


class Pod:
    """`pid` is that of the present process, or of the last one."""

    def __init__(self, plan: PodPlan, program: Sequence[str], watcher: Watcher, reaper: Reaper, limit: float) -> None:
        self.plan = plan
        self.state = PodState.WAITING
        self.pid = 0
        self.fraction = 0.0
        self._program, self._watcher, self._reaper, self._limit = tuple(program), watcher, reaper, limit
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._history = History()
        self._reason = ""
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def is_ready(self) -> bool:
        return self.state is PodState.READY

    def stop(self) -> None:
        """Ask once or often: it ends within GRACE and a little."""
        self._stop.set()

    async def run(self) -> None:
        """Until stop(). Raises StartError when it fails before it was ever ready."""
        while not self._stop.is_set():
            child = await self._start()
            status = await self._until_exit(child)
            if self._stop.is_set():
                break
            delay = self._decide(status)
            self._enter(PodState.WAITING)
            self._watcher.died(self, self._reason or describe(status), delay)
            if await self._stopped_within(delay):
                break
        self._enter(PodState.GONE)

    async def _start(self) -> Child:
        self.fraction, self._reason = 0.0, ""
        self._last_lines.clear()
        try:
            command = (*self._program, *self.plan.command)
            child = await start_child(command, dict(self.plan.environment), self._on_line, self._reaper)
        except OSError as error:
            raise StartError(f"{self.plan.name}: cannot start a process: {error.strerror}") from error
        self.pid = child.pid
        self._enter(PodState.STARTING)
        return child

    async def _until_exit(self, child: Child) -> int:
        """The status, with everything that the process started gone."""
        too_late = self._loop.call_later(self._limit, self._expire, child)
        stop = self._loop.create_task(self._stop.wait())
        ends: list[asyncio.Future[Any]] = [child.exited, stop]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and not child.exited.done():
                grace = GRACE if self.is_ready else START_GRACE
                self._enter(PodState.STOPPING)
                child.terminate()
                await asyncio.wait([child.exited], timeout=grace)
        finally:
            too_late.cancel()
            stop.cancel()
            child.kill()
        return await child.finish()

    def _expire(self, child: Child) -> None:
        if self.state is PodState.STARTING:
            self._reason = f"it was not ready within {self._limit:g} s"
            child.kill()

    def _decide(self, status: int) -> float:
        """Seconds until the next start. Raises StartError when there is none."""
        self._history, verdict = after_exit(self._history, status, self._reason, self._loop.time())
        if isinstance(verdict, GiveUp):
            self._enter(PodState.GONE)
            log = "" if self._reason else "".join(f"\n  {line}" for line in self._last_lines)
            raise StartError(f"{self.plan.name}: {verdict.reason}{log}")
        return verdict.delay

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _on_line(self, line: str) -> None:
        self._watcher.heard(self, line)
        match read_line(line):
            case Loading(fraction) if self.state is PodState.STARTING:
                self.fraction = fraction
                self._watcher.moved(self)
            case Ready() if self.state is PodState.STARTING:
                self.fraction = 1.0
                self._history = self._history.ready(self._loop.time())
                self._enter(PodState.READY)
            case Failed(reason):
                self._reason = reason
            case LogLine() as entry:
                self._last_lines.append(entry.text)
                self._watcher.said(self, entry)

    def _enter(self, state: PodState) -> None:
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"{self.plan.name}: {self.state} cannot become {state}")
        self.state = state
        self._watcher.moved(self)
