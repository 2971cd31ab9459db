"""Importing folds: aten operators that sum, compare or normalise along an axis."""

from __future__ import annotations

import math
from typing import Any

from bitladder.convert.aten_math import Handler, arithmetic, cast, out_dtype
from bitladder.convert.build import Builder, Ref
from bitladder.errors import Unsupported


def log_softmax(g: Builder, a: Any) -> Ref:
    """x less the logarithm of the sum of exponentials."""
    x = cast(g, a.self, out_dtype(a))
    return g.emit("sub", x, g.emit("reduce_log_sum_exp", x, g.ints([a.dim % a.self.rank]), keepdims=1))


def axes_of(a: Any) -> list[int]:
    """The axes a reduction folds, counted from the front; all of them if none is given."""
    rank = a.self.rank
    given = range(rank) if a.dim in (None, []) else ([a.dim] if isinstance(a.dim, int) else a.dim)
    return sorted(d % rank for d in given) if rank else []


def reduction(op: str) -> Handler:
    """sum, mean, amax ... over some axes."""

    def handle(g: Builder, a: Any) -> Ref:
        x = cast(g, a.self, out_dtype(a))
        axes = axes_of(a)
        return g.emit(op, x, g.ints(axes), keepdims=int(a.keepdim or 0)) if axes else x

    return handle


def variance(g: Builder, a: Any) -> Ref:
    """The mean of squared deviations; the correction for small samples is a factor."""
    axes = axes_of(a)
    mean = g.emit("reduce_mean", a.self, g.ints(axes), keepdims=1)
    off = g.emit("sub", a.self, mean)
    out = g.emit("reduce_mean", g.emit("mul", off, off), g.ints(axes), keepdims=int(a.keepdim or 0))
    correction = int(a.unbiased) if a.unbiased is not None else (1 if a.correction is None else a.correction)
    if not correction:
        return out
    sizes = [a.self.size(d) for d in axes]
    if None in sizes:
        raise Unsupported("must be over axes of known size to be corrected, got a free one; pass correction=0")
    count = math.prod(n for n in sizes if n is not None)
    return g.emit("mul", out, g.const(count / (count - correction), "float32"))


def deviation(g: Builder, a: Any) -> Ref:
    return g.emit("sqrt", variance(g, a))


def norm(g: Builder, a: Any) -> Ref:
    """The Euclidean or the absolute norm along axes (aten.linalg_vector_norm, aten.norm)."""
    order = a.ord if a.ord is not None else (a.p if a.p is not None else 2)
    if order not in (1, 2):
        raise Unsupported(f"must be a norm of order 1 or 2, got {order}; write it with abs, pow and sum")
    axes, keep = g.ints(axes_of(a)), int(a.keepdim or 0)
    if order == 1:
        return g.emit("reduce_sum", g.emit("abs", a.self), axes, keepdims=keep)
    return g.emit("sqrt", g.emit("reduce_sum", g.emit("mul", a.self, a.self), axes, keepdims=keep))


def extreme(op: str, arg: str, pair: str) -> Handler:
    """max and min: of everything, of two tensors, or along an axis with the positions."""

    def handle(g: Builder, a: Any) -> Any:
        if a.other is not None:
            return arithmetic(pair)(g, a)
        if a.dim is None:
            return reduction(op)(g, a)
        return (
            g.emit(op, a.self, g.ints([a.dim % a.self.rank]), keepdims=int(a.keepdim or 0)),
            g.emit(arg, a.self, dtype="int64", axis=a.dim % a.self.rank, keepdims=int(a.keepdim or 0)),
        )

    return handle


def position(op: str) -> Handler:
    """argmax and argmin, along an axis or over everything laid flat."""

    def handle(g: Builder, a: Any) -> Ref:
        x = a.self if a.dim is not None else g.emit("reshape", a.self, g.ints([-1]), shape=(-1,))
        axis = a.dim % x.rank if a.dim is not None else 0
        return g.emit(op, x, dtype="int64", axis=axis, keepdims=int(a.keepdim or 0))

    return handle


def softmax(g: Builder, a: Any) -> Ref:
    return g.emit("softmax", cast(g, a.self, out_dtype(a)), axis=a.dim)


REDUCE: dict[str, Handler] = {
    "max": extreme("reduce_max", "arg_max", "max"),
    "min": extreme("reduce_min", "arg_min", "min"),
    "sum": reduction("reduce_sum"),
    "mean": reduction("reduce_mean"),
    "amax": reduction("reduce_max"),
    "amin": reduction("reduce_min"),
    "prod": reduction("reduce_prod"),
    "logsumexp": reduction("reduce_log_sum_exp"),
    "var": variance,
    "std": deviation,
    "linalg_vector_norm": norm,
    "norm": norm,
    "argmax": position("arg_max"),
    "argmin": position("arg_min"),
    "softmax": softmax,
    "_softmax": softmax,
    "_safe_softmax": softmax,
    "log_softmax": log_softmax,
    "_log_softmax": log_softmax,
}
