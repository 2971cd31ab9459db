"""The sensitivity table: what every layer loses, weighs and takes in every way of storing it, saved as one JSON file.

It is measured once (`assign.probe`); any budget is then solved from it in milliseconds, without the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import disk
from bitladder.assign.budget import BITS, BYTES, MILLISECONDS, target
from bitladder.assign.search import SLACK
from bitladder.assign.solve import SOLVERS, Picks, Problem, plans

KIND, VERSION = "bitladder sensitivity", 1
DIGITS = 6  # of numbers on a page


@dataclass(frozen=True)
class Way:
    """One way of storing a layer: what the loss rises by, from `low` to `high` with 95 % confidence, and what it costs."""

    format: str
    bits: int
    loss: float
    low: float
    high: float
    bytes: int
    milliseconds: float | None = None


@dataclass(frozen=True)
class Layer:
    """A weight by the ways it may be stored in, the widest first."""

    name: str
    elements: int
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Scores:
    """What networks of known loss scored: (loss, score) by rising loss; `whole` is the float network's."""

    metric: str
    whole: float
    points: tuple[tuple[float, float], ...]

    def curve(self) -> list[tuple[float, float]]:
        """The points with scores that never rise."""
        x, y = np.array(self.points).T
        return list(zip(x.tolist(), falling(y).tolist(), strict=True))

    def expected(self, loss: float) -> float:
        """The score to expect at a loss: falling, straight between the points, level beyond them."""
        return float(np.interp(loss, *np.array(self.curve()).T))

    def allowed(self, drop: float) -> float | None:
        """The largest loss whose expected score is no more than `drop` below the float network's; None if even none is."""
        x, y = np.array(self.curve()).T
        drops = self.whole - y
        if drops[0] > drop + SLACK:
            return None
        last = int(np.flatnonzero(drops <= drop + SLACK)[-1])
        if last == len(x) - 1:
            return float(x[-1])
        share = (drop - drops[last]) / (drops[last + 1] - drops[last])
        return float(x[last] + max(0.0, share) * (x[last + 1] - x[last]))


@dataclass(frozen=True)
class Solution:
    """A plan and what the table expects of it; `met` is whether it keeps to what was asked for."""

    plan: Mapping[str, str]  # format by weight
    bits: Mapping[str, int]
    loss: float
    low: float
    high: float
    bytes: float
    avg_bits: float
    milliseconds: float | None
    score: tuple[float, float, float] | None  # expected, and at the two ends of the loss
    met: bool


