"""Cascades: what one network says of a sample decides at which width the next one looks at it (EP3671575, claims 8 to 10).

The second network may be the first one again, cut from the same weights, or another one with another task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.dial.climb import margin
from bitladder.dial.samples import Batch, Outputs, placed, room
from bitladder.model import Model

Decide = Callable[[Any], Any]  # the first network's output (or dict of several) to a width for each sample


@dataclass(frozen=True)
class Passed:
    """What a cascade did: outputs of both networks by name, and the width of the second for each sample (samples,)."""

    first: Outputs
    outputs: Outputs
    widths: np.ndarray


@dataclass(frozen=True)
class Cascade:
    """A first network at its width, and a second one at the width that `decide` gives each sample.

    decide: from the first network's output, a dict by name if it has several, to integers (samples,).
    """

    first: Model
    second: Model
    decide: Decide

    def __call__(self, *arrays: Any, then: Any = None) -> Any:
        """The outputs of the second network, as it would give them."""
        return second_input(arrays, then).back(self.run(*arrays, then=then).outputs)

    def run(self, *arrays: Any, then: Any = None) -> Passed:
        """The outputs of both, and the widths; `then` are the second network's arrays if they are others (a tuple, or one)."""
        batch, after = Batch(arrays), second_input(arrays, then)
        count = len(batch)
        if len(after) != count:
            raise ValueError(f"cascade: `then` must hold {count} samples like the first input, got {len(after)}")
        first = batch.run(self.first)
        widths = checked(self.decide(first if len(first) > 1 else next(iter(first.values()))), count)
        outputs: Outputs = {}
        for bits in np.unique(widths):
            which = np.flatnonzero(widths == bits)
            made = after.run(self.second.at(int(bits)), which)
            outputs = outputs or room(count, made)
            placed(outputs, which, made)
        return Passed(first, outputs, widths)


def second_input(arrays: tuple[Any, ...], then: Any) -> Batch:
    """What the second network reads."""
    return Batch(arrays if then is None else then if isinstance(then, tuple) else (then,))


def checked(widths: Any, count: int) -> np.ndarray:
    """Widths as integers, one for each sample."""
    w = np.asarray(widths)
    if w.shape != (count,) or w.dtype.kind not in "iu" or (w < 1).any():
        raise ValueError(f"cascade: decide must give {count} whole numbers from 1 up, got {w.dtype} of shape {w.shape}")
    return w.astype(np.int64)


def by_class(widths: Mapping[int, int], otherwise: int) -> Decide:
    """A decision by the class the first network names.

    >>> by_class({0: 2}, otherwise=8)(np.array([[3.0, 1.0], [0.0, 1.0]])).tolist()
    [2, 8]
    """

    def decide(scores: Any) -> np.ndarray:
        return np.array([widths.get(int(label), otherwise) for label in np.asarray(scores).argmax(1)], np.int64)

    return decide


def by_margin(below: Mapping[float, int], otherwise: int) -> Decide:
    """A decision by the first network's margin: the width of the lowest threshold that the margin is below.

    >>> by_margin({0.3: 8, 0.9: 4}, otherwise=2)(np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 9.0]])).tolist()
    [8, 4, 2]
    """
    thresholds = np.array(sorted(below))
    bits = np.array([*(below[t] for t in sorted(below)), otherwise], np.int64)

    def decide(scores: Any) -> np.ndarray:
        return bits[np.searchsorted(thresholds, margin(np.asarray(scores)), side="right")]

    return decide
