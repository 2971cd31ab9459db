"""The torch half of attention, recurrent networks, resizing and explicit quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitladder.convert.torch_elementwise import ELEMENTWISE
from bitladder.convert.torch_windows import resized_axis
from bitladder.ir.ops_elementwise import SMALL_INTS
from bitladder.ir.ops_quant import span
from bitladder.ir.ops_recurrent import DIRECTIONS
from bitladder.ir.ops_resize import NEAREST, output_sizes, source, taps

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]


def heads(x: Tensor, count: int | None) -> Tensor:
    """x (batch, length, heads * width) as (batch, heads, length, width); four axes stay as they are."""
    if x.ndim == 4:
        return x
    assert count is not None
    return x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """The opposite of `heads`."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def allowed(q: Tensor, k: Tensor, offset: Any, *, is_causal: int, left: int, right: int) -> Tensor:
    """Which keys a query may see by position alone; query i stands at i + offset."""
    keys, queries = (torch.arange(a.shape[2], device=q.device) for a in (k, q))
    ahead = keys - (queries[:, None] + offset)
    see = torch.ones_like(ahead, dtype=torch.bool)
    for limited, inside in ((is_causal, ahead <= 0), (left >= 0, -ahead <= left), (right >= 0, ahead <= right)):
        see = see & inside if limited else see
    return see


