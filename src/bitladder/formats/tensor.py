"""What a format promises, and the two things made with one: an `Encoding` and a `QTensor`.

A format turns reals into integer codes and back. Decoding always goes through an integer: `value = integer * step`,
so whatever a code means can be summed exactly. Everything here takes numpy arrays and torch tensors alike, by using
only what the two share; nothing is imported to find out which it got.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bitladder.stats.points import Points

Array = Any  # a numpy array or a torch tensor
Params = Mapping[str, Any]  # arrays by name

SPREAD = ("scale", "zero_point", "fl", "range")  # parameters with one entry per channel; all others are per tensor


def ns(x: Array) -> Any:
    """The module an array comes from: numpy or torch.

    >>> ns(np.zeros(1)).__name__
    'numpy'
    """
    return sys.modules[type(x).__module__.partition(".")[0]]


def like(x: Array, p: np.ndarray) -> Array:
    """`p` as the kind of array that `x` is, on its device."""
    space = ns(x)
    return p if space is np else space.as_tensor(np.require(p, None, ["C", "W"]), device=x.device)  # read-only ones are copied


def whole(x: Array) -> Array:
    """`x` as 64-bit integers."""
    return x.astype(np.int64) if ns(x) is np else x.long()


def real(x: Array) -> Array:
    """`x` as 32-bit floats."""
    return x.astype(np.float32) if ns(x) is np else x.float()


class Format(Protocol):
    """The whole contract of a number format; everything else is derived from it.

    `bits` is the cost of one element before entropy coding. `per` is "tensor" or "channel", `group` the number of
    neighbouring inputs that share parameters, or None.
    """

    @property
    def bits(self) -> int: ...
    @property
    def per(self) -> str: ...
    @property
    def group(self) -> int | None: ...
    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """Parameters for the channels of `points`: one entry a channel, or one table a tensor."""

    def encode(self, x: Array, p: Params) -> Array:
        """Integer-valued codes (float32) of reals `x`, given parameters already spread over its shape."""

    def integers(self, codes: Array, p: Params) -> Array:
        """The integer each code stands for (integer-valued float32)."""

    def step(self, p: Params) -> Array:
        """What one integer is worth, float32, spread like the parameters."""

    def span(self) -> tuple[int, int]:
        """The smallest and the largest code."""


def width_of(fmt: Format) -> int:
    """How many neighbours along axis 1 a code stands for: one, but for product codebooks."""
    return getattr(fmt, "dim", 1)


def cost_of(fmt: Format) -> int | float:
    """The bits that one element costs before entropy coding: of a product codebook its share of a code."""
    return fmt.bits if (dim := width_of(fmt)) == 1 else fmt.bits / dim


def spread(p: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...], group: int | None) -> np.ndarray:
    """A parameter made to broadcast over an array of `shape`.

    >>> spread(np.arange(2.0), (2, 3, 4), (0,), None).shape
    (2, 1, 1)
    >>> spread(np.arange(4.0).reshape(2, 2), (2, 3), (0,), 2)[0]
    array([0., 0., 1.])
    """
    if group is not None:
        rows = shape[0]
        return np.repeat(p, group, axis=1)[:, : int(np.prod(shape[1:], dtype=np.int64))].reshape((rows, *shape[1:]))
    entries = [n if a in axes else 1 for a, n in enumerate(shape)] if axes else []
    if p.size != (count := math.prod(entries)):
        raise ValueError(f"encoding: axes {axes} of shape {shape} must have {count} entries, got {p.size}; mend the encoding")
    return p.reshape(entries)


@dataclass(frozen=True)
class Encoding:
    """A format with its parameters: everything needed to turn one tensor into codes and back.

    `axes` are the axes along which parameters differ: () for one set, (0,) per output channel, (0, 1) per kernel slice.
    """

    format: Format
    params: Params
    axes: tuple[int, ...] = ()

    def _spread(self, x: Array) -> dict[str, Any]:
        shape = tuple(x.shape)
        out = {}
        for name, p in self.params.items():
            out[name] = like(x, spread(p, shape, self.axes, self.format.group) if name in SPREAD else p)
        return out

    def encode(self, x: Array) -> Array:
        """Integer-valued codes of `x`, float32, same shape and array kind."""
        return self.format.encode(real(x), self._spread(x))

    def integers(self, codes: Array) -> Array:
        """The integer that each code stands for; the value is that integer times `step`."""
        return self.format.integers(real(codes), self._spread(codes))

    def decode(self, codes: Array) -> Array:
        """Reals (float32) of `codes`."""
        p = self._spread(codes)
        return self.format.integers(real(codes), p) * self.format.step(p)

    def step(self, shape: tuple[int, ...]) -> np.ndarray:
        """What one integer is worth, float32, broadcast over `shape`."""
        p = {k: spread(v, shape, self.axes, self.format.group) if k in SPREAD else v for k, v in self.params.items()}
        return np.asarray(self.format.step(p), np.float32)

    def at(self, bits: int) -> Encoding:
        """The encoding of the leading `bits` of each code; only nested formats have one narrower than themselves."""
        narrower = getattr(self.format, "at", None)
        if narrower is None or bits >= self.format.bits:
            return self
        fmt = narrower(bits)
        return Encoding(fmt, fmt.keep(self.params), self.axes)


def fit(
    fmt: Format,
    x: np.ndarray,
    *,
    axis: int = 0,
    cover: str = "mse",
    slices: bool = False,
    importance: np.ndarray | None = None,
) -> Encoding:
    """The encoding that suits `x` best, channels along `axis`.

    cover: "max" (nothing clipped), "kstd" (mean and so many deviations), "mse" (least squared error, the default),
    "pdf" (what suits the type of density that the moments of a channel tell; S7).
    slices: one set per (output, input) kernel slice instead of one per output channel (S3).
    importance: how much each element's squared error counts, of the shape of `x`; all the same by default.
    """
    x = np.asarray(x, np.float32)
    if (dim := width_of(fmt)) > 1:
        if axis != 0 or x.ndim < 2 or x.shape[1] % dim:
            raise ValueError(f"fit: {fmt} needs channels along axis 0 and inputs in blocks of {dim}, got shape {x.shape}")
        x, importance = np.moveaxis(x, 1, -1), None if importance is None else np.moveaxis(importance, 1, -1)
    if fmt.group is not None:
        rows = x.reshape(x.shape[0], -1)
        pad = -rows.shape[1] % fmt.group
        rows = np.pad(rows, ((0, 0), (0, pad))).reshape(-1, fmt.group)
        counts = (
            None if importance is None else np.pad(importance.reshape(x.shape[0], -1), ((0, 0), (0, pad))).reshape(rows.shape)
        )
        params = {k: v.reshape(x.shape[0], -1) for k, v in fmt.fit(Points.of(rows, (0,), counts), cover).items()}
        return Encoding(fmt, params, (0,))
    axes = () if fmt.per == "tensor" or x.ndim < 2 else ((0, 1) if slices else (axis,))
    shape = tuple(x.shape[a] for a in axes)
    params = {k: v.reshape(shape) if k in SPREAD else v for k, v in fmt.fit(Points.of(x, axes, importance), cover).items()}
    return Encoding(fmt, params, axes)


class Stored(Protocol):
    """Codes that lie elsewhere, in an open file."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self) -> np.ndarray:
        """The codes, read and checked now."""

    def __rshift__(self, bits: int) -> Stored:
        """The same codes without their last `bits` bits."""


