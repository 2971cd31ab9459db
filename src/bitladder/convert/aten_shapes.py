"""Importing what moves elements about: shapes, slices, joins, pads, and tensors made from nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.convert.aten_math import Handler, cast, finite, operand, out_dtype
from bitladder.convert.build import Builder, Ref, Size
from bitladder.errors import Unsupported

END = 2**63 - 1  # "to the end" in a slice


def shape_of(val: Any) -> tuple[Size, ...]:
    """The shape of what the exporter saw: numbers, and symbols for free axes."""
    return tuple(int(str(n)) if str(n).isdigit() else str(n) for n in val.shape)


def reshaped(g: Builder, x: Ref, shape: tuple[Size, ...]) -> Ref:
    """`x` in another shape; one free axis is -1, others must be where they were (0: as in the input)."""
    if x.shape == shape:
        return x
    free = [k for k, n in enumerate(shape) if isinstance(n, str)]
    sizes = [-1 if isinstance(n, str) else n for n in shape]
    if len(free) > 1:
        assert x.shape is not None
        for k in free:
            if k < len(x.shape) and x.shape[k] == shape[k]:
                sizes[k] = 0
    if sizes.count(-1) > 1:
        raise Unsupported(f"must change at most one free axis, got {x.shape} to {shape}; fix all sizes but the batch")
    return g.emit("reshape", x, g.ints(sizes), shape=shape)


def reshape(g: Builder, a: Any) -> Ref:
    return reshaped(g, a.self, shape_of(a.out))


def transpose(g: Builder, x: Ref, perm: Sequence[int]) -> Ref:
    """`x` with its axes in another order."""
    if list(perm) == list(range(len(perm))):
        return x
    return g.emit("transpose", x, shape=tuple(x.shape[p] for p in perm) if x.shape else None, perm=tuple(perm))


def permute(g: Builder, a: Any) -> Ref:
    return transpose(g, a.self, [d % a.self.rank for d in a.dims])


def swap(g: Builder, a: Any) -> Ref:
    """transpose(dim0, dim1), or t() of a matrix."""
    rank = a.self.rank
    perm = list(range(rank))
    i, j = (0, rank - 1) if a.dim0 is None else (a.dim0 % rank, a.dim1 % rank)
    perm[i], perm[j] = perm[j], perm[i]
    return transpose(g, a.self, perm)


def scalar(g: Builder, v: Ref | int) -> Ref:
    """A size as a list of one."""
    return g.emit("unsqueeze", v, g.ints([0]), dtype="int64") if isinstance(v, Ref) else g.ints([v])


def sizes(g: Builder, values: Sequence[Ref | int]) -> Ref:
    """A list of sizes, of which some may be values."""
    if not any(isinstance(v, Ref) for v in values):
        return g.ints([int(v) for v in values])  # type: ignore[arg-type]
    return g.emit("concat", *(scalar(g, v) for v in values), dtype="int64", axis=0)


def expand(g: Builder, a: Any) -> Ref:
    """A size of 1 leaves an axis as it is, so only axes that grow are named."""
    target, x = shape_of(a.out), a.self
    wanted = a.size if a.size is not None else target
    old = (1,) * (len(target) - x.rank) + x.shape
    grown = [1 if n == o else w for n, o, w in zip(target, old, wanted, strict=True)]
    return x if grown == [1] * x.rank else g.emit("expand", x, sizes(g, grown))


def expand_as(g: Builder, a: Any) -> Ref:
    return g.emit("expand", a.self, g.emit("shape", a.other, dtype="int64"))


def size(g: Builder, a: Any) -> Ref:
    shape = g.emit("shape", a.self, dtype="int64")
    return g.emit("gather", shape, g.const(a.dim, "int64"), shape=(), dtype="int64", axis=0)


def sliced(g: Builder, x: Ref, axis: int, start: Ref | int, end: Ref | int, step: int = 1) -> Ref:
    """Elements start, start + step ... before end along an axis."""
    n = x.size(axis) if x.shape else None
    if start == 0 and step == 1 and isinstance(end, int) and (end == END or (n is not None and end >= n)):
        return x
    return g.emit("slice", x, scalar(g, start), scalar(g, end), g.ints([axis]), g.ints([step]))


def slice_(g: Builder, a: Any) -> Ref:
    axis = a.dim % a.self.rank
    return sliced(g, a.self, axis, 0 if a.start is None else a.start, END if a.end is None else a.end, a.step)


def select(g: Builder, a: Any) -> Ref:
    return g.emit("gather", a.self, operand(g, a.index, "int64"), axis=a.dim % a.self.rank)


def index_select(g: Builder, a: Any) -> Ref:
    return g.emit("gather", a.self, a.index, axis=a.dim % a.self.rank)


def index(g: Builder, a: Any) -> Ref:
    """x[i] by one tensor of positions along one axis."""
    given = [(k, i) for k, i in enumerate(a.indices) if i is not None]
    if len(given) != 1 or given[0][1].dtype == "bool":
        raise Unsupported("must index one axis by one tensor of integers, got several or a mask; use gather or where")
    axis, positions = given[0]
    return g.emit("gather", a.self, positions, axis=axis)


def index_put(g: Builder, a: Any) -> Ref:
    """x[mask] = number, which is a choice."""
    mask = a.indices[0]
    if len(a.indices) > 1 or mask is None or mask.dtype != "bool" or a.accumulate or a.values.shape not in ((), (1,)):
        raise Unsupported("must write one number where one boolean mask says so, got something else; use where or scatter")
    extra = a.self.rank - mask.rank
    mask = g.emit("unsqueeze", mask, g.ints(list(range(mask.rank, a.self.rank)))) if extra else mask
    return g.emit("where", mask, cast(g, a.values, a.self.dtype), a.self, dtype=a.self.dtype)


def unsqueeze(g: Builder, a: Any) -> Ref:
    return g.emit("unsqueeze", a.self, g.ints([a.dim % (a.self.rank + 1)]))


def squeeze(g: Builder, a: Any) -> Ref:
    """Only axes that are 1 in the program disappear."""
    rank = a.self.rank
    dims = range(rank) if a.dim is None else ([a.dim] if isinstance(a.dim, int) else a.dim)
    axes = sorted(d % rank for d in dims if a.self.size(d) == 1)
    return g.emit("squeeze", a.self, g.ints(axes)) if axes else a.self


def parts(g: Builder, x: Ref, axis: int, ends: Sequence[int]) -> tuple[Ref, ...]:
    """Slices of `x` that end at `ends`, each starting where the last one ended."""
    return tuple(cut(g, x, axis, lo, hi) for lo, hi in zip([0, *ends], ends, strict=False))


def cut(g: Builder, x: Ref, axis: int, lo: int, hi: int) -> Ref:
    """Elements lo up to hi along an axis."""
    return g.emit("slice", x, g.ints([lo]), g.ints([hi]), g.ints([axis]))


def split(g: Builder, a: Any) -> tuple[Ref, ...]:
    """chunk, split and tensor_split: the sizes are those of what the exporter saw."""
    axis = (a.dim or 0) % a.self.rank
    counts = [shape_of(v)[axis] for v in a.out]
    if any(isinstance(n, str) for n in counts):
        raise Unsupported("must split an axis of known size, got a free one; split another axis")
    return parts(g, a.self, axis, list(np.cumsum(np.array(counts, np.int64))))


def unbind(g: Builder, a: Any) -> tuple[Ref, ...]:
    axis = (a.dim or 0) % a.self.rank
    return tuple(g.emit("gather", a.self, g.const(k, "int64"), axis=axis) for k in range(len(a.out)))


def cat(g: Builder, a: Any) -> Ref:
    dtype = out_dtype(a)
    kept = [cast(g, t, dtype) for t in a.tensors if t.shape != (0,)]
    return kept[0] if len(kept) == 1 else g.emit("concat", *kept, axis=(a.dim or 0) % len(a.out.shape))


def stack(g: Builder, a: Any) -> Ref:
    axis = (a.dim or 0) % len(a.out.shape)
    rows = [g.emit("unsqueeze", cast(g, t, out_dtype(a)), g.ints([axis])) for t in a.tensors]
    return g.emit("concat", *rows, axis=axis)


PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(g: Builder, a: Any) -> Ref:
    """torch lists pads from the last axis backwards, a graph as all beginnings, then all ends."""
    x, rank = a.self, a.self.rank
    begins, ends = [0] * rank, [0] * rank
    for k, (lo, hi) in enumerate(zip(a.pad[::2], a.pad[1::2], strict=True)):
        begins[rank - 1 - k], ends[rank - 1 - k] = lo, hi
    if any(not isinstance(n, int) for n in begins + ends):
        raise Unsupported("must pad by known numbers, got sizes that depend on the input; fix all sizes but the batch")
    if not any(begins + ends):
        return x
    value = None if a.mode not in (None, "constant") else g.const(a.value or 0, x.dtype)
    return g.emit("pad", x, g.ints(begins + ends), value, mode=PAD_MODES[a.mode or "constant"])


def flip(g: Builder, a: Any) -> Ref:
    x = a.self
    axes = [d % x.rank for d in a.dims]
    n = len(axes)
    return g.emit("slice", x, g.ints([-1] * n), g.ints([-END] * n), g.ints(axes), g.ints([-1] * n))


def roll(g: Builder, a: Any) -> Ref:
    x = a.self
    for shift, axis in zip(a.shifts, a.dims, strict=True):
        n = a.self.size(axis)
        if n is None:
            raise Unsupported("must roll axes of known size, got a free one; roll another axis")
        if first := -shift % n:
            at = axis % a.self.rank
            x = g.emit("concat", cut(g, x, at, first, n), cut(g, x, at, 0, first), axis=at)
    return x


def repeat(g: Builder, a: Any) -> Ref:
    x, times = a.self, [1 if isinstance(n, Ref) else n for n in a.repeats]
    if x.rank < len(times):
        x = reshaped(g, x, (1,) * (len(times) - x.rank) + x.shape)
    return g.emit("tile", x, sizes(g, a.repeats))


def repeat_interleave(g: Builder, a: Any) -> Ref:
    """Every element so many times in a row, along one axis."""
    x, times = a.self, a.repeats
    if a.dim is None or not isinstance(times, int) or x.size(a.dim) is None:
        raise Unsupported("must repeat along one axis of known size by one number, got something else; use expand and reshape")
    return g.emit("gather", x, g.ints(list(np.repeat(np.arange(x.size(a.dim)), times))), axis=a.dim % x.rank)


def scattered(g: Builder, x: Ref, src: Ref, axis: int, start: int, end: int) -> Ref:
    """`x` with its slice [start, end) along an axis replaced by `src`."""
    n = x.size(axis)
    if start == 0 and n is not None and end >= n:
        return src
    pieces = [] if start == 0 else [cut(g, x, axis, 0, start)]
    pieces.append(src)
    if n is None or end < n:
        pieces.append(cut(g, x, axis, end, END))
    return g.emit("concat", *pieces, axis=axis)


def slice_scatter(g: Builder, a: Any) -> Ref:
    start, end = a.start or 0, END if a.end is None else a.end
    n = a.self.size(a.dim)
    if a.step != 1 or (n is None and (start, end) != (0, END)):
        raise Unsupported("must write into neighbouring elements of an axis of known size; use where or cat")
    if (start, end) == (0, END):
        return cast(g, a.src, a.self.dtype)
    start, end = (min(v + n if v < 0 else v, n) for v in (start, end))
    return scattered(g, a.self, cast(g, a.src, a.self.dtype), a.dim % a.self.rank, start, end)


def select_scatter(g: Builder, a: Any) -> Ref:
    axis, n = a.dim % a.self.rank, a.self.size(a.dim)
    at = a.index if a.index >= 0 or n is None else a.index + n
    if at < 0:
        raise Unsupported("must write into a place counted from the front of a free axis; use where or cat")
    row = g.emit("unsqueeze", cast(g, a.src, a.self.dtype), g.ints([axis]))
    return scattered(g, a.self, row, axis, at, at + 1)


def copy(g: Builder, a: Any) -> Ref:
    """`src` in place of `self`, in its shape and dtype."""
    src = cast(g, a.src, a.self.dtype)
    target = shape_of(a.out)
    return src if src.shape == target else g.emit("expand", src, g.emit("shape", a.self, dtype="int64"))


# -------------------------------------------------------------------------------------------- made from nothing


def filled(g: Builder, a: Any, value: Any) -> Ref:
    """A tensor of one value; as small as its known sizes allow, so a free axis becomes a shape."""
    shape, dtype, value = shape_of(a.out), out_dtype(a), finite(value)
    if isinstance(value, Ref):
        return g.emit("expand", cast(g, value, dtype), target_shape(g, a), dtype=dtype)
    known = [n for n in shape if isinstance(n, int)]
    if len(known) == len(shape) and math.prod(known) <= 2**16:
        return replace(g.const(np.full(known, value), dtype), fill=value)
    return replace(g.emit("expand", g.const(value, dtype), target_shape(g, a), dtype=dtype), fill=value)


def target_shape(g: Builder, a: Any) -> Ref:
    """The sizes a filling operator was given, or those of the tensor it imitates."""
    return sizes(g, a.size) if a.size is not None else g.emit("shape", a.self, dtype="int64")


def arange(g: Builder, a: Any) -> Ref:
    limits = [0 if a.start is None else a.start, a.end, 1 if a.step is None else a.step]
    if not any(isinstance(v, Ref) for v in limits):
        return g.const(np.arange(*limits), out_dtype(a))
    return g.emit("range", *(operand(g, v, out_dtype(a)) for v in limits), dtype=out_dtype(a))


def triangle(lower: bool) -> Handler:
    """tril and triu: a product with a constant mask, so the matrix sizes must be known."""

    def handle(g: Builder, a: Any) -> Ref:
        x = a.self
        rows, columns = x.size(-2), x.size(-1)
        if rows is None or columns is None:
            raise Unsupported("must be of a matrix of known size, got a free axis; fix all sizes but the batch")
        mask = (np.tril if lower else np.triu)(np.ones((rows, columns), bool), a.diagonal or 0)
        return g.emit("where", g.const(mask, "bool"), x, g.const(0, x.dtype), dtype=x.dtype)

    return handle


def constant(g: Builder, a: Any) -> Ref:
    return g.const(a.s, out_dtype(a))


SHAPES: dict[str, Handler] = {
    **{op: reshape for op in ("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as", "view_copy")},
    "_reshape_alias": reshape,
    "pixel_shuffle": lambda g, a: g.emit("depth_to_space", a.self, blocksize=a.upscale_factor, mode="CRD"),
    "permute": permute,
    **{op: swap for op in ("transpose", "t", "numpy_T", "swapaxes", "swapdims")},
    "expand": expand,
    "broadcast_to": expand,
    "expand_as": expand_as,
    "sym_size": size,
    "slice": slice_,
    "narrow": lambda g, a: sliced(g, a.self, a.dim % a.self.rank, a.start, a.start + a.length),
    "select": select,
    "index_select": index_select,
    "index": index,
    "index_put": index_put,
    "gather": lambda g, a: g.emit("gather_elements", a.self, a.index, axis=a.dim % a.self.rank),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **{op: split for op in ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split")},
    "unbind": unbind,
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "pad": padded,
    "constant_pad_nd": padded,
    "flip": flip,
    "roll": roll,
    "repeat": repeat,
    "tile": lambda g, a: g.emit("tile", a.self, g.ints([1] * (a.self.rank - len(a.dims)) + list(a.dims))),
    "repeat_interleave": repeat_interleave,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    "copy": copy,
    "fill": lambda g, a: filled(g, a, a.value),
    "zero": lambda g, a: filled(g, a, 0),
    "zeros": lambda g, a: filled(g, a, 0),
    "zeros_like": lambda g, a: filled(g, a, 0),
    "new_zeros": lambda g, a: filled(g, a, 0),
    "ones": lambda g, a: filled(g, a, 1),
    "ones_like": lambda g, a: filled(g, a, 1),
    "new_ones": lambda g, a: filled(g, a, 1),
    "full": lambda g, a: filled(g, a, a.fill_value),
    "full_like": lambda g, a: filled(g, a, a.fill_value),
    "new_full": lambda g, a: filled(g, a, a.fill_value),
    "scalar_tensor": constant,
    "arange": arange,
    "tril": triangle(lower=True),
    "triu": triangle(lower=False),
}
