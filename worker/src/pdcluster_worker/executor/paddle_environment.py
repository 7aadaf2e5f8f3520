"""What must be in the environment before Paddle, and NumPy's BLAS under it, are first imported."""

import os
from collections.abc import MutableMapping
from pathlib import Path

SPIN_MILLISECONDS = "1"
"""How long an idle MKL thread keeps its core: its default of 200 takes it from the other library's threads."""


def prepare(threads: int | None, environment: MutableMapping[str, str] = os.environ) -> int:
    """Sets threads and the processor's fast path. Returns the number of threads: by default all usable cores."""
    count = threads or len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(count)
    environment.setdefault("KMP_BLOCKTIME", SPIN_MILLISECONDS)
    if is_amd(Path("/proc/cpuinfo")):
        environment.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return count


def is_amd(cpuinfo: Path) -> bool:
    """MKL takes its slowest path there unless it is told the processor type."""
    try:
        return "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
