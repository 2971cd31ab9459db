"""The torch half of convolutions, pools and norms: everything that has a kernel or a channel axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitladder.ir.windows import Pads, Sizes, ceil_pads, resolve, spans

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def framed(x: Tensor, pads: Pads, fill: float = 0.0) -> Tensor:
    """x with `fill` around its spatial axes (less of x where a pad is negative)."""
    flat = [n for pair in reversed(pads) for n in pair]
    return F.pad(x, flat, value=fill) if any(flat) else x


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    groups: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """x (batch, C_in, *space) correlated with w (C_out, C_in / groups, *kernel)."""
    n = w.ndim - 2
    step, pads = resolve(tuple(x.shape[2:]), tuple(w.shape[2:]), strides, dilations, pads, auto_pad)
    even = all(lo == hi >= 0 for lo, hi in pads)
    inner = tuple(lo for lo, _ in pads) if even else (0,) * n
    y = CONV[n](x if even else framed(x, pads), w, None, step, inner, dilations or (1,) * n, groups)
    return y if b is None else y + b.reshape(-1, *[1] * n)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    output_padding: Sizes | None = None,
    groups: int = 1,
) -> Tensor:
    """The transpose of `conv`; the frame is cut off, or grown, afterwards."""
    n = w.ndim - 2
    y = CONV_TRANSPOSE[n](x, w, None, strides or (1,) * n, 0, 0, groups, dilations or (1,) * n)
    extra = zip(pads or ((0, 0),) * n, output_padding or (0,) * n, strict=True)
    y = framed(y, tuple((-lo, e - hi) for (lo, hi), e in extra))
    return y if b is None else y + b.reshape(-1, *[1] * n)


def placed(
    x: Tensor, kernel: Sizes, strides: Sizes | None, dilations: Sizes | None, pads: Pads | None, auto_pad: str, ceil_mode: int
) -> tuple[Sizes, Pads, Pads]:
    """Strides, the pads asked for, and the pads used (longer at the end where ceil_mode wants a last window)."""
    space = tuple(x.shape[2:])
    step, asked = resolve(space, kernel, strides, dilations, pads, auto_pad)
    used = ceil_pads(space, spans(kernel, dilations), step, asked) if ceil_mode and auto_pad == "NOTSET" else asked
    return step, asked, used


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Tensor:
    """The maximum of every window; what is padded never wins."""
    step, _, used = placed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    wide = x if x.is_floating_point() else x.double()  # torch pools few integer types; these are exact below 2^53
    y = MAX_POOL[len(step)](framed(wide, used, -torch.inf), kernel_shape, step, 0, dilations or 1)
    return y.to(x.dtype)


def windows(x: Tensor, kernel: Sizes, step: Sizes, dilations: Sizes | None) -> Tensor:
    """x (batch, channels, *space) as (batch, channels, *out, inside)."""
    n = len(kernel)
    for k, (reach, s) in enumerate(zip(spans(kernel, dilations), step, strict=True)):
        x = x.unfold(2 + k, reach, s)
    x = x[(..., *(slice(None, None, d) for d in dilations or (1,) * n))]
    return x.reshape(*x.shape[: 2 + n], -1)


def avg_pool(
    x: Tensor,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    """The mean of every window; padding counts as zeros if count_include_pad, otherwise not at all."""
    step, asked, used = placed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if set(dilations or (1,)) == {1}:

        def mean(v: Tensor) -> Tensor:
            return AVG_POOL[len(step)](v, kernel_shape, step)
    else:

        def mean(v: Tensor) -> Tensor:
            return windows(v, kernel_shape, step, dilations).mean(-1)

    y = mean(framed(x, used))
    if not any(n for pair in used for n in pair):
        return y
    rest = tuple((0, u[1] - a[1]) for u, a in zip(used, asked, strict=True))
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    return y / mean(framed(framed(ones, asked, float(bool(count_include_pad))), rest))


def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sizes,
    strides: Sizes | None = None,
    dilations: Sizes | None = None,
    pads: Pads | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> Tensor:
    """The p-norm of every window."""
    step, _, used = placed(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return (windows(framed(x, used), kernel_shape, step, dilations).abs() ** p).sum(-1) ** (1 / p)


def over_space(f: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """A reduction over all spatial axes, which stay as ones."""
    return lambda x: f(x, dim=tuple(range(2, x.ndim)), keepdim=True)


# ------------------------------------------------------------------------------------------------------------ norms


def along_channels(p: Tensor, x: Tensor) -> Tensor:
    """A vector of one entry per channel, made to broadcast over x."""
    return p.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm(x: Tensor, scale: Tensor, b: Tensor, mean: Tensor, var: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Every channel with the given mean and variance taken off, then scaled and shifted; no gradient for the statistics."""
    mean, var = mean.detach(), var.detach()
    return F.batch_norm(x, mean, var, scale, b, False, 0.0, epsilon)


