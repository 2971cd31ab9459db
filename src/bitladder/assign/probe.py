"""Measuring a sensitivity table: codes of every way, their bytes, their milliseconds, and what each loses.

Steps go to a journal as they are done, milliseconds first, so that a run that was interrupted goes on to the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from bitladder import file
from bitladder.assign import gradient
from bitladder.assign.score import divergence, outputs_of
from bitladder.assign.sensitivity import Layer, Scores, Table, Way
from bitladder.assign.solve import plans
from bitladder.assign.times import NATIVE, TIMES, where
from bitladder.errors import require
from bitladder.formats import Format, QTensor
from bitladder.ir.graph import Graph
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.workbench import Workbench

Ways = Mapping[str, Sequence[Format]]  # formats by weight, the widest first
Loss = tuple[float, float, float]  # mean, and the ends of its interval
Memo = MutableMapping[str, float]

RESAMPLES = 1000  # of the samples, for intervals
ENDS = (0.025, 0.975)
TOP = 6  # layers whose pairs are looked at: those that lose most
MIDDLE = 3  # bits at which pairs are
PAIRED = 0.2  # pairs that make each other worse or better by less than this share are left out
CURVE = 8  # plans that are scored
CODER = "best"
SAID = 512  # about how many bytes of a file say how it was made


@dataclass(frozen=True)
class Probe:
    """A network on the workbench, the ways to look at, and samples to look on.

    network: the finished network of a plan, biases corrected, as it is run. work: what was measured already. times: whose
    milliseconds.
    """

    bench: Workbench
    ways: Ways
    network: Callable[[Mapping[str, Format]], Graph]
    samples: Mapping[str, np.ndarray]
    seed: int = 0
    work: Memo = field(default_factory=dict)
    tell: Progress = lambda stage, done, total: None
    times: str = NATIVE

    # -------------------------------------------------------------------------------------------------- plans

    def depth(self) -> int:
        """The most ways that a layer has."""
        return max(map(len, self.ways.values()))

    def uniform(self, k: int) -> dict[str, Format]:
        """Every layer in its k-th way, or in its last."""
        return {name: each[min(k, len(each) - 1)] for name, each in self.ways.items()}

    def codes(self) -> dict[str, list[QTensor]]:
        """The codes of every way, rounded as the run rounds them."""
        for k in range(self.depth()):
            self.tell("round", k + 1, self.depth())
            self.bench.baked(self.uniform(k))
        return {name: [self.bench.memo[name, str(fmt)] for fmt in each] for name, each in self.ways.items()}

    # -------------------------------------------------------------------------------------------------- costs

    def bytes(self, widest: Graph) -> tuple[dict[str, list[int]], int]:
        """Coded bytes of every way, and of all else in the file of `widest`, the finished network in its first ways."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.ways}
        for k in range(self.depth()):
            self.tell("code", k + 1, self.depth())
            formats = self.uniform(k)
            stored = file.overview(file.to_bytes(self.bench.baked(formats), CODER)).stored
            for name, fmt in formats.items():
                found[name][str(fmt)] = stored[name]
        rest = len(file.to_bytes(widest, CODER)) - sum(found[name][str(each[0])] for name, each in self.ways.items())
        return {name: [found[name][str(fmt)] for fmt in each] for name, each in self.ways.items()}, rest + SAID

    def milliseconds(self) -> tuple[dict[str, list[float]], float] | None:
        """How long one sample takes: every layer in every way, and all else; None where that cannot be told of each layer."""
        source = "ms" if self.times == NATIVE else f"{self.times} ms"
        keys = {(name, k): f"{source}|{name}|{k}" for name, each in self.ways.items() for k in range(len(each))}
        if not all(key in self.work for key in (*keys.values(), source)):
            graphs = {k: self.bench.baked(self.uniform(k)) for k in range(self.depth())}
            example = {name: a[:1] for name, a in self.samples.items()}
            layers, rest = TIMES[self.times](graphs, example, self.seed, self.tell)
            if any(k not in layers.get(name, {}) for name, k in keys):
                return None
            self.work.update({key: layers[name][k] for (name, k), key in keys.items()} | {source: rest})
        return {n: [self.work[keys[n, k]] for k in range(len(each))] for n, each in self.ways.items()}, self.work[source]

    # ------------------------------------------------------------------------------------------------- losses

    def by_gradient(self) -> tuple[dict[str, list[Loss]], dict[tuple[str, str], float], float]:
        """What each way loses, pairs, and the loss of no layer (none is known): by gradients, and by trial where they do not
        reach."""
        found = gradient.pulls(self.bench.plain, self.codes(), [self.samples], seed=self.seed, progress=self.tell)
        draws = Resamples(self.count(), self.seed)
        losses = {name: [draws.interval(each) for each in gradient.losses(v)] for name, v in found.items()}
        missing = {name: each for name, each in self.ways.items() if name not in found}
        if missing:
            losses |= self.tried(missing)[0]
        place = {name: self.middle(name) for name in found}
        pairs = {}
        for a, b in combinations(self.top({n: losses[n] for n in found}), 2):
            one, other = found[a][place[a]], found[b][place[b]]
            low, high = np.quantile(gradient.together(one, other, draws.shares), ENDS)
            pairs[a, b] = float(gradient.together(one, other)) if low > 0 or high < 0 else 0.0
        return losses, pairs, 0.0

    def by_trial(self) -> tuple[dict[str, list[Loss]], dict[tuple[str, str], float], float]:
        """What each way loses in a network that is otherwise at its widest, measured, and pairs; and the widest's own loss."""
        self.codes()
        losses, base = self.tried(self.ways)
        place = {name: self.middle(name) for name in self.ways}
        found = list(combinations(self.top(losses), 2))
        pairs = {}
        for done, (a, b) in enumerate(found, 1):
            self.tell("measure pairs", done, len(found))
            size = 2 * float(np.sqrt(max(losses[a][place[a]][0], 0.0) * max(losses[b][place[b]][0], 0.0)))
            more, low, high = self.excess((a, self.ways[a][place[a]]), (b, self.ways[b][place[b]]))
            pairs[a, b] = float(np.clip(more / size, -1, 1)) if size > 0 and (low > 0 or high < 0) else 0.0
        return losses, pairs, base

    def tried(self, ways: Ways) -> tuple[dict[str, list[Loss]], float]:
        """What each of some ways adds to the loss of the widest network, and that."""
        losses: dict[str, list[Loss]] = {name: [(0.0, 0.0, 0.0)] for name in ways}
        changes = [(name, fmt) for name, each in ways.items() for fmt in each[1:]]
        for done, (name, fmt) in enumerate(changes, 1):
            self.tell("measure layers", done, len(changes))
            losses[name].append(self.trial({name: fmt}))
        return losses, self.trial({})[0]

    def trial(self, changed: Mapping[str, Format]) -> Loss:
        """How much farther than the widest network one is from the float network with some ways changed; of none, how far it
        is itself."""
        key = "|".join(f"{name}={fmt}" for name, fmt in sorted(changed.items())) or "widest"
        return self.kept(f"loss|{key}", lambda: self.distances(changed) - self.distances({}) if changed else self.distances({}))

    def excess(self, one: tuple[str, Format], other: tuple[str, Format]) -> Loss:
        """How much more two changes cost together than the sum of what each costs."""

        def measured() -> np.ndarray:
            single = self.alone(*one) + self.alone(*other)
            return self.distances(dict([one, other])) - single + self.distances({})

        return self.kept("pair|" + "|".join(f"{name}={fmt}" for name, fmt in (one, other)), measured)

    def alone(self, name: str, fmt: Format) -> np.ndarray:
        """How far each sample's outputs are with one way changed, measured once."""
        if (name, str(fmt)) not in self.singles:
            self.singles[name, str(fmt)] = self.distances({name: fmt})
        return self.singles[name, str(fmt)]

    def kept(self, key: str, measure: Callable[[], np.ndarray]) -> Loss:
        """A mean over samples with its interval, measured unless the journal has it."""
        keys = [f"{key}|{end}" for end in ("mean", "low", "high")]
        if not all(k in self.work for k in keys):
            self.work.update(dict(zip(keys, Resamples(self.count(), self.seed).interval(measure()), strict=True)))
        mean, low, high = (self.work[k] for k in keys)
        return mean, low, high

    def distances(self, changed: Mapping[str, Format]) -> np.ndarray:
        """How far each sample's outputs are from the float network's."""
        graph = self.network({**self.uniform(0), **changed}) if changed else self.base.base
        made = self.base.outputs(graph)
        return divergence(self.truth, made if isinstance(made, tuple) else (made,))

    @cached_property
    def singles(self) -> dict[tuple[str, str], np.ndarray]:
        """What `alone` has measured."""
        return {}

    @cached_property
    def truth(self) -> list[np.ndarray]:
        """The outputs of the float network."""
        return outputs_of(self.bench.plain, self.samples)

    @cached_property
    def base(self) -> Any:
        """The widest network, ready to run others that begin like it."""
        require("torch", "torch", "quantize: criterion divergence")
        from bitladder.convert.evaluate import Evaluator

        return Evaluator(self.network(self.uniform(0)), dict(self.samples))

    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.samples.values())))

    def middle(self, name: str) -> int:
        """The way of a layer that pairs are looked at in."""
        return min(range(len(self.ways[name])), key=lambda k: abs(self.ways[name][k].bits - MIDDLE))

    def top(self, losses: Mapping[str, Sequence[Loss]]) -> list[str]:
        """The layers that lose most there, in the order of the network."""
        most = sorted(losses, key=lambda n: -losses[n][self.middle(n)][0])[:TOP]
        return [name for name in losses if name in most]

    # -------------------------------------------------------------------------------------------------- table

    def table(self, criterion: str, about: str, widest: Graph, score: Callable[[Graph], float] | None, metric: str) -> Table:
        """The whole table. widest: the finished network in the first ways. score: of a network, higher is better."""
        took = self.milliseconds()
        losses, pairs, base = METHODS[criterion](self)
        sizes, rest = self.bytes(widest)
        layers = tuple(
            Layer(
                name,
                int(np.prod(self.bench.plain.constants[name].shape)),  # type: ignore[union-attr]
                tuple(
                    Way(str(fmt), fmt.bits, *losses[name][k], sizes[name][k], None if took is None else took[0][name][k])
                    for k, fmt in enumerate(each)
                ),
            )
            for name, each in self.ways.items()
        )
        made = Table(
            layers=layers,
            about=about,
            criterion=criterion,
            rounding="nearest" if self.bench.grams is None else "feedback",
            samples=self.count(),
            seed=self.seed,
            base=base,
            bytes=rest,
            milliseconds=None if took is None else took[1],
            pairs=tuple((a, b, share) for (a, b), share in pairs.items() if abs(share) >= PAIRED),
            where=where(self.times) if took else {},
        )
        return made if score is None else replace(made, scores=self.scores(made, score, metric))

    def scores(self, table: Table, score: Callable[[Graph], float], metric: str) -> Scores:
        """What a few plans score, from the widest down to the smallest, and the loss that the table expects of them."""
        points = []
        for done, formats in enumerate(chosen := spread(table), 1):
            self.tell("score plans", done, len(chosen))
            key = "score|" + "|".join(formats.values())
            if key not in self.work:
                self.work[key] = score(self.network({n: self.named(n, f) for n, f in formats.items()}))
            points.append((table.loss(formats), self.work[key]))
        if "score" not in self.work:
            self.work["score"] = score(self.bench.plain)
        return Scores(metric, self.work["score"], tuple(sorted(points)))

    def named(self, name: str, text: str) -> Format:
        """The way of a layer by its text."""
        return next(fmt for fmt in self.ways[name] if str(fmt) == text)


