"""Which way to store each layer: the least loss within a cost, or the least cost within a loss. Pure functions of numbers.

A layer's ways are a row of losses and a row of costs; a plan picks one of each row. Losses add up, but for pairs of layers
that make each other worse: together they cost twice `pairs` times the geometric mean of their losses more.

Lagrangian relaxation: at a price of cost each layer picks alone, and as the price rises it walks down the lower hull of its
ways. So all steps down of all layers, sorted by what they lose for what they save, are every plan on the hull, each nested in
the one before it: a budget is a place in that list. What the last step leaves over is spent on single layers. `exact` asks an
integer program instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bitladder.errors import require

Picks = np.ndarray  # the way of each layer, by its place in the row
EPS = 1e-9
STARTS = 4  # plans on the hull nearest to a limit that are polished
SECONDS = 10.0  # that an integer program may take


@dataclass(frozen=True)
class Problem:
    """Losses and costs (layers, ways), infinite where a layer has fewer ways; pairs (layers, layers), symmetric, zero on the
    diagonal."""

    losses: np.ndarray
    costs: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, losses: Any, costs: Any, pairs: dict[tuple[int, int], float] | None = None) -> Problem:
        """A problem of lists of rows.

        >>> Problem.of([[0.0, 1.0], [0.0]], [[8, 4], [8]]).costs
        array([[ 8.,  4.],
               [ 8., inf]])
        """
        both = np.zeros((len(losses), len(losses)))
        for (a, b), share in (pairs or {}).items():
            both[a, b] = both[b, a] = share
        return cls(padded(losses), padded(costs), both)

    def loss(self, picks: Picks) -> float:
        """What a plan loses."""
        each = self.losses[np.arange(len(picks)), picks]
        roots = np.sqrt(np.maximum(each, 0))
        return float(each.sum() + roots @ self.pairs @ roots)

    def cost(self, picks: Picks) -> float:
        """What a plan costs."""
        return float(self.costs[np.arange(len(picks)), picks].sum())

    def other_losses(self, picks: Picks) -> np.ndarray:
        """What the plan would lose with each layer changed to each of its ways (layers, ways)."""
        now = self.losses[np.arange(len(picks)), picks]
        owed = self.pairs @ np.sqrt(np.maximum(now, 0))
        with np.errstate(invalid="ignore"):
            marginal = self.losses + 2 * np.sqrt(np.maximum(self.losses, 0)) * owed[:, None]
        return self.loss(picks) + marginal - marginal[np.arange(len(picks)), picks][:, None]

    def other_costs(self, picks: Picks) -> np.ndarray:
        """What the plan would cost with each layer changed to each of its ways (layers, ways)."""
        return self.cost(picks) + self.costs - self.costs[np.arange(len(picks)), picks][:, None]


def padded(rows: Any) -> np.ndarray:
    """Rows of unequal length as one matrix, infinite where there is nothing."""
    out = np.full((len(rows), max(map(len, rows), default=0)), np.inf)
    for at, row in enumerate(rows):
        out[at, : len(row)] = row
    return out


# ------------------------------------------------------------------------------------------------------- the hull


def hull(losses: np.ndarray, costs: np.ndarray) -> list[int]:
    """The ways of one layer that are best at some price, from the least loss to the least cost.

    >>> hull(np.array([0.0, 1.0, 1.5, 4.0]), np.array([8.0, 7.0, 4.0, 2.0]))
    [0, 2, 3]
    """
    found = [int(np.lexsort((costs, losses))[0])]
    while True:
        at = found[-1]
        cheaper = np.flatnonzero(costs < costs[at] - EPS)
        if not len(cheaper):
            return found
        slope = (losses[cheaper] - losses[at]) / (costs[at] - costs[cheaper])
        found.append(int(cheaper[np.lexsort((costs[cheaper], slope))[0]]))


def front(problem: Problem) -> tuple[Picks, list[tuple[int, int]]]:
    """The plan that loses least, and every step (layer, way) down from it, the least loss for its saving first."""
    first, steps = np.zeros(len(problem.losses), int), []
    for layer, (losses, costs) in enumerate(zip(problem.losses, problem.costs, strict=True)):
        way = hull(losses, costs)
        first[layer] = way[0]
        for depth, (a, b) in enumerate(pairwise(way)):
            steps.append(((losses[b] - losses[a]) / (costs[a] - costs[b]), layer, depth, b))
    return first, [(layer, b) for _, layer, _, b in sorted(steps)]


def plans(problem: Problem) -> Iterator[Picks]:
    """Every plan on the hull, each nested in the one before it."""
    picks, steps = front(problem)
    yield picks.copy()
    for layer, way in steps:
        picks[layer] = way
        yield picks.copy()


# ------------------------------------------------------------------------------------------------------ two questions


def least_loss(problem: Problem, limit: float) -> Picks:
    """The plan that loses least among those that cost at most `limit`; the cheapest if none does."""
    kept = [picks for picks in plans(problem) if problem.cost(picks) <= limit + EPS]
    found = [polished(picks, problem.other_losses, problem.other_costs, limit) for picks in kept[:STARTS]]
    return min(found, key=problem.loss, default=np.argmin(problem.costs, axis=1))


def least_cost(problem: Problem, allowed: float) -> Picks:
    """The plan that costs least among those that lose at most `allowed`; the best on the hull if none does."""
    on_hull = list(plans(problem))
    kept = [picks for picks in on_hull if problem.loss(picks) <= allowed + EPS]
    found = [polished(picks, problem.other_costs, problem.other_losses, allowed) for picks in kept[-STARTS:]]
    return min(found, key=problem.cost, default=on_hull[0])


def polished(picks: Picks, aims: Callable[[Picks], np.ndarray], bounds: Callable[[Picks], np.ndarray], limit: float) -> Picks:
    """`picks` after single layers changed, the best change first, as long as `aims` falls and `bounds` stays within `limit`."""
    picks, rows = picks.copy(), np.arange(len(picks))
    while len(picks):
        aim = aims(picks)
        inside = np.where(bounds(picks) <= limit + EPS, aim, np.inf)
        layer, way = np.unravel_index(int(np.argmin(inside)), inside.shape)
        if not inside[layer, way] < aim[rows, picks][0] - EPS * max(1.0, abs(float(aim[rows, picks][0]))):
            return picks
        picks[layer] = way
    return picks


# ----------------------------------------------------------------------------------------------------------- exact


def exact_least_loss(problem: Problem, limit: float) -> Picks:
    """`least_loss` by an integer program; the cheapest plan if none costs so little."""
    found = program(problem, "loss", limit)
    return np.argmin(problem.costs, axis=1) if found is None else found


def exact_least_cost(problem: Problem, allowed: float) -> Picks:
    """`least_cost` by an integer program; the best plan on the hull if none loses so little."""
    found = program(problem, "cost", allowed)
    return next(plans(problem)) if found is None else found


def program(problem: Problem, aim: str, limit: float) -> Picks | None:
    """The best plan within a limit, by HiGHS; None if there is none.

    A variable for each way, one of which a layer takes. Each pair has a variable for every two of their ways: the ways that
    both take, and their sums are those of the single layers.
    """
    optimize = require("scipy.optimize", "torch", "quantize: search exact")
    sparse = require("scipy.sparse", "torch", "quantize: search exact")
    ways = [np.flatnonzero(np.isfinite(row)) for row in problem.costs]
    at = np.cumsum([0, *map(len, ways)])
    losses = np.concatenate([problem.losses[i, w] for i, w in enumerate(ways)])
    costs = np.concatenate([problem.costs[i, w] for i, w in enumerate(ways)])
    rows: list[tuple[np.ndarray, np.ndarray, float]] = [
        (np.arange(at[i], at[i + 1]), np.ones(len(w)), 1.0) for i, w in enumerate(ways)
    ]
    first = len(losses)
    for i, j in zip(*np.nonzero(np.triu(problem.pairs)), strict=True):
        roots = [np.sqrt(np.maximum(problem.losses[k, ways[k]], 0)) for k in (i, j)]
        more = 2 * problem.pairs[i, j] * np.outer(*roots)
        each = first + np.arange(more.size).reshape(more.shape)
        rows += [(np.append(each[a], at[i] + a), np.append(np.ones(len(each[a])), -1.0), 0.0) for a in range(len(ways[i]))]
        rows += [(np.append(each[:, b], at[j] + b), np.append(np.ones(len(each)), -1.0), 0.0) for b in range(len(ways[j]))]
        losses, costs, first = np.append(losses, more), np.append(costs, np.zeros(more.size)), first + more.size
    matrix = sparse.csr_array(
        (
            np.concatenate([v for _, v, _ in rows]),
            (np.repeat(np.arange(len(rows)), [len(c) for c, _, _ in rows]), np.concatenate([c for c, _, _ in rows])),
        ),
        shape=(len(rows), first),
    )
    equal = np.array([b for _, _, b in rows])
    aims, bounds = (losses, costs) if aim == "loss" else (costs, losses)
    size = float(np.abs(bounds).max()) or 1.0
    found = optimize.milp(
        aims / (float(np.abs(aims).max()) or 1.0),
        constraints=[
            optimize.LinearConstraint(matrix, equal, equal),
            optimize.LinearConstraint(sparse.csr_array(bounds[None] / size), -math.inf, limit / size * (1 + EPS)),
        ],
        integrality=np.append(np.ones(at[-1]), np.zeros(first - at[-1])),
        bounds=optimize.Bounds(0, 1),
        options={"time_limit": SECONDS, "mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    return np.array([w[int(np.argmax(found.x[at[i] : at[i + 1]]))] for i, w in enumerate(ways)])


SOLVERS = {"lagrangian": (least_loss, least_cost), "exact": (exact_least_loss, exact_least_cost)}