def mask_bias(mask: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """A mask as something to add: true is 0, false and what is missing at the end is minus infinity."""
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)
    return torch.nn.functional.pad(bias, (0, keys - bias.shape[-1]), value=-torch.inf)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: str | None = None,
    qk_matmul_output_mode: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaled dot-product attention; the keys and values so far; the scores (raw, capped, masked or after softmax)."""
    flat, dtype = q.ndim == 3, q.dtype
    q, k, v = heads(q, q_num_heads), heads(k, kv_num_heads), heads(v, kv_num_heads)
    offset: Any = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    elif nonpad_kv_seqlen is not None:
        offset = nonpad_kv_seqlen.reshape(-1, 1, 1, 1) - q.shape[2]
    see = allowed(q, k, offset, is_causal=is_causal, left=left_window_size, right=right_window_size)
    if nonpad_kv_seqlen is not None:
        see = see & (torch.arange(k.shape[2], device=q.device) < nonpad_kv_seqlen.reshape(-1, 1, 1, 1))
    bias = torch.zeros(see.shape, dtype=dtype, device=q.device).masked_fill(~see, -torch.inf)
    if attn_mask is not None:
        bias = bias + mask_bias(attn_mask, k.shape[2], dtype)
    root = float(np.sqrt(1 / np.sqrt(q.shape[-1]) if scale is None else scale))
    share = q.shape[1] // k.shape[1]
    raw = (q * root) @ (k.repeat_interleave(share, 1).transpose(2, 3) * root)
    capped = softcap * torch.tanh(raw / softcap) if softcap > 0 else raw
    masked = capped + bias
    wide = masked.to(getattr(torch, softmax_precision) if softmax_precision else dtype)
    e = torch.where(torch.isneginf(bias.amax(-1, keepdim=True)), 0, torch.exp(wide - wide.amax(-1, keepdim=True)))
    weights = (e / e.sum(-1, keepdim=True).clamp(min=torch.finfo(wide.dtype).tiny)).to(dtype)
    y = weights @ v.repeat_interleave(share, 1)
    return (joined(y) if flat else y), k, v, (raw, capped, masked, weights)[qk_matmul_output_mode].to(dtype)


def rotary_embedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """x (batch, heads, length, width) with pairs of its first entries turned by the angles of their positions."""
    y = heads(x, num_heads)
    size = rotary_embedding_dim or y.shape[-1]
    cos, sin = (c if position_ids is None else c[position_ids.long()] for c in (cos, sin))
    cos, sin = cos[:, None], sin[:, None]
    turn, rest = y[..., :size], y[..., size:]
    a, b = (turn[..., 0::2], turn[..., 1::2]) if interleaved else turn.chunk(2, -1)
    pair = (cos * a - sin * b, sin * a + cos * b)
    turned = torch.stack(pair, -1).reshape(turn.shape) if interleaved else torch.cat(pair, -1)
    y = torch.cat((turned, rest), -1)
    return joined(y) if x.ndim == 3 else y


# -------------------------------------------------------------------------------------------------------- recurrent

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "scaledtanh": lambda x, alpha=1.0, beta=1.0: alpha * torch.tanh(beta * x),
    "leakyrelu": ELEMENTWISE["leaky_relu"],
    "thresholdedrelu": ELEMENTWISE["thresholded_relu"],
    "hardsigmoid": ELEMENTWISE["hard_sigmoid"],
    **{name: ELEMENTWISE[name] for name in ("relu", "sigmoid", "elu", "softsign", "softplus")},
}


def activation(number: int, names: tuple[str, ...], alphas: Any, betas: Any) -> Callable[[Tensor], Tensor]:
    """The number-th activation of a node, with its constants."""
    f = ACTIVATIONS[names[number].lower()]
    given = (("alpha", alphas), ("beta", betas))
    options = {name: values[number] for name, values in given if values is not None and number < len(values)}
    return lambda x: f(x, **options)


def scan(x: Tensor, state: State, step: Step, lens: Tensor | None, backwards: bool) -> tuple[Tensor, State]:
    """Hidden states of all times, and the last state; past the end of a sequence they are zero, and it stays."""
    time, batch = x.shape[:2]
    if lens is None:
        out = []
        for row in reversed(x.unbind(0)) if backwards else x.unbind(0):
            state = step(row, state)
            out.append(state[0])
        return torch.stack(out[::-1] if backwards else out), state
    steps = torch.arange(time, device=x.device)[:, None]
    order = torch.where(steps < lens, lens - 1 - steps, steps).long() if backwards else steps.expand(time, batch)
    rows = torch.arange(batch, device=x.device)
    x, out = x[order, rows], []
    for t in range(time):
        alive = (t < lens)[:, None]
        state = tuple(torch.where(alive, new, old) for new, old in zip(step(x[t], state), state, strict=True))
        out.append(torch.where(alive, state[0], 0))
    return torch.stack(out)[order, rows], state


def over_directions(
    x: Tensor, w: Tensor, r: Tensor, initial: Any, lens: Tensor | None, direction: str, layout: int, make: Callable[[int], Step]
) -> tuple[Tensor, ...]:
    """All hidden states (time, directions, batch, hidden), and the last of each state; make: the step of a direction."""
    x = x.transpose(0, 1) if layout else x
    empty = torch.zeros((w.shape[0], x.shape[1], r.shape[-1]), dtype=x.dtype, device=x.device)
    first = [empty if s is None else (s.transpose(0, 1) if layout else s) for s in initial]
    ways = [scan(x, tuple(s[d] for s in first), make(d), lens, back) for d, back in enumerate(DIRECTIONS[direction])]
    y = torch.stack([hidden for hidden, _ in ways], 1)
    last = [torch.stack([state[i] for _, state in ways]) for i in range(len(first))]
    if layout:
        return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in last))
    return (y, *last)


def limit(x: Tensor, clip: float | None) -> Tensor:
    """x between -clip and clip."""
    return x if clip is None else x.clip(-clip, clip)


def lstm(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, initial_c: Tensor | None = None, p: Tensor | None = None,
    *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0, clip: float | None = None,
    input_forget: int = 0, activations: tuple[str, ...] = ("Sigmoid", "Tanh", "Tanh") * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Long short-term memory; gates in the order input, output, forget, cell; p are peepholes (input, output, forget)."""

    def make(d: int) -> Step:
        f, g, h = (activation(3 * d + i, activations, activation_alpha, activation_beta) for i in range(3))
        bias = 0 if b is None else sum(b[d].chunk(2))
        peep_i, peep_o, peep_f = (0, 0, 0) if p is None else p[d].chunk(3)

        def step(x: Tensor, state: State) -> State:
            hidden, cell = state
            i, o, forget, c = (x @ w[d].T + hidden @ r[d].T + bias).chunk(4, -1)
            i = f(limit(i + peep_i * cell, clip))
            forget = 1 - i if input_forget else f(limit(forget + peep_f * cell, clip))
            cell = forget * cell + i * g(limit(c, clip))
            return f(limit(o + peep_o * cell, clip)) * h(cell), cell

        return step

    return over_directions(x, w, r, (initial_h, initial_c), sequence_lens, direction, layout, make)


