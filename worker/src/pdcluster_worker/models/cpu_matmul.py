"""Which library multiplies on this CPU, OpenBLAS under NumPy or MKL under Paddle, by the weight's shape and the rows.

Which is faster depends on the processor too, by a factor of two either way, so it is measured once at start. Both work
on the same memory: Paddle sees NumPy's arrays through DLPack, without a copy.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdcluster_worker.models.paddle_library import paddle

FloatArray = npt.NDArray[np.float32]
Multiply = Callable[[FloatArray, FloatArray, FloatArray], None]
Shape = tuple[int, ...]

ROW_CLASSES = (1, 4, 32, 256)
"""Rows that are measured; a product of m rows goes by the first class of at least m, else by the last."""
PADDLE_MUST_WIN_BY = 0.85
"""A step that goes back and forth between the two pays for it: the threads of one linger on the cores of the other."""
COLD_ELEMENTS = 1 << 25
"""Of weights that one pass reads: more than a cache holds, for a step comes back to a weight after all the others."""
MOST_PRODUCTS = 1 << 32
"""Multiplications of one pass, so that measuring takes a moment: more rows take fewer weights, or are not tried."""
PASSES = 2


def numpy_multiply(x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
    np.matmul(x, weight, out=out)


class PaddleMultiply:
    """Keeps the views of the weights, which live as long as the process."""

    def __init__(self) -> None:
        self._views: dict[int, paddle.Tensor] = {}

    def __call__(self, x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
        view = self._views.get(id(weight))
        if view is None:
            view = self._views[id(weight)] = paddle.utils.dlpack.from_dlpack(weight)
        target = paddle.utils.dlpack.from_dlpack(out)
        paddle.matmul(paddle.utils.dlpack.from_dlpack(x), view, out=target)


@dataclass(frozen=True, slots=True)
class Choice:
    rows: int
    name: str
    multiply: Multiply


class MatrixProducts:
    """`multiply(x, weight, out)` by the library that was faster for such a weight and as many rows."""

    def __init__(self, choices: dict[Shape, list[Choice]]) -> None:
        self.choices = choices

    def __call__(self, x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
        rows, choices = x.shape[0], self.choices[weight.shape]
        for choice in choices:
            if rows <= choice.rows:
                break
        choice.multiply(x, weight, out)


def measure(weights: Sequence[FloatArray]) -> MatrixProducts:
    """Times both for each shape among `weights`, on those of that shape in turn; every shape has a first choice."""
    with_paddle = PaddleMultiply()
    alike: dict[Shape, list[FloatArray]] = {}
    for weight in weights:
        alike.setdefault(weight.shape, []).append(weight)
    return MatrixProducts({shape: _choices(some, with_paddle) for shape, some in alike.items()})


def _choices(weights: list[FloatArray], with_paddle: Multiply) -> list[Choice]:
    choices: list[Choice] = []
    size = weights[0].size
    for rows in ROW_CLASSES:
        if choices and rows * size > MOST_PRODUCTS:
            break
        count = max(1, min(COLD_ELEMENTS, MOST_PRODUCTS // rows) // size)
        by_numpy, by_paddle = _best_seconds(rows, weights[:count], [numpy_multiply, with_paddle])
        if by_paddle < PADDLE_MUST_WIN_BY * by_numpy:
            choices.append(Choice(rows, "paddle", with_paddle))
        else:
            choices.append(Choice(rows, "numpy", numpy_multiply))
    return choices


def _best_seconds(rows: int, weights: list[FloatArray], ways: list[Multiply]) -> list[float]:
    """Of passes that take turns, so that what else the machine does falls on all ways alike."""
    x = np.full((rows, weights[0].shape[0]), 0.5, np.float32)
    out = np.empty((rows, weights[0].shape[1]), np.float32)
    best = [float("inf")] * len(ways)
    for _ in range(PASSES):
        for index, multiply in enumerate(ways):
            start = time.perf_counter()
            for weight in weights:
                multiply(x, weight, out)
            best[index] = min(best[index], time.perf_counter() - start)
    return best
