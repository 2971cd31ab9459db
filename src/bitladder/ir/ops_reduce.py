"""Operators that make axes disappear, or run along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_elementwise import quiet

Array = Any


def reduction(f: Callable[..., Array], start: Callable[[Array], Array] = lambda x: x) -> Callable[..., Array]:
    """An operator that applies f over `axes`: all of them when absent or empty, or none if noop_with_empty_axes.

    start: what happens to each element first, which it also does when there is nothing to reduce.
    """

    def reduce(x: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        over = tuple(int(a) for a in axes) if axes is not None and len(axes) else None
        if over is None and noop_with_empty_axes:
            over = ()
        return np.asarray(f(start(x), axis=over, keepdims=bool(keepdims))).astype(x.dtype)

    return reduce


def log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    """log(sum(exp(x))), without overflow."""
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis=axis)


def extreme(f: Callable[..., Array], worst: int) -> Callable[..., Array]:
    """Maximum or minimum, for which an empty axis gives the worst value of the type."""

    def reduce(x: Array, axis: Any, keepdims: bool) -> Array:
        if x.dtype.kind == "f":
            return f(x, axis=axis, keepdims=keepdims, initial=worst * np.inf)
        if x.dtype.kind == "b":
            return f(x.astype(np.int8), axis=axis, keepdims=keepdims, initial=int(worst > 0))
        limits = np.iinfo(x.dtype)
        return f(x, axis=axis, keepdims=keepdims, initial=limits.max if worst > 0 else limits.min)

    return reduce


def arg(f: Callable[..., Array]) -> Callable[..., Array]:
    """Where the best element of an axis is, the first one or the last."""

    def best(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        if select_last_index:
            at = x.shape[axis] - 1 - f(np.flip(x, axis), axis=axis)
        else:
            at = f(x, axis=axis)
        return (np.expand_dims(at, axis) if keepdims else np.asarray(at)).astype(np.int64)

    return best


def running(f: Callable[..., Array], first: int) -> Callable[..., Array]:
    """Partial sums or products along an axis; exclusive: without the element itself; reverse: from the end."""

    def scan(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
        a = int(np.asarray(axis).reshape(()))
        x = np.flip(x, a) if reverse else x
        y = f(x, axis=a, dtype=x.dtype)
        if exclusive:
            start = np.full_like(np.take(y, [0], a), first)
            y = np.concatenate([start, np.take(y, range(y.shape[a] - 1), a)], a)
        return np.flip(y, a) if reverse else y

    return scan


def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) divided by its sum along an axis."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def hardmax(x: Array, *, axis: int = -1) -> Array:
    """1 where an axis first reaches its maximum, otherwise 0."""
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(np.argmax(x, axis), axis), 1, axis)
    return y


def top_k(x: Array, k: Array, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:
    """The k best values of an axis in order, and where they were; of equals, the first comes first."""
    if largest:
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    order = np.take(order, range(int(np.asarray(k).reshape(()))), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


REDUCE: dict[str, Callable[..., Any]] = {
    "reduce_sum": reduction(np.sum),
    "reduce_mean": reduction(quiet(np.mean)),
    "reduce_prod": reduction(np.prod),
    "reduce_max": reduction(extreme(np.max, -1)),
    "reduce_min": reduction(extreme(np.min, 1)),
    "reduce_l2": reduction(lambda x, **over: np.sqrt(np.sum(x, **over)), np.square),
    "reduce_log_sum_exp": reduction(quiet(log_sum_exp)),
    "arg_max": arg(np.argmax),
    "arg_min": arg(np.argmin),
    "cum_sum": running(np.cumsum, 0),
    "cum_prod": running(np.cumprod, 1),
    "softmax": quiet(softmax),
    "hardmax": hardmax,
    "top_k": top_k,
}
