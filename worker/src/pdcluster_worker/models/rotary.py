"""Rotary positions: frequencies, angles, and the one order of head dimensions that the worker computes in.

Checkpoints whose rotary pairs neighbours get the rows of their Q and K projections reordered when loaded, so
that every model here rotates halves. Scores do not change: both sides of each dot product are reordered alike.
"""

import numpy as np
import numpy.typing as npt

from pdcluster_worker.models.config import LinearScaling, ListedScaling, Llama3Scaling, RotaryConfig

FloatArray = npt.NDArray[np.float32]


def inverse_frequencies(rotary: RotaryConfig, head_dim: int) -> FloatArray:
    """[head_dim / 2] float32, computed in float32 as the references do: angles must agree to the last bits."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    base: FloatArray = (np.float32(1.0) / np.power(np.float32(rotary.theta), exponents)).astype(np.float32)
    divisors: FloatArray = np.ones_like(base)
    match rotary.scaling:
        case Llama3Scaling() as scaling:
            return _llama3(base, scaling)
        case LinearScaling(factor):
            divisors = np.full_like(base, factor)
        case ListedScaling(listed):
            divisors = np.asarray(listed, np.float32)
    return (base / divisors).astype(np.float32)


def _llama3(base: FloatArray, scaling: Llama3Scaling) -> FloatArray:
    wavelength = 2 * np.pi / base
    turns = scaling.original_max_position / wavelength
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return np.asarray((1 - blend) * base / scaling.factor + blend * base, np.float32)


def cos_sin(positions: npt.NDArray[np.int32], frequencies: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two [tokens, head_dim / 2]."""
    angles = positions.astype(np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def halves_order(heads: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Row order that turns neighbouring pairs into halves: within each head first the even rows, then the odd."""
    return np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
