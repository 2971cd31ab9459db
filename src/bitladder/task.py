"""One quantization under way: the networks of plans, the ranking of layers, the search for a plan, the finished model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.assign.budget import MILLISECONDS, target
from bitladder.assign.classes import MODES, floors, heads, searchable
from bitladder.assign.criteria import CRITERIA, SEVERAL, Criterion, Order, averaged, low_steps, parts
from bitladder.assign.edge import edge, meet
from bitladder.assign.journal import Journal
from bitladder.assign.score import divergence, outputs_of, runner
from bitladder.assign.search import SEARCHES, SLACK, Choice, also
from bitladder.assign.solve import SOLVERS
from bitladder.assign.times import NATIVE, TIMES
from bitladder.errors import require
from bitladder.formats import Format, Nested
from bitladder.ir.graph import Graph
from bitladder.model import Model, by_plan, packed_bytes
from bitladder.ptq.clock import OutOfTime
from bitladder.ptq.rate import coded
from bitladder.ptq.workbench import Batches, Workbench
from bitladder.stats.differences import NORMALIZATIONS, STATISTICS

Progress = Callable[[str, int, int], None]  # stage, done, of how many (0 if unknown)
Score = Callable[[Callable[..., Any]], float]
Formats = dict[str, Format]

LEVELS = (8, 4, 3, 2)  # the widths that a budget steps down through
MANY_CLASSES = 16  # a classifier of more classes keeps at least the bits that their number asks for (S6)
SAID = 352  # about how many bytes of a file say how it was made
END_BITS = 6  # nested weights of the first and the last layer run on at least so many planes, unless a plan says fewer,
LEAST_BITS = 2  # and all others on so many: a sign alone, untrained, tells too little,
FEW = 5  # in networks of at least so many weights
SEARCH_TIME = 0.5  # of the time that is left, that a search may take; rounding wants the rest


@dataclass(frozen=True)
class Goal:
    """What a search is asked for, and how it goes about it."""

    criterion: str = "weight_difference"
    search: str = "bisection"
    statistic: str = "mean_square"
    normalize: str = "none"
    start: str = "float"
    cycles: int = 100
    low: int = 4
    count: int | None = None
    skip_smallest: bool = False
    accept_at_most: int = 0
    head_rule: str = "log2"
    max_drop: float | None = None
    budget: str | None = None
    seed: int = 0
    keep: int | None = None
    work: Path | None = None
    table: Path | None = None
    levels: str | None = None
    times: str = NATIVE

    @property
    def by_table(self) -> bool:
        """Whether a sensitivity table finds the plan."""
        return self.table is not None or (self.budget is not None and target(self.budget)[0] == MILLISECONDS)

    def __post_init__(self) -> None:
        words: dict[str, Mapping[str, Any]] = {
            "search": SEARCHES | SOLVERS,
            "statistic": STATISTICS,
            "normalize": NORMALIZATIONS,
            "head_rule": MODES,
            "times": TIMES,
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ValueError(f"quantize: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        parts(self.criterion)
        for name, least in {"low": 1, "cycles": 1, "keep": 2, "count": 0, "accept_at_most": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"quantize: {name} must be at least {least}, got {value}")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"quantize: max_drop must be a fraction in [0, 1), got {self.max_drop}; one point is 0.01")
        if self.budget is not None:
            target(self.budget)
        asks = {"search": self.search in SOLVERS, "levels": self.levels is not None, "times": self.times != NATIVE}
        for name, asked in asks.items():
            if asked and not self.by_table:
                raise ValueError(f"quantize: {name} {getattr(self, name)!r} is for sensitivity tables; name one with table")
        if self.times != NATIVE:
            require(self.times, "onnx", f"quantize: times {self.times}")
        if self.search == "budget" and self.budget is None:
            raise ValueError("quantize: search budget needs a budget such as 0.5MB or avg_bits=4; give one")
        if self.search == "count" and self.count is None:
            raise ValueError("quantize: search count needs the number of layers; give count")


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

    # ------------------------------------------------------------------------------------------------- searching

    def outcome(self) -> Outcome:
        """What the goal asks for: a search by score, so many layers, a budget, or nothing."""
        if self.bench.rate is not None:
            for word in ("count", "keep"):
                if getattr(self.goal, word) is not None:
                    raise ValueError(f"quantize: rounding for rate takes a budget or a max_drop, got a {word}; leave it out")
            return self.by_rate()
        if self.goal.budget is not None:
            return self.by_budget()
        if self.goal.count is not None:
            return self.by_count()
        if self.score is not None and self.goal.max_drop is not None:
            return self.by_score(self.goal.max_drop)
        return Outcome({}, self.told(None, None, True))

    def by_score(self, allowed: float) -> Outcome:
        """As many layers at `low` bits as the allowed drop permits, those first that the criterion ranks lowest."""
        goal, clock, late = self.goal, self.bench.clock.share(SEARCH_TIME), list[int]()
        plain, reference = self.scored(self.bench.plain), self.scored(self.network({}))
        about = hashlib.sha256(f"{self.fingerprint()}{plain}{reference}".encode()).hexdigest()
        memo: MutableMapping[str, float] = {} if goal.work is None else Journal(goal.work / "search.journal", about)

        memo = memo if clock.end == math.inf else dict(memo)  # what time did not allow is no loss to remember

        def loss(tried: Sequence[str] | Mapping[str, int]) -> float:
            if clock.over():
                late.append(1)
                return math.inf
            self.tell("search", len(memo) + 1, 0)
            return plain - self.scored(self.network(tried if isinstance(tried, Mapping) else dict.fromkeys(tried, goal.low)))

        def measured(names: Sequence[str]) -> float:
            if clock.over():
                raise OutOfTime
            return loss(names)

        ranking = self.ranking(measured)
        found = SEARCHES[goal.search].find(
            ranking.order.ranked, loss, allowed, memo=memo, samples=getattr(self.score, "samples", None)
        )
        if not found.plan:
            found = also(found, ranking.order.silent, loss, allowed, memo=memo)
        lowered = dict(found.plan) or dict.fromkeys(found.chosen, goal.low)
        score = plain - found.loss if found.chosen else reference
        if plain - reference > allowed:
            self.notes.append(
                f"with every layer at its widest the network already loses {plain - reference:.4f}, more than allowed"
            )
        if late:
            found = replace(found, notes=tuple(note for note in found.notes if "not numbers" not in note))
            self.notes.append(f"search: the time was over; {len(late)} sets of layers were not scored and stay wide")
        met = plain - score <= allowed + 1e-9
        return Outcome(lowered, self.told(found, ranking, met) | {"float": plain, "reference": reference, "score": score})

    def by_count(self) -> Outcome:
        """The layers that the criterion ranks lowest, as many as told."""
        ranking = self.ranking(self.measured_loss)
        count = min(int(self.goal.count or 0), len(ranking.order.ranked))
        found = SEARCHES["count"].find(ranking.order.ranked, count)
        return Outcome(dict.fromkeys(found.chosen, self.goal.low), self.told(found, ranking, True))

    def by_budget(self) -> Outcome:
        """Layers stepped down in the order of the criterion, level by level, until the budget is met."""
        what, limit = target(str(self.goal.budget))
        ranking = self.ranking(self.measured_loss)
        sizes = {n: int(np.prod(self.bench.plain.constants[n].shape)) for n in self.formats}  # type: ignore[union-attr]

        def cost(plan: Mapping[str, int]) -> float:
            if what == "bytes":
                return packed_bytes(self.bench.plain, self.narrowed(plan), self.bench.activations)
            return sum(b * sizes[n] for n, b in self.bits(plan).items()) / sum(sizes.values())

        levels = [b for b in LEVELS if b <= max(f.bits for f in self.formats.values())]
        found = SEARCHES["budget"].find(ranking.order.ranked, cost, limit, levels, floors=self.floors())
        lowered = {n: b for n, b in found.plan.items() if b < self.formats[n].bits}
        self.notes.append(f"{what} {cost(lowered):.6g}, {limit:g} allowed")
        return Outcome(lowered, self.told(found, ranking, found.met))

    def by_rate(self) -> Outcome:
        """The divergence that meets a budget of coded bytes or an allowed drop, else the usual one."""
        goal, benches, said = self.goal, dict[float, Workbench](), dict[str, Any]()

        def network(divergence: float) -> Graph:
            if benches and divergence not in benches and self.bench.clock.over():
                raise OutOfTime
            self.tell("search", len(benches) + 1, 0)
            self.bench = benches.setdefault(divergence, self.bench.at_divergence(divergence))
            made = self.network({})
            return made.with_(meta={**made.meta, "plan": {n: str(f) for n, f in self.formats.items()}})

        assert self.bench.rate is not None
        divergence, weights, met = self.bench.rate.divergence, self.bench.rate.weights, True
        if goal.budget is not None:
            what, limit = target(goal.budget)
            slope = 0.5 if what == "avg_bits" else weights / 16  # half a bit a weight
            spare = SAID if what == "bytes" else 0
            sizes: dict[float, float] = {}

            def size_of(d: float) -> float:
                return sizes.setdefault(d, coded(network(d), what))

            try:
                found = meet(size_of, limit - spare, divergence, slope)
            except OutOfTime:
                found = min((d for d, size in sizes.items() if size <= limit - spare), default=None)
                self.notes.append("search: the time was over; what was found until then is the result")
            divergence, met = found or max(benches), found is not None
        elif self.score is not None and goal.max_drop is not None:
            said["float"] = plain = self.scored(self.bench.plain)
            allowed = goal.max_drop + SLACK
            passed: dict[float, bool] = {}

            def passes(d: float) -> bool:
                return passed.setdefault(d, plain - self.scored(network(d)) <= allowed)

            try:
                most, least = edge(passes, divergence)
            except OutOfTime:
                most, least = max((d for d, good in passed.items() if good), default=None), min(passed, default=None)
                self.notes.append("search: the time was over; what was found until then is the result")
            divergence, met = most or least or divergence, most is not None
        graph = network(divergence)
        size, bits = coded(graph, "bytes"), coded(graph, "avg_bits")
        self.notes.append(f"{size:,.0f} bytes once coded, {bits:.3g} bits a weight")
        said |= {"score": self.scored(graph)} if self.score else {}
        said |= {"rounding": self.bench.rate.name, "divergence": divergence, "evaluations": len(benches), "coded": size}
        return Outcome({}, self.told(None, None, met) | {"max_drop": goal.max_drop, "budget": goal.budget} | said)

    def measured_loss(self, names: Sequence[str]) -> float:
        """What layers lose at low bits, for criteria that measure."""
        if self.score is None:
            raise ValueError(
                f"quantize: criterion {self.goal.criterion!r} measures accuracy; give evaluation data or another criterion"
            )
        if self.bench.clock.over():
            raise OutOfTime
        if "reference" not in self.known:
            self.known["reference"] = self.scored(self.network({}))
        return self.known["reference"] - self.scored(self.network(dict.fromkeys(names, self.goal.low)))

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

    # --------------------------------------------------------------------------------------------------- ranking

    def floors(self) -> dict[str, int]:
        """The fewest bits of each classifier, by its number of classes (S6)."""
        return floors(
            heads(self.bench.plain), above=MANY_CLASSES, mode=self.goal.head_rule, table=self.raw.meta.get("head_table")
        )

    def ranking(self, loss: Callable[[Sequence[str]], float]) -> Ranking:
        """The layers in the order of the criterion; heads that need their bits are set aside."""
        goal = self.goal
        free = searchable(tuple(self.formats), self.floors(), goal.low)
        low = at_bits(next(iter(self.formats.values())), goal.low)
        given: dict[str, Any] = {"graph": self.bench.plain, "names": free, "loss": loss, "seed": goal.seed, "low": low}
        try:
            criterion, values = self.values(given | {"samples": self.bench.samples, "apart": self.apart})
        except OutOfTime:
            self.notes.append(f"no time for the criterion {goal.criterion}; layers are in the order of their weights' ranges")
            criterion = CRITERIA["range"]
            values = criterion.values(*(given[n] for n in criterion.needs))
        found = criterion.order({n: values[n] for n in free if n in values}, skip_smallest=goal.skip_smallest)
        why = dict.fromkeys(found.silent, "did not learn") | dict.fromkeys(found.skipped, "the smallest value, skipped")
        held = {n: "classifier, kept wide by its number of classes" for n in self.formats if n not in free}
        return Ranking(values, found, why | held)

    def values(self, given: dict[str, Any]) -> tuple[Criterion, Mapping[str, float]]:
        """What the criterion, or several together, say of each layer. given: what they may need, less what takes time."""
        goal, named = self.goal, parts(self.goal.criterion)
        needs = {need for name, _ in named for need in CRITERIA[name].needs}
        options: dict[str, Any] = {}
        if "codes" in needs:
            lowered = self.narrowed(dict.fromkeys(given["names"], goal.low))
            given["codes"] = {n: c for n, c in self.bench.baked(lowered).constants.items() if n in given["names"]}
        if "learned" in needs:
            given["learned"] = self.learned()
            steps = low_steps(self.bench.plain, given["low"]) if goal.normalize == "step" else None
            options = {"statistic": goal.statistic, "normalize": goal.normalize, "steps": steps}

        def values_of(name: str) -> Mapping[str, float]:
            criterion = CRITERIA[name]
            return criterion.values(*(given[n] for n in criterion.needs), **(options if "learned" in criterion.needs else {}))

        if len(named) == 1:
            return CRITERIA[named[0][0]], values_of(named[0][0])
        return SEVERAL, averaged([(values_of(name), weight) for name, weight in named])

    def apart(self, names: Sequence[str]) -> float:
        """How far layers at low bits move the outputs from the float network's, on the samples that biases are corrected on."""
        graph = self.network(dict.fromkeys(names, self.goal.low))
        return float(divergence(outputs_of(self.bench.plain, self.bench.samples), outputs_of(graph, self.bench.samples)).mean())

    def learned(self) -> Any:
        """How far each weight moves in a few cycles of learning (S2)."""
        require("torch", "torch", "quantize: criterion weight_difference")
        from bitladder.convert.to_torch import to_torch
        from bitladder.train.learn import learn

        module = to_torch(self.raw)
        samples, labels = self.batches.some(self.batches.keep)
        clock = self.bench.clock.share(SEARCH_TIME)

        def tell(done: int, total: int, word: str) -> None:
            if clock.over():
                raise OutOfTime
            self.tell("learn", done, total)

        if labels is None:
            self.notes.append("the calibration data has no labels, so the network learned from its own answers")
        found = learn(
            module,
            samples,
            labels,
            weights={n: p for n, p in module.weights().items() if n in self.formats},
            cycles=self.goal.cycles,
            seed=self.goal.seed,
            start=self.goal.start,
            work=self.goal.work,
            progress=tell,
        )
        self.notes += found.notes
        return found

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
