"""The arithmetic of integer nodes, normative (docs/numerics.md): what is summed, in which unit, and how it is rounded.

Each rule takes a node with the values that flow into it and returns codes (or reals, where the output has no encoding),
or None if the node cannot be computed in integers and must run in float. Sums are exact: they are done in float64 after a
proof that they stay below 2^53, or in float32 (torch only) after a proof that they stay below 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.formats import Log
from bitladder.formats.tensor import Array, Encoding, QTensor, like, ns, real, spread
from bitladder.ir.graph import Graph, Node
from bitladder.ir.ops import OPS

INT32 = 2**31 - 1


@dataclass(frozen=True)
class Coded:
    """An activation as codes (integer-valued float32) with its encoding."""

    codes: Array
    encoding: Encoding

    def real(self) -> Array:
        """The reals behind the codes, float32."""
        return self.encoding.decode(self.codes)

    def integers(self) -> Array:
        """The integers behind the codes: code minus zero point."""
        return self.encoding.integers(self.codes)


def largest(encoding: Encoding) -> float:
    """The largest magnitude among the integers that an activation's codes can stand for."""
    ends = [encoding.format.integers(np.float32(end).reshape(1), encoding.params) for end in encoding.format.span()]
    return float(max(np.max(np.abs(end)) for end in ends))


# ------------------------------------------------------------------------------------------------- one common unit


def power_of_two(x: np.ndarray) -> bool:
    """Whether every entry is an exact power of two."""
    return bool(np.all(np.frexp(x)[0] == 0.5))


