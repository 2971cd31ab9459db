"""Evenly spaced levels: `Fixed` (Qm.n, steps are powers of two), `Int` (float scale) and `Ternary`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bitladder.formats.tensor import Array, Params
from bitladder.stats.points import Points
from bitladder.stats.types import reach

COVERS = ("max", "kstd", "mse", "pdf")  # rules for ranges
K_STD = 4.0  # `kstd` covers mean +- this many standard deviations


def code_span(bits: int, unsigned: bool) -> tuple[int, int]:
    """The codes of a `bits` wide integer.

    >>> code_span(4, False), code_span(4, True)
    ((-8, 7), (0, 15))
    """
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def check_bits(name: str, bits: int, least: int, most: int) -> None:
    if not least <= bits <= most:
        raise ValueError(f"format {name}: bits must be {least}..{most}, got {bits}")


def covered(points: Points, cover: str, span: tuple[int, int], octaves: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The (low, high) reals per channel that a range rule asks codes of a `span` to cover; both include zero.

    octaves: steps will be powers of two.
    """
    if cover == "pdf":
        return reach(points.profile, *span, octaves)
    if cover == "kstd":
        mean = points.mean(points.values)
        std = np.sqrt(points.mean((points.values - mean[:, None]) ** 2))
        return np.minimum(np.maximum(mean - K_STD * std, points.low), 0), np.maximum(
            np.minimum(mean + K_STD * std, points.high), 0
        )
    if cover not in COVERS:
        raise ValueError(f"fit: cover must be one of {', '.join(COVERS)}, got {cover!r}")
    return np.minimum(points.low, 0), np.maximum(points.high, 0)


def least_error(points: Points, candidates: list[np.ndarray], decoded: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """For every channel, the candidate (channels,) whose decoded points have the least squared error; first one on ties."""
    best, chosen = np.full(points.low.shape, np.inf), candidates[0].copy()
    for candidate in candidates:
        error = points.mean((decoded(candidate[:, None]) - points.values) ** 2)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, candidate, chosen)
    return chosen


