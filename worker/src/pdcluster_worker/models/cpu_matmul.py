"""Which library multiplies on this CPU: OpenBLAS under NumPy or MKL under Paddle, by the number of rows.

Which is faster depends on the processor and on the rows, by a factor of two either way, so it is measured once at
start. Both work on the same memory: Paddle sees NumPy's arrays through DLPack, without a copy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdcluster_worker.models.paddle_library import paddle

FloatArray = npt.NDArray[np.float32]
Multiply = Callable[[FloatArray, FloatArray, FloatArray], None]

ROW_CLASSES = (1, 4, 32, 256)
"""Rows that are measured; a product of m rows goes by the first class of at least m, else by the last."""
PADDLE_MUST_WIN_BY = 0.95


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
        product = paddle.matmul(paddle.utils.dlpack.from_dlpack(x), view)
        np.copyto(out, np.from_dlpack(product))


@dataclass(frozen=True, slots=True)
class Choice:
    rows: int
    name: str
    multiply: Multiply
    seconds: float


class MatrixProducts:
    """`multiply(x, weight, out)` by the library that was faster for as many rows."""

    def __init__(self, choices: list[Choice]) -> None:
        self.choices = choices

    def __call__(self, x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
        rows = x.shape[0]
        for choice in self.choices:
            if rows <= choice.rows:
                choice.multiply(x, weight, out)
                return
        self.choices[-1].multiply(x, weight, out)


def measure(weight: FloatArray) -> MatrixProducts:
    """Times both on one weight of the model."""
    with_paddle = PaddleMultiply()
    choices: list[Choice] = []
    for rows in ROW_CLASSES:
        x = np.full((rows, weight.shape[0]), 0.5, np.float32)
        out = np.empty((rows, weight.shape[1]), np.float32)
        by_numpy = _best_seconds(numpy_multiply, x, weight, out)
        by_paddle = _best_seconds(with_paddle, x, weight, out)
        if by_paddle < PADDLE_MUST_WIN_BY * by_numpy:
            choices.append(Choice(rows, "paddle", with_paddle, by_paddle))
        else:
            choices.append(Choice(rows, "numpy", numpy_multiply, by_numpy))
    return MatrixProducts(choices)


def _best_seconds(multiply: Multiply, x: FloatArray, weight: FloatArray, out: FloatArray) -> float:
    multiply(x, weight, out)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        multiply(x, weight, out)
        best = min(best, time.perf_counter() - start)
    return best
