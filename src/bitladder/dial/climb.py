"""The one rule of escalation: who stops at a width and who goes on, whether networks run or their outputs are known.

A pass gives a row of scores for each sample. A sample stops where its margin, the largest probability of its scores so far
less the second largest (softmax), reaches the threshold of the step; below it, the sample goes on. A threshold of 0 lets none
go on, infinity lets all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.dial.samples import Outputs, placed, room

Pass = Callable[[int, np.ndarray], Outputs]  # outputs of these samples at this width
COMBINE = ("last", "mean")


def margin(scores: np.ndarray) -> np.ndarray:
    """The largest probability less the second largest of each row: 0 is undecided, 1 is certain.

    >>> margin(np.array([[2.0, 2.0], [60.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"dial: a margin needs scores of shape (samples, classes), two classes or more, got {scores.shape}")
    powers = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    first, second = np.partition(powers, -2, axis=1)[:, :-3:-1].T
    return (first - second) / powers.sum(1)


@dataclass(frozen=True)
class Climb:
    """What a batch went through: outputs by name, and the width each sample stopped at (samples,).

    `costs` is the sum of the widths of all passes made for each sample, in bits.
    """

    outputs: Outputs
    stopped: np.ndarray
    costs: np.ndarray

    @property
    def cost(self) -> float:
        """The mean cost of a sample."""
        return float(self.costs.mean())

    @property
    def counts(self) -> dict[int, int]:
        """How many samples stopped at each width, narrowest first; widths at which none did are left out."""
        return {int(bits): int(n) for bits, n in zip(*np.unique(self.stopped, return_counts=True), strict=True)}


@dataclass(frozen=True)
class Rule:
    """Widths from narrow to wide, and a threshold of the margin for each step between them.

    combine: "last" answers with the scores of a sample's last pass, "mean" with the mean of the scores of all its passes;
    `weights` weigh them, one for each width (the widths themselves if not given).
    """

    widths: tuple[int, ...]
    thresholds: tuple[float, ...] = ()
    combine: str = "last"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        widths, thresholds = tuple(self.widths), tuple(map(float, self.thresholds))
        if not widths or any(a >= b for a, b in itertools.pairwise(widths)) or widths[0] < 1:
            raise ValueError(f"escalation: widths must rise, from 1 bit up, got {widths}")
        if len(thresholds) != len(widths) - 1 or not all(t >= 0 for t in thresholds):
            raise ValueError(f"escalation: {len(widths)} widths need {len(widths) - 1} thresholds from 0 up, got {thresholds}")
        if self.combine not in COMBINE:
            raise ValueError(f"escalation: combine must be one of {', '.join(COMBINE)}, got {self.combine!r}")
        if self.weights is not None and (len(self.weights) != len(widths) or not all(w > 0 for w in self.weights)):
            raise ValueError(f"escalation: weights must be {len(widths)} numbers above 0, got {self.weights}")
        object.__setattr__(self, "widths", tuple(map(int, widths)))
        object.__setattr__(self, "thresholds", thresholds)

    def climb(self, run: Pass, count: int) -> Climb:
        """Every sample at the first width, then again and again those whose margin is under the threshold at the next.

        The margin is that of the first output.
        """
        outputs: Outputs = {}
        here, sums = np.arange(count), np.zeros(0)
        stopped, costs = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for step, bits in enumerate(self.widths):
            made = run(bits, here)
            name, scores = next(iter(made.items()))
            if self.combine == "mean":
                sums = scores * self.weight(step) + (sums if step else 0)
                made[name] = scores = (sums / sum(map(self.weight, range(step + 1)))).astype(scores.dtype)
            outputs = outputs or room(count, made)
            placed(outputs, here, made)
            stopped[here] = bits
            costs[here] += bits
            if step == len(self.thresholds):
                break
            on = np.flatnonzero(margin(scores) < self.thresholds[step])
            if not len(on):
                break
            here, sums = here[on], sums[on] if self.combine == "mean" else sums
        return Climb(outputs, stopped, costs)

    def replay(self, scores: Mapping[int, np.ndarray]) -> Climb:
        """What `climb` would do to samples whose scores at every width are known.

        >>> known = {2: np.array([[0.0, 0.1], [9.0, 0.0]]), 4: np.array([[5.0, 0.0], [9.0, 0.0]])}
        >>> Rule((2, 4), (0.5,)).replay(known).costs.tolist()
        [6, 2]
        """
        return self.climb(lambda bits, which: {"scores": scores[bits][which]}, len(scores[self.widths[0]]))

    def weight(self, step: int) -> float:
        """What the scores of a width count in a mean."""
        return float((self.weights or self.widths)[step])

    def json(self) -> dict[str, Any]:
        """Plain values, such as for the meta of a model; infinity is null."""
        thresholds = [t if np.isfinite(t) else None for t in self.thresholds]
        weights = None if self.weights is None else list(self.weights)
        return {"widths": list(self.widths), "thresholds": thresholds, "combine": self.combine, "weights": weights}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Rule:
        """The rule that `json` described."""
        try:
            thresholds = tuple(float("inf") if t is None else float(t) for t in said["thresholds"])
            weights = None if said["weights"] is None else tuple(map(float, said["weights"]))
            return cls(tuple(map(int, said["widths"])), thresholds, str(said["combine"]), weights)
        except (KeyError, TypeError) as error:
            raise ValueError(f"escalation: must be an object that Rule.json gave, got {said!r} ({error})") from None
