"""Threads for the parts of a CPU step that are no matrix product, and the scratch memory of each.

The BLAS library spreads one large product over all cores by itself; while tasks run here it is held to one.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

FloatArray = npt.NDArray[np.float32]

TILE_ELEMENTS = 1 << 16
"""Of float32: a tile and its temporaries stay in a core's second-level cache."""
TILES_WORTH_A_THREAD = 4
"""Waking a thread costs as much as a few tiles."""


class Scratch:
    """Named buffers that grow and are used again: fresh large arrays cost a page fault per 4 KiB."""

    def __init__(self) -> None:
        self._buffers: dict[str, FloatArray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Uninitialised; valid until the next call with this name."""
        size = 1
        for length in shape:
            size *= length
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, np.float32)
        return buffer[:size].reshape(shape)


Task = Callable[[Scratch], None]
RowTask = Callable[[int, int, Scratch], None]


class Workers:
    """Runs tasks on `threads` threads, the caller's among them. Owned by the step thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._scratches = [Scratch() for _ in range(threads)]
        blas = ThreadpoolController().select(internal_api="openblas")
        self._blas = blas.lib_controllers
        self._pool = ThreadPoolExecutor(threads - 1, "cpu-step", _ignore_float_errors) if threads > 1 else None
        self._limit_blas(threads)

    def run(self, tasks: Sequence[Task]) -> None:
        """Returns when all are done; raises the first error."""
        if self._pool is None or len(tasks) == 1:
            for task in tasks:
                task(self._scratches[0])
            return
        self._limit_blas(1)
        remaining = iter(tasks)
        helpers = [self._pool.submit(_drain, remaining, scratch) for scratch in self._scratches[1 : len(tasks)]]
        try:
            _drain(remaining, self._scratches[0])
        finally:
            for helper in helpers:
                helper.result()
            self._limit_blas(self.threads)

    def rows(self, total: int, width: int, task: RowTask) -> None:
        """`task(start, stop, scratch)` over row tiles of arrays `width` elements wide."""
        step = max(1, TILE_ELEMENTS // width)
        starts = range(0, total, step)
        if len(starts) <= TILES_WORTH_A_THREAD:
            for start in starts:
                task(start, min(start + step, total), self._scratches[0])
            return

        def tile(start: int) -> Task:
            return lambda scratch: task(start, min(start + step, total), scratch)

        self.run([tile(start) for start in starts])

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _limit_blas(self, threads: int) -> None:
        for library in self._blas:
            library.set_num_threads(threads)


def _drain(tasks: Iterator[Task], scratch: Scratch) -> None:
    for task in tasks:
        task(scratch)


def _ignore_float_errors() -> None:
    np.seterr(all="ignore")
