"""One child process: started in a session of its own, read line by line, ended with all that it started."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pdcluster_operator.local.reaper import Reaper, kill_group

LAUNCHER = str(Path(__file__).with_name("launch.py"))
LONGEST_LINE = 1 << 20
GROUP_LIMIT, OUTPUT_LIMIT = 1.0, 0.5
"""Seconds for the rest of a killed group to be gone, and then for the end of its output."""


class _Lines(asyncio.Protocol):
    """Cuts output into lines of at most LONGEST_LINE bytes."""

    def __init__(self, on_line: Callable[[str], None], closed: asyncio.Future[None]) -> None:
        self._on_line, self._closed, self._rest = on_line, closed, b""

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        for line in lines:
            self._emit(line)

    def connection_lost(self, error: Exception | None) -> None:
        self._emit(self._rest)
        if not self._closed.done():
            self._closed.set_result(None)

    def _emit(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._on_line(text)


class Child:
    """`exited` is done when the process has ended; its result is the status, negative for a signal."""

    def __init__(self, process: subprocess.Popen[bytes], reaper: Reaper) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.exited: asyncio.Future[int] = loop.create_future()
        self._process, self._reaper = process, reaper
        self._output_closed: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.ReadTransport | None = None
        self._descriptor = os.pidfd_open(process.pid)
        loop.add_reader(self._descriptor, self._on_exit)

    async def read(self, output: int, on_line: Callable[[str], None]) -> None:
        """Have `on_line` called for every line of the descriptor `output`, which is the child's to close."""
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: _Lines(on_line, self._output_closed), os.fdopen(output, "rb", 0)
        )

    def terminate(self) -> None:
        """Ask the process, not its group: it ends its own children in good order."""
        if not self.exited.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """The process and its group."""
        if not self.exited.done():
            kill_group(self.pid)

    async def finish(self) -> int:
        """Once it has exited: until its group is gone and its output is read. The status."""
        status = await self.exited
        await self._reaper.until_gone(self.pid, GROUP_LIMIT)
        await asyncio.wait([self._output_closed], timeout=OUTPUT_LIMIT)
        if self._transport is not None:
            self._transport.close()
        return status

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        kill_group(self.pid)  # Before the leader is collected: until then nobody else can have its number.
        self.exited.set_result(self._process.wait())


async def start_child(
    argv: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None], reaper: Reaper
) -> Child:
    """Run `argv`, with stdout and stderr read as one. Raises OSError when there is no such program."""
    output, write_end = os.pipe()
    command = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), *argv]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(write_end)
    child = Child(process, reaper)
    await child.read(output, on_line)
    return child