@dataclass(frozen=True)
class Table:
    """Layers with their ways, and what all plans share: bytes and milliseconds of everything else, and the loss of the widest
    plan that no layer accounts for.

    about: what was measured, as a hash. pairs: layers that make each other worse, with how far (-1 to 1).
    """

    layers: tuple[Layer, ...]
    about: str
    criterion: str
    rounding: str
    samples: int
    seed: int
    base: float
    bytes: int
    milliseconds: float | None = None
    pairs: tuple[tuple[str, str, float], ...] = ()
    scores: Scores | None = None
    where: Mapping[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------- solving

    def problem(self, what: str = BYTES) -> Problem:
        """Losses, and what a budget limits, in the order of the layers."""
        if what == MILLISECONDS and self.milliseconds is None:
            raise ValueError("quantize: the table has no milliseconds; measure it with a native core or with times onnxruntime")
        weights = sum(layer.elements for layer in self.layers)
        costs: dict[str, Callable[[Layer, Way], float | None]] = {
            BYTES: lambda layer, way: way.bytes,
            BITS: lambda layer, way: way.bits * layer.elements / weights,
            MILLISECONDS: lambda layer, way: way.milliseconds,
        }
        at = {layer.name: i for i, layer in enumerate(self.layers)}
        return Problem.of(
            [[way.loss for way in layer.ways] for layer in self.layers],
            [[costs[what](layer, way) for way in layer.ways] for layer in self.layers],
            {(at[a], at[b]): share for a, b, share in self.pairs},
        )

    def rest(self, what: str) -> float:
        """What all plans cost besides their layers."""
        return {BYTES: float(self.bytes), BITS: 0.0, MILLISECONDS: self.milliseconds or 0.0}[what]

    def solve(self, budget: str | None = None, *, max_drop: float | None = None, solver: str = "lagrangian") -> Solution:
        """The plan that loses least within a budget such as "0.5MB", "avg_bits=4" or "5ms"; without one, the plan of fewest
        bytes that is expected to keep the score within `max_drop` of the float network's."""
        least_loss, least_cost = SOLVERS[solver]
        if budget is not None:
            what, limit = target(budget)
            problem = self.problem(what)
            return self.solution(least_loss(problem, limit - self.rest(what)), what, limit, max_drop)
        if max_drop is None:
            raise ValueError("quantize: a table is solved for a budget or a max_drop; give one")
        allowed = self.scored().allowed(max_drop)
        problem = self.problem()
        picks = next(plans(problem)) if allowed is None else least_cost(problem, allowed - self.base)
        return self.solution(picks, max_drop=max_drop)

    def solution(self, picks: Picks, what: str = BYTES, limit: float = float("inf"), max_drop: float | None = None) -> Solution:
        """A plan of the table, with what it is expected to be. Layers are taken to err on the same samples, so that ends of
        intervals add up."""
        chosen = [layer.ways[i] for layer, i in zip(self.layers, picks, strict=True)]
        problem = self.problem()
        loss = self.base + problem.loss(picks)
        low, high = (loss + sum(getattr(w, end) - w.loss for w in chosen) for end in ("low", "high"))
        weights = sum(layer.elements for layer in self.layers)
        spent = {
            BYTES: self.bytes + problem.cost(picks),
            BITS: sum(w.bits * layer.elements for layer, w in zip(self.layers, chosen, strict=True)) / max(weights, 1),
        }
        if self.milliseconds is not None:
            spent[MILLISECONDS] = self.milliseconds + self.problem(MILLISECONDS).cost(picks)
        score = None
        if self.scores is not None:
            score = (self.scores.expected(loss), self.scores.expected(high), self.scores.expected(low))
        drop = None if self.scores is None or score is None else self.scores.whole - score[0]
        met = spent[what] <= limit * (1 + SLACK) and (max_drop is None or (drop is not None and drop <= max_drop + SLACK))
        names = [layer.name for layer in self.layers]
        return Solution(
            plan={n: w.format for n, w in zip(names, chosen, strict=True)},
            bits={n: w.bits for n, w in zip(names, chosen, strict=True)},
            loss=loss,
            low=max(low, 0.0),
            high=high,
            bytes=spent[BYTES],
            avg_bits=spent[BITS],
            milliseconds=spent.get(MILLISECONDS),
            score=score,
            met=met,
        )

    def loss(self, plan: Mapping[str, str]) -> float:
        """What a plan, formats by weight, is expected to lose."""
        picks = [[w.format for w in layer.ways].index(plan[layer.name]) for layer in self.layers]
        return self.base + self.problem().loss(np.array(picks))

    def scored(self) -> Scores:
        """The scores, which must be there."""
        if self.scores is None:
            raise ValueError("quantize: the table knows no scores, so max_drop says nothing; measure it with evaluation data")
        return self.scores

    # --------------------------------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON, whole or not at all."""
        with disk.replacing(path) as file:
            file.write(self.text().encode())

    def text(self) -> str:
        """The table as JSON; the same table gives the same text, and back again: a plan solved from a file is that of the run
        which measured it."""
        return json.dumps({"kind": KIND, "version": VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Table:
        """The table that `save` wrote."""
        try:
            said = json.loads(Path(path).read_text(encoding="utf-8"))
            if said.pop("kind") != KIND:
                raise ValueError("another kind of file")
            if (version := said.pop("version")) != VERSION:
                raise ValueError(f"version {version}, and this program reads {VERSION}")
            scores = said.pop("scores")
            layers = [Layer(a["name"], a["elements"], tuple(Way(**w) for w in a["ways"])) for a in said.pop("layers")]
            table = cls(
                layers=tuple(layers),
                pairs=tuple((str(a), str(b), float(share)) for a, b, share in said.pop("pairs")),
                scores=None if scores is None else Scores(**scores | {"points": tuple(map(tuple, scores["points"]))}),
                **said,
            )
            checked(table)
            return table
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"table: {os.fspath(path)!r} must be a sensitivity table that this program wrote, got {what}; measure again"
            ) from None


def checked(table: Table) -> None:
    """Return if every number of a table is one that can be reckoned with."""
    names = [layer.name for layer in table.layers]
    if len(set(names)) < len(names) or not names:
        raise ValueError("layers must be there, each once")
    for layer in table.layers:
        numbers = [(w.loss, w.low, w.high, w.bytes, w.bits, w.milliseconds or 0.0) for w in layer.ways]
        if not numbers or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError(f"layer {layer.name!r} must have ways of finite numbers")
        if table.milliseconds is not None and any(w.milliseconds is None for w in layer.ways):
            raise ValueError(f"layer {layer.name!r} must have milliseconds in every way")
    if unknown := {n for a, b, _ in table.pairs for n in (a, b)} - set(names):
        raise ValueError(f"pairs must be of layers, got {sorted(unknown)[0]!r}")
    if table.scores is not None and not table.scores.points:
        raise ValueError("scores must have points")


def short(value: Any) -> Any:
    """A tree of plain values with short floats.

    >>> short({"a": (1 / 3, 2)})
    {'a': [0.333333, 2]}
    """
    if isinstance(value, Mapping):
        return {k: short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [short(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def falling(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The nearest numbers that never rise: neighbours that do are replaced by their mean (pool adjacent violators).

    >>> falling([3.0, 1.0, 2.0, 0.0])
    array([3. , 1.5, 1.5, 0. ])
    """
    pools: list[list[float]] = []  # (sum, count)
    for value in values:
        pools.append([float(value), 1.0])
        while len(pools) > 1 and pools[-1][0] / pools[-1][1] > pools[-2][0] / pools[-2][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    return np.concatenate([np.full(int(count), total / count) for total, count in pools])
