"""Operators that look between the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_shape import ints

Array = Any


def cubic(d: Array, a: float) -> Array:
    """The cubic kernel at distance d (Keys, 1981)."""
    d = np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def triangle(d: Array) -> Array:
    """The linear kernel at distance d."""
    return np.clip(1 - np.abs(d), 0, 1)


NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def source(mode: str, size: int, scale: float, count: int, roi: tuple[float, float]) -> Array:
    """Where on an axis of `size` pixels each of `count` outputs lies."""
    y, length = np.arange(count, dtype=np.float64), scale * size
    lo, hi = roi
    if mode == "tf_crop_and_resize":
        inside = (hi - lo) * (size - 1)
        return lo * (size - 1) + (np.full(count, inside / 2) if length == 1 else y * inside / (length - 1))
    half = (y + 0.5) / scale - 0.5
    return {
        "align_corners": np.zeros(count) if length == 1 else y * (size - 1) / (length - 1),
        "asymmetric": y / scale,
        "half_pixel": half,
        "pytorch_half_pixel": np.full(count, -0.5) if length == 1 else half,
        "half_pixel_symmetric": half + size / 2 * (1 - count / length),
    }[mode]


def taps(at: Array, size: int, scale: float, mode: str, a: float, antialias: int, exclude_outside: int) -> tuple[Array, Array]:
    """The pixels around each place (count, taps), and their weights."""
    squeeze = min(scale, 1.0) if antialias else 1.0
    reach = math.ceil((2 if mode == "cubic" else 1) / squeeze)
    left = np.ceil(at).astype(np.int64) - 1  # an exact hit is the right one of the two nearest
    pixels = left[:, None] + np.arange(1 - reach, reach + 1)
    distance = (pixels - at[:, None]) * squeeze
    weights = cubic(distance, a) if mode == "cubic" else triangle(distance)
    if exclude_outside:
        weights = weights * ((pixels >= 0) & (pixels < size))
    if antialias or exclude_outside:
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(pixels, 0, size - 1), weights


def along_axis(x: Array, axis: int, pixels: Array, weights: Array) -> Array:
    """Weighted sums of the pixels of one axis."""
    column = (-1, *[1] * (x.ndim - 1 - axis))
    return sum(np.take(x, pixels[:, i], axis) * weights[:, i].reshape(column) for i in range(pixels.shape[1]))


def output_sizes(
    space: tuple[int, ...], scales: Array | None, sizes: Array | None, policy: str
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The scale and the length of every axis that is resized."""
    if sizes is None or not np.size(sizes):
        factors = tuple(float(s) for s in np.asarray(scales))
        return factors, tuple(int(s * n) for s, n in zip(factors, space, strict=True))
    factors = tuple(n / old for n, old in zip(ints(sizes), space, strict=True))
    if policy == "stretch":
        return factors, ints(sizes)
    one = min(factors) if policy == "not_larger" else max(factors)
    return (one,) * len(space), tuple(int(one * n + 0.5) for n in space)


def resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    mode: str = "nearest",
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    antialias: int = 0,
) -> Array:
    """x at another resolution: nearest, linear or cubic, one axis at a time."""
    where = tuple(a % x.ndim for a in axes) if axes is not None else tuple(range(x.ndim))
    factors, lengths = output_sizes(tuple(x.shape[a] for a in where), scales, sizes, keep_aspect_ratio_policy)
    crop = (
        np.asarray(roi, np.float64).reshape(2, -1).T
        if roi is not None and np.size(roi)
        else np.tile([0.0, 1.0], (len(where), 1))
    )
    y = x if mode == "nearest" else x.astype(np.float64)
    for axis, scale, count, (lo, hi) in zip(where, factors, lengths, crop, strict=True):
        size = x.shape[axis]
        if scale == 1 and count == size and (lo, hi) == (0, 1):
            continue
        at = source(coordinate_transformation_mode, size, scale, count, (lo, hi))
        if mode == "nearest":
            y = np.take(y, np.clip(NEAREST[nearest_mode](at).astype(np.int64), 0, size - 1), axis)
        else:
            y = along_axis(y, axis, *taps(at, size, scale, mode, cubic_coeff_a, antialias, exclude_outside))
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside = ((at < 0) | (at > size - 1)).reshape(-1, *[1] * (x.ndim - 1 - axis))
            y = np.where(outside, np.asarray(extrapolation_value, y.dtype), y)
    if x.dtype.kind in "iu":
        y = np.clip(np.rint(y), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype)


def reflected(i: Array, low: float, high: float) -> Array:
    """Places brought back between two mirrors."""
    if high == low:
        return np.full_like(i, low)
    d = np.mod(i - low, 2 * (high - low))
    return low + np.minimum(d, 2 * (high - low) - d)


def grid_sample(x: Array, grid: Array, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0) -> Array:
    """x (batch, channels, *space) read at places (batch, *out, axes), which count from -1 to 1 and name the last axis first."""
    space = x.shape[2:]
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]), np.float64)
    at, mirrors = [], []
    for i, size in enumerate(space):
        g = grid[..., len(space) - 1 - i].astype(np.float64)
        at.append((g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2)
        mirrors.append((0, size - 1) if align_corners else (-0.5, size - 0.5))
    reach = {"nearest": 0, "linear": 1, "cubic": 2}[mode]
    base = [np.rint(a) if reach == 0 else np.floor(a) for a in at]
    for shift in np.ndindex(*(max(2 * reach, 1),) * len(space)):
        weight, index = np.ones(grid.shape[:-1]), []
        for i, (size, s) in enumerate(zip(space, shift, strict=True)):
            place = base[i] + (s + 1 - reach if reach else 0)
            distance = place - at[i]
            weight = weight * (1 if reach == 0 else triangle(distance) if reach == 1 else cubic(distance, -0.75))
            if padding_mode == "zeros":
                weight = weight * ((place >= 0) & (place < size))
            elif padding_mode == "reflection":
                place = reflected(place, *mirrors[i])
            index.append(np.clip(place, 0, size - 1).astype(np.int64))
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * (grid.ndim - 2))
        y += np.moveaxis(x[(batch, slice(None), *index)], -1, 1) * weight[:, None]
    return y.astype(x.dtype)


def affine_grid(theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """The places for `grid_sample` that an affine map theta (batch, axes, axes + 1) sends an output of `size` to."""
    space = ints(size)[2:]
    lines = [np.linspace(-1, 1, n) if align_corners else (2 * np.arange(n) + 1) / n - 1 for n in space]
    points = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(space)], -1)  # (*space, axes + 1), last axis first
    return np.einsum("...j,nij->n...i", points, theta).astype(theta.dtype)


RESIZE: dict[str, Callable[..., Any]] = {"resize": resize, "grid_sample": grid_sample, "affine_grid": affine_grid}
