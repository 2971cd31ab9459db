"""Codes of a layer that know of each other across its outputs: errors that the loss does not mind may grow, others fall.

Error feedback looks at one output at a time. What the loss minds of a layer's outputs together are the moments of its gradient
towards them (`ptq.importance`): two outputs whose errors cancel further on may err, if they err alike. So after feedback every
code is moved to the best one given all others, under both matrices; the cost never rises (`ptq.rate.settle`).
"""

from __future__ import annotations

import numpy as np

from bitladder.formats import Encoding, QTensor
from bitladder.ptq.feedback import damped
from bitladder.ptq.importance import Importance
from bitladder.ptq.rate import MIND, settle


def settled(
    w: np.ndarray, codes: np.ndarray, encoding: Encoding, gram: np.ndarray, mind: Importance, parent: QTensor | None
) -> np.ndarray:
    """Codes (outputs, ...) of less cost, children of those of `parent`; `gram` (groups, inputs, inputs) is damped already.

    Formats whose steps differ within an output, or whose codes are not evenly spaced, stay as they are.
    """
    zero, one, last = (encoding.decode(np.full(w.shape, c, np.float32)) for c in (0, 1, encoding.format.span()[1]))
    step, shift = (a.reshape(len(w), -1).astype(np.float64) for a in (one - zero, zero))
    even = np.allclose(last - zero, (one - zero) * encoding.format.span()[1], rtol=1e-4) and (step == step[:, :1]).all()
    if not even or not (step > 0).all():
        return codes
    flat, found = w.reshape(len(w), -1).astype(np.float64), codes.reshape(len(w), -1).astype(np.float64)
    low, high = (np.broadcast_to(float(b), found.shape) for b in encoding.format.span())
    if parent is not None:
        deeper = 2 ** (encoding.format.bits - parent.format.bits)
        low = parent.codes.reshape(found.shape).astype(np.float64) * deeper
        high = low + (deeper - 1)
    each, out = len(w) // len(gram), np.empty_like(found)
    for g, matrix in enumerate(gram):
        rows = slice(g * each, (g + 1) * each)
        minds = damped(mind.moments[g], damp=MIND)
        target = flat[rows] - shift[rows]
        out[rows] = settle(target, found[rows], step[rows, 0], minds, matrix, low[rows], high[rows])
    return out.reshape(codes.shape)
