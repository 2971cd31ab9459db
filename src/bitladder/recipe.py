"""The recipe on one page: import, observe, learn, rank, search, bake, correct; a `Model` comes out.

`quantize` is what most users call. Each step of it is one room of the house, and each can be called alone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.assign.classes import floors, heads, searchable
from bitladder.assign.criteria import CRITERIA, Order
from bitladder.assign.journal import Journal
from bitladder.assign.search import SEARCHES, Choice, also
from bitladder.errors import require
from bitladder.formats import Format, Nested, QTensor
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.model import Model, packed_bytes
from bitladder.ptq import data
from bitladder.ptq.calibrate import encodings, observe, placement
from bitladder.ptq.plan import activation_default, plan_of, resolve
from bitladder.ptq.workbench import Batches, Workbench

Progress = Callable[[str, int, int], None]  # stage, done, of how many (0 if unknown)
Score = Callable[[Callable[..., Any]], float]
Formats = dict[str, Format]


@dataclass(frozen=True)
class Effort:
    """How much work a preset does: samples that biases are corrected on, samples kept to learn from, cycles of learning."""

    correct: int
    learn: int
    cycles: int


EFFORTS = {"fast": Effort(64, 2048, 50), "balanced": Effort(256, 8192, 100), "best": Effort(512, 65536, 200)}
LEVELS = (8, 4, 3, 2)  # the widths that a budget steps down through
MANY_CLASSES = 16  # a classifier of more classes keeps at least the bits that their number asks for (S6)


@dataclass(frozen=True)
class Goal:
    """What a search is asked for, and how it goes about it."""

    criterion: str = "weight_difference"
    search: str = "bisection"
    low: int = 4
    count: int | None = None
    skip_smallest: bool = False
    max_drop: float | None = None
    budget: str | None = None
    seed: int = 0
    cycles: int = 100
    keep: int | None = None
    work: Path | None = None

    def __post_init__(self) -> None:
        for name, value, table in (("criterion", self.criterion, CRITERIA), ("search", self.search, SEARCHES)):
            if value not in table:
                raise ValueError(f"quantize: {name} must be one of {', '.join(table)}, got {value!r}")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"quantize: max_drop must be a fraction in [0, 1), got {self.max_drop}; one point is 0.01")
        if self.budget is not None:
            target(self.budget)
        if self.search == "count" and self.count is None:
            raise ValueError("quantize: search count needs the number of layers; give count")


def quantize(
    net: Any,
    calib: Any,
    *,
    plan: Any = None,
    score: Score | None = None,
    max_drop: float | None = None,
    criterion: str = "weight_difference",
    search: str = "bisection",
    budget: str | None = None,
    labels: Any = None,
    low: int = 4,
    count: int | None = None,
    skip_smallest: bool = False,
    keep: int | None = None,
    effort: str = "balanced",
    seed: int = 0,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """A `Model`: `net` with weights and activations in the formats of a plan, searched for if a goal is given.

    net: a torch module, an ExportedProgram, the path of an ONNX file, or a Graph.
    calib: an array, a dict of arrays by input name, or any iterable of batches (arrays, tensors, tuples, dicts); a tuple may
    end in labels, a dict may hold them as `y`. It is read once; only the samples that learning needs are kept.
    plan: formats by pattern, a format, or a text such as "fixed8,a=fixed8"; "nested8" unless said otherwise.
    score, max_drop: as many layers as `score(network) >= score(float network) - max_drop` allows go to `low` bits, in the
    order of `criterion`, found by `search`. count: so many layers instead. budget: "0.5MB" or "avg_bits=4" instead.
    keep: store this many planes of every nested weight and mark the plan as what runs by default.
    work: a folder for the state of long steps; the same call resumes there, with the same result.

    What was found is in `model.graph.meta["result"]`. Raises ValueError with one line for anything wrong in the arguments.
    """
    if effort not in EFFORTS:
        raise ValueError(f"quantize: effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    hard, tell = EFFORTS[effort], progress or (lambda stage, done, total: None)
    folder = None if work is None else Path(work)
    goal = Goal(criterion, search, low, count, skip_smallest, max_drop, budget, seed, hard.cycles, keep, folder)

    items = data.chunks(calib)
    first = next(items, None)
    if first is None:
        raise ValueError("quantize: the calibration data has no batch; give at least one")
    plain = imported(net, first)
    batches = Batches(plain, itertools.chain([first], items), labels, hard.learn)

    names = [name for name, _ in plain.weights()]
    wanted = plan_of(plan)
    formats = {
        name: fmt for name, fmt in ({n: Nested(keep or 8) for n in names} | resolve(wanted, names)).items() if fmt is not None
    }
    if not formats:
        raise ValueError(
            "quantize: no weight is left to quantize; the network has none, or the plan leaves all of them in float"
        )
    values = placement(plain, formats)
    seen = observe(plain, batches, values, per_channel=True, progress=tell)
    activations = encodings(
        plain, seen, dict.fromkeys(values, activation_default()) | resolve(wanted, values, activations=True)
    )
    bench = Workbench(plain, activations, batches.some(hard.correct)[0])

    task = Task(bench, formats, goal, batches, score, tell)
    outcome = task.outcome()
    return task.model(outcome)


def imported(net: Any, first: Any) -> Graph:
    """The float graph of whatever a user calls a network, simplified; `first` is a batch to export a module with."""
    if isinstance(net, Graph):
        return simplify(net)
    if isinstance(net, str | os.PathLike):
        if Path(net).suffix != ".onnx":
            raise ValueError(f"quantize: network {str(net)!r} must be an .onnx file or a torch module; export it first")
        require("onnx_ir", "onnx", "quantize")
        from bitladder.convert.from_onnx import from_onnx

        return simplify(from_onnx(net))
    torch = require("torch", "torch", "quantize")
    from bitladder.convert.from_torch import from_torch

    return simplify(from_torch(net, example(net, first, torch)))


def example(net: Any, first: Any, torch: Any) -> Any:
    """One batch as a module takes it: tensors, without labels."""
    if isinstance(first, Mapping):
        tensors = {k: torch.as_tensor(np.asarray(v)) for k, v in first.items() if k != data.LABELS}
        return next(iter(tensors.values())) if set(tensors) == {"x"} else tensors
    parts = (
        tuple(torch.as_tensor(np.asarray(p)) for p in first)
        if isinstance(first, tuple | list)
        else (torch.as_tensor(np.asarray(first)),)
    )
    return parts[: arity(net)] if len(parts) > 1 else parts


def arity(net: Any) -> int | None:
    """How many inputs a module's forward takes without defaults; None if it does not say."""
    import inspect

    forward = getattr(net, "forward", None)
    if forward is None:
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in inspect.signature(forward).parameters.values()) or None


