"""One quantization under way: the networks of plans, what is told of a search, the finished model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitladder.assign.classes import floors, heads
from bitladder.assign.criteria import Order
from bitladder.assign.score import runner
from bitladder.assign.search import SLACK, Choice
from bitladder.formats import Format, Nested
from bitladder.goal import Goal
from bitladder.ir.graph import Graph
from bitladder.model import Model, by_plan
from bitladder.ptq.workbench import Batches, Workbench

Progress = Callable[[str, int, int], None]  # stage, done, of how many (0 if unknown)
Score = Callable[[Callable[..., Any]], float]
Formats = dict[str, Format]

MANY_CLASSES = 16  # a classifier of more classes keeps at least the bits that their number asks for (S6)
END_BITS = 6  # nested weights of the first and the last layer run on at least so many planes, unless a plan says fewer,
LEAST_BITS = 2  # and all others on so many: a sign alone, untrained, tells too little,
FEW = 5  # in networks of at least so many weights
SEARCH_TIME = 0.5  # of the time that is left, that a search may take; rounding wants the rest


@dataclass(frozen=True)
class Ranking:
    """Layers in a criterion's order, with its values, and why some stand apart."""

    values: Mapping[str, float]
    order: Order
    why: Mapping[str, str]

    def rows(self, names: Sequence[str], chosen: Sequence[str]) -> list[dict[str, Any]]:
        """A row a layer, ranked ones first."""
        ordered = [*self.order.ranked, *self.order.silent, *self.order.skipped]
        return [
            {"layer": n, "value": self.values.get(n), "chosen": n in chosen, "note": self.why.get(n, "")}
            for n in (*ordered, *(n for n in names if n not in ordered))
        ]


