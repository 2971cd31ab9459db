"""What every bit plane is worth: how much nearer the outputs come to those of all planes (order by importance, S13).

One pass over a few samples: at each rung, all weights on so many planes, every weight is given one plane more, alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitladder.formats import QTensor
from bitladder.model import Model
from bitladder.ptq.calibrate import Progress

OCTAVE = 8  # gains are kept in so many parts of a factor of two
NOTHING = -20 * OCTAVE  # what a plane is worth at least: a millionth


def gains(model: Model, samples: Mapping[str, np.ndarray], progress: Progress | None = None) -> dict[str, list[int]]:
    """By weight and plane, how much of the squared outputs' error goes when the plane comes: in eighths of a power of two.

    samples: arrays by name of the inputs. The list of a weight has an entry for every plane beyond those that it always has;
    it begins with the first of them.
    """
    floors = model.whole.meta.get("min_bits", {})
    stored = {n: c.format for n, c in model.whole.constants.items() if isinstance(c, QTensor) and hasattr(c.format, "at")}
    least = {n: fmt.at(min(max(1, int(floors.get(n, 1))), fmt.bits)).bits for n, fmt in stored.items()}
    whole = {n: fmt.bits for n, fmt in stored.items()}
    best = outputs(model, whole, samples)
    power = sum(float(np.sum(b**2)) for b in best) or 1.0

    def error(bits: Mapping[str, int]) -> float:
        return sum(float(np.sum((b - a) ** 2)) for a, b in zip(outputs(model, bits, samples), best, strict=True)) / power

    out: dict[str, list[int]] = {n: [] for n in stored}
    rungs = range(min(least.values(), default=0), max(whole.values(), default=0))
    for rung in rungs:
        plan = {n: min(max(rung, least[n]), whole[n]) for n in stored}
        before = error(plan)
        for done, name in enumerate(stored):
            if least[name] <= rung < whole[name]:
                out[name].append(octaves(before - error({**plan, name: rung + 1})))
            if progress:
                progress("measure planes", (rung - rungs.start) * len(stored) + done + 1, len(rungs) * len(stored))
    return out


def by_plane(found: Mapping[str, Sequence[int]], model: Model) -> dict[tuple[str, int], float]:
    """Such gains as shares of the error, by weight and number of planes: what `Model.save` orders planes by."""
    bits = {n: c.format.bits for n, c in model.whole.constants.items() if isinstance(c, QTensor)}
    return {
        (name, number): 2.0 ** (gain / OCTAVE)
        for name, rows in found.items()
        for number, gain in enumerate(rows, bits[name] - len(rows) + 1)
    }


def octaves(gain: float) -> int:
    """A gain as a whole number of eighths of a power of two.

    >>> octaves(0.25), octaves(-1.0)
    (-16, -160)
    """
    return max(NOTHING, round(OCTAVE * float(np.log2(gain)))) if gain > 0 else NOTHING


def outputs(model: Model, bits: Mapping[str, int], samples: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs at some widths, float64, in the order of the graph."""
    found = model.engine.run(dict(samples), dict(bits))
    return [np.asarray(found[name], np.float64) for name in model.whole.outputs]
