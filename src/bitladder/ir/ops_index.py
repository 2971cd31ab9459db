"""Operators that pick values by number, and put them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any

COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """The slices of an axis that the indices name; negative ones count from the end."""
    return np.take(x, indices, axis=axis)


def gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    """For every index the element of x at that place of the axis, and at the index's own place on the others."""
    return x[along(x, indices, axis)]


def along(x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """Where `gather_elements` reads and `scatter_elements` writes."""
    grid = np.indices(indices.shape, sparse=True)
    return tuple(indices if a == axis % x.ndim else grid[a] for a in range(x.ndim))


def tuples(indices: Array, batch_dims: int = 0) -> tuple[Array, ...]:
    """Indices whose last axis is a place, as numpy takes them, behind batch axes that go in step."""
    grid = np.indices(indices.shape[:-1], sparse=True)
    return (*grid[:batch_dims], *np.moveaxis(indices, -1, 0))


def gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """The elements or slices of x at the places that the last axis of indices spells."""
    return x[tuples(indices, batch_dims)]


def put(x: Array, where: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """A copy of x with updates written, or combined, at places that may repeat."""
    y = x.copy()
    if reduction == "none":
        y[where] = updates
    else:
        COMBINE[reduction].at(y, where, updates)
    return y


def scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    """x with every update written at its index of the axis: none, add, mul, max or min."""
    return put(x, along(x, indices, axis), updates, reduction)


def scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """x with every update written at the place that the last axis of indices spells."""
    return put(x, tuples(indices), updates, reduction)


def tensor_scatter(
    past: Array, update: Array, write_indices: Array | None = None, *, mode: str = "linear", axis: int = -2
) -> Array:
    """A cache with the update written from each batch's position on; circular wraps around."""
    y = past.copy()
    axis %= past.ndim
    for b in range(past.shape[0]):
        first = 0 if write_indices is None else int(write_indices[b])
        places = first + np.arange(update.shape[axis])
        places = places % past.shape[axis] if mode == "circular" else places
        y[b][(*[slice(None)] * (axis - 1), places)] = update[b]
    return y


def compress(x: Array, condition: Array, *, axis: int | None = None) -> Array:
    """The slices of an axis (or the elements) where the condition holds."""
    return np.compress(condition, x, axis=axis)


def unique(x: Array, *, axis: int | None = None, sorted: int = 1) -> tuple[Array, Array, Array, Array]:
    """The different values (or slices), where each came first, which of them every element is, and how often."""
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.argsort(order)
        y, first, inverse, counts = np.take(y, order, axis or 0), first[order], rank[inverse], counts[order]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


INDEX: dict[str, Callable[..., Any]] = {
    "gather": gather,
    "gather_elements": gather_elements,
    "gather_nd": gather_nd,
    "scatter_elements": scatter_elements,
    "scatter_nd": scatter_nd,
    "tensor_scatter": tensor_scatter,
    "compress": compress,
    "non_zero": lambda x: np.array(np.nonzero(np.atleast_1d(x)), np.int64),
    "unique": unique,
}
