"""Operators that move values about without changing them, and those that talk about shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.windows import Pads, spans

Array = Any


def ints(a: Array) -> tuple[int, ...]:
    """An array of whole numbers as a tuple."""
    return tuple(int(i) for i in np.asarray(a).reshape(-1))


def reshape(x: Array, shape: Array, *, allowzero: int = 0) -> Array:
    """x in another shape; -1 is what remains, 0 keeps the axis (unless allowzero)."""
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(ints(shape))])


def flatten(x: Array, *, axis: int = 1) -> Array:
    """x as a matrix: the axes before `axis`, and the rest."""
    rows = int(np.prod(x.shape[: axis % x.ndim if axis < 0 else axis]))
    return x.reshape(rows, x.size // rows if rows else -1)


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """x without the given axes of length 1, or without all of them."""
    return np.squeeze(x, None if axes is None else ints(axes))


def unsqueeze(x: Array, axes: Array) -> Array:
    """x with new axes of length 1, at these places of the result."""
    return np.expand_dims(x, ints(axes))


def split(x: Array, split: Array | None = None, *, axis: int = 0, num_outputs: int | None = None) -> tuple[Array, ...]:
    """x in pieces of the given lengths, or in num_outputs pieces of which the last may be shorter."""
    if split is None:
        assert num_outputs is not None
        each = -(-x.shape[axis] // num_outputs)
        ends = [min(each * i, x.shape[axis]) for i in range(1, num_outputs)]
    else:
        ends = np.cumsum(ints(split))[:-1].tolist()
    return tuple(np.split(x, ends, axis))


def slice_(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    """x[start:end:step] along each of the axes; what lies beyond an end is ignored."""
    where = ints(axes) if axes is not None else range(np.size(starts))
    cut = [slice(None)] * x.ndim
    for a, lo, hi, s in zip(
        where, ints(starts), ints(ends), ints(steps) if steps is not None else [1] * np.size(starts), strict=True
    ):
        cut[a] = slice(lo, None if s < 0 and hi < -x.shape[a] else hi, s)
    return x[tuple(cut)]


def expand(x: Array, shape: Array) -> Array:
    """x broadcast together with a shape."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape)))


def pad(
    x: Array, pads: Array, constant_value: Array | None = None, axes: Array | None = None, *, mode: str = "constant"
) -> Array:
    """x with more at the edges (all begins, then all ends; less if negative): constant, reflect, edge or wrap."""
    where = ints(axes) if axes is not None else tuple(range(x.ndim))
    amounts = ints(pads)
    widths, cut = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for i, a in enumerate(where):
        lo, hi = amounts[i], amounts[i + len(where)]
        widths[a] = (max(lo, 0), max(hi, 0))
        cut[a] = slice(max(-lo, 0), x.shape[a] + min(hi, 0))
    extra: dict[str, Any] = {}
    if mode == "constant":
        extra["constant_values"] = 0 if constant_value is None else np.asarray(constant_value).reshape(())
    return np.pad(x[tuple(cut)], widths, mode=mode, **extra)  # type: ignore[call-overload]


def shape(x: Array, *, start: int = 0, end: int | None = None) -> Array:
    """The shape of x, or a slice of it."""
    return np.array(x.shape[start:end], np.int64)


def constant_of_shape(shape: Array, *, value: float = 0.0, dtype: str = "float32") -> Array:
    """One value everywhere."""
    return np.full(ints(shape), value, dtype)


def eye_like(x: Array, *, k: int = 0, dtype: str | None = None) -> Array:
    """Ones on the k-th diagonal of a matrix shaped like x."""
    rows, columns = x.shape
    return np.eye(rows, columns, k, dtype=np.dtype(dtype or x.dtype))


def range_(start: Array, limit: Array, delta: Array) -> Array:
    """start, start + delta, ... before limit."""
    return np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype)


