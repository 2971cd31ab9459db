"""Operators that are linear in a weight. All sum in the dtype given, so integer-valued floats stay exact while they fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.windows import Pads, resolve, spans, windows

Array = Any


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """x (..., in) times w (out, in) transposed, plus b (out,)."""
    y = x @ w.T
    return y if b is None else y + b


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    pads: Pads | None = None,
    groups: int = 1,
    auto_pad: str = "NOTSET",
) -> Array:
    """x (batch, C_in, *space) correlated with w (C_out, C_in / groups, *kernel); pads is (begin, end) per spatial axis.

    auto_pad: SAME_UPPER, SAME_LOWER or VALID in place of pads, for inputs whose size is not known beforehand.
    """
    kernel = w.shape[2:]
    step, pads = resolve(x.shape[2:], kernel, strides, dilations, pads, auto_pad)
    view = windows(np.pad(x, ((0, 0), (0, 0), *pads)), kernel, step, dilations)  # (batch, C_in, *out, *kernel)
    batch, space = x.shape[0], view.shape[2 : 2 + len(kernel)]
    order = (0, *range(1 + len(kernel), 1 + 2 * len(kernel)), *range(1, 1 + len(kernel)))  # (C_in, *kernel, *out)
    rows = w.reshape(groups, w.shape[0] // groups, -1)
    y = np.empty((batch, w.shape[0], *space), np.result_type(x, w))
    for i in range(batch):  # one image at a time: its columns are the biggest array here
        columns = view[i].transpose(order).reshape(groups, rows.shape[2], int(np.prod(space)))
        y[i] = np.matmul(rows, columns).reshape(y.shape[1:])
    return y if b is None else y + b.reshape(-1, *[1] * len(kernel))


def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    pads: Pads | None = None,
    output_padding: tuple[int, ...] | None = None,
    groups: int = 1,
) -> Array:
    """The transpose of `conv`: each input value spreads a kernel of w (C_in, C_out / groups, *kernel) over the output."""
    kernel, space = w.shape[2:], x.shape[2:]
    n = len(kernel)
    step, pads = strides or (1,) * n, pads or ((0, 0),) * n
    extra = output_padding or (0,) * n
    full = [
        (i - 1) * s + k + max(e, hi)
        for i, s, k, e, (_, hi) in zip(space, step, spans(kernel, dilations), extra, pads, strict=True)
    ]
    y: Array = np.zeros((x.shape[0], w.shape[1] * groups, *full), np.result_type(x, w))
    columns = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    taps = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel).swapaxes(1, 2)  # (groups, out, in, *kernel)
    for at in itertools.product(*map(range, kernel)):
        part = np.matmul(taps[(..., *at)], columns).reshape(*y.shape[:2], *space)
        starts = [a * d for a, d in zip(at, dilations or (1,) * n, strict=True)]
        y[(..., *(slice(a, a + (i - 1) * s + 1, s) for a, i, s in zip(starts, space, step, strict=True)))] += part
    ends = [
        (i - 1) * s + k + e - hi for i, s, k, e, (_, hi) in zip(space, step, spans(kernel, dilations), extra, pads, strict=True)
    ]
    y = y[(..., *(slice(lo, end) for (lo, _), end in zip(pads, ends, strict=True)))]
    return y if b is None else y + b.reshape(-1, *[1] * n)


def einsum(*xs: Array, equation: str) -> Array:
    """The sum of products that the equation spells."""
    return np.einsum(equation.replace(" ", ""), *xs)


def embedding(w: Array, indices: Array) -> Array:
    """Rows of w (words, width), one for each index."""
    return np.take(w, indices, axis=0)


LINEAR: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "matmul": np.matmul,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "einsum": einsum,
    "embedding": embedding,
    "det": np.linalg.det,
}