def target(budget: str) -> tuple[str, float]:
    """What a budget limits, and to how much.

    >>> target("0.5MB"), target("avg_bits=4")
    (('bytes', 500000.0), ('avg_bits', 4.0))
    """
    units = {"MB": 1e6, "kB": 1e3, "KB": 1e3, "B": 1.0}
    try:
        if budget.startswith("avg_bits="):
            return "avg_bits", float(budget.removeprefix("avg_bits="))
        unit = next(u for u in units if budget.endswith(u))
        return "bytes", float(budget.removesuffix(unit)) * units[unit]
    except (StopIteration, ValueError):
        raise ValueError(f"quantize: budget must be written like 0.5MB, 300kB or avg_bits=4, got {budget!r}") from None


@dataclass(frozen=True)
class Outcome:
    """What a search found: the format or the width of every layer that is not at its widest, and how it came about."""

    lowered: Mapping[str, int] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """One quantization under way."""

    bench: Workbench
    formats: Formats
    goal: Goal
    batches: Batches
    score: Score | None
    tell: Progress
    scores: dict[str, float] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------- networks

    def network(self, lowered: Mapping[str, int], widths: tuple[int, ...] = ()) -> Graph:
        """The network with some layers at fewer bits: narrower formats, or, with `keep`, fewer planes of the same codes."""
        if self.goal.keep:
            return self.bench.network(self.formats, bits=self.bits(lowered), widths=widths)
        return self.bench.network(self.narrowed(lowered), widths=widths)

    def narrowed(self, lowered: Mapping[str, int]) -> Formats:
        """Every layer's format at its bits."""
        return {name: at_bits(fmt, lowered[name]) if name in lowered else fmt for name, fmt in self.formats.items()}

    def bits(self, lowered: Mapping[str, int]) -> dict[str, int]:
        """Every layer's width."""
        return {name: lowered.get(name, fmt.bits) for name, fmt in self.formats.items()}

    def scored(self, graph: Graph) -> float:
        """The score of one network; NaN is an error."""
        assert self.score is not None
        value = float(self.score(self.runner(graph)))
        if not np.isfinite(value):
            raise ValueError(f"quantize: score must return a finite number, got {value}; check the score function")
        return value

    def runner(self, graph: Graph) -> Callable[..., Any]:
        """The network as a function, on torch where it is installed (the same integers), else on the reference."""
        return Model(graph)

    # ------------------------------------------------------------------------------------------------- searching

    def outcome(self) -> Outcome:
        """What the goal asks for: a search by score, so many layers, a budget, or nothing."""
        if self.goal.budget is not None:
            return self.by_budget()
        if (self.score is not None and self.goal.max_drop is not None) or self.goal.count is not None:
            return self.by_score()
        result: dict[str, Any] = {"goal_met": True, "notes": []}
        if self.score is not None:
            result |= {"float": self.scored(self.bench.plain), "score": self.scored(self.network({}))}
        return Outcome({}, result)

    def by_score(self) -> Outcome:
        """As many layers at `low` bits as the allowed drop permits, the ones that the criterion ranks lowest first."""
        goal, notes = self.goal, list[str]()
        plain = self.scored(self.bench.plain) if self.score else 0.0
        reference = self.scored(self.network({})) if self.score else 0.0
        threshold = goal.max_drop if goal.max_drop is not None else float("inf")

        def loss(names: Sequence[str]) -> float:
            self.tell("search", len(self.scores), 0)
            key = "|".join(sorted(names))
            if key not in self.scores:
                self.scores[key] = self.scored(self.network(dict.fromkeys(names, goal.low)))
            return plain - self.scores[key]

        ranking = self.ranking(loss, notes)
        memo = None if goal.work is None else Journal(goal.work / "search.journal", self.fingerprint())
        needs = SEARCHES[goal.search].needs
        given = {"loss": loss, "threshold": threshold, "k": goal.count}
        if goal.search == "multi_level":
            given["loss"] = lambda lowered: plain - self.scored(self.network(lowered))
        if goal.count is not None and "k" not in needs:
            choice = SEARCHES["count"].find(
                ranking.ranked, min(goal.count, len(ranking.ranked)), loss if self.score else None, threshold
            )
        else:
            extra = {} if memo is None or "k" in needs else {"memo": memo}
            choice = SEARCHES[goal.search].find(ranking.ranked, *(given[n] for n in needs), **extra)
            if "loss" in needs and goal.search != "multi_level":
                choice = also(choice, ranking.silent, loss, threshold)
        lowered = dict(choice.plan) or dict.fromkeys(choice.chosen, goal.low)
        reached = self.scored(self.network(lowered)) if self.score else None
        met = choice.met and (self.score is None or goal.max_drop is None or plain - float(reached or 0) <= threshold + 1e-9)
        if self.score is not None and plain - reference > threshold:
            notes.append(f"with every layer at its widest the network already loses {plain - reference:.4f}, more than allowed")
        return Outcome(
            lowered, self.told(choice, ranking, met, notes) | {"float": plain, "reference": reference, "score": reached}
        )

    def by_budget(self) -> Outcome:
        """Layers stepped down in the order of the criterion, level by level, until the budget is met."""
        what, limit = target(str(self.goal.budget))
        notes = list[str]()
        ranking = self.ranking(self.budget_loss, notes)
        kept = {n: f.bits for n, f in self.formats.items() if n not in ranking.ranked}

        def cost(lowered: Mapping[str, int]) -> float:
            sizes = {n: int(np.prod(self.bench.plain.constants[n].shape)) for n in self.formats}
            bits = self.bits(lowered) | kept
            if what == "avg_bits":
                return sum(bits[n] * sizes[n] for n in sizes) / sum(sizes.values())
            return packed_bytes(self.bench.plain, self.narrowed(lowered), self.bench.activations)

        levels = [b for b in LEVELS if b <= max(f.bits for f in self.formats.values())]
        choice = SEARCHES["budget"].find(ranking.ranked, cost, limit, levels, floors=self.floors())
        lowered = {n: b for n, b in choice.plan.items() if b < self.formats[n].bits}
        told = self.told(choice, ranking, choice.met, [*notes, f"{what} {cost(lowered):.6g} of {limit:g} allowed"])
        if self.score is not None:
            told |= {"float": self.scored(self.bench.plain), "score": self.scored(self.network(lowered))}
        return Outcome(lowered, told)

    def budget_loss(self, names: Sequence[str]) -> float:
        """What layers lose at low bits, for criteria that measure."""
        if self.score is None:
            raise ValueError(
                f"quantize: criterion {self.goal.criterion!r} measures accuracy; give evaluation data or another criterion"
            )
        return self.scored(self.network({})) - self.scored(self.network(dict.fromkeys(names, self.goal.low)))

    def told(self, choice: Choice, ranking: Ranking, met: bool, notes: Sequence[str]) -> dict[str, Any]:
        """What a report says of a search."""
        chosen = set(choice.chosen)
        goal = self.goal
        return {
            "goal_met": bool(met),
            "max_drop": goal.max_drop,
            "budget": goal.budget,
            "criterion": goal.criterion,
            "statistic": "mean_square" if goal.criterion == "weight_difference" else "",
            "search": goal.search,
            "low": goal.low,
            "evaluations": choice.evaluations,
            "ranking": [
                {"layer": n, "value": ranking.values.get(n), "chosen": n in chosen, "note": ranking.why.get(n, "")}
                for n in ranking.all
            ],
            "trace": [[len(t.names), t.loss] for t in choice.trace],
            "notes": [*notes, *choice.notes],
        }

    # --------------------------------------------------------------------------------------------------- ranking

    def floors(self) -> dict[str, int]:
        """The fewest bits of each classifier, by its number of classes (S6)."""
        return floors(heads(self.bench.plain), above=MANY_CLASSES)

    def ranking(self, loss: Callable[[Sequence[str]], float], notes: list[str]) -> Ranking:
        """The layers in the order of the criterion, heads that need their bits set aside."""
        goal, plain = self.goal, self.bench.plain
        names = tuple(self.formats)
        free = searchable(names, self.floors(), goal.low)
        criterion = CRITERIA[goal.criterion]
        given: dict[str, Any] = {"graph": plain, "names": free, "loss": loss, "seed": goal.seed}
        given["low"] = at_bits(next(iter(self.formats.values())), goal.low)
        if "learned" in criterion.needs:
            given["learned"] = self.learned(notes)
        values = criterion.values(*(given[n] for n in criterion.needs))
        found = criterion.order({n: values[n] for n in free if n in values}, skip_smallest=goal.skip_smallest)
        why = dict.fromkeys(found.silent, "did not learn") | dict.fromkeys(found.skipped, "the smallest value, skipped")
        why |= {n: "classifier, kept wide by its number of classes" for n in names if n not in free}
        return Ranking(values, found, why, (*found.ranked, *found.silent, *found.skipped, *(n for n in names if n not in free)))

    def learned(self, notes: list[str]) -> Any:
        """How far each weight moves in a few cycles of learning (S2)."""
        require("torch", "torch", "quantize: criterion weight_difference")
        from bitladder.convert.to_torch import to_torch
        from bitladder.train.learn import learn

        module = to_torch(self.bench.plain)
        samples, labels = self.batches.some(self.batches.keep)
        if labels is None:
            notes.append("the calibration data has no labels, so the network learned from its own answers")
        got = learn(
            module,
            samples,
            labels,
            weights={n: p for n, p in module.weights().items() if n in self.formats},
            cycles=self.goal.cycles,
            seed=self.goal.seed,
            work=self.goal.work,
            progress=lambda done, total, word: self.tell("learn", done, total),
        )
        return got

    def fingerprint(self) -> str:
        """What losses depend on, as a hash: weights, activation encodings, formats, samples."""
        h = hashlib.sha256()
        for name, c in sorted(self.bench.plain.constants.items()):
            h.update(name.encode() + (c.tobytes() if isinstance(c, np.ndarray) else b""))
        for name, e in sorted(self.bench.activations.items()):
            h.update(f"{name}{e.format}".encode() + b"".join(np.asarray(p).tobytes() for p in e.params.values()))
        h.update(repr(sorted((n, str(f)) for n, f in self.formats.items())).encode())
        h.update(b"".join(a.tobytes() for a in self.bench.samples.values()))
        h.update(repr((self.goal.low, self.goal.keep)).encode())
        return h.hexdigest()

    # ---------------------------------------------------------------------------------------------------- result

    def model(self, outcome: Outcome) -> Model:
        """The finished network, with what was found about it in its meta."""
        formats = self.formats if self.goal.keep else self.narrowed(outcome.lowered)
        nested = [f.bits for f in formats.values() if isinstance(f, Nested)]
        widths = tuple(range(2, max(nested) + 1)) if nested else ()
        self.tell("bake", 0, 0)
        graph = self.bench.network(formats, widths=widths)
        meta = {
            **graph.meta,
            "plan": {n: str(f) for n, f in self.narrowed(outcome.lowered).items()},
            "result": dict(outcome.result),
        }
        if self.goal.keep:
            meta["default_bits"] = {n: b for n, b in self.bits(outcome.lowered).items() if isinstance(self.formats[n], Nested)}
        graph = graph.with_(meta=meta)
        rows = [self.row(graph, b) for b in sorted({*widths, *([max(nested)] if nested else [])}, reverse=True)]
        return Model(graph.with_(meta={**meta, "widths": rows}))

    def row(self, graph: Graph, bits: int) -> dict[str, Any]:
        """One line of the table of widths."""
        narrow = graph.at(bits)
        self.tell("widths", bits, 0)
        return {"bits": bits, "bytes": Model(narrow).nbytes, "score": self.scored(narrow) if self.score else None}


@dataclass(frozen=True)
class Ranking:
    """Layers in a criterion's order, with its values, and why some stand apart."""

    values: Mapping[str, float]
    order: Order
    why: Mapping[str, str]
    all: tuple[str, ...]

    @property
    def ranked(self) -> tuple[str, ...]:
        return self.order.ranked

    @property
    def silent(self) -> tuple[str, ...]:
        return self.order.silent


def at_bits(fmt: Format, bits: int) -> Format:
    """The same format at another width, where it has one."""
    change = getattr(fmt, "with_bits", None)
    return fmt if change is None or bits >= fmt.bits else change(bits)
