"""Operators that bring values to a common scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_elementwise import quiet

Array = Any


def along_channels(p: Array, x: Array) -> Array:
    """A vector of one entry per channel, made to broadcast over x (batch, channels, *space)."""
    return p.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm(x: Array, scale: Array, b: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
    """Every channel with the given mean and variance taken off, then scaled and shifted."""
    scale, b, mean, var = (along_channels(p, x) for p in (scale, b, mean, var))
    return ((x - mean) / np.sqrt(var + epsilon) * scale + b).astype(x.dtype)


def standard(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """x with mean 0 and variance 1 over `axes`, the mean, and one over the deviation."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def layer_norm(
    x: Array, scale: Array, b: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array, Array]:
    """x normalized from `axis` on, scaled and shifted; the mean; one over the deviation (float32 if stash_type is 1)."""
    wide = x.astype(np.float32) if stash_type == 1 else x
    y, mean, inverse = standard(wide, tuple(range(axis % x.ndim, x.ndim)), epsilon)
    y = y.astype(x.dtype) * scale
    return (y if b is None else y + b).astype(x.dtype), mean, inverse


def rms_norm(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    """x divided by its root mean square from `axis` on, then scaled."""
    wide = x.astype(np.float32) if stash_type == 1 else x
    power = (wide * wide).mean(axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    return ((wide / np.sqrt(power + epsilon)).astype(x.dtype) * scale).astype(scale.dtype)


def instance_norm(x: Array, scale: Array, b: Array, *, epsilon: float = 1e-5) -> Array:
    """Every channel of every image normalized, scaled and shifted."""
    y, _, _ = standard(x, tuple(range(2, x.ndim)), epsilon)
    return (y * along_channels(scale, x) + along_channels(b, x)).astype(x.dtype)


def group_norm(x: Array, scale: Array, b: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    """Groups of channels normalized together, then every channel scaled and shifted."""
    wide = (x.astype(np.float32) if stash_type == 1 else x).reshape(x.shape[0], num_groups, -1)
    y, _, _ = standard(wide, (2,), epsilon)
    return (y.reshape(x.shape).astype(x.dtype) * along_channels(scale, x) + along_channels(b, x)).astype(x.dtype)


def lrn(x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """x divided by the strength of `size` neighbouring channels."""
    before = (size - 1) // 2
    squares = np.pad(x * x, ((0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)))
    total = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
    return (x / (bias + alpha / size * total) ** beta).astype(x.dtype)


@quiet
def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """x divided by its p-norm along an axis; zeros stay zeros."""
    norm = np.sum(np.abs(x) ** p, axis=axis, keepdims=True) ** (1 / p)
    return np.where(norm == 0, 0, x / norm).astype(x.dtype)


NORM: dict[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "lrn": lrn,
    "lp_normalization": lp_normalization,
}