@dataclass(frozen=True)
class QTensor:
    """A tensor as codes: what files store, kernels read and reports count. Codes are numpy integers.

    place: the codes, or where they lie; those are read whenever they are asked for, and not kept.
    """

    encoding: Encoding
    place: np.ndarray | Stored

    @classmethod
    def of(cls, x: np.ndarray, encoding: Encoding) -> QTensor:
        """`x` rounded to the nearest code of `encoding`."""
        return cls(encoding, store(encoding.encode(np.asarray(x, np.float32)), encoding.format))

    @property
    def format(self) -> Format:
        return self.encoding.format

    @property
    def codes(self) -> np.ndarray:
        """The codes; ask once and keep them where they are needed more than once."""
        return self.place if isinstance(self.place, np.ndarray) else self.place.read()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what the codes stand for."""
        codes = tuple(self.place.shape)
        return codes if (dim := width_of(self.format)) == 1 else (codes[0], codes[1] * dim, *codes[2:])

    def held(self) -> QTensor:
        """The same tensor with its codes in memory."""
        return self if isinstance(self.place, np.ndarray) else QTensor(self.encoding, self.codes)

    def decode(self) -> np.ndarray:
        """Reals, float32."""
        return self.encoding.decode(self.codes)

    def integers(self) -> np.ndarray:
        """The integers behind the codes, int32; multiplied by `step` they are the reals."""
        return self.encoding.integers(self.codes).astype(np.int32)

    def step(self) -> np.ndarray:
        """What one integer is worth, float32, broadcast over the tensor's shape."""
        return self.encoding.step(self.shape)

    def at(self, bits: int) -> QTensor:
        """The same tensor on its leading `bits` bit planes: min(bits, stored); other formats stay as they are."""
        narrow = self.encoding.at(bits)
        if narrow is self.encoding:
            return self
        return QTensor(narrow, self.place >> (self.format.bits - narrow.format.bits))

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, packed, before entropy coding."""
        return (math.prod(self.place.shape) * self.format.bits + 7) // 8


def store(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """Codes in the smallest integer type that holds all of the format's."""
    low, high = fmt.span()
    kinds = (np.uint8, np.uint16, np.int32) if low >= 0 else (np.int8, np.int16, np.int32)
    return codes.astype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))
