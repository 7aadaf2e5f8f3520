"""Products by either library are the same; what is chosen is chosen for each shape and number of rows."""

import numpy as np
import pytest

from pdcluster_worker.models import cpu_matmul
from pdcluster_worker.models.cpu_matmul import ROW_CLASSES, FloatArray, PaddleMultiply, measure, numpy_multiply

SHAPES = [(8, 24), (24, 8), (8, 24)]


def weights() -> list[FloatArray]:
    dice = np.random.default_rng(1)
    return [dice.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_both_libraries_fill_the_buffer_that_is_given(rows: int) -> None:
    for weight in weights():
        x = np.random.default_rng(2).standard_normal((rows, weight.shape[0]), dtype=np.float32)
        by_numpy, by_paddle = np.zeros((2, rows, weight.shape[1]), np.float32)
        numpy_multiply(x, weight, by_numpy)
        PaddleMultiply()(x, weight, by_paddle)
        assert by_numpy.any()
        np.testing.assert_allclose(by_paddle, by_numpy, rtol=1e-5, atol=1e-5)


def test_a_product_goes_the_way_that_was_measured_for_its_shape_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(rows: int, some: list[FloatArray], ways: object) -> list[float]:
        return [2.0, 1.0] if (rows, some[0].shape) == (4, (8, 24)) else [1.0, 0.9]

    monkeypatch.setattr(cpu_matmul, "_best_seconds", seconds)
    wide, tall, _ = weights()
    products = measure(weights())
    assert [choice.name for choice in products.choices[wide.shape]] == ["numpy", "paddle", "numpy", "numpy"]
    assert [choice.name for choice in products.choices[tall.shape]] == ["numpy"] * 4
    for rows in (1, 2, 4, 5, 256, 1000):
        x, out = np.ones((rows, 8), np.float32), np.empty((rows, 24), np.float32)
        products(x, wide, out)
        np.testing.assert_allclose(out, x @ wide, rtol=1e-5)


def test_too_large_products_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_matmul, "MOST_PRODUCTS", 8 * 24 * 4)
    products = measure(weights())
    assert [choice.rows for choice in products.choices[(8, 24)]] == [1, 4]
    monkeypatch.setattr(cpu_matmul, "MOST_PRODUCTS", 1)
    assert [choice.rows for choice in measure(weights()).choices[(8, 24)]] == [ROW_CLASSES[0]]
