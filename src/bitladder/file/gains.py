"""What each plane of a weight is worth where nobody has measured it: how much closer it brings the weight to its whole."""

from __future__ import annotations

import numpy as np

from bitladder.file.widths import is_nested
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph


def gains(graph: Graph) -> dict[tuple[str, int], float]:
    """The squared error that each plane takes away, as a share of the weight's energy, by weight and number of planes."""
    out = {}
    for name, c in graph.constants.items():
        if isinstance(c, QTensor) and is_nested(c.format):
            held = c.held()
            whole = held.decode().astype(np.float64)
            energy = max(float(np.sum(whole**2)), 1e-300)
            before = 1.0
            for p in range(int(c.format.at(1).bits), c.format.bits + 1):  # type: ignore[attr-defined]
                error = float(np.sum((held.at(p).decode() - whole) ** 2)) / energy
                out[name, p] = before - error
                before = error
    return out