def gru(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0,
    clip: float | None = None, linear_before_reset: int = 0, activations: tuple[str, ...] = ("Sigmoid", "Tanh") * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gated recurrent units; gates in the order update, reset, hidden."""

    def make(d: int) -> Step:
        f, g = (activation(2 * d + i, activations, activation_alpha, activation_beta) for i in range(2))
        size = r.shape[-1]
        wb, rb = (torch.zeros(6 * size, dtype=x.dtype, device=x.device) if b is None else b[d]).chunk(2)

        def step(x: Tensor, state: State) -> State:
            (hidden,) = state
            at_x, at_h = x @ w[d].T + wb, hidden @ r[d, : 2 * size].T + rb[: 2 * size]
            update, reset = f(limit(at_x[:, : 2 * size] + at_h, clip)).chunk(2, -1)
            if linear_before_reset:
                past = reset * (hidden @ r[d, 2 * size :].T + rb[2 * size :])
            else:
                past = (reset * hidden) @ r[d, 2 * size :].T + rb[2 * size :]
            new = g(limit(at_x[:, 2 * size :] + past, clip))
            return ((1 - update) * new + update * hidden,)

        return step

    return over_directions(x, w, r, (initial_h,), sequence_lens, direction, layout, make)


def rnn(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0,
    clip: float | None = None, activations: tuple[str, ...] = ("Tanh",) * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The plain recurrent network: activation(x w' + h r' + b)."""

    def make(d: int) -> Step:
        f = activation(d, activations, activation_alpha, activation_beta)
        bias = 0 if b is None else sum(b[d].chunk(2))
        return lambda x, state: (f(limit(x @ w[d].T + state[0] @ r[d].T + bias, clip)),)

    return over_directions(x, w, r, (initial_h,), sequence_lens, direction, layout, make)


# ----------------------------------------------------------------------------------------- resizing, quantization


def as_numpy(x: Any) -> Any:
    """A tensor's values as a numpy array; None stays None."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    mode: str = "nearest",
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    antialias: int = 0,
) -> Tensor:
    """x at another resolution, one axis at a time; places and weights come from the numpy half."""
    where = tuple(a % x.ndim for a in axes) if axes is not None else tuple(range(x.ndim))
    space = tuple(x.shape[a] for a in where)
    factors, lengths = output_sizes(space, as_numpy(scales), as_numpy(sizes), keep_aspect_ratio_policy)
    crop = as_numpy(roi).reshape(2, -1).T if roi is not None and roi.numel() else np.tile([0.0, 1.0], (len(where), 1))
    y = x if mode == "nearest" else x.double()
    for axis, size, scale, count, (lo, hi) in zip(where, space, factors, lengths, crop, strict=True):
        if scale == 1 and count == size and (lo, hi) == (0, 1):
            continue
        at = source(coordinate_transformation_mode, size, scale, count, (lo, hi))
        if mode == "nearest":
            nearest: Any = NEAREST[nearest_mode]
            places = torch.from_numpy(np.clip(nearest(at).astype(np.int64), 0, size - 1))
            y = y.index_select(axis, places.to(x.device))
        else:
            y = resized_axis(y, axis, *taps(at, size, scale, mode, cubic_coeff_a, antialias, exclude_outside))
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside = torch.from_numpy((at < 0) | (at > size - 1)).reshape(-1, *[1] * (x.ndim - 1 - axis))
            y = y.masked_fill(outside.to(x.device), extrapolation_value)
    if not x.is_floating_point():
        y = torch.round(y).clip(torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).max)
    return y.to(x.dtype)


def over(p: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A parameter made to broadcast over x: one for all, one per entry of the axis, or one per block along it."""
    if block_size:
        return p.repeat_interleave(block_size, axis)[tuple(slice(n) for n in x.shape)]
    if p.numel() == 1:
        return p.reshape(())
    return p.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: str | None = None,
) -> Tensor:
    """x / scale rounded to even, plus the zero point, held inside the integer type."""
    dtype = output_dtype or ("uint8" if zero_point is None else str(zero_point.dtype).removeprefix("torch."))
    codes = torch.round(x / over(scale, x, axis, block_size)).double()
    if zero_point is not None:
        codes = codes + over(zero_point, x, axis, block_size)
    held = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}.get(dtype, dtype)
    return codes.clip(*span(dtype)).to(getattr(torch, held))


def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: str | None = None,
) -> Tensor:
    """(x - zero point) scale, in the type of scale."""
    wide = torch.float64 if x.dtype.itemsize > 2 else torch.float32
    centred = x.to(wide) if zero_point is None else x.to(wide) - over(zero_point, x, axis, block_size).to(wide)
    return (centred * over(scale, x, axis, block_size)).to(getattr(torch, output_dtype) if output_dtype else scale.dtype)


def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8 codes over the range it has (with zero), the scale and the zero point."""
    low, high = x.min().clamp(max=0).float(), x.max().clamp(min=0).float()
    scale = (high - low) / 255 if high > low else torch.tensor(1 / 255)
    zero = torch.round((-low / scale).clip(0, 255))
    return (torch.round(x / scale) + zero).clip(0, 255).to(torch.uint8), scale.to(x.dtype), zero.to(torch.uint8)


LAYERS: dict[str, Callable[..., Any]] = {
    "attention": attention,
    "rotary_embedding": rotary_embedding,
    "lstm": lstm,
    "gru": gru,
    "rnn": rnn,
    "resize": resize,
    "quantize_linear": quantize_linear,
    "dequantize_linear": dequantize_linear,
    "dynamic_quantize_linear": dynamic_quantize_linear,
}
assert set(SMALL_INTS) == {"int4", "uint4", "int2", "uint2"}  # the ones `held` knows
