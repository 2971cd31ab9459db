"""Ranges by the error that counts: that of a layer's outputs once its weights are rounded with error feedback.

The range of least weight error is not that of least output error: feedback turns fine steps into small output errors, while a
clipped weight is lost on all the others. So every channel tries a row of ranges, rounds its weights with each, and keeps the
one whose output error, under the gram matrix of the layer's inputs, is least; a nested code serves all of its widths.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitladder.formats import Encoding, Fixed, Format, Int, Nested, Ternary
from bitladder.formats.tensor import fit
from bitladder.ptq.feedback import climbed, error_of

SHRINKS = tuple(float(s) for s in np.geomspace(1.0, 0.25, 14))  # shares of the range that covers everything
AROUND = tuple(float(s) for s in np.geomspace(1.25, 0.8, 9))  # shares of what suits each group by itself
LENGTHS = (0, 1, 2, 3)  # further fractional bits, where steps are powers of two


def by_error(w: np.ndarray, fmt: Format, gram: np.ndarray, *, axis: int = 0) -> Encoding:
    """The encoding of `w` (outputs, ...) of least output error after feedback under gram matrices (groups, inputs, inputs).

    Formats with tables, and lengths that a plan gives, are fitted as ever.
    """
    each = w.shape[0] // len(gram)
    if fmt.group is None:
        widest = fit(fmt, w, axis=axis, cover="max")
    else:
        energy = np.repeat(np.diagonal(gram, axis1=1, axis2=2), each, 0)
        widest = fit(fmt, w, axis=axis, importance=energy.reshape(w.shape))
    steps = candidates(widest)
    if steps is None:
        return fit(fmt, w, axis=axis)
    name, tried = steps
    flat = w.reshape(w.shape[0], -1).astype(np.float64)
    wide = rowwise(widest, w.shape[0])
    errors = np.empty((len(tried), w.shape[0]))
    for g, matrix in enumerate(gram):
        rows = slice(g * each, (g + 1) * each)
        errors[:, rows] = errors_of(flat[rows], w.shape, wide, name, tried, rows, matrix)
    if widest.axes == ():
        errors = np.broadcast_to(errors.sum(1, keepdims=True), errors.shape)
    best = np.argmin(errors, axis=0)  # the widest of equal ones
    params = {**wide.params, name: moved(wide.params[name], name, np.array(tried)[best])}
    if widest.axes == ():
        params = {k: v[:1].reshape(widest.params[k].shape) for k, v in params.items()}
    return replace(widest, params=params)


def candidates(widest: Encoding) -> tuple[str, tuple[float, ...]] | None:
    """The parameter that sets the range, and what is tried of it; None if there is no choice."""
    fmt = widest.format
    if isinstance(fmt, Fixed):
        return None if fmt.fl is not None else ("fl", tuple(float(n) for n in LENGTHS))
    if isinstance(fmt, Nested):
        return ("range", SHRINKS) if fmt.scheme == "midrise" else None
    if fmt.group is not None:
        return ("scale", AROUND)
    return ("scale", SHRINKS) if isinstance(fmt, Int | Ternary) else None


def rowwise(encoding: Encoding, rows: int) -> Encoding:
    """The same encoding with parameters for every output."""
    if encoding.axes:
        return encoding
    return replace(encoding, params={k: np.full(rows, v) for k, v in encoding.params.items()}, axes=(0,))


def moved(p: np.ndarray, name: str, by: np.ndarray) -> np.ndarray:
    """A parameter (outputs, ...) of a smaller range; `by` one number for every output."""
    by = by.reshape(-1, *(1,) * (p.ndim - 1))
    return np.asarray(p + by if name == "fl" else p * by, np.float32)


def errors_of(
    w: np.ndarray, shape: tuple[int, ...], wide: Encoding, name: str, tried: tuple[float, ...], rows: slice, gram: np.ndarray
) -> np.ndarray:
    """Output errors (tried, outputs) of one group; all that is tried is rounded at once, as more outputs."""
    count, outputs = len(tried), len(w)
    params = {k: np.tile(v[rows], (count, *(1,) * (v.ndim - 1))) for k, v in wide.params.items()}
    params[name] = moved(params[name], name, np.repeat(tried, outputs))
    tile, many = replace(wide, params=params), np.tile(w, (count, 1))
    total = np.zeros(count * outputs)
    fmt = wide.format
    for bits, codes in climbed(many, tile, (count * outputs, *shape[1:]), slice(0, count * outputs), gram, sweeps=0).items():
        weight = fmt.matter.get(bits, 1.0) if isinstance(fmt, Nested) else 1.0
        total += weight * error_of(many, codes, tile.at(bits), (count * outputs, *shape[1:]), gram)
    return total.reshape(count, outputs)
