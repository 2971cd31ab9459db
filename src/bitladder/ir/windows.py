"""Sliding windows: where a kernel lands on a padded array. Convolutions and pools are made of these."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
Pads = tuple[tuple[int, int], ...]  # (begin, end) per spatial axis
Sizes = tuple[int, ...]


def spans(kernel: Sizes, dilations: Sizes | None) -> Sizes:
    """How far a dilated kernel reaches along each axis.

    >>> spans((3, 1), (2, 2))
    (5, 1)
    """
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations or (1,) * len(kernel), strict=True))


def same_pads(space: Sizes, reach: Sizes, strides: Sizes, *, upper: bool) -> Pads:
    """Pads that make ceil(size / stride) outputs; an odd one goes to the end (upper) or the beginning.

    >>> same_pads((5,), (2,), (1,), upper=True)
    ((0, 1),)
    """
    totals = [max((-(-i // s) - 1) * s + k - i, 0) for i, k, s in zip(space, reach, strides, strict=True)]
    return tuple((t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in totals)


def resolve(
    space: Sizes, kernel: Sizes, strides: Sizes | None, dilations: Sizes | None, pads: Pads | None, auto_pad: str = "NOTSET"
) -> tuple[Sizes, Pads]:
    """Strides and pads with the defaults filled in."""
    strides = strides or (1,) * len(kernel)
    if auto_pad.startswith("SAME"):
        return strides, same_pads(space, spans(kernel, dilations), strides, upper=auto_pad == "SAME_UPPER")
    return strides, pads if pads and auto_pad == "NOTSET" else ((0, 0),) * len(kernel)


def ceil_pads(space: Sizes, reach: Sizes, strides: Sizes, pads: Pads) -> Pads:
    """Pads with the end made longer, so that a last window which starts inside the input is whole (ceil_mode)."""
    out = []
    for i, k, s, (lo, hi) in zip(space, reach, strides, pads, strict=True):
        count = -(-(i + lo + hi - k) // s) + 1
        if (count - 1) * s >= i + lo:
            count -= 1
        out.append((lo, max(hi, (count - 1) * s + k - i - lo)))
    return tuple(out)


def windows(x: Array, kernel: Sizes, strides: Sizes, dilations: Sizes | None) -> Array:
    """A view of x (batch, channels, *space) as (batch, channels, *out, *kernel).

    >>> windows(np.arange(4.0).reshape(1, 1, 4), (2,), (2,), None)[0, 0]
    array([[0., 1.],
           [2., 3.]])
    """
    n = len(kernel)
    view = np.lib.stride_tricks.sliding_window_view(x, spans(kernel, dilations), axis=tuple(range(2, 2 + n)))
    steps = [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations or (1,) * n]
    return view[(slice(None), slice(None), *steps)]
