"""The noise is uniform, Gumbel, independent across its three counters, and never changes."""

import math

import numpy as np
import pytest

from pdcluster_worker.executor.noise import bits, gumbel

TOKENS = np.arange(100_000)


def uniform(seed: int, index: int) -> np.ndarray:
    return bits(seed, index, TOKENS) / 2**32


def kolmogorov(sample: np.ndarray) -> float:
    """Largest distance from uniform, times the square root of the size: above 1.95 one time in 1,000."""
    ordered = np.sort(sample)
    ranks = np.arange(1, len(sample) + 1) / len(sample)
    return float(max(np.abs(ordered - ranks).max(), np.abs(ordered - ranks + 1 / len(sample)).max())) * math.sqrt(
        len(sample)
    )


def test_is_the_same_for_ever() -> None:
    """Workers of different versions must draw the same: these numbers are a contract."""
    assert bits(0, 0, np.arange(3)).tolist() == [1451924235, 1155905713, 1166369707]
    assert bits(2**64 - 1, 7, np.array([49151])).tolist() == [1872562681]
    np.testing.assert_allclose(gumbel(42, 3, np.arange(3)), [1.007172, -0.596477, 0.842859], rtol=1e-5)


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (0, 1), (1, 0), (12345, 678), (2**63, 4095), (2**64 - 1, 1)])
def test_uniform_over_tokens(seed: int, index: int) -> None:
    assert kolmogorov(uniform(seed, index)) < 1.95


def test_uniform_over_outputs_and_over_seeds() -> None:
    token = np.array([17])
    assert kolmogorov(np.array([bits(5, index, token)[0] for index in range(5000)]) / 2**32) < 1.95
    assert kolmogorov(np.array([bits(seed, 5, token)[0] for seed in range(5000)]) / 2**32) < 1.95


@pytest.mark.parametrize("other", [(9, 5), (8, 4), (10, 4), (9, 3), (4, 9), (9 + 2**32, 4)])
def test_neighbours_are_independent(other: tuple[int, int]) -> None:
    """Correlation of independent samples of this size is above 4 / sqrt(n) one time in 16,000."""
    limit = 4 / math.sqrt(len(TOKENS))
    ours, theirs = uniform(9, 4), uniform(*other)
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < limit
    assert abs(np.corrcoef(ours[1:], theirs[:-1])[0, 1]) < limit
    assert abs(np.corrcoef(ours[:-1], theirs[1:])[0, 1]) < limit


def test_neighbouring_tokens_are_independent() -> None:
    values = uniform(3, 3)
    for distance in (1, 2, 64, 1024):
        assert abs(np.corrcoef(values[distance:], values[:-distance])[0, 1]) < 4 / math.sqrt(len(values) - distance)


def test_every_bit_is_fair() -> None:
    values = bits(1, 2, TOKENS)
    shares = [float(((values >> bit) & 1).mean()) for bit in range(32)]
    assert max(abs(share - 0.5) for share in shares) < 4.5 * 0.5 / math.sqrt(len(TOKENS))


def test_gumbel_has_its_distribution_and_bounds() -> None:
    sample = np.concatenate([gumbel(seed, 0, TOKENS) for seed in range(10)])
    assert kolmogorov(np.exp(-np.exp(-sample.astype(np.float64)))) < 1.95
    assert sample.min() > -2.9
    assert sample.max() < 22.9
    assert np.isfinite(sample).all()


def test_a_subset_of_tokens_draws_what_the_whole_would() -> None:
    some = np.array([3, 99, 70_000])
    np.testing.assert_array_equal(gumbel(4, 5, some), gumbel(4, 5, TOKENS)[some])
