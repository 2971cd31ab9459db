"""Powers of two: a code is an exponent, so that a product is a shift (S8, the activations of weighted entropy)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitladder.formats.tensor import Array, Params, like, ns, real
from bitladder.formats.uniform import check_bits
from bitladder.stats.points import Points

PITCH = 16  # places that a first level may have in an octave
FIRST, LAST = -40, 24  # octaves in which values are counted


@dataclass(frozen=True)
class Log:
    """0 and powers of two times a float scale: code c stands for 2^(c-1), and -c for -2^(c-1).

    Unsigned for activations that are never negative. A value goes to the power nearest to it on a logarithmic scale.

    >>> str(Log(4)), str(Log(4, per="tensor", unsigned=True)), Log(4).span()
    ('log4', 'ulog4/tensor', (-8, 7))
    """

    bits: int = 4
    per: str = "channel"
    unsigned: bool = False
    group: None = None

    def __post_init__(self) -> None:
        check_bits("log", self.bits, 2, 5)

    def __str__(self) -> str:
        return f"{'u' if self.unsigned else ''}log{self.bits}{'/tensor' if self.per == 'tensor' else ''}"

    def span(self) -> tuple[int, int]:
        return (0, 2**self.bits - 1) if self.unsigned else (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    def with_bits(self, bits: int) -> Log:
        """The same format at another width."""
        return replace(self, bits=bits)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """The scale (float32) of greatest weighted entropy for each channel; `cover` has nothing to say."""
        first = [first_level(counts, self.span()[1]) for counts in binned(points)]
        return {"scale": np.exp2(np.array(first) / PITCH).astype(np.float32)}

    def encode(self, x: Array, p: Params) -> Array:
        low, high = self.span()
        y = x / p["scale"]
        borders = np.exp2(np.arange(max(high, -low)) - 0.5).astype(np.float32)
        power = real(ns(y).searchsorted(like(y, borders), abs(y), side="right"))
        return (power * (1 - 2 * real(y < 0))).clip(low, high)

    def integers(self, codes: Array, p: Params) -> Array:
        low, high = self.span()
        table = np.exp2(np.arange(max(high, -low) + 1) - 1.0).astype(np.float32)
        table[0] = 0
        power = abs(codes)
        return like(codes, table)[power.astype(np.int64) if ns(codes) is np else power.long()] * (1 - 2 * real(codes < 0))

    def step(self, p: Params) -> Array:
        return p["scale"]


def binned(points: Points) -> np.ndarray:
    """How many magnitudes above zero of each channel lie in each place (channels, places), from octave `FIRST` on."""
    size = np.abs(points.values)
    counts = np.broadcast_to(points.counts, size.shape) * (size > 0)
    with np.errstate(divide="ignore"):
        place = np.floor(PITCH * np.log2(np.where(size > 0, size, 1.0))).clip(PITCH * FIRST, PITCH * LAST - 1)
    width = PITCH * (LAST - FIRST)
    flat = (place.astype(np.int64) - PITCH * FIRST) + width * np.arange(len(size))[:, None]
    return np.bincount(flat.ravel(), counts.ravel(), width * len(size)).reshape(len(size), width)


def first_level(counts: np.ndarray, levels: int) -> int:
    """The place of the first of `levels` powers: S is greatest, with a level as important as its value; 0 without any counts.

    Each level takes half an octave to either side, the last one all above. Below the first, values are zero and have no part.
    """
    used = np.flatnonzero(counts)
    if not len(used):
        return 0
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    first = np.arange(used[0] - PITCH * levels, used[-1] + 2)[:, None]
    begin = first + PITCH * np.arange(levels) - PITCH // 2
    edges = below[begin.clip(0, len(counts))]
    share = np.diff(np.concatenate([edges, np.ones((len(edges), 1))], 1), axis=1)
    value = np.exp2((first + PITCH * np.arange(levels) - used[-1]) / PITCH)
    total = -(value * share * np.log(np.maximum(share, 1e-300))).sum(1)
    return int(first[total.argmax(), 0]) + PITCH * FIRST
