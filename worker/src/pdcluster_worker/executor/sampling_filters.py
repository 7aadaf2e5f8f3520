"""Which tokens may be drawn at all: top-k, then top-p of what is left, then min-p. Ties go to the lowest ids."""

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.request import SamplingParams

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]

Weights = npt.NDArray[np.float64]

BINS_PER_UNIT, BINS = 64, 4096
"""Of log-probability: 64 units below the best, a weight is nothing."""


def kept_tokens(scores: FloatArray, params: SamplingParams) -> IdArray | None:
    """Ids, ascending; None: all. scores: log-probabilities up to a constant, the largest 0."""
    limited = 0 < params.top_k < len(scores)
    if not limited and params.top_p >= 1 and params.min_p <= 0:
        return None
    kept = _top_k(scores, params.top_k) if limited else np.arange(len(scores))
    left = scores[kept] if limited else scores
    weights = np.exp(left, dtype=np.float64)
    if params.top_p < 1:
        chosen = _top_p(left, weights, params.top_p)
        kept, weights = kept[chosen], weights[chosen]
    return kept[weights >= params.min_p]


def _top_k(scores: FloatArray, count: int) -> IdArray:
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > threshold)
    equal = np.flatnonzero(scores == threshold)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))


def _top_p(scores: FloatArray, weights: Weights, share: float) -> IdArray:
    """Positions, ascending, of the fewest largest weights that make up the share. At least one.

    Sorting a whole vocabulary is slow. The weights are counted into bins by their scores, and only the bin in which
    the share is reached gets sorted.
    """
    bins = np.minimum(scores * -BINS_PER_UNIT, BINS - 1).astype(np.int64)
    reached = np.cumsum(np.bincount(bins, weights, BINS))
    wanted = share * reached[-1]
    last = int(np.searchsorted(reached, wanted))
    boundary = np.flatnonzero(bins == last)
    order = boundary[np.argsort(-weights[boundary], kind="stable")]
    before = reached[last - 1] if last else 0.0
    needed = int(np.searchsorted(before + np.cumsum(weights[order]), wanted)) + 1
    return np.sort(np.concatenate((np.flatnonzero(bins < last), order[:needed])))
