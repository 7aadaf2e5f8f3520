"""Gumbel noise as a function of (seed, output index, token id): no state, so every worker draws the same.

SplitMix64 by counter: stream `mix(mix(seed) + index)`, of which token t takes element t. Its upper 32 bits make
v in (0, 1); -log(-log(1 - v)) is the noise. 1 - v would round small v away, where the winners are: there the
series v + v^2/2 stands in for -log(1 - v).
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
SERIES_BELOW = np.float32(2**-10)
LARGEST = np.float32(1 - 2**-24)
"""The largest float32 below 1."""


def mix(value: int) -> int:
    """SplitMix64's finaliser."""
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def bits(seed: int, index: int, tokens: IdArray) -> npt.NDArray[np.uint32]:
    """32 random bits per token id."""
    stream = mix(mix(seed + GAMMA) + index * GAMMA)
    values = tokens.astype(np.uint64)
    values += np.uint64(1)
    values *= np.uint64(GAMMA)
    values += np.uint64(stream)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    values >>= np.uint64(32)
    return values.astype(np.uint32)


def gumbel(seed: int, index: int, tokens: IdArray) -> FloatArray:
    """Standard Gumbel noise, float32, between -2.9 and 22.9."""
    v = bits(seed, index, tokens).astype(np.float32)
    v += np.float32(0.5)
    v *= np.float32(2**-32)
    np.minimum(v, LARGEST, out=v)
    small = np.flatnonzero(v < SERIES_BELOW)
    tiny = v[small]
    np.subtract(np.float32(1), v, out=v)
    np.log(v, out=v)
    np.negative(v, out=v)
    v[small] = tiny + tiny * tiny / 2
    np.log(v, out=v)
    return np.negative(v, out=v)
