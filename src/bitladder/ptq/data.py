"""Data as users have it, turned into batches by input name; what is wrong with it is said in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from bitladder.ir.graph import Value

LABELS = "y"
BATCH = 64


def chunks(data: Any, size: int = BATCH) -> Iterator[Any]:
    """The batches of `data`: an array or a dict of arrays is cut along its first axis, any other iterable is taken as it is.

    >>> [len(c) for c in chunks(np.zeros((5, 2)), 2)]
    [2, 2, 1]
    """
    if isinstance(data, Mapping):
        lengths = {name: len(array) for name, array in data.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"data: arrays must have the same number of samples, got {lengths}; cut them to one length")
        for at in range(0, next(iter(lengths.values()), 0), size):
            yield {name: array[at : at + size] for name, array in data.items()}
    elif hasattr(data, "shape"):
        for at in range(0, len(data), size):
            yield data[at : at + size]
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        yield from data
    else:
        raise TypeError(f"data: must be an array, a dict of arrays or an iterable of batches, got {type(data).__name__}")


def some(data: Any, count: int, size: int = BATCH) -> list[Any]:
    """At most `count` of the batches of `data`, at even distances; the first ones of what can only be gone through.

    >>> [int(c[0]) for c in some(np.arange(100), 3, size=10)], some(iter("abcd"), 3)
    ([0, 40, 90], ['a', 'b', 'c'])
    """
    if not (isinstance(data, Mapping | Sequence) or hasattr(data, "shape")):
        return list(islice(chunks(data, size), count))
    whole = list(chunks(data, size))
    return [whole[i] for i in np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)]


def named(batch: Any, inputs: Sequence[Value]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """One batch as arrays by input name, and its labels if it has any.

    A tuple may end in labels, a dict may hold them as `y`; a single input may be called `x` whatever its name is.
    """
    names = [v.name for v in inputs]
    if isinstance(batch, Mapping):
        arrays = {k: np.asarray(v) for k, v in batch.items()}
        labels = arrays.pop(LABELS, None) if LABELS not in names else None
        if len(names) == 1 and set(arrays) == {"x"}:
            arrays = {names[0]: arrays["x"]}
        if set(arrays) != set(names):
            raise ValueError(f"data: arrays must be named {names} (and {LABELS} for labels), got {sorted(arrays)}; rename them")
        return arrays, labels
    parts = [np.asarray(p) for p in batch] if isinstance(batch, tuple | list) else [np.asarray(batch)]
    if len(parts) not in (len(names), len(names) + 1):
        raise ValueError(f"data: a batch must hold {len(names)} arrays {names}, or one more for labels, got {len(parts)}")
    return dict(zip(names, parts, strict=False)), parts[len(names)] if len(parts) > len(names) else None


def checked(arrays: Mapping[str, np.ndarray], inputs: Sequence[Value]) -> dict[str, np.ndarray]:
    """The arrays in the dtypes of the inputs, after looking at every shape and value."""
    out = {}
    for value in inputs:
        array = arrays[value.name]
        want = value.shape
        if want is not None:
            fits = len(want) == array.ndim and all(
                isinstance(w, str) or w == n for w, n in zip(want, array.shape, strict=False)
            )
            if not fits:
                raise ValueError(f"data: array {value.name!r} must have shape {shown(want)}, got {array.shape}; reshape it")
        if array.size == 0:
            raise ValueError(f"data: array {value.name!r} is empty, got shape {array.shape}; give at least one sample")
        if array.dtype.kind in "OSUV":
            raise ValueError(f"data: array {value.name!r} must hold numbers, got dtype {array.dtype}; convert it")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"data: array {value.name!r} holds {bad} NaN or infinite values, the first at {at}; remove them")
        out[value.name] = np.ascontiguousarray(array, dtype=value.dtype)
    return out


def shown(shape: Sequence[int | str]) -> str:
    """A shape as people write it.

    >>> shown(("batch", 3, 32))
    '(batch, 3, 32)'
    """
    return "(" + ", ".join(str(n) for n in shape) + ")"


def checked_labels(labels: Any, samples: int, classes: int | None = None) -> np.ndarray:
    """Labels as int64 (samples,), after looking at their number and range."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValueError(f"data: labels {LABELS!r} must be a flat array of integers, got {array.dtype} of shape {array.shape}")
    if len(array) != samples:
        raise ValueError(f"data: labels {LABELS!r} must be as many as samples ({samples}), got {len(array)}")
    if len(array) and (array.min() < 0 or (classes is not None and array.max() >= classes)):
        limit = "0 or more" if classes is None else f"0..{classes - 1}"
        raise ValueError(f"data: labels {LABELS!r} must be {limit}, got {array.min()}..{array.max()}; number classes from 0")
    return array.astype(np.int64)