def layer_norm(
    x: Tensor, scale: Tensor, b: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """x normalized from `axis` on, scaled and shifted; the mean; one over the deviation."""
    wide = x.float() if stash_type == 1 else x
    shape = x.shape[axis % x.ndim :]
    if scale.shape == shape and (b is None or b.shape == shape) and wide.dtype == scale.dtype == x.dtype:
        return torch.native_layer_norm(wide, shape, scale, b, epsilon)
    y, mean, inverse = torch.native_layer_norm(wide, shape, None, None, epsilon)
    y = y.to(x.dtype) * scale
    return (y if b is None else y + b).to(x.dtype), mean, inverse


def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """x divided by its root mean square from `axis` on, then scaled."""
    wide = x.float() if stash_type == 1 else x
    power = (wide * wide).mean(tuple(range(axis % x.ndim, x.ndim)), keepdim=True)
    return ((wide / torch.sqrt(power + epsilon)).to(x.dtype) * scale).to(scale.dtype)


def instance_norm(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Every channel of every image normalized, scaled and shifted."""
    return F.group_norm(x, x.shape[1], scale, b, epsilon)


def group_norm(x: Tensor, scale: Tensor, b: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """Groups of channels normalized together, then every channel scaled and shifted."""
    wide = x.float() if stash_type == 1 else x
    y = F.group_norm(wide, num_groups, None, None, epsilon).to(x.dtype)
    return (y * along_channels(scale, x) + along_channels(b, x)).to(x.dtype)


def lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """x divided by the strength of `size` neighbouring channels."""
    before = (size - 1) // 2
    squares = F.pad(x * x, (0, 0) * (x.ndim - 2) + (before, size - 1 - before))
    return (x / (bias + alpha / size * squares.unfold(1, size, 1).sum(-1)) ** beta).to(x.dtype)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x divided by its p-norm along an axis; zeros stay zeros."""
    norm = (x.abs() ** p).sum(axis, keepdim=True) ** (1 / p)
    return torch.where(norm == 0, 0, x / norm).to(x.dtype)


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x (..., in) times w (out, in) transposed, plus b (out,)."""
    return F.linear(x, w, b)


def resized_axis(x: Tensor, axis: int, pixels: np.ndarray, weights: np.ndarray) -> Tensor:
    """Weighted sums of the pixels of one axis."""
    column = (-1, *[1] * (x.ndim - 1 - axis))
    places = [torch.from_numpy(np.ascontiguousarray(p)).to(x.device) for p in pixels.T]
    shares = [torch.from_numpy(np.ascontiguousarray(w)).to(x.device).reshape(column) for w in weights.T]
    terms = [x.index_select(axis, p) * w for p, w in zip(places, shares, strict=True)]
    return sum(terms[1:], terms[0])


WINDOWS: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "matmul": torch.matmul,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "einsum": lambda *xs, equation: torch.einsum(equation, *xs),
    "embedding": lambda w, indices: F.embedding(indices.long(), w),
    "det": torch.linalg.det,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "lp_pool": lp_pool,
    "global_avg_pool": over_space(torch.mean),
    "global_max_pool": over_space(torch.amax),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "lrn": lrn,
    "lp_normalization": lp_normalization,
}
