"""Scales of groups fitted to the codes that were chosen with them, and codes to these scales, a few times over.

A range is chosen before anything is rounded. Once the codes of an output are known, the scales of all its groups together are a
small problem of least squares under the gram matrix of the inputs; then every code is chosen again. Neither adds error.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitladder.formats import Encoding
from bitladder.ptq.feedback import columns, damped, settle

ROUNDS = 4  # of scales and codes
AT_ONCE = 256  # outputs whose systems are solved at once: one of 256 groups takes half a megabyte
FARTHEST = 4.0  # times that a scale may grow or shrink in a round; beyond that its group says next to nothing


def refitted(w: np.ndarray, codes: np.ndarray, encoding: Encoding, gram: np.ndarray) -> tuple[np.ndarray, Encoding]:
    """Codes (outputs, ...) and an encoding of no more output error under gram matrices (groups of outputs, inputs, inputs)."""
    flat, found = w.reshape(len(w), -1).astype(np.float64), codes.reshape(len(w), -1)
    each, held = len(w) // len(gram), [damped(matrix) for matrix in gram]
    order = np.arange(flat.shape[1])
    for _ in range(ROUNDS):
        scale = np.array(encoding.params["scale"], np.float32)
        whole = np.asarray(encoding.integers(found.reshape(w.shape)), np.float64).reshape(found.shape)
        for at in range(0, len(w), step := min(each, AT_ONCE)):
            rows = slice(at, min(at + step, (at // each + 1) * each))
            scale[rows] = scales(flat[rows], whole[rows], scale[rows], encoding.format.group or 1, held[at // each])
        better = replace(encoding, params={**encoding.params, "scale": scale})
        made = np.empty_like(found)
        for g, matrix in enumerate(held):
            rows = slice(g * each, (g + 1) * each)
            made[rows] = settle(flat[rows], found[rows], better.format, columns(better, w.shape, rows, order), matrix, None, 0)
        encoding, found = better, made
    return found.reshape(codes.shape), encoding


def scales(w: np.ndarray, codes: np.ndarray, before: np.ndarray, group: int, gram: np.ndarray) -> np.ndarray:
    """Scales (outputs, groups) of least output error for integers (outputs, inputs); those before where none is better.

    >>> codes = np.array([[1.0, 2.0, -3.0, 4.0]])
    >>> scales(codes * [[2, 2, 5, 5]], codes, np.array([[1.9, 4.0]], np.float32), 2, np.eye(4))
    array([[2., 5.]], dtype=float32)
    """
    (outputs, inputs), count = codes.shape, before.shape[1]
    pad = count * group - inputs
    wide, pull = (np.pad(a, ((0, 0), (0, pad))).reshape(outputs, count, group) for a in (codes, w @ gram))
    system = np.empty((outputs, count, count))
    for j in range(count):
        part = slice(j * group, min((j + 1) * group, inputs))
        along = np.pad(codes[:, part] @ gram[part], ((0, 0), (0, pad))).reshape(outputs, count, group)
        system[:, j] = np.einsum("ocg,ocg->oc", along, wide)
    diagonal = np.einsum("occ->oc", system)
    system += np.maximum(1e-9 * diagonal.mean(1), 1e-300)[:, None, None] * np.eye(count)
    found = np.linalg.solve(system, np.einsum("ocg,ocg->oc", wide, pull)[..., None])[..., 0].astype(np.float32)
    near = np.isfinite(found) & (found > before / FARTHEST) & (found < before * FARTHEST)
    found = np.where(near, found, before)
    better = lost(w, codes, found, group, gram) <= lost(w, codes, before, group, gram)
    return np.where(better[:, None], found, before)


def lost(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, group: int, gram: np.ndarray) -> np.ndarray:
    """The output error (outputs,) of codes with these scales."""
    e = w - codes * np.repeat(scale.astype(np.float64), group, 1)[:, : codes.shape[1]]
    return np.einsum("oi,oi->o", e @ gram, e)