@dataclass(frozen=True)
class Outcome:
    """What a search found: the bits of every layer that is not at its widest, and how it came about."""

    lowered: Mapping[str, int] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """A network on the workbench, the formats of its weights at their widest, and a goal.

    `raw` is the network as it came, batch norm and all, to learn on; its weights have the names of the workbench's.
    """

    bench: Workbench
    raw: Graph
    formats: Formats
    goal: Goal
    batches: Batches
    score: Score | None
    tell: Progress
    notes: list[str] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.ends():
            fmt = self.formats[name]
            self.formats[name] = at_an_end(fmt)

    # ------------------------------------------------------------------------------------------------- networks

    def ends(self) -> tuple[str, ...]:
        """The first and the last weight of a network that has enough others."""
        names = tuple(self.formats)
        return (names[0], names[-1]) if len(names) >= FEW else ()

    def network(self, lowered: Mapping[str, int], widths: tuple[int, ...] = ()) -> Graph:
        """The network with some layers at fewer bits: narrower formats, or, with `keep`, fewer planes of the same codes."""
        bits, least = self.bits(lowered), self.least(lowered)
        if self.goal.keep:
            return self.bench.network(self.formats, bits=None if widths else bits, least=least, widths=widths)
        return self.bench.network(self.narrowed(lowered), least=least, widths=widths)

    def finished(self, outcome: Outcome, formats: Formats, widths: tuple[int, ...]) -> tuple[Graph, dict[str, Any]]:
        """The network that comes out, rounded as well as the workbench can, and what is to be told of it.

        A search scored networks that were rounded faster; should this one miss the goal, it is that one.
        """
        lowered, said = outcome.lowered, dict(outcome.result)
        graph = self.bench.finished(formats, least=self.least(lowered), widths=widths, progress=self.tell)
        if not self.bench.passes or "score" not in said or self.bench.clock.over():
            return graph, said
        goal, score = self.goal, self.scored(graph)
        if goal.max_drop is not None and said["goal_met"] and said["float"] - score > goal.max_drop + SLACK:
            return self.network(lowered, widths), said
        return graph, said | {"score": score}

    def least(self, lowered: Mapping[str, int]) -> dict[str, int]:
        """The fewest planes that nested weights run on, of the first and the last layer and of the others."""
        bits, ends = self.bits(lowered), self.ends()
        nested = [name for name, fmt in self.formats.items() if ends and isinstance(fmt, Nested)]
        return {n: min(END_BITS if n in ends else LEAST_BITS, bits[n]) for n in nested}

    def narrowed(self, lowered: Mapping[str, int]) -> Formats:
        """Every layer's format at its bits."""
        return {name: at_bits(fmt, lowered.get(name, fmt.bits)) for name, fmt in self.formats.items()}

    def bits(self, lowered: Mapping[str, int]) -> dict[str, int]:
        """Every layer's width."""
        return {name: lowered.get(name, fmt.bits) for name, fmt in self.formats.items()}

    def scored(self, graph: Graph) -> float:
        """The score of one network; anything but a finite number is an error."""
        assert self.score is not None
        value = float(self.score(runner(graph)))
        if not np.isfinite(value):
            raise ValueError(f"quantize: score must return a finite number, got {value}; check the score function")
        return value

    def told(self, found: Choice | None, ranking: Ranking | None, met: bool) -> dict[str, Any]:
        """What a report says of a search."""
        goal, said = self.goal, {"goal_met": bool(met), "notes": self.notes}
        for key in ("metric", "samples"):
            if hasattr(self.score, key):
                said[key] = getattr(self.score, key)
        if found is None or ranking is None:
            return said
        searched: dict[str, Any] = {"max_drop": goal.max_drop, "budget": goal.budget}
        searched |= {"criterion": goal.criterion, "search": goal.search}
        widest = max(self.formats.values(), key=lambda f: f.bits)
        searched |= {
            "low": str(at_bits(widest, goal.low)),
            "high": str(widest),
            "evaluations": len(found.trace),  # those of a journal too: a resumed run writes the same file
            "trace": [[len(t.names), t.loss] for t in found.trace],
        }
        self.notes += found.notes
        if goal.criterion == "weight_difference":
            searched |= {"statistic": goal.statistic, "normalize": goal.normalize, "start": goal.start, "cycles": goal.cycles}
        return said | searched | {"ranking": ranking.rows(tuple(self.formats), found.chosen)}

    def floors(self) -> dict[str, int]:
        """The fewest bits of each classifier, by its number of classes (S6)."""
        return floors(
            heads(self.bench.plain), above=MANY_CLASSES, mode=self.goal.head_rule, table=self.raw.meta.get("head_table")
        )

    def fingerprint(self) -> str:
        """What losses of this goal depend on, as a hash."""
        return hashlib.sha256(f"{self.about()}{self.goal.low}{self.goal.keep}".encode()).hexdigest()

    def about(self) -> str:
        """What losses of any goal depend on, as a hash: weights, activation encodings, formats, samples, rounding."""
        h = hashlib.sha256()
        for name, c in sorted(self.bench.plain.constants.items()):
            h.update(name.encode() + (c.tobytes() if isinstance(c, np.ndarray) else b""))
        for name, e in sorted(self.bench.activations.items()):
            h.update(f"{name}{e.format}".encode() + b"".join(np.asarray(p).tobytes() for p in e.params.values()))
        h.update(repr(sorted((n, str(f)) for n, f in self.formats.items())).encode())
        h.update(b"".join(a.tobytes() for a in self.bench.samples.values()))
        h.update(repr(self.bench.grams is None).encode())
        return h.hexdigest()

    # ---------------------------------------------------------------------------------------------------- result

    def model(self, outcome: Outcome) -> Model:
        """The finished network, with what was found about it in its meta."""
        formats = self.formats if self.goal.keep else self.narrowed(outcome.lowered)
        nested = [f.bits for f in formats.values() if isinstance(f, Nested)]
        widths = tuple(range(2, max(nested) + 1)) if nested else ()
        self.tell("correct biases", 0, 0)
        graph, result = self.finished(outcome, formats, widths)
        plan = {n: str(f) for n, f in self.narrowed(outcome.lowered).items()}
        meta = {**graph.meta, "plan": plan, "result": result}
        if self.goal.keep:
            meta["default_bits"] = {n: b for n, b in self.bits(outcome.lowered).items() if isinstance(self.formats[n], Nested)}
        graph = graph.with_(meta=meta)
        return by_plan(graph.with_(meta={**meta, "widths": [self.row(graph, b) for b in reversed(widths)]}))

    def row(self, graph: Graph, bits: int) -> dict[str, Any]:
        """One line of the table of widths."""
        self.tell("widths", bits, 0)
        narrow = graph.at(bits)
        scored = self.score is not None and not self.bench.clock.over()
        return {"bits": bits, "bytes": Model(narrow).nbytes, "score": self.scored(narrow) if scored else None}


def at_an_end(fmt: Format) -> Format:
    """A format as it suits the first and the last weight: nested ones are fitted for no fewer planes than run."""
    if not isinstance(fmt, Nested):
        return fmt
    return replace(fmt, matter={b: w for b, w in fmt.matter.items() if b > END_BITS} | {END_BITS: 8.0})


def at_bits(fmt: Format, bits: int) -> Format:
    """The same format at another width, where it has one."""
    change = getattr(fmt, "with_bits", None)
    return fmt if change is None or bits >= fmt.bits else change(bits)
