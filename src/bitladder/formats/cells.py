"""Cells of a scalar quantizer: runs of sorted values that share a level, and three ways to choose them.

- `lloyd`: cells of least squared error, by Lloyd's algorithm; each decodes to its mean.
- `partition` with `squares`: the same goal, for any number of cells.
- `partition` with `entropy`: weighted entropy (S8; Park, Ahn and Yoo, CVPR 2017; US11250320). A value is as important as its
  square. S = -sum of I_n P_n log P_n over cells, with P_n the share of all values that lie in cell n and I_n their mean
  importance, is made as large as can be. So neither the many small values nor the few large ones take most of the levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitladder.stats.points import Points

GRID = 127  # the integer that a channel's largest magnitude becomes in formats with tables
COARSE = 512  # places at which a partition is looked for before its cuts move one by one
FINE = 1 << 16  # different magnitudes that cuts may lie between; more are pooled


def grid_scale(points: Points) -> np.ndarray:
    """The scale of each channel (float64, exact in float32) that makes its largest magnitude `GRID`; 1 where all is zero."""
    widest = np.maximum(np.abs(points.low), np.abs(points.high))
    return (np.where(widest > 0, np.maximum(widest, 1e-30), GRID) / GRID).astype(np.float32).astype(np.float64)


def sorted_points(points: Points, scale: np.ndarray, magnitude: bool) -> tuple[np.ndarray, np.ndarray]:
    """All channels' points on their own grids, sorted, each counted with the square of its channel's scale."""
    values = points.values / scale[:, None]
    counts = np.broadcast_to(points.counts, values.shape) * scale[:, None] ** 2 / np.mean(scale**2)
    values, counts = (np.abs(values) if magnitude else values).ravel(), counts.ravel()
    order = np.argsort(values, kind="stable")
    return values[order], counts[order]


# ---------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Sums:
    """Sorted values with running sums, so that the mass and the mean of any run of them cost two look-ups."""

    values: np.ndarray
    mass: np.ndarray  # (n + 1,) counts before each position
    moment: np.ndarray  # (n + 1,) counts times values before each position
    square: np.ndarray  # (n + 1,) counts times squared values before each position

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray) -> Sums:
        zero = np.zeros(1)
        running = (np.concatenate([zero, np.cumsum(counts * values**power)]) for power in range(3))
        return cls(values, *running)

    @classmethod
    def distinct(cls, values: np.ndarray, counts: np.ndarray, most: int = FINE) -> Sums:
        """The sums of sorted values, equal ones as one; if more than `most`, those of a bin as one of their mean square."""
        starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > 0)
        if len(starts) <= most:
            return cls.of(values[starts], np.add.reduceat(counts, starts))
        edges = np.linspace(values[0], values[-1], most)
        place = np.searchsorted(edges, values, "right") - 1
        mass = np.bincount(place, counts, most)
        square = np.bincount(place, counts * values**2, most)
        return cls.of(np.sqrt(square[mass > 0] / mass[mass > 0]), mass[mass > 0])


def split_cell(sums: Sums, i: int, j: int, pinned: bool) -> int:
    """Where to cut cell [i, j) in two so that the squared error falls most; if `pinned`, the lower part decodes to 0."""
    if j <= i:
        return i
    n, s = sums.mass[i : j + 1], sums.moment[i : j + 1]
    gain = (s[-1] - s) ** 2 / np.maximum(n[-1] - n, 1e-30)
    if not pinned:
        gain = gain + (s - s[0]) ** 2 / np.maximum(n - n[0], 1e-30)
    return i + int(np.argmax(gain))


def halved(sums: Sums, cuts: np.ndarray, pinned: bool) -> np.ndarray:
    """The cuts with one more in every cell."""
    halves = [split_cell(sums, i, j, pinned and at == 0) for at, (i, j) in enumerate(itertools.pairwise(cuts.tolist()))]
    return np.sort(np.concatenate([cuts, halves]))


def lloyd(sums: Sums, depth: int, pinned: bool, rounds: int = 2000) -> np.ndarray:
    """Cuts of 2^depth cells, those of a scalar quantizer of least squared error (Lloyd, 1957; published 1982).

    It starts from cells halved again and again, and moves each cut to the midpoint of its neighbours' centroids.
    """
    cuts = np.array([0, len(sums.values)])
    for _ in range(depth):
        cuts = halved(sums, cuts, pinned)
    for _ in range(rounds):
        centre = centroids(sums, cuts, pinned)
        moved = np.concatenate([cuts[:1], np.searchsorted(sums.values, (centre[1:] + centre[:-1]) / 2), cuts[-1:]])
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    return cuts


def centroids(sums: Sums, cuts: np.ndarray, pinned: bool) -> np.ndarray:
    """Mean of each cell; an empty cell sits at its border; the first is 0 if `pinned`."""
    mass = np.diff(sums.mass[cuts])
    border = sums.values[np.minimum(cuts[:-1], len(sums.values) - 1)]
    centre = np.where(mass > 0, np.diff(sums.moment[cuts]) / np.maximum(mass, 1e-30), border)
    if pinned:
        centre[0] = 0.0
    return np.maximum.accumulate(centre)


# ----------------------------------------------------------------------------------------------------- partitions


@dataclass(frozen=True)
class Goal:
    """What cells are to be good at: what each is worth, so that the sum over all is made greatest; and their levels.

    Both take arrays: the cells' mass, moment and square (`Sums`), as shares of the whole.
    """

    worth: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    level: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _entropy(mass: np.ndarray, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
    """-I P log(P / 2): cells hold magnitudes, and each stands for two levels of opposite sign."""
    return -square * np.log(np.maximum(mass, 1e-300) / 2)


GOALS = {
    "entropy": Goal(_entropy, lambda mass, moment, square: np.sqrt(square / np.maximum(mass, 1e-300))),
    "squares": Goal(
        lambda mass, moment, square: moment**2 / np.maximum(mass, 1e-300),
        lambda mass, moment, square: moment / np.maximum(mass, 1e-300),
    ),
}


@dataclass(frozen=True)
class Partition:
    """Distinct sorted magnitudes in cells that are not empty, `cuts` being where each begins and the last one ends.

    pinned: the first cell decodes to zero, so it is worth nothing.
    """

    sums: Sums
    goal: Goal
    pinned: bool

    def worth(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """What cells are worth; nothing if they decode to zero."""
        found = self.goal.worth(*self.shares(begin, end))
        return np.where(begin == 0, 0.0, found) if self.pinned else found

    def shares(self, begin: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        return [(s[end] - s[begin]) / self.sums.mass[-1] for s in (self.sums.mass, self.sums.moment, self.sums.square)]

    def total(self, cuts: np.ndarray) -> float:
        """The worth of all cells: for `entropy`, S."""
        return float(self.worth(cuts[:-1], cuts[1:]).sum())

    def levels(self, cuts: np.ndarray) -> np.ndarray:
        """What each cell decodes to: a number between its ends, whatever is lost where sums are vastly different."""
        ends = self.sums.values[cuts[:-1]], self.sums.values[cuts[1:] - 1]
        found = self.goal.level(*self.shares(cuts[:-1], cuts[1:])).clip(*ends)
        return np.concatenate([[0.0], found[1:]]) if self.pinned else found

    def best(self, cells: int, most: int = COARSE) -> np.ndarray:
        """The best cuts among some evenly spread ones (all, if they are no more than `most`), by dynamic programming."""
        n = len(self.sums.values)
        places = np.unique(np.linspace(0, n, min(n, max(most, 2 * cells)) + 1).round().astype(np.int64))
        cells = min(cells, len(places) - 1)
        worth = np.where(places[:, None] < places, self.worth(places[:, None], np.maximum(places, places[:, None])), -np.inf)
        reached, came = worth[0], []
        for _ in range(cells - 1):
            ways = reached[:, None] + worth
            came.append(ways.argmax(0))
            reached = ways.max(0)
        cuts = [len(places) - 1]
        for before in reversed(came):
            cuts.append(int(before[cuts[-1]]))
        return places[[0, *cuts[::-1]]]

    def swept(self, cuts: np.ndarray) -> np.ndarray:
        """The cuts after each in turn went where the total is greatest, its neighbours staying; the total never falls."""
        cuts = cuts.copy()
        for k in range(1, len(cuts) - 1):
            at = np.arange(cuts[k - 1] + 1, cuts[k + 1])
            total = self.worth(cuts[k - 1], at) + self.worth(at, cuts[k + 1])
            if total.max() > total[cuts[k] - at[0]]:
                cuts[k] = at[total.argmax()]
        return cuts

    def cut(self, cells: int, sweeps: int = 100) -> np.ndarray:
        """Cuts of at most so many cells that no sweep makes better."""
        cuts = self.best(cells)
        for _ in range(sweeps):
            moved = self.swept(cuts)
            if np.array_equal(moved, cuts):
                break
            cuts = moved
        return cuts


def partition(magnitudes: np.ndarray, counts: np.ndarray, goal: str, pinned: bool = False) -> Partition:
    """Sorted magnitudes, ready to be cut."""
    return Partition(Sums.distinct(magnitudes, counts), GOALS[goal], pinned)