def aligned(encoding: Encoding, w: QTensor, op: str, groups: int = 1) -> tuple[np.ndarray, np.ndarray] | None:
    """Integer weights (int64) and the unit (float32, one per output channel) of the sums they take part in, or None.

    If all products of one output channel have the same step, that step is the unit. If steps differ but are powers of
    two (fractional lengths per input channel or kernel slice, S3), the unit is the finest of them (F_o = max_j p_oj) and
    coarser products are shifted left, which is done to the weights beforehand. Anything else has no integer sum.
    """
    e = w.integers().astype(np.int64)
    out_axis = 1 if op == "conv_transpose" else 0
    in_axis = 1 - out_axis
    steps = w.step().astype(np.float32)
    steps = steps.reshape((1,) * (e.ndim - steps.ndim) + steps.shape)
    outs = e.shape[out_axis]
    varies = any(n > 1 for a, n in enumerate(steps.shape) if a != out_axis) or encoding.axes != ()
    if not varies:
        sx = encoding.step(())
        unit = (np.broadcast_to(sx * steps.reshape(-1), (outs,))).astype(np.float32)
        return e, np.tile(unit, groups) if op == "conv_transpose" else unit
    if op == "conv_transpose" and groups > 1:
        return None
    sx = encoding.step((1, e.shape[in_axis] * (groups if op == "conv" else 1))).reshape(-1)
    if not (power_of_two(sx) and power_of_two(steps)):
        return None
    if len(sx) > 1:
        per_out = (
            sx.reshape(groups, -1).repeat(outs // groups, axis=0) if op == "conv" else np.broadcast_to(sx, (outs, len(sx)))
        )
        moved = per_out if out_axis == 0 else per_out.T
        sx = moved.reshape(moved.shape + (1,) * (e.ndim - 2))
    product = np.broadcast_to(sx.astype(np.float64) * steps, e.shape)
    rest = tuple(a for a in range(e.ndim) if a != out_axis)
    unit = product.min(axis=rest, keepdims=True)
    return e * (product / unit).astype(np.int64), unit.reshape(-1).astype(np.float32)


def bias_codes(bias: np.ndarray | None, unit: np.ndarray) -> np.ndarray:
    """The bias in units of the sum, half to even, saturated to 32 bits (float64 integers)."""
    if bias is None:
        return np.zeros(unit.shape)
    return np.clip(np.round(bias.astype(np.float64) / unit.astype(np.float64)), -INT32 - 1, INT32)


def sum_bound(e: np.ndarray, bias: np.ndarray, encoding: Encoding, op: str, groups: int = 1) -> float:
    """A bound on the magnitude of every partial sum: sum of |weights| times the largest |activation|, plus |bias|."""
    out_axis = 1 if op == "conv_transpose" else 0
    rest = tuple(a for a in range(e.ndim) if a != out_axis)
    sums = np.abs(e).sum(axis=rest).astype(np.float64)
    if op == "conv_transpose":
        sums = np.tile(sums, groups)
    return float(np.max(sums * largest(encoding) + np.abs(bias)))


def exact(x: Array, bound: float) -> Any:
    """The float type in which sums up to `bound` are exact, for the kind of array that `x` is."""
    if bound >= 2**53:
        raise ValueError(f"run: sums may reach {bound:.3g}, must be below 2^53 to be exact; use fewer bits for this layer")
    space = ns(x)
    return np.float64 if space is np else (space.float32 if bound < 2**24 else space.float64)


def typed(x: Array, dtype: Any) -> Array:
    return x.astype(dtype) if ns(x) is np else x.to(dtype)


# --------------------------------------------------------------------------------------------------- requantization


def requantize(acc: Array, multiplier: np.ndarray, encoding: Encoding, clip: tuple[float | None, float | None] | None) -> Array:
    """Codes of exact sums: clip(round_half_even(float32(acc) * multiplier) + zero point); a fused clip acts on codes."""
    low, high = encoding.format.span()
    if isinstance(encoding.format, Log):  # codes that are not evenly spaced: the one of that many steps
        codes = encoding.format.encode(real(acc) * like(acc, multiplier), {"scale": 1 / encoding.format.step({"scale": 1})})
        return codes if clip is None else clip_codes(codes, encoding, clip)
    codes = (real(acc) * like(acc, multiplier)).round()
    if "zero_point" in encoding.params:
        codes = codes + like(acc, spread(encoding.params["zero_point"], tuple(acc.shape), encoding.axes, None))
    codes = codes.clip(low, high)
    return codes if clip is None else clip_codes(codes, encoding, clip)


def clip_codes(codes: Array, encoding: Encoding, clip: tuple[float | None, float | None]) -> Array:
    """Codes clipped to those of two reals: quantizing is monotone, so this equals clipping before it."""
    shape = tuple(codes.shape)
    for limit, bound in zip(clip, ("maximum", "minimum"), strict=True):
        if limit is not None:
            edge = encoding.encode(np.full([n if a in encoding.axes else 1 for a, n in enumerate(shape)], limit, np.float32))
            codes = getattr(ns(codes), bound)(codes, like(codes, edge))
    return codes


def finish(acc: Array, unit: np.ndarray, channel: int, node: Node, encoding: Encoding | None) -> Array:
    """Codes, or reals where there is no encoding, of exact sums in `unit` (one per position along axis `channel`)."""
    shape = [1] * acc.ndim
    shape[channel] = -1
    unit = unit.reshape(shape)
    if encoding is None:
        out = real(acc) * like(acc, unit)
        return out if node.clip is None else out.clip(*node.clip)
    return requantize(acc, (unit / encoding.step(tuple(acc.shape))).astype(np.float32), encoding, node.clip)


# ------------------------------------------------------------------------------------------------------------ rules


def weighted(node: Node, args: Sequence[Any], encoding: Encoding | None, ops: Mapping[str, Callable[..., Any]]) -> Array | None:
    """conv, conv_transpose and linear: integer activations times integer weights, plus an integer bias."""
    x, w, bias = [*args, None][:3]
    if not (isinstance(x, Coded) and isinstance(w, QTensor)):
        return None
    groups = int(node.attrs.get("groups", 1))
    together = aligned(x.encoding, w, node.op, groups)
    if together is None:
        return None
    e, unit = together
    b = bias_codes(None if bias is None else np.asarray(bias), unit)
    dtype = exact(x.codes, sum_bound(e, b, x.encoding, node.op, groups))
    acc = ops[node.op](typed(x.integers(), dtype), typed(like(x.codes, e.astype(np.float64)), dtype), None, **node.attrs)
    channel = acc.ndim - 1 if node.op == "linear" else 1
    shape = [1] * acc.ndim
    shape[channel] = -1
    return finish(acc + typed(like(acc, b.reshape(shape)), dtype), unit, channel, node, encoding)


def matmul(node: Node, args: Sequence[Any], encoding: Encoding | None, ops: Mapping[str, Callable[..., Any]]) -> Array | None:
    """A product of two integer activations, one unit for all."""
    a, b = args
    if not (isinstance(a, Coded) and isinstance(b, Coded)) or a.encoding.axes or b.encoding.axes:
        return None
    dtype = exact(a.codes, largest(a.encoding) * largest(b.encoding) * a.codes.shape[-1])
    acc = ops["matmul"](typed(a.integers(), dtype), typed(b.integers(), dtype))
    unit = (a.encoding.step(()) * b.encoding.step(())).astype(np.float32).reshape(1)
    return finish(acc, unit, acc.ndim - 1, node, encoding)


def mean(node: Node, args: Sequence[Any], encoding: Encoding | None, ops: Mapping[str, Callable[..., Any]]) -> Array | None:
    """avg_pool, global_avg_pool and reduce_mean: an exact sum of n, requantized with float32(sx) / (float32(sy) * n)."""
    x = args[0]
    if not isinstance(x, Coded) or encoding is None:
        return None
    if node.op == "reduce_mean" and x.encoding.axes:
        return None
    wide = typed(x.integers(), np.float64 if ns(x.codes) is np else ns(x.codes).float64)
    averaged = ops[node.op](wide, *args[1:], **node.attrs)
    n = window_counts(tuple(wide.shape), tuple(averaged.shape), node)
    acc = (averaged * like(wide, n)).round()
    shape = tuple(acc.shape)
    multiplier = x.encoding.step(shape) / (encoding.step(shape) * n.astype(np.float32))
    return requantize(acc, multiplier.astype(np.float32), encoding, node.clip)


def window_counts(before: tuple[int, ...], after: tuple[int, ...], node: Node) -> np.ndarray:
    """How many elements each mean divides by, to broadcast over the means (float64)."""
    if node.op != "avg_pool":
        return np.asarray(math.prod(before) / math.prod(after))
    ones = np.ones((1, 1, *before[2:]))
    inside = OPS["lp_pool"](ones, p=1, **{k: v for k, v in node.attrs.items() if k != "count_include_pad"})
    return np.round(inside / OPS["avg_pool"](ones, **node.attrs))


UNARY = (
    "abs", "neg", "sign", "ceil", "floor", "round", "sqrt", "exp", "log", "reciprocal", "erf", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "relu", "sigmoid", "softplus", "softsign", "gelu", "elu",
    "celu", "selu", "leaky_relu", "mish", "swish", "hard_sigmoid", "hard_swish", "thresholded_relu", "shrink",
)  # fmt: skip
TABLE_BITS = 8  # of the codes that are looked up


def lookup(node: Node, args: Sequence[Any], encoding: Encoding | None, ops: Mapping[str, Callable[..., Any]]) -> Array | None:
    """A function of one activation, whose codes have one step on both sides: a table of all codes."""
    x = args[0]
    if not isinstance(x, Coded) or encoding is None or len(args) > 1 or x.encoding.axes or encoding.axes:
        return None
    low, high = x.encoding.format.span()
    if high - low >= 2**TABLE_BITS:
        return None
    table = like(x.codes, looked_up(node, x.encoding, encoding))
    at = typed(x.codes - low, np.int64 if ns(x.codes) is np else ns(x.codes).int64)
    return table[at]


def looked_up(node: Node, x: Encoding, y: Encoding) -> np.ndarray:
    """The code (float32) that `node` makes of each code of `x`: its operator in float64, rounded to float32, encoded by `y`."""
    low, high = x.format.span()
    reals = x.decode(np.arange(low, high + 1, dtype=np.float32)).astype(np.float64)
    with np.errstate(all="ignore"):
        made = np.asarray(OPS[node.op](reals, **node.attrs)).astype(np.float32)
    if node.clip is not None:
        made = np.clip(made, *node.clip)
    codes = y.encode(np.nan_to_num(made, nan=-np.inf, posinf=np.inf, neginf=-np.inf))
    return codes.astype(np.float32)


RULES: dict[str, Callable[..., Array | None]] = {
    "conv": weighted,
    "conv_transpose": weighted,
    "linear": weighted,
    "matmul": matmul,
    "avg_pool": mean,
    "global_avg_pool": mean,
    "reduce_mean": mean,
    **dict.fromkeys(UNARY, lookup),
}


def accumulators(graph: Graph) -> dict[str, int | None]:
    """For every weighted node: the bits its sums need at most, sign included, proved from its weights; None if it is float.

    A layer is safe in 32-bit accumulators if and only if its entry is at most 32.
    """
    out: dict[str, int | None] = {}
    for node in graph.nodes:
        if node.op not in ("conv", "conv_transpose", "linear"):
            continue
        w, encoding = graph.constants.get(node.inputs[1]), graph.encodings.get(node.inputs[0])
        groups = int(node.attrs.get("groups", 1))
        together = aligned(encoding, w, node.op, groups) if isinstance(w, QTensor) and encoding is not None else None
        if together is None or encoding is None:
            out[node.name] = None
            continue
        bias = graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        b = bias_codes(bias if isinstance(bias, np.ndarray) else None, together[1])
        out[node.name] = int(np.ceil(np.log2(sum_bound(together[0], b, encoding, node.op, groups) + 1))) + 1
    return out
