"""The executor's ties to the process that started it, and to its cores."""

import ctypes
import os
import signal
from collections.abc import Sequence

from pdcluster_worker.errors import ExecutorError
from pdcluster_worker.ipc.startup import PARENT_VARIABLE

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends. Raises ExecutorError when it has already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise ExecutorError(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and os.getppid() != int(parent):
        raise ExecutorError("the engine ended before the executor had started")


def use_cores(cores: Sequence[int]) -> None:
    """Restricts all threads made from now on. None given: leaves the process as it is."""
    if cores:
        os.sched_setaffinity(0, cores)
