"""Explicit quantization, for scales that are computed, or patterns that no encoding describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_elementwise import SMALL_INTS, quiet

Array = Any


def span(dtype: str) -> tuple[int, int]:
    """The smallest and the largest integer of a type, also of those numpy has no word for.

    >>> span("int4")
    (-8, 7)
    """
    if dtype not in SMALL_INTS:
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    bits, signed = SMALL_INTS[dtype]
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def over(p: Array, x: Array, axis: int, block_size: int) -> Array:
    """A parameter made to broadcast over x: one for all, one per entry of the axis, or one per block along it."""
    if block_size:
        return np.repeat(p, block_size, axis)[tuple(slice(n) for n in x.shape)]
    if p.size == 1:
        return p.reshape(())
    return p.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


@quiet
def quantize_linear(
    x: Array,
    scale: Array,
    zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: str | None = None,
) -> Array:
    """x / scale rounded to even, plus the zero point, held inside the integer type."""
    dtype = output_dtype or ("uint8" if zero_point is None else zero_point.dtype.name)
    codes = np.rint(x / over(scale, x, axis, block_size)).astype(np.float64)
    if zero_point is not None:
        codes = codes + over(zero_point, x, axis, block_size)
    held = "int8" if dtype in ("int4", "int2") else "uint8" if dtype in ("uint4", "uint2") else dtype
    return np.clip(codes, *span(dtype)).astype(held)


def dequantize_linear(
    x: Array,
    scale: Array,
    zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: str | None = None,
) -> Array:
    """(x - zero point) scale, in the type of scale."""
    wide = np.float64 if x.dtype.itemsize > 2 else np.float32
    centred = x.astype(wide) if zero_point is None else x.astype(wide) - over(zero_point, x, axis, block_size).astype(wide)
    return (centred * over(scale, x, axis, block_size)).astype(output_dtype or scale.dtype)


@quiet
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """x as uint8 codes over the range it has (with zero), the scale and the zero point."""
    low, high = np.minimum(0, x.min()).astype(np.float32), np.maximum(0, x.max()).astype(np.float32)
    scale = (high - low) / np.float32(255) if high > low else np.float32(1 / 255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8), np.asarray(scale, x.dtype), np.asarray(zero, np.uint8)


QUANT: dict[str, Callable[..., Any]] = {
    "quantize_linear": quantize_linear,
    "dequantize_linear": dequantize_linear,
    "dynamic_quantize_linear": dynamic_quantize_linear,
}
