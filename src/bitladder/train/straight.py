"""Fake quantization: values rounded to a format going forward, gradients straight through going back (Bengio et al., 2013).

Forward is `decode(encode(x))` of the format itself, so a module computes on what its file will hold. Backward, `x` gets the
gradient as if nothing had been rounded, and a scale gets what a larger one would change (LSQ; Esser et al., 2020): the
rounding error inside the range, the end of the range outside.

Activations in evenly spaced levels, which are most of what is rounded, go through the native core in one pass each way, the
rest and everything without the core through torch; values and gradients of `x` are the same, those of scales to 1e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from bitladder.formats import Fixed, Format, Int, Nested, Ternary
from bitladder.formats.tensor import SPREAD
from bitladder.native import core, isa

Tensor = Any
TINY = 1e-12
SCALES = ("scale", "range")  # parameters that values are proportional to, and that can be learned


class Straight(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by the checker
    """`value` going forward; the gradients of `x` and of the scale that `value` is proportional to going back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, value: Tensor, inside: Tensor | None, factor: float, cut: bool) -> Tensor:
        ctx.save_for_backward(x, scale, value, inside)
        ctx.factor, ctx.cut = factor, cut
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, scale, value, inside = ctx.saved_tensors
        to_x = gradient * inside if ctx.cut and inside is not None else gradient
        to_scale = None
        if ctx.needs_input_grad[1]:
            rest = value - x if inside is None else torch.addcmul(value, x, inside, value=-1)
            to_scale = summed(gradient, rest, scale) * ctx.factor
        return to_x, to_scale, None, None, None, None


class Even(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by the checker
    """What `Straight` computes, for levels (step, low, high, floor, ceiling) and values beyond them cut, by the native core."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, levels: tuple[float, ...], factor: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.levels, ctx.factor = levels, factor
        value = torch.empty_like(x)
        core.straight_rounded(line(x), line(value), levels, torch.get_num_threads(), isa())
        return value

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, scale = ctx.saved_tensors
        to_x = torch.empty_like(x)
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        total = core.straight_back(line(x), line(gradient), line(to_x), ctx.levels, torch.get_num_threads(), isa())
        return to_x, torch.full_like(scale, total / ctx.levels[0] * ctx.factor), None, None


def line(x: Tensor) -> Any:
    """The values of a dense tensor in the order they lie in, as an array over its memory."""
    return x.detach().as_strided((x.numel(),), (1,)).numpy()


def levels_of(x: Tensor, fmt: Format, params: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The levels of a format as the core takes them; None where it does not take them, or `x`."""
    real = not torch.compiler.is_compiling()  # the core needs memory to work on
    here = real and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    if core is None or not here or not dense or not isinstance(fmt, Int | Fixed) or fmt.bits > 16:
        return None
    step, zero = fmt.step(params), params.get("zero_point", 0.0)
    limits = ends(fmt, params)
    if step.numel() != 1 or limits is None:
        return None
    low, high = fmt.span()
    return tuple(float(v) for v in (step, low - zero, high - zero, *limits))


def summed(gradient: Tensor, rest: Tensor, scale: Tensor) -> Tensor:
    """The sum of gradient * rest / scale over what shares a scale; for one scale in a single pass."""
    if scale.numel() > 1:
        return (gradient * rest / scale).sum_to_size(scale.shape)
    return (torch.dot(gradient.reshape(-1), rest.reshape(-1)) / scale.reshape(())).reshape(scale.shape)


def spread(p: Tensor, shape: tuple[int, ...], axes: tuple[int, ...], group: int | None) -> Tensor:
    """A parameter made to broadcast over a tensor of `shape`; gradients flow through it.

    >>> spread(torch.arange(2.0), (2, 3, 4), (0,), None).shape
    torch.Size([2, 1, 1])
    """
    if group is not None:
        inputs = 1
        for n in shape[1:]:
            inputs *= n
        return p.repeat_interleave(group, 1)[:, :inputs].reshape(shape)
    return p.reshape([n if a in axes else 1 for a, n in enumerate(shape)] if axes else [])


def ends(fmt: Format, p: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The reals between which a format only rounds; None where it has no clear ends."""
    if isinstance(fmt, Nested):
        return (-p["range"], p["range"]) if fmt.scheme == "midrise" else None
    if not isinstance(fmt, Int | Fixed | Ternary):
        return None
    step, zero = fmt.step(p), p.get("zero_point", 0.0)
    low, high = fmt.span()
    return (low - 0.5 - zero) * step, (high + 0.5 - zero) * step


def rounded(x: Tensor, fmt: Format, params: Mapping[str, Any], axes: tuple[int, ...], *, cut: bool = False) -> Tensor:
    """`x` as `fmt` holds it. params: tensors where they are spread or learned, arrays where they are tables.

    cut: what lies outside the range gets no gradient, as suits activations; weights outside should be able to come back.
    """
    shape = tuple(x.shape)
    wide = {k: spread(p, shape, axes, fmt.group) if k in SPREAD else p for k, p in params.items()}
    held = {k: p.detach() if isinstance(p, torch.Tensor) else p for k, p in wide.items()}
    scale = next((wide[k] for k in SCALES if k in wide), None)
    if scale is None:
        scale = x.new_ones(())
    factor = (max(scale.numel(), 1) / max(x.numel(), 1) / 2 ** (fmt.bits - 1)) ** 0.5
    levels = levels_of(x, fmt, held) if cut else None
    if levels is not None:
        return Even.apply(x, scale, levels, factor)
    with torch.no_grad():
        value = fmt.integers(fmt.encode(x, held), held) * fmt.step(held)
        limits = ends(fmt, held)
        inside = None if limits is None else torch.eq(x.clamp(*limits), x).to(x.dtype)
    return Straight.apply(x, scale, value, inside, factor, cut)
