"""One process inside the sandbox: its start, its signals, its end."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from kubelet_sandbox import bwrap


class Contained:
    """A process that is PID 1 of its sandbox, so that a signal without a handler is ignored, as in a real container."""

    def __init__(self, outer: asyncio.subprocess.Process, inner: int) -> None:
        self._outer = outer
        self.pid = inner
        """As this host sees it."""

    @staticmethod
    async def start(
        sandbox: Sequence[str], command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> "Contained":
        """Starts `command`; raises OSError when the sandbox cannot be made. A command that is missing exits at once."""
        read, write = os.pipe()
        try:
            with log.open("ab") as output:
                outer = await asyncio.create_subprocess_exec(
                    bwrap(),
                    *sandbox,
                    "--info-fd",
                    str(write),
                    "--",
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(environment),
                    pass_fds=(write,),
                    start_new_session=True,
                )
        finally:
            os.close(write)
        try:
            with os.fdopen(read, "rb") as information:
                told = await asyncio.to_thread(information.read)
        except asyncio.CancelledError:
            outer.kill()  # and what is inside dies with it
            await outer.wait()
            raise
        if not told:
            raise OSError(f"bwrap ended with {await outer.wait()}: see {log}")
        return Contained(outer, json.loads(told)["child-pid"])

    async def wait(self) -> int:
        """The exit status; 128 and more for a signal."""
        return await self._outer.wait()

    def send(self, number: signal.Signals) -> None:
        if self._outer.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def close(self) -> None:
        """Kills what still runs; idempotent."""
        self.send(signal.SIGKILL)
        await self._outer.wait()
