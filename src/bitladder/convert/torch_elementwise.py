"""The torch half of the operators that look at one element of each input at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitladder.ir.ops_elementwise import SMALL_INTS


def clip(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    """x between two limits, either of which may be absent; the upper one wins."""
    low = x if min is None else torch.maximum(x, min)
    return low if max is None else torch.minimum(low, max)


def div(x: Tensor, y: Tensor) -> Tensor:
    """x / y; integers are rounded towards 0."""
    return torch.div(x, y, rounding_mode=None if (x.is_floating_point() or y.is_floating_point()) else "trunc")


def mod(x: Tensor, y: Tensor, *, fmod: int = 0) -> Tensor:
    """What is left of x / y, with the sign of y, or of x (fmod)."""
    return torch.fmod(x, y) if fmod else torch.remainder(x, y)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    """gamma times elu."""
    return gamma * F.elu(x, alpha=alpha)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x sigmoid(alpha x)."""
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """alpha x + beta between 0 and 1."""
    return (alpha * x + beta).clip(0, 1)


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by bias where it is beyond lambd, otherwise 0."""
    zero = torch.zeros((), dtype=x.dtype)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Where x is infinite, on the sides asked for."""
    return (torch.isneginf(x) & bool(detect_negative)) | (torch.isposinf(x) & bool(detect_positive))


def cast(x: Tensor, *, to: str) -> Tensor:
    """x as numpy type `to`; the types numpy lacks wrap around inside 8 bits."""
    if to not in SMALL_INTS:
        return x.to(getattr(torch, to))
    bits, signed = SMALL_INTS[to]
    low = x.long() & ((1 << bits) - 1)
    return (low - ((low >> (bits - 1)) << bits)).to(torch.int8) if signed else low.to(torch.uint8)


def many(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of two tensors as a function of one or more."""
    return lambda *xs: functools.reduce(f, xs)


def bit_shift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    """x moved y bits to the LEFT or RIGHT."""
    return torch.bitwise_left_shift(x, y) if direction == "LEFT" else torch.bitwise_right_shift(x, y)


SAME_NAME = (
    "abs", "neg", "sign", "ceil", "floor", "round", "sqrt", "exp", "log", "reciprocal", "erf", "sin", "cos", "tan",
    "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "relu", "sigmoid", "add", "sub", "mul",
    "greater", "less", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "where",
)  # fmt: skip

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in SAME_NAME},
    "softplus": F.softplus,
    "softsign": F.softsign,
    "gelu": F.gelu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": selu,
    "leaky_relu": lambda x, *, alpha=0.01: torch.where(x < 0, alpha * x, x),
    "prelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "mish": F.mish,
    "swish": swish,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": lambda x: x * hard_sigmoid(x, alpha=1 / 6, beta=0.5),
    "thresholded_relu": lambda x, *, alpha=1.0: torch.where(x > alpha, x, torch.zeros((), dtype=x.dtype)),
    "shrink": shrink,
    "clip": clip,
    "div": div,
    "mod": mod,
    "pow": lambda x, y: torch.pow(x, y).to(x.dtype),
    "max": many(torch.maximum),
    "min": many(torch.minimum),
    "equal": torch.eq,
    "greater_or_equal": torch.ge,
    "less_or_equal": torch.le,
    "and_": torch.logical_and,
    "or_": torch.logical_or,
    "xor": torch.logical_xor,
    "not_": torch.logical_not,
    "bit_shift": bit_shift,
    "is_nan": torch.isnan,
    "is_inf": is_inf,
    "cast": cast,
    "bit_cast": lambda x, *, to: x.view(getattr(torch, to)),
    "identity": lambda x: x,
}
