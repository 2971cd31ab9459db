"""Operators that look at one element of each input at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
quiet = np.errstate(all="ignore")  # infinities and NaNs are results here, not warnings

SMALL_INTS = {"int4": (4, True), "uint4": (4, False), "int2": (2, True), "uint2": (2, False)}
"""Integer types numpy has no word for: (bits, signed); they live in int8 and uint8 arrays."""


def erf(x: Array) -> Array:
    """The error function."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), x.dtype)


def gelu(x: Array, *, approximate: str = "none") -> Array:
    """x times the normal distribution function of x, exactly or by the tanh formula."""
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


@quiet
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(x, np.zeros((), x.dtype))


@quiet
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where positive, otherwise alpha (exp(x) - 1)."""
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x).astype(x.dtype)


def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where positive, otherwise alpha (exp(x / alpha) - 1)."""
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))


def selu(x: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Array:
    """gamma times elu."""
    return gamma * elu(x, alpha=alpha)


def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """x where positive, otherwise alpha x."""
    return np.where(x < 0, alpha * x, x)


def prelu(x: Array, slope: Array) -> Array:
    """x where positive, otherwise slope x."""
    return np.where(x < 0, slope * x, x)


def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """alpha x + beta between 0 and 1."""
    return np.clip(alpha * x + beta, 0, 1)


def hard_swish(x: Array) -> Array:
    """x hard_sigmoid(x), with slope 1/6."""
    return x * hard_sigmoid(x, alpha=1 / 6, beta=0.5)


def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """x sigmoid(alpha x)."""
    return x * sigmoid(alpha * x)


def mish(x: Array) -> Array:
    """x tanh(softplus(x))."""
    return x * np.tanh(softplus(x))


def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where it exceeds alpha, otherwise 0."""
    return np.where(x > alpha, x, np.zeros((), x.dtype))


def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x moved towards 0 by bias where it is beyond lambd, otherwise 0."""
    zero = np.zeros((), x.dtype)
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, zero)).astype(x.dtype)


def clip(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """x between two limits, either of which may be absent; the upper one wins."""
    low = x if min is None else np.maximum(x, min)
    return low if max is None else np.minimum(low, max)


@quiet
def div(x: Array, y: Array) -> Array:
    """x / y; integers are rounded towards 0."""
    if np.result_type(x, y).kind not in "iu":
        return np.divide(x, y)
    down = np.floor_divide(x, y)
    return down + ((down * y != x) & ((x < 0) != (y < 0)))


@quiet
def mod(x: Array, y: Array, *, fmod: int = 0) -> Array:
    """What is left of x / y, with the sign of y, or of x (fmod)."""
    return np.fmod(x, y) if fmod else np.mod(x, y)


@quiet
def power(x: Array, y: Array) -> Array:
    """x to the power y, in the type of x."""
    return np.power(x, y).astype(x.dtype)


def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    """x moved y bits to the LEFT or RIGHT."""
    return np.left_shift(x, y) if direction == "LEFT" else np.right_shift(x, y)


def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Where x is infinite, on the sides asked for."""
    return (bool(detect_negative) & np.isneginf(x)) | (bool(detect_positive) & np.isposinf(x))


@quiet
def cast(x: Array, *, to: str) -> Array:
    """x as numpy type `to`; the types numpy lacks (int4, uint4, int2, uint2) wrap around inside 8 bits."""
    if to not in SMALL_INTS:
        return x.astype(to)
    bits, signed = SMALL_INTS[to]
    low = x.astype(np.int64) & ((1 << bits) - 1)
    return (low - ((low >> (bits - 1)) << bits)).astype(np.int8) if signed else low.astype(np.uint8)


def bit_cast(x: Array, *, to: str) -> Array:
    """The same bits read as type `to`."""
    return x.view(to)


def many(f: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A function of two arrays as a function of one or more."""
    return lambda *xs: functools.reduce(f, xs)


def reciprocal(x: Array) -> Array:
    """1 / x."""
    return np.divide(np.ones((), x.dtype), x)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "neg": np.negative, "sign": np.sign, "ceil": np.ceil, "floor": np.floor, "round": np.rint,
    "sqrt": quiet(np.sqrt), "exp": quiet(np.exp), "log": quiet(np.log), "reciprocal": quiet(reciprocal), "erf": erf,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": quiet(np.arcsin), "acos": quiet(np.arccos), "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": quiet(np.arccosh), "atanh": quiet(np.arctanh),
    "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid, "softplus": softplus, "softsign": lambda x: x / (1 + np.abs(x)),
    "gelu": gelu, "elu": elu, "celu": celu, "selu": selu, "leaky_relu": leaky_relu, "prelu": prelu,
    "mish": mish, "swish": swish,
    "hard_sigmoid": hard_sigmoid, "hard_swish": hard_swish, "thresholded_relu": thresholded_relu, "shrink": shrink,
    "clip": clip,
    "add": quiet(np.add), "sub": quiet(np.subtract), "mul": quiet(np.multiply), "div": div, "mod": mod, "pow": power,
    "max": many(np.maximum), "min": many(np.minimum),
    "equal": np.equal, "greater": np.greater, "less": np.less,
    "greater_or_equal": np.greater_equal, "less_or_equal": np.less_equal,
    "and_": np.logical_and, "or_": np.logical_or, "xor": np.logical_xor, "not_": np.logical_not,
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor, "bitwise_not": np.bitwise_not,
    "bit_shift": bit_shift, "is_nan": np.isnan, "is_inf": is_inf, "where": np.where, "cast": cast, "bit_cast": bit_cast,
    "identity": lambda x: x,
}  # fmt: skip
