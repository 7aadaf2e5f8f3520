"""The life of one container on this node: start, probes, restarts with back-off, an orderly end."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubelet_environment import NotYetError
from kubelet_probes import Prober
from kubelet_process import Contained

Manifest = dict[str, Any]

FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 5.0
"""Shorter than a real kubelet's ten seconds to five minutes: tests wait for restarts."""


@dataclass(frozen=True)
class Launch:
    """What it takes to start a process in a container, worked out anew for every start."""

    sandbox: list[str]
    command: list[str]
    environment: dict[str, str]
    log: Path


class Container:
    """One container; `changed` is called after every change of what `status` would tell."""

    def __init__(
        self,
        spec: Manifest,
        address: str,
        prepare: Callable[[Manifest], Awaitable[Launch]],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.restarts = 0
        self.ready = False
        self.started = False
        self.exit_code: int | None = None
        self._waiting: str | None = "ContainerCreating"
        self._since = ""
        self._prepare = prepare
        self._changed = changed
        self._process: Contained | None = None
        self._stopping = asyncio.Event()
        ports = {port["name"]: port["containerPort"] for port in spec.get("ports", []) if "name" in port}
        self._prober = Prober(address, ports, self._execute)

    async def run(self, policy: str) -> None:
        """Runs it, again and again as the restart policy says; returns when it is to run no more."""
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            try:
                self.exit_code = await self._once()
            except NotYetError:
                self.exit_code = None
            done = policy == "Never" or (policy == "OnFailure" and self.exit_code == 0)
            if self._stopping.is_set() or (self.exit_code is not None and done):
                break
            if self.exit_code is not None:
                self._waiting = "CrashLoopBackOff"
                self.restarts += 1
            self._changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF)
        self._changed()

    async def stop(self, grace: float) -> None:
        """preStop, then SIGTERM, then SIGKILL when the grace period is over; idempotent."""
        self._stopping.set()
        await self._end(grace)

    async def close(self) -> None:
        """Kills it at once."""
        self._stopping.set()
        if self._process:
            await self._process.close()

    @property
    def process_id(self) -> int | None:
        """As this host sees it; None while it does not run."""
        return self._process.pid if self._process else None

    def status(self) -> Manifest:
        """Its entry in the pod's status."""
        if self._process:
            state: Manifest = {"running": {"startedAt": self._since}}
        elif self._waiting:
            state = {"waiting": {"reason": self._waiting}}
        else:
            reason = "Error" if self.exit_code else "Completed"
            state = {"terminated": {"exitCode": self.exit_code or 0, "reason": reason}}
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {} if self.exit_code is None else {"terminated": {"exitCode": self.exit_code}},
        }

    async def _once(self) -> int:
        launch = await self._prepare(self.spec)
        self._process = await Contained.start(launch.sandbox, launch.command, launch.environment, launch.log)
        self._waiting, self._since = None, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        probes = asyncio.create_task(self._probe())
        try:
            self._changed()
            return await self._process.wait()
        finally:
            probes.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probes
            await self._process.close()
            self._process, self.ready, self.started = None, False, False

    async def _probe(self) -> None:
        """Startup first, then readiness and liveness side by side."""
        if "startupProbe" in self.spec and not await self._until(self.spec["startupProbe"], wanted=True):
            await self._end(self._grace)
            return
        self.started = True
        self._changed()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._readiness())
            group.create_task(self._liveness())

    async def _readiness(self) -> None:
        probe = self.spec.get("readinessProbe")
        self.ready = probe is None
        self._changed()
        while probe is not None:
            await self._until(probe, wanted=not self.ready)
            self.ready = not self.ready
            self._changed()

    async def _liveness(self) -> None:
        probe = self.spec.get("livenessProbe")
        if probe is not None:
            await self._until(probe, wanted=False)
            await self._end(self._grace)

    async def _until(self, probe: Manifest, *, wanted: bool) -> bool:
        """Probes until the wanted result came often enough in a row.

        For a startup probe, which wants success, False when the failures allowed are used up.
        """
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        needed = probe.get("successThreshold", 1) if wanted else probe.get("failureThreshold", 3)
        allowed = probe.get("failureThreshold", 3) if probe is self.spec.get("startupProbe") else None
        hits = misses = 0
        while True:
            if await self._prober.holds(probe) == wanted:
                hits, misses = hits + 1, 0
            else:
                hits, misses = 0, misses + 1
            if hits >= needed:
                return True
            if allowed is not None and misses >= allowed:
                return False
            await asyncio.sleep(probe.get("periodSeconds", 10))

    @property
    def _grace(self) -> float:
        return float(self.spec.get("terminationGracePeriodSeconds", 30))

    async def _end(self, grace: float) -> None:
        process, hook = self._process, self.spec.get("lifecycle", {}).get("preStop")
        if process is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                if hook:
                    await self._prober.holds({**hook, "timeoutSeconds": grace})
                process.send(signal.SIGTERM)
                await process.wait()
        await process.close()

    async def _execute(self, command: list[str], seconds: float) -> bool:
        """Runs a command with the container's mounts and environment, as `exec` probes and hooks do."""
        launch = await self._prepare(self.spec)
        process = await Contained.start(launch.sandbox, command, launch.environment, launch.log)
        try:
            async with asyncio.timeout(seconds):
                return await process.wait() == 0
        finally:
            await process.close()