@dataclass(frozen=True)
class Int:
    """Integers times a float scale, with a zero point when unsigned (activations).

    >>> str(Int(8)), str(Int(4, group=64)), str(Int(8, per="tensor", unsigned=True))
    ('int8', 'int4/64', 'uint8/tensor')
    """

    bits: int = 8
    per: str = "channel"
    group: int | None = None
    unsigned: bool = False

    def __post_init__(self) -> None:
        check_bits("int", self.bits, 2, 16)

    def __str__(self) -> str:
        tail = f"/{self.group}" if self.group else ("/tensor" if self.per == "tensor" else "")
        return f"{'u' if self.unsigned else ''}int{self.bits}{tail}"

    def span(self) -> tuple[int, int]:
        return code_span(self.bits, self.unsigned)

    def with_bits(self, bits: int) -> Int:
        """The same format at another width."""
        return replace(self, bits=bits)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """Scale (float32) and zero point (float32, integer-valued) per channel."""
        bottom, top = self.span()
        low, high = covered(points, cover, (bottom, top))
        if self.unsigned:
            wide = np.maximum(high - low, np.finfo(np.float32).tiny * 2**16)
            shrinks = np.linspace(1.0, 0.4, 25) if cover == "mse" else [1.0]

            def params(shrink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                scale = (wide * shrink.reshape(wide.shape) / top).astype(np.float32).astype(np.float64)
                zero = np.clip(np.round(-low * shrink.reshape(wide.shape) / scale), bottom, top)
                return scale, zero

            def decoded(shrink: np.ndarray) -> np.ndarray:
                scale, zero = params(shrink)
                codes = np.clip(np.round(points.values / scale[:, None]) + zero[:, None], bottom, top)
                return (codes - zero[:, None]) * scale[:, None]

            shrink = least_error(points, [np.full(wide.shape, s) for s in shrinks], decoded)
            scale, zero = params(shrink)
            scale = np.where(high > low, scale, 1.0)
            return {"scale": scale.astype(np.float32), "zero_point": np.where(high > low, zero, 0).astype(np.float32)}
        widest = np.maximum(high / top, low / bottom)
        widest = np.where(widest > 0, np.maximum(widest, np.finfo(np.float32).tiny * 2**8), 1.0)
        shrinks = np.linspace(1.0, 0.3, 36) if cover == "mse" else [1.0]
        scale = least_error(
            points,
            [(widest * s).astype(np.float32).astype(np.float64) for s in shrinks],
            lambda scale: np.clip(np.round(points.values / scale), bottom, top) * scale,
        )
        return {"scale": scale.astype(np.float32), "zero_point": np.zeros(scale.shape, np.float32)}

    def encode(self, x: Array, p: Params) -> Array:
        bottom, top = self.span()
        return ((x / p["scale"]).round() + p["zero_point"]).clip(bottom, top)

    def integers(self, codes: Array, p: Params) -> Array:
        return codes - p["zero_point"]

    def step(self, p: Params) -> Array:
        return p["scale"]


@dataclass(frozen=True)
class Fixed:
    """Two's complement Qm.n: value = code * 2**-fl, the fractional length fitted per channel or given (S3).

    fl may be negative or exceed the width. Unsigned fixed point has one more magnitude bit, for values that are never negative.

    >>> str(Fixed(8)), str(Fixed(8, per="tensor")), str(Fixed(8, fl=5))
    ('fixed8', 'fixed8/tensor', 'q2.5')
    """

    bits: int = 8
    per: str = "channel"
    fl: int | None = None
    unsigned: bool = False
    group: None = None

    def __post_init__(self) -> None:
        check_bits("fixed", self.bits, 1 if self.unsigned else 2, 24)

    def __str__(self) -> str:
        if self.fl is not None:
            return f"{'u' if self.unsigned else ''}q{self.bits - (not self.unsigned) - self.fl}.{self.fl}"
        return f"{'u' if self.unsigned else ''}fixed{self.bits}{'/tensor' if self.per == 'tensor' else ''}"

    def span(self) -> tuple[int, int]:
        return code_span(self.bits, self.unsigned)

    def with_bits(self, bits: int) -> Fixed:
        """The same format at another width, fractional length free again."""
        return replace(self, bits=bits, fl=None)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """Fractional length per channel (float32, integer-valued): the longest that covers the range, or errs least."""
        if self.fl is not None:
            return {"fl": np.full(points.low.shape, self.fl, np.float32)}
        bottom, top = self.span()
        low, high = covered(points, cover, (bottom, top), octaves=True)
        widest = np.maximum(high / top, low / bottom if bottom else 0)
        with np.errstate(divide="ignore"):
            longest = np.where(widest > 0, -np.ceil(np.log2(np.where(widest > 0, widest, 1.0))), self.bits - 1)
        longest = np.clip(longest, -96, 96)
        if cover == "mse":
            longest = least_error(
                points,
                [longest + k for k in (0, -1, 1, 2, 3)],
                lambda fl: np.clip(np.round(points.values * np.exp2(fl)), bottom, top) * np.exp2(-fl),
            )
            longest = np.where(widest > 0, longest, self.bits - 1)
        return {"fl": longest.astype(np.float32)}

    def encode(self, x: Array, p: Params) -> Array:
        bottom, top = self.span()
        return (x * 2.0 ** p["fl"]).round().clip(bottom, top)

    def integers(self, codes: Array, p: Params) -> Array:
        return codes

    def step(self, p: Params) -> Array:
        return 2.0 ** -p["fl"]


@dataclass(frozen=True)
class Ternary:
    """Codes -1, 0, 1 times a float scale per channel; threshold and scale of least squared error.

    >>> str(Ternary()), Ternary().bits
    ('ternary', 2)
    """

    per: str = "channel"
    group: None = None
    bits: int = 2

    def __str__(self) -> str:
        return "ternary/tensor" if self.per == "tensor" else "ternary"

    def span(self) -> tuple[int, int]:
        return (-1, 1)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """The exact optimum: keep the k largest magnitudes at their mean, k maximising (sum of the k)^2 / k.

        Codes come from rounding at half a scale, which is where that optimum puts its threshold.
        """
        magnitude = np.abs(points.values)
        counts = np.broadcast_to(points.counts, magnitude.shape)
        order = np.argsort(-magnitude, axis=1, kind="stable")
        sums = np.cumsum(np.take_along_axis(magnitude * counts, order, 1), 1)
        kept = np.maximum(np.cumsum(np.take_along_axis(counts, order, 1), 1), 1e-30)
        best = np.argmax(sums**2 / kept, axis=1)[:, None]
        scale = (np.take_along_axis(sums, best, 1) / np.take_along_axis(kept, best, 1))[:, 0]
        return {"scale": np.where(scale > 0, scale, 1.0).astype(np.float32)}

    def encode(self, x: Array, p: Params) -> Array:
        return (x / p["scale"]).round().clip(-1, 1)

    def integers(self, codes: Array, p: Params) -> Array:
        return codes

    def step(self, p: Params) -> Array:
        return p["scale"]
