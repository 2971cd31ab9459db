"""What the page shows, taken from a graph and its meta: plain rows, numbers or None, nothing trusted to be there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitladder.formats.tensor import SPREAD, Encoding, QTensor, cost_of, width_of
from bitladder.ir.graph import Graph, Node
from bitladder.runtime.integer import accumulators

MOST_LEVELS = 2**12  # formats with more codes are counted in bins
BINS = 256  # bars of the widest histogram
FRACTIONS = ("accuracy", "agreement")  # metrics that are shares, so that a hundredth of them is a point


@dataclass(frozen=True)
class Levels:
    """How often each integer of a layer's grid occurs: `counts` from integer `first`, `pitch` apart."""

    first: int
    pitch: int
    counts: np.ndarray
    low_end: float  # share of weights on the lowest level
    high_end: float  # share on the highest
    step: tuple[float, float]  # least and largest worth of one integer, over the channels

    @property
    def last(self) -> int:
        return self.first + self.pitch * (len(self.counts) - 1)

    @property
    def used(self) -> int:
        """How many bars are not empty."""
        return int(np.count_nonzero(self.counts))


@dataclass(frozen=True)
class Layer:
    """One weight: a row of the table and a bar of the charts."""

    name: str
    op: str
    shape: tuple[int, ...]
    format: str
    bits: int | float
    elements: int
    nbytes: int
    arithmetic: str  # "integer" or "float"
    note: str
    chosen: bool
    levels: Levels | None

    @property
    def stored(self) -> float:
        """Bits that a weight takes."""
        return 8 * self.nbytes / max(self.elements, 1)


@dataclass(frozen=True)
class Ranked:
    """One layer's place in the ranking: its statistic, and whether it went to low precision."""

    name: str
    value: float | None
    chosen: bool
    note: str


@dataclass(frozen=True)
class Width:
    """What the file gives when it is run at `bits`."""

    bits: int
    score: float | None
    nbytes: int | None


@dataclass(frozen=True)
class Result:
    """How the plan was found; fields are None or empty where the file does not say."""

    goal_met: bool | None = None
    metric: str = "score"
    float_score: float | None = None
    reference: float | None = None
    score: float | None = None
    max_drop: float | None = None
    evaluations: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    low: str = "low precision"
    high: str = "high precision"
    criterion: str = ""
    statistic: str = ""
    search: str = ""
    ranking: tuple[Ranked, ...] = ()
    trace: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fraction(self) -> bool:
        """Whether scores are shares of one, to be shown in percent and points."""
        scores = [s for s in (self.float_score, self.reference, self.score) if s is not None]
        return any(word in self.metric for word in FRACTIONS) and all(0 <= s <= 1 for s in scores)

    @property
    def chosen(self) -> int:
        """How many ranked layers are at low precision."""
        return sum(r.chosen for r in self.ranking)


# ------------------------------------------------------------------------------------------------------------- meta


