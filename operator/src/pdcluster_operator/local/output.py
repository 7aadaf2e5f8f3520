"""Text to stdout or stderr without ever waiting for whoever reads it: a supervisor that waits supervises nothing.

Only a pipe can make us wait for long. It is opened once more, because the mode is a property of the open file, which
others may share; what it does not take at once is kept, up to a limit, and written when there is room.
"""

import asyncio
import contextlib
import io
import os
import stat
from typing import TextIO

LARGEST_BACKLOG = 1 << 20


def without_waiting(stream: TextIO) -> TextIO | io.TextIOBase:
    """`stream`, or what stands for it when it is a pipe. Call in the loop that will write."""
    try:
        if not stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
            return stream
        return PipeText(os.open(f"/proc/self/fd/{stream.fileno()}", os.O_WRONLY | os.O_NONBLOCK))
    except (OSError, ValueError):
        return stream


class PipeText(io.TextIOBase):
    """Owns the non-blocking `descriptor`. Text beyond the limit, and all of it once nobody reads, is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._backlog = bytearray()
        self._is_watched = False
        self._is_broken = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(errors="replace")
        if not self._is_broken and len(self._backlog) + len(data) <= LARGEST_BACKLOG:
            self._backlog += data
            self._drain()
        return len(text)

    def close(self) -> None:
        """Write what there is room for."""
        if not self.closed:
            self._drain()
            self._watch(False)
            os.close(self._descriptor)
        super().close()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                while self._backlog:
                    del self._backlog[: os.write(self._descriptor, self._backlog)]
            except BrokenPipeError:
                self._is_broken = True
                self._backlog.clear()
        self._watch(bool(self._backlog))

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._is_watched:
            self._loop.add_writer(self._descriptor, self._drain)
        if self._is_watched and not wanted:
            self._loop.remove_writer(self._descriptor)
        self._is_watched = wanted
