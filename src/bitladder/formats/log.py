"""Levels in octaves: a code is an exponent, so that a product is a shift (S8, the activations of weighted entropy)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitladder.formats.tensor import Array, Params, like, ns, real, whole
from bitladder.formats.uniform import check_bits
from bitladder.stats.points import Points

PLACES = 16  # in an octave, at which a first level may lie
FIRST, LAST = -40, 24  # octaves in which values are counted
MANTISSA = 128  # what the first level in an octave is in integers, where there are several
OCTAVES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Log:
    """0 and levels that grow by 2^(1 / octave), times a float scale; codes below zero stand for levels below zero.

    With one level an octave, code c stands for 2^(c-1). With more it is a mantissa of 8 bits, shifted. Unsigned for activations
    that are never negative. A value goes to the level nearest to it on a logarithmic scale.

    >>> str(Log(4)), str(Log(4, 2, per="tensor", unsigned=True)), Log(4).span()
    ('log4', 'ulog4:2/tensor', (-8, 7))
    """

    bits: int = 4
    octave: int = 1
    per: str = "channel"
    unsigned: bool = False
    group: None = None

    def __post_init__(self) -> None:
        check_bits("log", self.bits, 2, 5)
        if self.octave not in OCTAVES:
            raise ValueError(
                f"format log{self.bits}: levels in an octave must be one of {', '.join(map(str, OCTAVES))}, got {self.octave}"
            )

    def __str__(self) -> str:
        tail = "/tensor" if self.per == "tensor" else ""
        return f"{'u' if self.unsigned else ''}log{self.bits}{'' if self.octave == 1 else f':{self.octave}'}{tail}"

    def span(self) -> tuple[int, int]:
        return (0, 2**self.bits - 1) if self.unsigned else (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    def with_bits(self, bits: int) -> Log:
        """The same format at another width."""
        return replace(self, bits=bits)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """The scale (float32), the first level, of greatest weighted entropy for each channel; `cover` has nothing to say."""
        first = [first_level(counts, self.span()[1], PLACES // self.octave) for counts in binned(points)]
        return {"scale": np.exp2(np.array(first) / PLACES).astype(np.float32)}

    def encode(self, x: Array, p: Params) -> Array:
        low, high = self.span()
        y = x / p["scale"]
        borders = np.exp2((np.arange(max(high, -low)) - 0.5) / self.octave).astype(np.float32)
        level = real(ns(y).searchsorted(like(y, borders), abs(y), side="right"))
        return (level * (1 - 2 * real(y < 0))).clip(low, high)

    def integers(self, codes: Array, p: Params) -> Array:
        low, high = self.span()
        shift, place = np.divmod(np.arange(max(high, -low)), self.octave)
        table = np.concatenate([[0], mantissas(self.octave)[place] * np.exp2(shift)]).astype(np.float32)
        return like(codes, table)[whole(abs(codes))] * (1 - 2 * real(codes < 0))

    def step(self, p: Params) -> Array:
        return p["scale"] / mantissas(self.octave)[0]


def mantissas(octave: int) -> np.ndarray:
    """The integers of the levels in the first octave, float32.

    >>> mantissas(1).tolist(), mantissas(4).tolist()
    ([1.0], [128.0, 152.0, 181.0, 215.0])
    """
    if octave == 1:
        return np.ones(1, np.float32)
    return np.asarray(np.round(MANTISSA * np.exp2(np.arange(octave) / octave)), np.float32)


def binned(points: Points) -> np.ndarray:
    """How many magnitudes above zero of each channel lie in each place (channels, places), from octave `FIRST` on."""
    size = np.abs(points.values)
    counts = np.broadcast_to(points.counts, size.shape) * (size > 0)
    place = np.floor(PLACES * np.log2(np.where(size > 0, size, 1.0))).clip(PLACES * FIRST, PLACES * LAST - 1)
    width = PLACES * (LAST - FIRST)
    flat = (place.astype(np.int64) - PLACES * FIRST) + width * np.arange(len(size))[:, None]
    return np.bincount(flat.ravel(), counts.ravel(), width * len(size)).reshape(len(size), width)


def first_level(counts: np.ndarray, levels: int, apart: int) -> int:
    """The place of the first of `levels` levels so far apart: S is greatest, with a level as important as its value.

    Each level takes half of its distance to either side, the last one all above. Below the first, values are zero and have no
    part. 0 where nothing was counted.
    """
    used = np.flatnonzero(counts)
    if not len(used):
        return 0
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    first = np.arange(used[0] - apart * levels, used[-1] + 2)[:, None]
    level = first + apart * np.arange(levels)
    edges = below[(level - apart // 2).clip(0, len(counts))]
    share = np.diff(np.concatenate([edges, np.ones((len(edges), 1))], 1), axis=1)
    total = -(np.exp2((level - used[-1]) / PLACES) * share * np.log(np.maximum(share, 1e-300))).sum(1)
    return int(first[total.argmax(), 0]) + PLACES * FIRST
