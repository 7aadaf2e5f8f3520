"""`pdc` as a process of the test, on the cluster under test and in one namespace."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(sys.executable).parent
LIMIT = 90.0
"""Seconds that any command may take."""


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


class Pdc:
    """Calls return when the process has ended; `lines` follows one that does not end by itself."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        }
        self.namespace = namespace

    async def __call__(self, *arguments: str, text: str | None = None) -> Answer:
        return await self.run(str(PROGRAMS / "pdc"), *arguments, "-n", self.namespace, text=text)

    async def run(self, *command: str, text: str | None = None) -> Answer:
        """Any command, in the same environment."""
        process = await self._start(command)
        try:
            async with asyncio.timeout(LIMIT):
                out, err = await process.communicate(text.encode() if text is not None else None)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return Answer(process.returncode or 0, out.decode(), err.decode())

    @contextlib.asynccontextmanager
    async def lines(self, *arguments: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of one that runs until the context ends."""
        process = await self._start((str(PROGRAMS / "pdc"), *arguments, "-n", self.namespace))
        try:
            yield _lines(process)
        finally:
            process.terminate()
            await process.wait()

    async def _start(self, command: tuple[str, ...]) -> asyncio.subprocess.Process:
        pipe = subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, limit=1 << 20
        )


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        async for line in process.stdout:
            yield line.decode()
