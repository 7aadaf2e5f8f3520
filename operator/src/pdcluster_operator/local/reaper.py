"""Waits for whole process groups to be gone, and collects orphans so that none is left as a zombie.

`pdc run` is the subreaper of all its descendants: when an engine process dies, its executor becomes our child.
"""

import asyncio
import contextlib
import ctypes
import os
import signal

import psutil

PR_SET_CHILD_SUBREAPER = 36


class Reaper:
    """Used in the main thread, as signal handlers are."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect_all)

    def close(self) -> None:
        self._loop.remove_signal_handler(signal.SIGCHLD)

    async def until_gone(self, group: int, limit: float) -> bool:
        """Kill what is left of `group`, whose leader was collected; False: something is left after `limit` seconds."""
        kill_group(group)
        if self._collect(group):
            return True
        gone = self._waiting[group] = self._loop.create_future()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone, limit)
        self._waiting.pop(group, None)
        return self._collect(group)

    def _collect_all(self) -> None:
        for group in [group for group in self._waiting if self._collect(group)]:
            gone = self._waiting.pop(group)
            if not gone.done():
                gone.set_result(None)

    @staticmethod
    def _collect(group: int) -> bool:
        """Reap the dead of a group; True when nobody of it is left."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def kill_descendants(limit: float) -> None:
    """The last resort: whoever left its process group."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=limit)
