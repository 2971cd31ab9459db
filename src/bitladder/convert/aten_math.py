"""Importing arithmetic: aten operators that work on each element, or fold elements of one axis together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bitladder.convert.build import Builder, Ref
from bitladder.errors import Unsupported

Handler = Callable[[Builder, Any], Any]
Number = int | float | bool

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # all become float32
INTEGERS = {torch.bool: "bool", torch.uint8: "uint8", torch.int8: "int8", torch.int16: "int16", torch.int32: "int32"}


def dtype_text(dtype: torch.dtype) -> str:
    """The dtype of a value in a graph: every float is a float32.

    >>> dtype_text(torch.bfloat16), dtype_text(torch.int64)
    ('float32', 'int64')
    """
    return "float32" if dtype in FLOATS else INTEGERS.get(dtype, "int64")


def out_dtype(a: Any, fallback: str = "float32") -> str:
    """The dtype of what a call makes."""
    return dtype_text(a.out.dtype) if isinstance(a.out, torch.Tensor) else fallback


def cast(g: Builder, x: Ref, dtype: str) -> Ref:
    """`x` in another dtype, or itself."""
    return x if x.dtype == dtype else g.emit("cast", x, shape=x.shape, dtype=dtype, to=dtype)


def operand(g: Builder, x: Ref | Number, dtype: str) -> Ref:
    """A tensor or a number as an operand of the given dtype."""
    return cast(g, x, dtype) if isinstance(x, Ref) else g.const(x, dtype)


def common(*operands: Ref | Number) -> str:
    """The dtype in which operands meet: numbers adapt to tensors of their kind (torch's promotion)."""
    samples = [torch.empty(1 if r.rank else (), dtype=getattr(torch, r.dtype)) if isinstance(r, Ref) else r for r in operands]
    kind = samples[0] if isinstance(samples[0], torch.Tensor) else torch.tensor(samples[0])
    result = kind.dtype
    for s in samples[1:]:
        result = torch.result_type(torch.empty(kind.shape, dtype=result), s)
    return dtype_text(result)


def arithmetic(op: str, swap: bool = False) -> Handler:
    """Two operands brought to the dtype of the result; `alpha` scales the second."""

    def handle(g: Builder, a: Any) -> Ref | Number:
        dtype = out_dtype(a)
        x, y = operand(g, a.self, dtype), operand(g, a.other, dtype)
        if a.alpha not in (None, 1):
            y = g.emit("mul", y, g.const(a.alpha, dtype))
        return g.emit(op, *((y, x) if swap else (x, y)))

    return handle


def symbolic(op: str, meaning: Callable[..., Any]) -> Handler:
    """Python arithmetic on sizes: numbers stay numbers."""

    def handle(g: Builder, a: Any) -> Ref | Number:
        if not any(isinstance(v, Ref) for v in a.args):
            return meaning(*a.args)
        return g.emit(op, *(operand(g, v, "int64") for v in a.args), shape=(), dtype="int64")

    return handle


def divide(g: Builder, a: Any) -> Ref:
    mode = a.rounding_mode
    if mode is None:
        return arithmetic("div")(g, a)
    dtype = common(a.self, a.other)
    ratio = g.emit("div", operand(g, a.self, "float32"), operand(g, a.other, "float32"))
    whole = g.emit("floor", ratio) if mode == "floor" else truncated(g, ratio)
    return cast(g, whole, dtype)


def truncated(g: Builder, x: Ref) -> Ref:
    return g.emit("mul", g.emit("sign", x), g.emit("floor", g.emit("abs", x)))


def floor_divide(g: Builder, a: Any) -> Ref:
    a.rounding_mode = "floor"
    return divide(g, a)


def compare(op: str, negate: bool = False) -> Handler:
    def handle(g: Builder, a: Any) -> Ref:
        dtype = common(a.self, a.other)
        out = g.emit(op, operand(g, a.self, dtype), operand(g, a.other, dtype), dtype="bool")
        return g.emit("not_", out, dtype="bool") if negate else out

    return handle


def logical(op: str) -> Handler:
    def handle(g: Builder, a: Any) -> Ref:
        others = [] if a.other is None else [operand(g, a.other, "bool")]
        return g.emit(op, operand(g, a.self, "bool"), *others, dtype="bool")

    return handle


def unary(op: str) -> Handler:
    """One operand, no options; integers become floats where torch makes floats of them."""
    return lambda g, a: g.emit(op, cast(g, a.self, out_dtype(a)))


def chain(*ops: str) -> Handler:
    """Several operators one after the other."""

    def handle(g: Builder, a: Any) -> Ref:
        x = cast(g, a.self, out_dtype(a))
        for op in ops:
            x = g.emit(op, x)
        return x

    return handle


def power(g: Builder, a: Any) -> Ref:
    dtype = out_dtype(a)
    if a.exponent == 2:
        x = operand(g, a.self, dtype)
        return g.emit("mul", x, x)
    if a.exponent == 0.5:
        return g.emit("sqrt", operand(g, a.self, dtype))
    return g.emit("pow", operand(g, a.self, dtype), operand(g, a.exponent, dtype))


def square(g: Builder, a: Any) -> Ref:
    return g.emit("mul", a.self, a.self)


def clamp(g: Builder, a: Any) -> Ref:
    """clamp(x, min, max) and hardtanh(x, min_val, max_val); either limit may be absent."""
    dtype = out_dtype(a)
    low, high = (a.min, a.max) if a.min_val is None else (a.min_val, a.max_val)
    limits = [None if v is None else operand(g, v, dtype) for v in (low, high)]
    if any(v is not None and v.rank for v in limits):
        x = cast(g, a.self, dtype)
        for op, limit in zip(("max", "min"), limits, strict=True):
            x = x if limit is None else g.emit(op, x, limit)
        return x
    return g.emit("clip", cast(g, a.self, dtype), *limits)


def relu6(g: Builder, a: Any) -> Ref:
    return g.emit("clip", a.self, g.const(0.0, "float32"), g.const(6.0, "float32"))


def elu(g: Builder, a: Any) -> Ref:
    if (a.scale, a.input_scale) != (1, 1):
        scaled = a.self if a.input_scale == 1 else g.emit("mul", a.self, g.const(a.input_scale, "float32"))
        return g.emit("mul", g.emit("elu", scaled, alpha=float(a.alpha)), g.const(a.scale, "float32"))
    return g.emit("elu", a.self, alpha=float(a.alpha))


def prelu(g: Builder, a: Any) -> Ref:
    """Slopes lie along axis 1, so they get an axis for everything behind it."""
    slope = a.weight
    if a.self.rank > 2 and slope.shape != (1,):
        slope = g.emit("reshape", slope, g.ints([-1] + [1] * (a.self.rank - 2)))
    return g.emit("prelu", a.self, slope)


def softplus(g: Builder, a: Any) -> Ref:
    """log(1 + exp(beta x)) / beta; beyond the threshold it is x to float precision anyway."""
    if a.beta == 1:
        return g.emit("softplus", a.self)
    beta = g.const(a.beta, "float32")
    return g.emit("div", g.emit("softplus", g.emit("mul", a.self, beta)), beta)


def log1p(g: Builder, a: Any) -> Ref:
    return g.emit("log", g.emit("add", a.self, g.const(1.0, "float32")))


def where(g: Builder, a: Any) -> Ref:
    dtype = out_dtype(a)
    return g.emit("where", cast(g, a.condition, "bool"), operand(g, a.self, dtype), operand(g, a.other, dtype), dtype=dtype)


def masked_fill(g: Builder, a: Any) -> Ref:
    dtype = out_dtype(a)
    return g.emit("where", a.mask, operand(g, finite(a.value), dtype), operand(g, a.self, dtype), dtype=dtype)


def finite(value: Any) -> Any:
    """`value`, or the largest float32 for an infinity: a softmax gives the same, and every format can code it."""
    return math.copysign(float(np.finfo(np.float32).max), value) if isinstance(value, float) and math.isinf(value) else value


def gelu(g: Builder, a: Any) -> Ref:
    return g.emit("gelu", a.self, approximate=a.approximate)


def glu(g: Builder, a: Any) -> Ref:
    half = a.self.size(a.dim) // 2
    parts = [g.emit("slice", a.self, g.ints([lo]), g.ints([lo + half]), g.ints([a.dim % a.self.rank])) for lo in (0, half)]
    return g.emit("mul", parts[0], g.emit("sigmoid", parts[1]))


def same(g: Builder, a: Any) -> Any:
    """The value itself: copies, layout, and dropout outside training."""
    if a.train:
        raise Unsupported("must be in eval mode, got a program exported for training; call module.eval() before torch.export")
    return a.self if a.self is not None else a.input


def nothing(g: Builder, a: Any) -> None:
    """What an exporter writes down to check sizes and types at run time."""


def converted(g: Builder, a: Any) -> Ref:
    """to, type_as and friends: a cast if the dtype changes."""
    return cast(g, a.self, out_dtype(a, a.self.dtype))


UNARY = (
    "relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg", "erf", "floor", "ceil", "round", "sign", "reciprocal",
    "mish", "softsign", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
)  # fmt: skip
SAME = ("contiguous", "clone", "dropout", "feature_dropout", "alpha_dropout", "detach", "alias", "lift_fresh_copy")

ASSERTIONS = (
    "_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range", "operator.ge",
    "operator.le", "operator.gt", "operator.lt", "operator.eq", "operator.ne",
)  # fmt: skip

MATH: dict[str, Handler] = {
    "add": arithmetic("add"),
    "sub": arithmetic("sub"),
    "rsub": arithmetic("sub", swap=True),
    "mul": arithmetic("mul"),
    "multiply": arithmetic("mul"),
    "div": divide,
    "true_divide": divide,
    "floor_divide": floor_divide,
    "remainder": arithmetic("mod"),
    "maximum": arithmetic("max"),
    "minimum": arithmetic("min"),
    "operator.add": symbolic("add", lambda a, b: a + b),
    "operator.sub": symbolic("sub", lambda a, b: a - b),
    "operator.mul": symbolic("mul", lambda a, b: a * b),
    "operator.floordiv": symbolic("div", lambda a, b: a // b),
    "operator.getitem": lambda g, a: a.args[0][a.args[1]],
    "eq": compare("equal"),
    "ne": compare("equal", negate=True),
    "lt": compare("less"),
    "le": compare("less_or_equal"),
    "gt": compare("greater"),
    "ge": compare("greater_or_equal"),
    "logical_and": logical("and_"),
    "logical_or": logical("or_"),
    "logical_xor": logical("xor"),
    "logical_not": logical("not_"),
    "bitwise_and": logical("and_"),
    "bitwise_or": logical("or_"),
    "bitwise_xor": logical("xor"),
    "bitwise_not": logical("not_"),
    "__and__": logical("and_"),
    "__or__": logical("or_"),
    "rsqrt": chain("sqrt", "reciprocal"),
    "log1p": log1p,
    "square": square,
    "pow": power,
    "silu": lambda g, a: g.emit("swish", a.self),
    "glu": glu,
    "gelu": gelu,
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "clip": clamp,
    "hardtanh": clamp,
    "relu6": relu6,
    "elu": elu,
    "selu": lambda g, a: g.emit("selu", a.self),
    "celu": lambda g, a: g.emit("celu", a.self, alpha=float(a.alpha)),
    "leaky_relu": lambda g, a: g.emit("leaky_relu", a.self, alpha=float(a.negative_slope)),
    "prelu": prelu,
    "softplus": softplus,
    "where": where,
    "masked_fill": masked_fill,
    **{op: unary(op) for op in UNARY},
    "hardswish": unary("hard_swish"),
    "hardsigmoid": lambda g, a: g.emit("hard_sigmoid", a.self, alpha=1 / 6, beta=0.5),
    **{op: same for op in SAME},
    **{op: converted for op in ("to", "_to_copy", "type_as", "float", "convert_element_type")},
    **{op: nothing for op in ASSERTIONS},
}