def number(x: Any) -> float | None:
    """`x` as a float if it is a finite number, else None."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return None
    return float(x) if math.isfinite(x) else None


def count(x: Any) -> int | None:
    """`x` as a whole number, else None."""
    value = number(x)
    return None if value is None else round(value)


def mapping(x: Any) -> Mapping[str, Any]:
    return x if isinstance(x, Mapping) else {}


def listed(x: Any) -> list[Any]:
    return list(x) if isinstance(x, list | tuple) else []


def words(x: Any, otherwise: str = "") -> str:
    return x if isinstance(x, str) and x else otherwise


def result(meta: Mapping[str, Any]) -> Result:
    """The outcome of the search as the file tells it; a file without one gives an empty result."""
    said = mapping(meta.get("result"))
    goal = said.get("goal_met")
    pairs = [(count(p[0]), number(p[1])) for p in listed(said.get("trace")) if isinstance(p, list | tuple) and len(p) == 2]
    return Result(
        goal_met=goal if isinstance(goal, bool) else None,
        metric=words(said.get("metric"), "score"),
        float_score=number(said.get("float")),
        reference=number(said.get("reference")),
        score=number(said.get("score")),
        max_drop=number(said.get("max_drop")),
        evaluations=count(said.get("evaluations")),
        seconds={str(k): s for k, v in mapping(said.get("seconds")).items() if (s := number(v)) is not None},
        low=words(said.get("low"), "low precision"),
        high=words(said.get("high"), "high precision"),
        criterion=plain(words(said.get("criterion"))),
        statistic=plain(words(said.get("statistic"))),
        search=plain(words(said.get("search"))),
        ranking=tuple(ranked(mapping(r)) for r in listed(said.get("ranking"))),
        trace=tuple((k, loss) for k, loss in pairs if k is not None and loss is not None),
        notes=tuple(words(n) for n in listed(said.get("notes")) if words(n)),
    )


def plain(name: str) -> str:
    """The name of an option as words.

    >>> plain("weight_difference")
    'weight difference'
    """
    return name.replace("_", " ")


def ranked(row: Mapping[str, Any]) -> Ranked:
    return Ranked(
        short(words(row.get("layer"), "?")), number(row.get("value")), row.get("chosen") is True, words(row.get("note"))
    )


def widths(meta: Mapping[str, Any]) -> list[Width]:
    """One row per width the file can run at, widest first."""
    rows = [mapping(r) for r in listed(meta.get("widths"))]
    found = [(count(r.get("bits")), r) for r in rows]
    out = [Width(bits, number(r.get("score")), count(r.get("bytes"))) for bits, r in found if bits is not None]
    return sorted(out, key=lambda w: -w.bits)


# ----------------------------------------------------------------------------------------------------------- layers


def short(name: str) -> str:
    """What a weight is called on the page: its layer."""
    return name.removesuffix(".weight")


def layers(graph: Graph, ranking: Iterable[Ranked] = (), stored: Mapping[str, int] | None = None) -> list[Layer]:
    """Every weight in network order; `stored` has the bytes of those whose codes are in a file."""
    sums = accumulators(graph)
    places = {r.name: r for r in ranking}
    found = [
        layer(name, node, graph.constants[name], sums.get(node.name), places.get(short(name))) for name, node in graph.weights()
    ]
    sizes = [(stored or {}).get(name, row.nbytes) for (name, _), row in zip(graph.weights(), found, strict=True)]
    return [replace(row, nbytes=nbytes) for row, nbytes in zip(found, sizes, strict=True)]


def layer(name: str, node: Node, weight: Any, sum_bits: int | None, place: Ranked | None) -> Layer:
    """The row of one weight."""
    coded = isinstance(weight, QTensor)
    elements = int(np.prod(weight.shape, dtype=np.int64))
    remarks = [place.note if place else "", f"sums need {sum_bits} bits, at most 32 are safe" if (sum_bits or 0) > 32 else ""]
    return Layer(
        name=short(name),
        op=node.op,
        shape=tuple(weight.shape),
        format=str(weight.format) if coded else "float",
        bits=cost_of(weight.format) if coded else 8 * weight.dtype.itemsize,
        elements=elements,
        nbytes=weight.nbytes,
        arithmetic="float" if sum_bits is None else "integer",
        note="; ".join(r for r in remarks if r),
        chosen=place is not None and place.chosen,
        levels=levels(weight) if coded else None,
    )


def average_bits(rows: Iterable[Layer]) -> float:
    """Bits per weight, over all weights (float ones count what they take)."""
    rows = list(rows)
    return sum(r.bits * r.elements for r in rows) / max(sum(r.elements for r in rows), 1)


# ----------------------------------------------------------------------------------------------------------- levels


def grid(encoding: Encoding) -> np.ndarray:
    """Every integer that a code of this encoding can stand for, rising; only the two ends of a grid too fine to list.

    >>> from bitladder.formats import Nested
    >>> grid(Encoding(Nested(2), {"range": np.ones(1)}))
    array([-3, -1,  1,  3])
    """
    low, high = encoding.format.span()
    few = high - low < MOST_LEVELS or width_of(encoding.format) > 1
    codes = np.arange(low, high + 1) if few else np.array([low, high])
    first = {k: np.ravel(v)[:1].astype(np.float32) if k in SPREAD else v for k, v in encoding.params.items()}
    return np.unique(np.asarray(encoding.format.integers(codes.astype(np.float32).reshape(1, -1), first)).astype(np.int64))


def levels(weight: QTensor) -> Levels:
    """The histogram of a weight on its grid."""
    values, possible = weight.integers().astype(np.int64).ravel(), grid(weight.encoding)
    low, high = int(possible[0]), int(possible[-1])
    listed = np.diff(weight.format.span())[0] < MOST_LEVELS
    pitch = max(int(np.gcd.reduce(np.diff(possible))), 1) if listed else 1
    pitch *= math.ceil(((high - low) // pitch + 1) / BINS)
    bins = np.clip((values - low) // pitch, 0, (high - low) // pitch)
    steps = weight.step()
    size = max(values.size, 1)
    return Levels(
        first=low,
        pitch=pitch,
        counts=np.bincount(bins, minlength=(high - low) // pitch + 1),
        low_end=float((values == low).sum() / size),
        high_end=float((values == high).sum() / size),
        step=(float(steps.min()), float(steps.max())),
    )