def one_hot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """values[1] where the new axis equals the index, otherwise values[0]."""
    n = int(np.asarray(depth).reshape(-1)[0])
    hot = np.expand_dims(np.mod(indices, n), axis) == np.arange(n).reshape(
        [-1 if i == axis % (indices.ndim + 1) else 1 for i in range(indices.ndim + 1)]
    )
    inside = np.expand_dims((indices >= -n) & (indices < n), axis)
    return np.where(hot & inside, values[1], values[0])


def trilu(x: Array, k: Array | None = None, *, upper: int = 1) -> Array:
    """The upper or lower triangle of matrices, from the k-th diagonal on; zeros elsewhere."""
    return (np.triu if upper else np.tril)(x, 0 if k is None else int(np.asarray(k).reshape(())))


def depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Channels laid out as blocks of pixels; the block is the outer part of the channel number (DCR) or the inner (CRD)."""
    n, c, h, w = x.shape
    b, inner = blocksize, c // blocksize**2
    if mode == "DCR":
        y = x.reshape(n, b, b, inner, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, inner, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, inner, h * b, w * b)


def space_to_depth(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Blocks of pixels as channels: the opposite of `depth_to_space`."""
    n, c, h, w = x.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b * b, h // b, w // b)


def reverse_sequence(x: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """x with the first so many steps of each sequence backwards."""
    steps = np.arange(x.shape[time_axis])[:, None]
    order = np.where(steps < sequence_lens, sequence_lens - 1 - steps, steps)  # (time, batch)
    order = order if time_axis < batch_axis else order.T
    order = order.reshape([n if a in (time_axis, batch_axis) else 1 for a, n in enumerate(x.shape)])
    return np.take_along_axis(x, np.broadcast_to(order, x.shape), time_axis)


def center_crop_pad(x: Array, shape: Array, *, axes: tuple[int, ...] | None = None) -> Array:
    """x cut or padded with zeros at both sides of each axis to the given lengths."""
    for a, n in zip(range(x.ndim) if axes is None else axes, ints(shape), strict=True):
        extra = n - x.shape[a]
        before = extra // 2 if extra > 0 else -(-extra // 2)
        x = pad(x, np.array([before, extra - before]), axes=np.array([a]))
    return x


def col2im(
    x: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: tuple[int, ...] | None = None,
    pads: Pads | None = None,
    strides: tuple[int, ...] | None = None,
) -> Array:
    """Columns (batch, channels * block, positions) added up as images: the transpose of taking windows."""
    image, block = ints(image_shape), ints(block_shape)
    n = len(image)
    step, gap, pads = strides or (1,) * n, dilations or (1,) * n, pads or ((0, 0),) * n
    full = [i + lo + hi for i, (lo, hi) in zip(image, pads, strict=True)]
    out = [(i - k) // s + 1 for i, k, s in zip(full, spans(block, gap), step, strict=True)]
    columns = x.reshape(x.shape[0], -1, *block, *out)
    y: Array = np.zeros((*columns.shape[:2], *full), x.dtype)
    for at in itertools.product(*map(range, block)):
        to = [slice(a * g, a * g + (o - 1) * s + 1, s) for a, g, o, s in zip(at, gap, out, step, strict=True)]
        y[(..., *to)] += columns[(slice(None), slice(None), *at)]
    return y[(..., *(slice(lo, lo + i) for i, (lo, _) in zip(image, pads, strict=True)))]


SHAPE: dict[str, Callable[..., Any]] = {
    "reshape": reshape,
    "flatten": flatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "transpose": lambda x, *, perm=None: np.transpose(x, perm),
    "concat": lambda *xs, axis: np.concatenate(xs, axis),
    "split": split,
    "slice": slice_,
    "expand": expand,
    "tile": lambda x, repeats: np.tile(x, ints(repeats)),
    "pad": pad,
    "shape": shape,
    "size": lambda x: np.array(x.size, np.int64),
    "constant_of_shape": constant_of_shape,
    "eye_like": eye_like,
    "range": range_,
    "one_hot": one_hot,
    "trilu": trilu,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "reverse_sequence": reverse_sequence,
    "center_crop_pad": center_crop_pad,
    "col2im": col2im,
}
