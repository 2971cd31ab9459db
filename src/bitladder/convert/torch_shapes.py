"""The torch half of the operators that move values about, pick them by number, or fold an axis."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def ints(a: Any) -> tuple[int, ...]:
    """A tensor (or array) of whole numbers as a tuple."""
    return tuple(int(i) for i in a.reshape(-1).tolist())


def number(a: Any) -> int:
    """The only entry of a tensor."""
    return ints(a)[0]


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """x in another shape; -1 is what remains, 0 keeps the axis (unless allowzero)."""
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(ints(shape))])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """x as a matrix: the axes before `axis`, and the rest."""
    rows = int(np.prod(x.shape[: axis % x.ndim if axis < 0 else axis]))
    return x.reshape(rows, x.numel() // rows if rows else -1)


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x without the given axes of length 1, or without all of them."""
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """x with new axes of length 1, at these places of the result."""
    rank = x.ndim + len(ints(axes))
    for a in sorted(a % rank for a in ints(axes)):
        x = x.unsqueeze(a)
    return x


def split(x: Tensor, split: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None) -> tuple[Tensor, ...]:
    """x in pieces of the given lengths, or in num_outputs pieces of which the last may be shorter."""
    if split is not None:
        return torch.split(x, ints(split), axis)
    assert num_outputs is not None
    each = -(-x.shape[axis] // num_outputs)
    ends = [min(each * i, x.shape[axis]) for i in range(num_outputs + 1)]
    return torch.split(x, [hi - lo for lo, hi in itertools.pairwise(ends)], axis)


def pick(x: Tensor, axis: int, places: Any) -> Tensor:
    """The slices of an axis at a list of places."""
    return x.index_select(axis, torch.as_tensor(np.asarray(places, np.int64), device=x.device))


def slice_(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    """x[start:end:step] along each of the axes; what lies beyond an end is ignored."""
    where = ints(axes) if axes is not None else range(len(ints(starts)))
    pace = ints(steps) if steps is not None else (1,) * len(ints(starts))
    for a, lo, hi, s in zip(where, ints(starts), ints(ends), pace, strict=True):
        n = x.shape[a]
        lo, hi, s = slice(lo, None if s < 0 and hi < -n else hi, s).indices(n)
        if s < 0:  # torch has no negative steps
            x = pick(x, a % x.ndim, range(lo, hi, s))
        else:
            x = x[(slice(None),) * (a % x.ndim) + (slice(lo, hi, s),)]
    return x


def pad(
    x: Tensor, pads: Tensor, constant_value: Tensor | None = None, axes: Tensor | None = None, *, mode: str = "constant"
) -> Tensor:
    """x with more at the edges (all begins, then all ends; less if negative): constant, reflect, edge or wrap."""
    where = ints(axes) if axes is not None else tuple(range(x.ndim))
    amounts = ints(pads)
    pairs = {a % x.ndim: (amounts[i], amounts[i + len(where)]) for i, a in enumerate(where)}
    if mode == "constant":
        value = 0 if constant_value is None else constant_value.reshape(()).item()
        return F.pad(x, [n for a in reversed(range(x.ndim)) for n in pairs.get(a, (0, 0))], value=value)
    for a, (lo, hi) in pairs.items():
        kept = np.arange(max(-lo, 0), x.shape[a] + min(hi, 0))
        if (lo, hi) != (0, 0):
            x = pick(x, a, np.pad(kept, (max(lo, 0), max(hi, 0)), mode=mode))  # type: ignore[call-overload]
    return x


def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] where the new axis equals the index, otherwise values[0]."""
    n = number(depth)
    new = axis % (indices.ndim + 1)
    at = torch.arange(n, device=indices.device).reshape([-1 if i == new else 1 for i in range(indices.ndim + 1)])
    hot = torch.remainder(indices, n).unsqueeze(axis) == at
    return torch.where(hot & ((indices >= -n) & (indices < n)).unsqueeze(axis), values[1], values[0])


def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle of matrices, from the k-th diagonal on; zeros elsewhere."""
    return (torch.triu if upper else torch.tril)(x, 0 if k is None else number(k))


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels laid out as blocks of pixels."""
    n, c, h, w = x.shape
    b, inner = blocksize, c // blocksize**2
    if mode == "DCR":
        y = x.reshape(n, b, b, inner, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, inner, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, inner, h * b, w * b)


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of pixels as channels."""
    n, c, h, w = x.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).permute(order).reshape(n, c * b * b, h // b, w // b)


def eye_like(x: Tensor, *, k: int = 0, dtype: str | None = None) -> Tensor:
    """Ones on the k-th diagonal of a matrix shaped like x."""
    return torch.from_numpy(np.eye(x.shape[0], x.shape[1], k)).to(getattr(torch, dtype) if dtype else x.dtype)


# ------------------------------------------------------------------------------------------------------ by number


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """The slices of an axis that the indices name; negative ones count from the end."""
    return x[(slice(None),) * (axis % x.ndim) + (indices.long(),)]


def grid(shape: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """The coordinates of every place of a shape, one tensor an axis, made to broadcast."""
    lines = (torch.arange(n, device=device) for n in shape)
    return [line.reshape([-1 if i == a else 1 for i in range(len(shape))]) for a, line in enumerate(lines)]


def along(x: Tensor, indices: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Where `gather_elements` reads and `scatter_elements` writes."""
    places = grid(tuple(indices.shape), indices.device)
    return tuple(indices.long() if a == axis % x.ndim else places[a] for a in range(x.ndim))


def tuples(indices: Tensor, batch_dims: int = 0) -> tuple[Tensor, ...]:
    """Indices whose last axis is a place, as indexing takes them, behind batch axes that go in step."""
    return (*grid(tuple(indices.shape[:-1]), indices.device)[:batch_dims], *indices.long().unbind(-1))


COMBINE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def put(x: Tensor, where: tuple[Tensor, ...], updates: Tensor, reduction: str) -> Tensor:
    """A copy of x with updates written, or combined, at places that may repeat."""
    if reduction == "none":
        return x.index_put(where, updates)
    flat = torch.arange(x.numel(), device=x.device).reshape(x.shape)[where].reshape(-1)
    return x.reshape(-1).scatter_reduce(0, flat, updates.reshape(-1), COMBINE[reduction]).reshape(x.shape)


# --------------------------------------------------------------------------------------------------- along an axis


def reduction(f: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    """An operator that applies f over `axes`: all of them when absent or empty, or none if noop_with_empty_axes."""

    def reduce(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        over = ints(axes) if axes is not None else ()
        if not over and not noop_with_empty_axes:
            over = tuple(range(x.ndim))
        return f(x, over, bool(keepdims)).to(x.dtype)

    return reduce


def total(x: Tensor, over: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(over, keepdim=keep) if over else x


def average(x: Tensor, over: tuple[int, ...], keep: bool) -> Tensor:
    return (x if x.is_floating_point() else x.double()).mean(over, keepdim=keep) if over else x


def product(x: Tensor, over: tuple[int, ...], keep: bool) -> Tensor:
    for a in sorted((a % x.ndim for a in over), reverse=True):
        x = x.prod(a, keepdim=keep)
    return x


def best(f: Callable[..., Tensor]) -> Callable[[Tensor, tuple[int, ...], bool], Tensor]:
    return lambda x, over, keep: f(x, over, keepdim=keep) if over else x


def root_of_squares(x: Tensor, over: tuple[int, ...], keep: bool) -> Tensor:
    return torch.sqrt(total(x * x, over, keep))


def arg(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Where the best element of an axis is, the first one or the last."""

    def place(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            return x.shape[axis] - 1 - f(x.flip(axis), dim=axis, keepdim=bool(keepdims))
        return f(x, dim=axis, keepdim=bool(keepdims))

    return place


def running(f: Callable[..., Tensor], first: int) -> Callable[..., Tensor]:
    """Partial sums or products along an axis; exclusive: without the element itself; reverse: from the end."""

    def scan(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
        a = number(axis) % x.ndim
        x = x.flip(a) if reverse else x
        y = f(x, dim=a, dtype=x.dtype)
        if exclusive:
            y = torch.cat([torch.full_like(y.narrow(a, 0, 1), first), y.narrow(a, 0, y.shape[a] - 1)], a)
        return y.flip(a) if reverse else y

    return scan


def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """1 where an axis first reaches its maximum, otherwise 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """The k best values of an axis in order, and where they were; of equals, the first comes first."""
    values, order = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, number(k)), order.narrow(axis, 0, number(k))


SHAPES: dict[str, Callable[..., Any]] = {
    "reshape": reshape,
    "flatten": flatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "transpose": lambda x, *, perm=None: x.permute(perm if perm is not None else tuple(reversed(range(x.ndim)))),
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "split": split,
    "slice": slice_,
    "expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, ints(shape))),
    "tile": lambda x, repeats: x.repeat(ints(repeats)),
    "pad": pad,
    "shape": lambda x, *, start=0, end=None: torch.tensor(x.shape[start:end], dtype=torch.int64),
    "size": lambda x: torch.tensor(x.numel()),
    "constant_of_shape": lambda n, *, value=0.0, dtype="float32": torch.full(ints(n), value, dtype=getattr(torch, dtype)),
    "eye_like": eye_like,
    "range": lambda start, limit, delta: torch.arange(start.item(), limit.item(), delta.item()).to(start.dtype),
    "one_hot": one_hot,
    "trilu": trilu,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "gather": gather,
    "gather_elements": lambda x, indices, *, axis=0: x[along(x, indices, axis)],
    "gather_nd": lambda x, indices, *, batch_dims=0: x[tuples(indices, batch_dims)],
    "scatter_elements": lambda x, i, updates, *, axis=0, reduction="none": put(x, along(x, i, axis), updates, reduction),
    "scatter_nd": lambda x, indices, updates, *, reduction="none": put(x, tuples(indices), updates, reduction),
    "reduce_sum": reduction(total),
    "reduce_mean": reduction(average),
    "reduce_prod": reduction(product),
    "reduce_max": reduction(best(torch.amax)),
    "reduce_min": reduction(best(torch.amin)),
    "reduce_l2": reduction(root_of_squares),
    "reduce_log_sum_exp": reduction(best(torch.logsumexp)),
    "arg_max": arg(torch.argmax),
    "arg_min": arg(torch.argmin),
    "cum_sum": running(torch.cumsum, 0),
    "cum_prod": running(torch.cumprod, 1),
    "softmax": lambda x, *, axis=-1: F.softmax(x, axis),
    "hardmax": hardmax,
    "top_k": top_k,
}
