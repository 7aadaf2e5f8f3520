"""Sampling on the host: every parameter, its edges, ties, and the distribution that comes out."""

import math
from typing import Any

import numpy as np
import pytest

from pdcluster_worker.core.events import NO_TOKEN
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.executor.runner import SamplingState
from pdcluster_worker.executor.sampler import adjusted, is_plain_greedy, sample, sample_row, token_logprob, top_ids
from pdcluster_worker.executor.sampling_filters import kept_tokens


def state(tokens: list[int] | None = None, prompt: int | None = None, **params: Any) -> SamplingState:
    tokens = tokens or [1]
    return SamplingState(
        SamplingParams(**params), np.array(tokens, np.int32), len(tokens) if prompt is None else prompt
    )


def logits(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def kept(row: np.ndarray, **params: Any) -> list[int] | None:
    ids = kept_tokens(row - row.max(), SamplingParams(**params))
    return None if ids is None else ids.tolist()


def frequencies(row: np.ndarray, draws: int, **params: Any) -> np.ndarray:
    chosen = [sample_row(row, state(seed=seed, **params)) for seed in range(draws)]
    return np.bincount(chosen, minlength=len(row)) / draws


def test_greedy_takes_the_largest_and_the_lowest_id_among_equals() -> None:
    assert sample_row(logits(0, 3, 1, 3), state(temperature=0.0)) == 1


def test_plain_greedy_is_what_needs_nothing_else() -> None:
    assert is_plain_greedy(state(temperature=0.0))
    assert is_plain_greedy(state(temperature=0.0, top_p=0.5, top_k=3, min_tokens=4))
    assert is_plain_greedy(state([1, 2, 3], 1, temperature=0.0, min_tokens=2, stop_token_ids=(2,)))
    for params in (
        {"temperature": 0.5},
        {"logprobs": 0},
        {"presence_penalty": 1.0},
        {"frequency_penalty": 1.0},
        {"repetition_penalty": 1.1},
        {"logit_bias_ids": (1,), "logit_bias_values": (1.0,)},
        {"min_tokens": 1, "stop_token_ids": (2,)},
    ):
        assert not is_plain_greedy(state(**{"temperature": 0.0, **params}))


def test_draws_follow_the_softmax() -> None:
    row = logits(1.0, 0.0, 2.0, -1.0)
    expected = np.exp(row) / np.exp(row).sum()
    np.testing.assert_allclose(frequencies(row, 20_000), expected, atol=0.015)


def test_temperature_sharpens_and_flattens() -> None:
    row = logits(1.0, 0.0)
    for temperature in (0.5, 2.0):
        expected = 1 / (1 + math.exp(-1 / temperature))
        assert frequencies(row, 10_000, temperature=temperature)[0] == pytest.approx(expected, abs=0.02)


def test_the_same_seed_and_index_give_the_same_token_another_index_another_draw() -> None:
    row = np.zeros(1000, np.float32)
    first = [sample_row(row, state([1] * length, 1, seed=7)) for length in range(1, 20)]
    again = [sample_row(row, state([2] * (length + 4), 5, seed=7)) for length in range(1, 20)]
    assert first == again
    assert len(set(first)) > 15


def test_a_last_bit_changes_almost_nothing() -> None:
    """A recomputed prefix differs by 1e-6: of 2,000 draws over 5,000 tokens none should move."""
    generator = np.random.default_rng(0)
    row = generator.standard_normal(5000).astype(np.float32) * 3
    nearly = row + generator.standard_normal(5000).astype(np.float32) * np.float32(1e-6)
    moved = sum(sample_row(row, state(seed=s)) != sample_row(nearly, state(seed=s)) for s in range(2000))
    assert moved <= 1


def test_top_k_keeps_exactly_k_lowest_ids_at_the_boundary() -> None:
    assert kept(logits(1, 2, 1, 3, 1), top_k=3) == [0, 1, 3]
    assert kept(logits(1, 2, 1, 3, 1), top_k=1) == [3]
    assert kept(logits(1, 2), top_k=2) is None
    assert kept(logits(1, 2), top_k=0) is None


def test_top_p_keeps_the_fewest_that_make_up_the_share() -> None:
    row = np.log(logits(0.1, 0.5, 0.2, 0.2))
    assert kept(row, top_p=0.4) == [1]
    assert kept(row, top_p=0.6) == [1, 2]
    assert kept(row, top_p=0.8) == [1, 2, 3]
    assert kept(row, top_p=0.95) == [0, 1, 2, 3]
    assert kept(row, top_p=1e-9) == [1]
    assert kept(row, top_p=1.0) is None


def test_top_p_over_a_long_tail_agrees_with_sorting_everything() -> None:
    row = np.random.default_rng(1).standard_normal(20_000).astype(np.float32) * 4
    shares = np.exp(row.astype(np.float64) - row.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    for share in (0.1, 0.9, 0.999, 0.999999):
        count = int(np.searchsorted(np.cumsum(shares[order]), share)) + 1
        assert kept(row, top_p=share) == sorted(order[:count].tolist())


def test_top_p_counts_what_top_k_left() -> None:
    row = np.log(logits(0.4, 0.4, 0.2))
    assert kept(row, top_k=2, top_p=0.45) == [0]
    assert kept(row, top_k=2, top_p=0.55) == [0, 1]


def test_min_p_is_a_share_of_the_largest() -> None:
    row = np.log(logits(0.5, 0.3, 0.14, 0.06))
    assert kept(row, min_p=0.25) == [0, 1, 2]
    assert kept(row, min_p=1.0) == [0]


def test_filters_act_after_temperature() -> None:
    counts = frequencies(np.log(logits(0.6, 0.3, 0.1)), 500, temperature=0.1, min_p=0.01)
    assert counts.tolist() == [1.0, 0.0, 0.0]


def test_presence_and_frequency_count_output_tokens_only() -> None:
    row = logits(0, 0, 0, 0)
    result = adjusted(row, state([1, 1, 2, 2, 3], 2, presence_penalty=0.5, frequency_penalty=0.25))
    np.testing.assert_allclose(result, [0, 0, -1.0, -0.75])
    assert not row.any()


def test_repetition_counts_the_prompt_too() -> None:
    result = adjusted(logits(2, 2, -2, -2), state([1, 2], 1, repetition_penalty=2.0))
    np.testing.assert_allclose(result, [2, 1, -4, -2])


def test_logit_bias_adds_and_can_ban() -> None:
    biased = state(temperature=0.0, logit_bias_ids=(0, 2), logit_bias_values=(-100.0, 5.0))
    assert sample_row(logits(50, 1, 0), biased) == 2


def test_stop_tokens_are_masked_until_min_tokens() -> None:
    row = logits(0, 9, 1)
    for written, expected in ((0, 2), (1, 2), (2, 1)):
        masked = state([0] * (3 + written), 3, temperature=0.0, min_tokens=2, stop_token_ids=(1,))
        assert sample_row(row, masked) == expected


def test_logprobs_are_of_the_models_distribution_whatever_the_request_changes() -> None:
    row = logits(1, 3, 2, 3)
    expected = row - np.log(np.exp(row).sum())
    result = sample(
        row[None], [state(temperature=0.0, logprobs=3, logit_bias_ids=(1, 3), logit_bias_values=(-99.0, -99.0))]
    )
    logprob = result.logprobs[0]
    assert result.tokens == [2]
    assert logprob.logprob == pytest.approx(float(expected[2]), abs=1e-6)
    assert logprob.top_tokens == (1, 3, 2)
    np.testing.assert_allclose(logprob.top_logprobs, expected[[1, 3, 2]], atol=1e-6)


def test_logprobs_only_for_those_that_ask() -> None:
    rows = np.tile(logits(1, 2, 3), (3, 1))
    result = sample(rows, [state(), state(logprobs=0), state(temperature=0.0)])
    assert list(result.logprobs) == [1]
    assert result.logprobs[1].top_tokens == ()


def test_top_ids_breaks_ties_by_id_and_stops_at_the_vocabulary() -> None:
    assert top_ids(logits(1, 2, 2, 2, 0), 2).tolist() == [1, 2]
    assert top_ids(logits(1, 2), 20).tolist() == [1, 0]
    assert top_ids(logits(1, 2), 0).tolist() == []


def test_logprob_of_a_very_unlikely_token_is_finite() -> None:
    assert token_logprob(logits(0, -200), 1, 1).logprob == pytest.approx(-200)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    for temperature in (0.0, 1.0):
        assert sample_row(logits(0, bad, 1), state(temperature=temperature)) == NO_TOKEN


def test_masked_logits_are_no_error() -> None:
    assert sample_row(logits(-math.inf, 1.0), state()) == 1