def spread(table: Table) -> list[dict[str, str]]:
    """A few plans of the front whose losses are evenly spread on a logarithmic scale."""
    problem = table.problem()
    found = list(plans(problem))
    sizes = np.log(np.maximum([problem.loss(picks) for picks in found], 1e-12))
    wanted = np.linspace(sizes[0], sizes[-1], CURVE)
    at = sorted({int(np.argmin(np.abs(sizes - size))) for size in wanted})
    return [{layer.name: layer.ways[i].format for layer, i in zip(table.layers, found[k], strict=True)} for k in at]


@dataclass(frozen=True)
class Resamples:
    """How often each sample is drawn in each of many draws of as many samples: the same for all who ask."""

    count: int
    seed: int

    @cached_property
    def shares(self) -> np.ndarray:
        """How often (draws, samples)."""
        even = np.full(self.count, 1 / self.count)
        return np.random.default_rng(self.seed).multinomial(self.count, even, RESAMPLES)

    def interval(self, each: np.ndarray) -> Loss:
        """The mean over samples, and where 95 % of the means of resamples lie."""
        low, high = np.quantile(self.shares @ each / self.count, ENDS)
        return float(each.mean()), float(low), float(high)


METHODS: dict[str, Callable[[Probe], tuple[dict[str, list[Loss]], dict[tuple[str, str], float], float]]] = {
    "gradient": Probe.by_gradient,
    "divergence": Probe.by_trial,
}
