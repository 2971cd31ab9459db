"""Operators that summarise windows, and the one that undoes a maximum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.windows import Pads, Sizes, ceil_pads, resolve, spans, windows

Array = Any


def framed(
    x: Array,
    kernel: Sizes,
    strides: Sizes | None,
    dilations: Sizes | None,
    pads: Pads | None,
    auto_pad: str,
    ceil_mode: int,
    fill: Any,
) -> tuple[Array, Pads, Pads]:
    """Windows of x with `fill` around it as (batch, channels, *out, inside), the pads asked for, and the pads used."""
    space = x.shape[2:]
    step, asked = resolve(space, kernel, strides, dilations, pads, auto_pad)
    used = ceil_pads(space, spans(kernel, dilations), step, asked) if ceil_mode and auto_pad == "NOTSET" else asked
    view = windows(np.pad(x, ((0, 0), (0, 0), *used), constant_values=fill), kernel, step, dilations)
    return view.reshape(*view.shape[: 2 + len(kernel)], -1), asked, used


def lowest(dtype: np.dtype) -> Any:
    """The value that loses every comparison."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def max_pool(
    x: Array,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Array:
    """The maximum of every window; what is padded never wins."""
    return framed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, lowest(x.dtype))[0].max(axis=-1)


def max_pool_indices(
    x: Array,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> tuple[Array, Array]:
    """`max_pool`, and where in the flattened input each maximum was (storage_order 1: columns first)."""
    space = x.shape[2:]
    inside = int(np.prod(space))
    order = np.arange(inside).reshape(space[::-1]).T if storage_order else np.arange(inside).reshape(space)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(space)) * inside
    view, _, _ = framed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, lowest(x.dtype))
    where, _, _ = framed(planes + order, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, -1)
    best = view.argmax(axis=-1)[..., None]
    return np.take_along_axis(view, best, -1)[..., 0], np.take_along_axis(where, best, -1)[..., 0]


def avg_pool(
    x: Array,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Array:
    """The mean of every window; padding counts as zeros if count_include_pad, otherwise not at all."""
    view, asked, used = framed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, 0)
    ones = np.pad(
        np.ones((1, 1, *x.shape[2:]), x.dtype), ((0, 0), (0, 0), *asked), constant_values=1 if count_include_pad else 0
    )
    rest = tuple((0, u[1] - a[1]) for u, a in zip(used, asked, strict=True))
    counts, _, _ = framed(ones, kernel_shape, strides, dilations, rest, "NOTSET", 0, 0)
    return (view.sum(axis=-1) / counts.sum(axis=-1)).astype(x.dtype)


def lp_pool(
    x: Array,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> Array:
    """The p-norm of every window."""
    view, _, _ = framed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode, 0)
    return ((np.abs(view) ** p).sum(axis=-1) ** (1 / p)).astype(x.dtype)


def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    pads: Pads | None = None,
) -> Array:
    """Zeros, with the maxima put back where they came from."""
    strides, pads = resolve(x.shape[2:], kernel_shape, strides, None, pads)
    space = tuple((i - 1) * s + k - lo - hi for i, s, k, (lo, hi) in zip(x.shape[2:], strides, kernel_shape, pads, strict=True))
    tight = (*x.shape[:2], *space)
    shape = tight if output_shape is None else tuple(int(n) for n in output_shape)
    y = np.zeros(shape, x.dtype)
    y[np.unravel_index(indices, tight)] = x
    return y


def over_space(f: Callable[..., Array]) -> Callable[[Array], Array]:
    """A reduction over all spatial axes, which stay as ones."""
    return lambda x: f(x, axis=tuple(range(2, x.ndim)), keepdims=True)


POOL: dict[str, Callable[..., Any]] = {
    "max_pool": max_pool,
    "max_pool_indices": max_pool_indices,
    "avg_pool": avg_pool,
    "lp_pool": lp_pool,
    "max_unpool": max_unpool,
    "global_avg_pool": over_space(np.mean),
    "global_max_pool": over_space(np.max),
}
