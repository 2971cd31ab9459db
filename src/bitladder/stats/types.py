"""Which of eight densities suits a channel best for choosing its step, and the step that follows (S7, US11836603).

A small network, trained by `python -m bitladder.stats.train_types`, gives each type a share, from the moments of a channel and
the width that is wanted. Steps lie in a table made by exact integration. Where the shares are divided, so is the step: it is
the geometric mean of theirs. What is fitted needs numpy and two files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from bitladder.stats.profile import Profile

TYPES = ("uniform", "wigner", "raised_cosine", "normal", "logistic", "hyperbolic_secant", "laplace", "super_cauchy")
Rule = Callable[[Profile, np.ndarray], np.ndarray]  # shares (channels, types) of profiles at magnitude bits

WEIGHTS = Path(__file__).with_name("types.npz")
TABLE = Path(__file__).with_name("steps.npy")
FEWEST = 64  # values; of fewer than these, moments say too little
LEARNT = (1, 9)  # magnitude bits that the network was trained for; beyond them it is asked about the nearest
COUNTS = (64, 100_000)  # and the numbers of values
OPTIMUM, BORDER = 0, 1  # columns of the table: log2 of the best step, and of the least of the best powers of two
PARTS = 8  # the others: decibels at so many parts of the octave from the border on, both ends among them


@cache
def table() -> np.ndarray:
    """Steps at unit deviation: (two's complement or half-wave, magnitude bits from 1 on, types, 2 + PARTS + 1)."""
    return np.load(TABLE).astype(np.float64)


@cache
def weights() -> list[np.ndarray]:
    """Matrices and biases of the layers, in turns."""
    with np.load(WEIGHTS) as file:
        return [file[name].astype(np.float64) for name in file.files]


def features(profile: Profile, bits: np.ndarray) -> np.ndarray:
    """What the network sees (channels, 8): logarithms of the five standardized moments, of the largest magnitude and of the
    count, and magnitude bits."""
    _, average, variance, *higher = np.maximum(profile.moments.T, 1e-300)
    deviation = np.sqrt(variance)
    peak = np.maximum(np.maximum(profile.high, -profile.low), 1e-300)
    shape = (average / deviation, *higher, peak / deviation, np.clip(profile.count, *COUNTS))
    return np.stack([*np.log(shape), np.clip(bits, *LEARNT)], 1)


def forward(layers: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """The values after each layer, the last one as shares of the types."""
    values = [x]
    for matrix, bias in zip(layers[::2], layers[1::2], strict=True):
        values.append(np.maximum(values[-1] @ matrix + bias, 0))
    logits = values[-2] @ layers[-2] + layers[-1]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    values[-1] = shares / shares.sum(1, keepdims=True)
    return values


def shares(profile: Profile, bits: np.ndarray) -> np.ndarray:
    """How much of each type (channels, 8) a channel is to codes of so many magnitude bits."""
    return forward(weights(), features(profile, bits))[-1]


def named(profile: Profile, bits: np.ndarray) -> np.ndarray:
    """The place in TYPES of the type that suits each channel most; of equal ones the wider."""
    return len(TYPES) - 1 - shares(profile, bits)[:, ::-1].argmax(1)


def rows(bits: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The table for each channel (channels, types, columns). Beyond the last width every bit halves the step."""
    known = np.clip(bits, 1, table().shape[1])
    found = table()[half.astype(int), known - 1].copy()
    found[..., [OPTIMUM, BORDER]] -= (bits - known)[:, None, None]
    return found


def enough(profile: Profile) -> np.ndarray:
    """Whether a channel has enough to go by: values that are not all the same, and not too few."""
    mean, square = profile.moments[:, 0], profile.moments[:, 2]
    return (profile.count >= FEWEST) & (square - mean**2 > 1e-9 * square)


def sides(profile: Profile, bottom: int, top: int, octaves: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each channel whether codes bottom .. top are for one side of zero only, and how many bits a magnitude has.

    Codes from 0 on whose steps are not powers of two have a zero point, so where a channel goes below zero they do too.
    """
    half = (bottom == 0) & (octaves | (profile.low >= 0))
    return half, np.where(half | (bottom < 0), top.bit_length(), top.bit_length() - 1)


def reach(profile: Profile, bottom: int, top: int, octaves: bool, rule: Rule = shares) -> tuple[np.ndarray, np.ndarray]:
    """The (low, high) reals per channel that codes bottom .. top should cover: never more than the extremes that were seen.

    octaves: steps will be powers of two, so the range is that of the least step of the octave that errs least.
    """
    half, bits = sides(profile, bottom, top, octaves)
    column = rows(bits, half)[..., BORDER if octaves else OPTIMUM]
    step = np.exp2((rule(profile, bits) * column).sum(1)) * profile.deviation
    above = np.where(half | (bottom < 0), top, top // 2)
    below = np.where(half, 0, np.minimum(bottom, -1 - above))
    safe = enough(profile)
    low = np.where(safe, np.maximum(profile.low, below * step), profile.low)
    return np.minimum(low, 0), np.maximum(np.where(safe, np.minimum(profile.high, above * step), profile.high), 0)


def predicted(profile: Profile, bottom: int, top: int, step: np.ndarray) -> np.ndarray:
    """Signal to quantization noise in decibels that the types promise for the powers of two that `reach` leads to.

    Where such a step clips nothing that was seen, its noise is that of rounding alone.
    """
    half, bits = sides(profile, bottom, top, True)
    share, found = shares(profile, bits), rows(bits, half)
    deviation = np.where(profile.deviation > 0, profile.deviation, step)
    octave = np.log2(step / deviation) - (share * found[..., BORDER]).sum(1)
    part = np.clip(octave * PARTS, 0, PARTS - 1e-9)
    k, rest = part.astype(int), part % 1
    curve, each = (share[..., None] * found[..., BORDER + 1 :]).sum(1), np.arange(len(step))
    told_by_types = curve[each, k] * (1 - rest) + curve[each, k + 1] * rest
    whole = (profile.high <= top * step) & (half | (profile.low >= bottom * step))
    return np.where(whole, 10 * np.log10(12 * (deviation / step) ** 2), told_by_types)
