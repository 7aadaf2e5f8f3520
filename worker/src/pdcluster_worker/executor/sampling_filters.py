"""Which tokens may be drawn at all: top-k, then top-p of what is left, then min-p. Ties go to the lowest ids."""

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.request import SamplingParams

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]

FIRST_THRESHOLD, NEXT_THRESHOLD = 2.0**-8, 2.0**-8


def kept_tokens(scores: FloatArray, params: SamplingParams) -> IdArray | None:
    """Ids, ascending; None: all. scores: log-probabilities up to a constant, the largest 0."""
    limited = 0 < params.top_k < len(scores)
    if not limited and params.top_p >= 1 and params.min_p <= 0:
        return None
    kept = _top_k(scores, params.top_k) if limited else np.arange(len(scores))
    weights = np.exp(scores[kept].astype(np.float64))
    if params.top_p < 1:
        chosen = _top_p(weights, params.top_p)
        kept, weights = kept[chosen], weights[chosen]
    return kept[weights >= params.min_p]


def _top_k(scores: FloatArray, count: int) -> IdArray:
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > threshold)
    equal = np.flatnonzero(scores == threshold)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))


def _top_p(weights: npt.NDArray[np.float64], share: float) -> IdArray:
    """Positions, ascending, of the fewest largest weights that make up the share. At least one.

    Sorting a whole vocabulary is slow: only those above a threshold are sorted, lowered until they suffice.
    """
    wanted = share * weights.sum()
    threshold = FIRST_THRESHOLD
    candidates = np.flatnonzero(weights >= threshold)
    while weights[candidates].sum() < wanted and len(candidates) < len(weights):
        threshold *= NEXT_THRESHOLD
        candidates = np.flatnonzero(weights >= threshold)
    order = candidates[np.argsort(-weights[candidates], kind="stable")]
    needed = int(np.searchsorted(np.cumsum(weights[order]), wanted)) + 1
    return np.sort(order[:needed])
