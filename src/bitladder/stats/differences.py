"""How far weights moved while a network learned: a fold over cycles in two tensors per layer (S2, US12393828)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor; only what the two share is used


def float64(x: Array) -> Array:
    """`x` in double precision, as the kind of array it is."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


@dataclass
class Differences:
    """Weight differences d[c] = W[c] - W[0] of one layer over cycles c = 1..K: number, running mean, squared deviations.

    The state is float64, in two arrays whatever K (Welford, 1962). The initial weights are the network's own and stay outside.

    >>> moved = Differences()
    >>> for d in ([1.0, 0.0], [3.0, 0.0]): moved = moved.update(np.array(d))
    >>> moved.value("mean_square"), moved.value("mean"), moved.value("variance")
    (2.5, 1.0, 0.5)
    """

    count: int = 0
    mean: Array = None
    deviations: Array = None  # sum over cycles of (d - mean)^2, by element

    def update(self, d: Array) -> Differences:
        """Itself, having taken in the difference of one more cycle; in place, for these are the size of the weights."""
        d = float64(d)
        if self.mean is None:
            self.mean, self.deviations = d * 0, d * 0
        if tuple(d.shape) != tuple(self.mean.shape):
            raise ValueError(f"differences: every cycle must have the shape {tuple(self.mean.shape)}, got {tuple(d.shape)}")
        self.count += 1
        off = d - self.mean
        self.mean += off / self.count
        self.deviations += off * (d - self.mean)
        return self

    def merge(self, other: Differences) -> Differences:
        """Itself, having taken in a fold over other cycles of the same layer (Chan, Golub and LeVeque, 1983)."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.mean, self.deviations = other.count, other.mean * 1, other.deviations * 1
            return self
        total = self.count + other.count
        off = other.mean - self.mean
        self.deviations += other.deviations + off * off * (self.count * other.count / total)
        self.mean += off * (other.count / total)
        self.count = total
        return self

    def value(
        self,
        statistic: str = "mean_square",
        *,
        normalize: str = "none",
        w0: Array = None,
        step: Array = None,
        rate: float = 1.0,
    ) -> float:
        """How far the layer moved: a statistic over cycles for each element, averaged over elements.

        statistic: "mean_square" (the patent's), "mean" (of each element's mean difference, the magnitude), "variance" or
        "std" (over cycles). The last two say nothing about one cycle.
        normalize: "none" (literal), "relative" (divided by the mean square of `w0`), "step" (divided by the square of the
        low-precision `step`, a number or an array that broadcasts over the weights).
        rate: the layer's learning rate where rates differ; a difference is proportional to it.
        "mean" and "std" are lengths, not squares, so they are divided by the root of what the others are divided by.
        """
        if statistic not in STATISTICS:
            raise ValueError(f"differences: statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"differences: normalize must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}")
        chosen = STATISTICS[statistic]
        if self.count < chosen.cycles:
            raise ValueError(f"differences: {statistic} needs at least {chosen.cycles} cycles, got {self.count}; learn longer")
        unit = NORMALIZATIONS[normalize](w0, step)
        by_element = chosen.by_element(self.numpy())
        if np.isscalar(unit) and unit == 0:  # an all-zero layer has no size to compare with
            return math.inf if by_element.any() else 0.0
        return float((by_element / (unit * rate) ** chosen.power).mean())

    def numpy(self) -> Differences:
        """The same fold with numpy arrays."""
        return Differences(self.count, to_numpy(self.mean), to_numpy(self.deviations))


@dataclass(frozen=True)
class Statistic:
    """One value per element out of a fold; `power` is 2 for squares and 1 for lengths; `cycles` the fewest it needs."""

    by_element: Callable[[Differences], Array]
    power: int
    cycles: int


STATISTICS = {
    "mean_square": Statistic(lambda s: s.deviations / s.count + s.mean * s.mean, 2, 1),
    "mean": Statistic(lambda s: abs(s.mean), 1, 1),
    "variance": Statistic(lambda s: s.deviations / s.count, 2, 2),
    "std": Statistic(lambda s: (s.deviations / s.count) ** 0.5, 1, 2),
}


def root_mean_square(w0: Array, step: Array) -> float:
    """The layer's own size."""
    if w0 is None:
        raise ValueError('differences: normalize "relative" needs the initial weights; pass w0')
    return float((float64(to_numpy(w0)) ** 2).mean() ** 0.5)


def low_step(w0: Array, step: Array) -> np.ndarray:
    """The low-precision step."""
    if step is None:
        raise ValueError('differences: normalize "step" needs the low-precision step; pass step')
    step = np.asarray(to_numpy(step), np.float64)
    if not (step > 0).all():
        raise ValueError("differences: step must be above 0 everywhere; fit the low-precision format first")
    return step


NORMALIZATIONS: dict[str, Callable[[Array, Array], float | np.ndarray]] = {
    "none": lambda w0, step: 1.0,
    "relative": root_mean_square,
    "step": low_step,
}


def to_numpy(x: Array) -> Any:
    """`x` as a numpy array if it was a tensor; a view where it can be."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else x


@dataclass(frozen=True)
class Learned:
    """What learning for some cycles left behind: for every layer its differences, initial weights and learning rate.

    `losses` has one entry per cycle. `frozen` names the layers that were kept from moving. `notes` are lines for people.
    """

    differences: Mapping[str, Differences]
    initial: Mapping[str, np.ndarray]
    rates: Mapping[str, float]
    losses: tuple[float, ...] = ()
    seconds: float = 0.0
    frozen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
