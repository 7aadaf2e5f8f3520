"""Logits to tokens, on the host, in float32. Pure: the same logits and state give the same token anywhere.

The random choice is the largest of log-probability plus Gumbel noise (noise.py). Unlike an inverse CDF it does
not depend on an order of tokens, so logits that differ in the last bits give another token almost never.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.events import NO_TOKEN
from pdcluster_worker.core.request import SamplingParams, TokenLogprob
from pdcluster_worker.executor.noise import gumbel
from pdcluster_worker.executor.runner import Sampled, SamplingState
from pdcluster_worker.executor.sampling_filters import kept_tokens

FloatArray = npt.NDArray[np.float32]


def is_plain_greedy(state: SamplingState) -> bool:
    """Whether the token is the position of the largest logit and nothing else is asked for."""
    params = state.params
    return params.temperature == 0 and params.logprobs < 0 and not _changes_logits(state)


def _changes_logits(state: SamplingState) -> bool:
    params = state.params
    return (
        params.repetition_penalty != 1
        or params.presence_penalty != 0
        or params.frequency_penalty != 0
        or bool(params.logit_bias_ids)
        or _masks_stops(state)
    )


def _masks_stops(state: SamplingState) -> bool:
    return state.output_index < state.params.min_tokens and bool(state.params.stop_token_ids)


def sample(logits: FloatArray, states: Sequence[SamplingState]) -> Sampled:
    """logits: [m, vocabulary], one row per state; not changed."""
    tokens: list[int] = []
    logprobs: dict[int, TokenLogprob] = {}
    for index, (row, state) in enumerate(zip(logits, states, strict=True)):
        token = sample_row(row, state)
        tokens.append(token)
        if state.params.logprobs >= 0 and token != NO_TOKEN:
            logprobs[index] = token_logprob(row, token, state.params.logprobs)
    return Sampled(tokens, logprobs)


def sample_row(row: FloatArray, state: SamplingState) -> int:
    """NO_TOKEN when the row is not of numbers: that request fails, its neighbours in the batch do not."""
    if _changes_logits(state):
        row = adjusted(row, state)
    best = int(np.argmax(row))
    if not np.isfinite(row[best]):
        return NO_TOKEN
    params = state.params
    if params.temperature == 0:
        return best
    scores = (row - row[best]) / np.float32(params.temperature)
    return _draw(scores, params, state.output_index)


def _draw(scores: FloatArray, params: SamplingParams, index: int) -> int:
    """scores: log-probabilities up to a constant, the largest 0."""
    kept = kept_tokens(scores, params)
    if kept is None:
        kept, scores = np.arange(len(scores)), scores.copy()
    else:
        scores = scores[kept]
    scores += gumbel(params.seed, index, kept)
    return int(kept[np.argmax(scores)])


def adjusted(row: FloatArray, state: SamplingState) -> FloatArray:
    """A new row after penalties, bias and the mask of stop tokens, in this order."""
    row = row.copy()
    params = state.params
    if params.repetition_penalty != 1:
        seen = np.unique(state.tokens)
        factor = np.float32(params.repetition_penalty)
        row[seen] = np.where(row[seen] > 0, row[seen] / factor, row[seen] * factor)
    if params.presence_penalty != 0 or params.frequency_penalty != 0:
        written, counts = np.unique(state.tokens[state.prompt_length :], return_counts=True)
        row[written] -= np.float32(params.presence_penalty) + np.float32(params.frequency_penalty) * counts.astype(
            np.float32
        )
    if params.logit_bias_ids:
        np.add.at(row, np.array(params.logit_bias_ids), np.array(params.logit_bias_values, np.float32))
    if _masks_stops(state):
        row[np.array(params.stop_token_ids)] = -np.inf
    return row


def token_logprob(row: FloatArray, token: int, top: int) -> TokenLogprob:
    """Of the model's own distribution: before temperature, penalties and bias."""
    largest = row.max()
    log_total = largest + np.log(np.exp(row - largest).sum(dtype=np.float64))
    best = top_ids(row, top)
    return TokenLogprob(
        logprob=float(row[token] - log_total),
        top_tokens=tuple(best.tolist()),
        top_logprobs=tuple((row[best] - log_total).tolist()),
    )


def top_ids(row: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """The largest first; among equals the lowest id first."""
    count = min(count, len(row))
    if count <= 0:
        return np.empty(0, np.int64)
    threshold = np.partition(row, len(row) - count)[len(row) - count]
    candidates = np.flatnonzero(row >= threshold)
    return candidates[np.argsort(-row[candidates], kind="stable")][:count]
