import numpy as np
import pytest

from pdcluster_worker.models.config import LinearScaling, ListedScaling, Llama3Scaling, RotaryConfig
from pdcluster_worker.models.rotary import cos_sin, halves_order, inverse_frequencies


def test_frequencies() -> None:
    expected = [10000.0 ** (-2 * i / 16) for i in range(8)]
    np.testing.assert_allclose(inverse_frequencies(RotaryConfig(10000.0, False), 16), expected, rtol=1e-6)


def test_scalings_divide_frequencies() -> None:
    plain = inverse_frequencies(RotaryConfig(100.0, False), 4)
    linear = inverse_frequencies(RotaryConfig(100.0, False, LinearScaling(4.0)), 4)
    listed = inverse_frequencies(RotaryConfig(100.0, False, ListedScaling((1.0, 2.0))), 4)
    np.testing.assert_allclose(linear, plain / 4)
    np.testing.assert_allclose(listed, plain / [1, 2])
    assert linear.dtype == listed.dtype == np.float32


def test_llama3_keeps_fast_slows_slow_and_blends_between() -> None:
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)
    plain = inverse_frequencies(RotaryConfig(500000.0, False), 128)
    scaled = inverse_frequencies(RotaryConfig(500000.0, False, scaling), 128)
    ratio = plain / scaled
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(ratio[wavelength < 2048], 1, rtol=1e-6)
    np.testing.assert_allclose(ratio[wavelength > 8192], 8, rtol=1e-6)
    between = ratio[(wavelength > 2048) & (wavelength < 8192)]
    assert len(between) > 1
    assert ((between > 1) & (between < 8)).all()
    assert (np.diff(ratio) >= -1e-5).all()


def test_halves_order_puts_even_rows_of_each_head_first() -> None:
    assert halves_order(2, 6).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize("heads", [1, 3])
def test_rotating_halves_of_reordered_rows_is_rotating_pairs(heads: int) -> None:
    """The dot product of two rotated vectors is what attention sees."""
    head_dim = 8
    generator = np.random.default_rng(0)
    q, k = generator.standard_normal((2, heads * head_dim))
    cos, sin = cos_sin(np.array([3, 11], np.int32), inverse_frequencies(RotaryConfig(100.0, True), head_dim))

    def rotated(x: np.ndarray, position: int, first: slice, second: slice) -> np.ndarray:
        x = x.reshape(heads, head_dim)
        out = np.empty_like(x)
        out[:, first] = x[:, first] * cos[position] - x[:, second] * sin[position]
        out[:, second] = x[:, second] * cos[position] + x[:, first] * sin[position]
        return out

    pairs = (slice(0, None, 2), slice(1, None, 2))
    halves = (slice(0, head_dim // 2), slice(head_dim // 2, None))
    order = halves_order(heads, head_dim)
    expected = (rotated(q, 0, *pairs) * rotated(k, 1, *pairs)).sum(axis=1)
    found = (rotated(q[order], 0, *halves) * rotated(k[order], 1, *halves)).sum(axis=1)
    np.testing.assert_allclose(found, expected)
