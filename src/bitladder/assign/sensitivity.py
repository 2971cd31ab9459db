"""The sensitivity table: what every layer loses, weighs and takes in every way of storing it, saved as one JSON file.

It is measured once (`assign.probe`); any budget is then solved from it in milliseconds, without the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

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
            return read(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            got = str(error) if isinstance(error, Wrong) else "text that is no JSON"
            place = os.fspath(path)
            raise ValueError(
                f"table: {place!r} must be a sensitivity table that this program wrote, got {got}; measure again"
            ) from None


# ---------------------------------------------------------------------------------------------------------- reading


class Wrong(ValueError):
    """What a file has that no table has, in some words."""


T = TypeVar("T")


def read(said: Any) -> Table:
    """The table that a file tells of."""
    if not isinstance(said, dict) or said.pop("kind", None) != KIND:
        raise Wrong("another kind of file")
    if (version := said.pop("version", None)) != VERSION:
        raise Wrong(f"version {version}, and this program reads {VERSION}")
    table = of(Table, said, "it")
    layers = [of(Layer, each, "a layer") for each in listed(table.layers, "layers")]
    layers = [replace(a, ways=tuple(of(Way, w, f"layer {a.name!r}") for w in listed(a.ways, "ways"))) for a in layers]
    pairs = [tuple(listed(pair, "a pair")) for pair in listed(table.pairs, "pairs")]
    scores = None if table.scores is None else of(Scores, table.scores, "scores")
    if scores is not None:
        scores = replace(scores, points=tuple(tuple(listed(p, "a point")) for p in listed(scores.points, "points")))
    return checked(replace(table, layers=tuple(layers), pairs=tuple(pairs), scores=scores))


def of(kind: type[T], said: Any, what: str) -> T:
    """A value of a dataclass from its fields by name: all that it needs and no others."""
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(said, dict):
        raise Wrong(f"something where {what} must have {', '.join(known)}")
    for name in said:
        if name not in known:
            raise Wrong(f"{name!r}, which {what} must not have")
    for name, needed in known.items():
        if needed and name not in said:
            raise Wrong(f"no {name!r}, which {what} must have")
    return kind(**said)


def listed(said: Any, what: str) -> list[Any]:
    """A list, which it must be."""
    if not isinstance(said, list | tuple):
        raise Wrong(f"{shown(said)} where {what} must be a list")
    return list(said)


def numbered(values: Iterable[Any], what: str) -> None:
    """Return if all values are finite numbers."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise Wrong(f"{shown(value)} where {what} must have finite numbers")


def shown(value: Any) -> str:
    """A value of the file, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def checked(table: Table) -> Table:
    """The table, after a look at every number of it."""
    names = [layer.name for layer in table.layers]
    formats = [way.format for layer in table.layers for way in layer.ways]
    for text in (*names, *formats, table.about, table.criterion, "" if table.scores is None else table.scores.metric):
        if not isinstance(text, str):
            raise Wrong(f"{shown(text)} where a text must be")
    if not names or len(set(names)) < len(names):
        raise Wrong("another list of layers: layers must be there, each once")
    timed = table.milliseconds is not None
    numbered((table.base, table.bytes, table.samples, table.seed, table.milliseconds if timed else 0.0), "the table")
    for layer in table.layers:
        if not layer.ways:
            raise Wrong(f"no ways of layer {layer.name!r}")
        for way in layer.ways:
            costs = (way.bits, way.bytes, way.milliseconds if timed else 0.0, layer.elements)
            numbered((way.loss, way.low, way.high, *costs), f"layer {layer.name!r}")
    for pair in table.pairs:
        if len(pair) != 3 or not all(name in names for name in pair[:2]):
            raise Wrong(f"{shown(pair)}: pairs must be of layers")
        numbered(pair[2:], "a pair")
    if table.scores is not None:
        if not table.scores.points or any(len(point) != 2 for point in table.scores.points):
            raise Wrong("none: scores must have points, of a loss and a score each")
        numbered((table.scores.whole, *(x for point in table.scores.points for x in point)), "scores")
    return table


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
