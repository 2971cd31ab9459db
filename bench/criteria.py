"""Which layers to put at 4 bits first: the patent's FIG 16 and FIG 17 (US12393828) on ResNets for CIFAR-10.

Every layer is 8-bit power-of-two fixed point per channel, k layers are 4-bit, activations are int8, biases are corrected, and
nothing is trained afterwards. Orders come from learning, from the weights, or from the choosing images, never from the test
images, on which the curves are measured. Losses are points against the 8-bit network of the same rounding: `nearest` code,
on which orders are compared, or error `feedback`, which the recipe uses. Without --quick, the comparison with the one-by-one
order is the mean of three calibration draws, each with learning and measurements of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from bench import accuracy, cifar, embeddings, predicted, presets
from bench import rounding as few_bits
from bench.learning import CYCLES, SEED, learned
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Interval, Judge, Subject, about, evenly, loss, subject
from bench.work import Measured, Work
from bitladder.assign.criteria import low_steps, measured_accuracy, order, random_order, weight_difference, weight_range
from bitladder.assign.search import bisection
from bitladder.formats import Fixed, Format
from bitladder.ir.graph import Graph
from bitladder.ptq.workbench import Workbench

HIGH, LOW = 8, 4
LOWER = (4, 3, 2)  # bits at which --full holds us against the peers that quantize
CHOOSING = 2000  # images that orders and plans are chosen on
ALLOWED = 1.0  # points that the chosen plan may lose against the 8-bit network
RANDOM = 20  # random orders
SLICES = {True: 5, False: 10}  # of the test images, quick or not; random order i is measured on slice i % SLICES
COARSE = (0.2, 0.35, 0.5, 0.65, 0.8)  # shares of the layers at 4 bits: where random orders are measured
FINE = (0.1, 0.9)
NORMALIZATIONS = ("none", "relative", "step")
MAIN, ONE, RANGE = "weight difference", "one-by-one accuracy", "weight range"

Names = tuple[str, ...]
Curve = Mapping[int, np.ndarray]  # layers at 4 bits -> points lost, image by image


# ------------------------------------------------------------------------------------------------------ pure numbers


def counts(layers: int, shares: Sequence[float]) -> list[int]:
    """Numbers of layers for shares of them, without repeats.

    >>> counts(20, COARSE)
    [4, 7, 10, 13, 16]
    """
    return sorted({round(share * layers) for share in shares} - {0})


def area(curve: Curve, at: Iterable[int] | None = None) -> np.ndarray:
    """The mean height of a curve from 0 to its last count, through the counts in `at` (all of them if None) and both ends.

    Image by image, so that areas can be compared on the same images.

    >>> [float(area(curve).mean()) for curve in ({1: np.array([1.0]), 2: np.array([4.0])}, {2: np.array([4.0, 2.0])})]
    [1.5, 1.5]
    """
    last, at = max(curve), None if at is None else set(at)
    xs = [0, *sorted(k for k in curve if at is None or k in at or k == last)]
    ys = np.stack([np.zeros_like(curve[last]), *(curve[k] for k in xs[1:])])
    return np.trapezoid(ys, xs, axis=0) / last


def pooled(pairs: Sequence[tuple[Curve, Curve]]) -> tuple[Curve, Curve]:
    """The mean curves of several draws, image by image.

    >>> ours, peer = pooled([({1: np.array([1.0])}, {1: np.array([3.0])}), ({1: np.array([2.0])}, {1: np.array([1.0])})])
    >>> float(ours[1][0]), float(peer[1][0])
    (1.5, 2.0)
    """
    ours, peer = ([pair[side] for pair in pairs] for side in (0, 1))
    return tuple({k: np.mean([curve[k] for curve in curves], axis=0) for k in curves[0]} for curves in (ours, peer))


def areas(ours: Curve, peer: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Both areas, through the counts that the two curves share."""
    return area(ours, peer), area(peer, ours)


def ratio(ours: float, peer: float) -> float | None:
    """A ratio of areas; None where the peer's is not above zero, so that it says nothing."""
    return ours / peer if peer > 0 else None


def area_ratio(ours: Curve, peer: Curve) -> float | None:
    """The ratio of two areas. Figures judge it as it is, without its interval: that one is wide, and a row has it."""
    a, b = areas(ours, peer)
    return ratio(float(a.mean()), float(b.mean()))


def interval(each: np.ndarray) -> Interval:
    """The mean over images with its 95 % interval."""
    return Interval(float(each.mean()), float(1.96 * each.std() / np.sqrt(len(each))))


def tau(values: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Kendall's rank correlation of two criteria over layers."""
    from scipy.stats import kendalltau

    return float(kendalltau([values[n] for n in truth], list(truth.values())).statistic)


@dataclass(frozen=True)
class Chosen:
    """The layers that bisection put at 4 bits, of how many, in how many evaluations, and what that costs on the test images."""

    names: Names
    layers: int
    evaluations: int
    lost: Interval

    @property
    def share(self) -> float:
        return len(self.names) / self.layers


@dataclass(frozen=True)
class Found:
    """All that figures are made from."""

    fixed8: Interval
    curves: Mapping[str, Curve]
    chosen: Mapping[str, Chosen]
    pairs: Sequence[tuple[Curve, Curve]]  # for each calibration draw, the weight difference's curve and the one-by-one order's


def figures(found: Found) -> dict[str, Figure]:
    """The figures asked for."""
    ours, curves = found.curves[MAIN], found.curves
    out = {"fixed8_loss": Figure.at_most(found.fixed8.mean, 0.3, found.fixed8.low)}
    for rounding, chosen in found.chosen.items():
        tail = "" if rounding == "feedback" else f"_{rounding}"
        out[f"layers_at_4_bits{tail}"] = Figure.at_least(chosen.share, 0.5, chosen.lost.low <= ALLOWED)
    out["evaluations"] = Figure.at_most(float(max(c.evaluations for c in found.chosen.values())), 8)
    out["area_vs_one_by_one"] = Figure.at_most(area_ratio(*pooled(found.pairs)), 1.10)
    out["area_vs_range"] = Figure.below(area_ratio(ours, curves[RANGE]), 1.0)
    out["area_vs_random"] = Figure.below(area_ratio(ours, curves["random"]), 1.0)
    return out


# --------------------------------------------------------------------------------------------------------- measuring


@dataclass
class Rounding:
    """Networks of one rounding with some layers at 4 bits, judged on the choosing and on the test images."""

    name: str
    bench: Workbench
    names: Names
    chooser: cifar.Split
    test: cifar.Split
    work: Work
    judges: dict[str, Judge] = field(default_factory=dict)

    def graph(self, low: Sequence[str]) -> Graph:
        """The network with these layers at 4 bits, biases corrected."""
        formats: dict[str, Format] = {n: Fixed(LOW if n in low else HIGH) for n in self.names}
        return self.bench.network(formats)

    def judge(self, name: str, split: cifar.Split) -> Judge:
        """The judge of a split; one at a time keeps its activations."""
        if name not in self.judges:
            self.judges = {}
            self.judges[name] = Judge(f"{self.name}, {name}", split, lambda: self.graph(()), self.work)
        return self.judges[name]

    def hits(self, low: Sequence[str], name: str = "test", split: cifar.Split | None = None) -> Measured:
        """Hits with these layers at 4 bits."""
        key = "+".join(str(self.names.index(n)) for n in sorted(low, key=self.names.index)) or "none"
        return self.judge(name, self.test if split is None else split)(key, lambda: self.graph(low))

    def lost(self, low: Sequence[str], name: str = "test", split: cifar.Split | None = None) -> Interval:
        """Points lost against no layer at 4 bits."""
        return loss([self.hits(low, name, split).value], [self.hits((), name, split).value])

    def each(self, low: Sequence[str], name: str = "test", split: cifar.Split | None = None) -> np.ndarray:
        """Points lost image by image: 100 where a hit became a miss, -100 the other way."""
        return 100.0 * self.hits((), name, split).value - 100.0 * self.hits(low, name, split).value

    def lost_choosing(self, low: Sequence[str]) -> float:
        """Points lost on the choosing images."""
        return self.lost(low, "choosing", self.chooser).mean

    def curve(self, ranked: Names, at: Sequence[int]) -> Curve:
        """Points lost on the test images with the first k layers at 4 bits."""
        return {k: self.each(ranked[:k]) for k in at}

    def choose(self, ranked: Names) -> Chosen:
        """As many layers of an order as the choosing images allow, by bisection; the reference counts as an evaluation."""
        found = bisection(ranked, self.lost_choosing, ALLOWED)
        return Chosen(tuple(found.chosen), len(self.names), found.evaluations + 1, self.lost(found.chosen))


def one_by_one(rounding: Rounding) -> tuple[Mapping[str, float], float]:
    """What each layer alone loses on the choosing images, and the processor seconds that took."""
    values = measured_accuracy(rounding.names, rounding.lost_choosing)
    took = [rounding.hits((n,), "choosing", rounding.chooser).seconds for n in rounding.names]
    return values, float(sum(took)) + rounding.hits((), "choosing", rounding.chooser).seconds


def random_curve(rounding: Rounding, at: Sequence[int], slices: int) -> Curve:
    """The mean curve of random orders; each image has the mean of the orders that were measured on its slice."""
    out = {k: np.zeros(len(rounding.test)) for k in at}
    for part in range(slices):
        here = np.arange(len(rounding.test)) % slices == part
        seeds = range(part, RANDOM, slices)
        for seed in seeds:
            ranked = order(random_order(rounding.names, seed), zero_is_silence=False).ranked
            for k in at:
                out[k][here] += rounding.each(ranked[:k], f"test, slice {part}", rounding.test[here]) / len(seeds)
    return out


# -------------------------------------------------------------------------------------------------------------- rows


def curve_rows(net: str, curves: Mapping[str, Curve]) -> list[Row]:
    """A row for each point of each curve beside the weight difference's, and for each area; spreads are of the difference."""
    ours, rows = curves[MAIN], []
    for name, curve in curves.items():
        for k in sorted(curve):
            what, lost = f"{net}, points lost, {k} layers at 4 bits", float(curve[k].mean())
            if name == MAIN:
                rows.append(Row(f"{what}, {MAIN}", lost, 0.0, "the 8-bit network", None, interval(curve[k]).half))
            else:
                rows.append(Row(what, float(ours[k].mean()), lost, name, None, interval(ours[k] - curve[k]).half))
        if name != MAIN:
            a, b = areas(ours, curve)
            pair = float(a.mean()), float(b.mean())
            rows.append(Row(f"{net}, area under the curve in points", *pair, name, ratio(*pair), interval(a - b).half))
    return rows


def cost_rows(net: str, costs: Mapping[str, tuple[int, float]]) -> list[Row]:
    """Evaluations and processor seconds that each order needed."""
    evaluations, seconds = costs[ONE]
    rows = []
    for name, (n, took) in costs.items():
        rows.append(Row(f"{net}, evaluations to rank, {name}", float(n), float(evaluations), ONE))
        rows.append(Row(f"{net}, processor seconds to rank, {name}", took, seconds, ONE, took / seconds))
    return rows


def chosen_rows(net: str, chosen: Mapping[str, Chosen]) -> list[Row]:
    """What the bisection chose, for each rounding."""
    rows = []
    for rounding, c in chosen.items():
        what = f"{net}, {rounding}: {len(c.names)} of {c.layers} layers at 4 bits in {c.evaluations} evaluations"
        rows.append(Row(f"{what}, points lost on the test images", c.lost.mean, 0.0, "the 8-bit network", None, c.lost.half))
    return rows


# --------------------------------------------------------------------------------------------------------- the whole


@dataclass
class Bench:
    """One network: everything measured about it, in the order in which it is needed."""

    options: Options
    depth: int
    data: cifar.Data
    work: Work

    def __post_init__(self) -> None:
        quick, test = self.options.quick, self.data.test
        self.test = evenly(test, 2000 if quick else len(test))
        self.chooser = evenly(self.data.choose, CHOOSING)
        self.on = subject(self.options, self.depth, self.data.draws[0])
        self.near, self.back = self.roundings(self.on)
        layers = len(self.on.names())
        self.coarse = counts(layers, COARSE)
        self.at = counts(layers, (*COARSE, 1.0) if quick else (*COARSE, *FINE, 1.0))

    def roundings(self, on: Subject, draw: int = 0) -> tuple[Rounding, Rounding]:
        """Rounding to the nearest code, and with error feedback."""
        label = f"resnet{self.depth}, draw {draw}"
        shared: tuple[Any, ...] = (on.names(), self.chooser, self.test, self.work)
        return Rounding(f"{label}, nearest", on.nearest, *shared), Rounding(f"{label}, feedback", on.feedback, *shared)

    def values(self) -> tuple[dict[str, Mapping[str, float]], dict[str, tuple[int, float]]]:
        """What each criterion says of every layer, and what it cost: evaluations, processor seconds."""
        plain = self.on.plain
        found, seconds = learned(self.on, self.data.learn, None, self.work)
        measured, took = one_by_one(self.near)
        steps = low_steps(plain, Fixed(LOW))
        differences = {n: weight_difference(found, normalize=n, steps=steps) for n in NORMALIZATIONS}
        values: dict[str, Mapping[str, float]] = {MAIN: differences["none"], ONE: measured, RANGE: weight_range(plain)}
        values |= {f"{MAIN}, {n}": differences[n] for n in NORMALIZATIONS[1:]}
        self.rate = found.rates[self.on.names()[0]]
        return values, {MAIN: (0, seconds), ONE: (len(measured) + 1, took)}

    def literal(self, truth: Mapping[str, float]) -> tuple[Names, list[Row]]:
        """The order at learning rate 0.01, and its rows; no order if learning diverges."""
        net = f"resnet{self.depth}"
        try:
            found, _ = learned(self.on, self.data.learn, 0.01, self.work)
        except ValueError as error:
            return (), [Row(f"{net}, learning rate 0.01 fails: {error}", None)]
        values = weight_difference(found)
        return order(values).ranked, [Row(f"{net}, Kendall tau, {MAIN}, learning rate 0.01", tau(values, truth), 1.0, ONE)]

    def curves(self, values: Mapping[str, Mapping[str, float]], literal: Names) -> dict[str, Curve]:
        """Every curve on the test images."""
        near, ranked = self.near, {name: order(v, zero_is_silence=False).ranked for name, v in values.items()}
        out = {name: near.curve(ranked[name], self.at) for name in (MAIN, ONE, RANGE)}
        if not self.options.quick:
            out[f"{MAIN}, reversed"] = near.curve(ranked[MAIN][::-1], [*self.coarse, len(near.names)])
        if literal:
            out[f"{MAIN}, learning rate 0.01"] = near.curve(literal, self.at)
        layers = len(near.names)
        out["random"] = {**random_curve(near, self.coarse, SLICES[self.options.quick]), layers: out[MAIN][layers]}
        out[f"{MAIN}, error feedback"] = self.back.curve(ranked[MAIN], self.at)
        return out

    @cached_property
    def sides(self) -> list[tuple[Subject, Rounding, Rounding]]:
        """The network calibrated on each draw, with both roundings."""
        out = [(self.on, self.near, self.back)]
        for draw in range(1, self.options.draws if self.depth == 20 else 1):
            on = subject(self.options, self.depth, self.data.draws[draw])
            out.append((on, *self.roundings(on, draw)))
        return out

    def pairs(self, curves: Mapping[str, Curve]) -> tuple[list[tuple[Curve, Curve]], list[Row]]:
        """Both curves of every draw, each with its own learning and its own one-by-one measurements; a row for each area."""
        at = [*self.coarse, len(self.near.names)]
        out = [({k: curves[MAIN][k] for k in at}, {k: curves[ONE][k] for k in at})]
        for draw, (on, near, _) in enumerate(self.sides[1:], 1):
            found, _ = learned(on, self.data.learn, None, self.work, seed=draw)
            truth, _ = one_by_one(near)
            values = (weight_difference(found), truth)
            ours, peer = (near.curve(order(v, zero_is_silence=False).ranked, at) for v in values)
            out.append((ours, peer))
        rows = []
        for draw, pair in enumerate(out):
            a, b = areas(*pair)
            means = float(a.mean()), float(b.mean())
            what = f"resnet{self.depth}, calibration draw {draw}, area under the curve in points"
            rows.append(Row(what, *means, ONE, ratio(*means), interval(a - b).half))
        return out, rows if len(out) > 1 else []

    def accuracy(self, chosen: Mapping[str, Chosen]) -> tuple[Interval, dict[str, Chosen], list[Row]]:
        """The loss at 8 bits, and the chosen plans, as means over calibration draws; rows of accuracies."""
        sides = self.sides
        net, pairs = f"resnet{self.depth}", {"nearest": [s[1] for s in sides], "feedback": [s[2] for s in sides]}
        plain = [Judge(f"{net}, float", self.test, lambda: self.on.plain, self.work, 0)("float", lambda: self.on.plain).value]
        rows, eight = [], {}
        for name, roundings in pairs.items():
            hits = [r.hits(()).value for r in roundings]
            eight[name] = loss(hits, plain * len(hits))
            rows.append(
                Row.of(f"{net}, fixed8, {name}, top-1 %, {len(hits)} calibration draws", 100 * float(np.mean(hits)),
                       100 * float(plain[0].mean()), "float", eight[name].half)
            )  # fmt: skip
        means = {
            name: Chosen(c.names, c.layers, c.evaluations,
                         loss([r.hits(c.names).value for r in pairs[name]], [r.hits(()).value for r in pairs[name]]))
            for name, c in chosen.items()
        }  # fmt: skip
        return eight["nearest"], means, rows

    def measured(self) -> tuple[Found, list[Row]]:
        """Everything."""
        net = f"resnet{self.depth}"
        values, costs = self.values()
        truth = values[ONE]
        taus = [Row(f"{net}, Kendall tau, {name}", tau(v, truth), 1.0, ONE) for name, v in values.items() if name != ONE]
        literal, more = ((), []) if self.options.quick else self.literal(truth)
        ranked = order(values[MAIN]).ranked
        chosen = {r: side.choose(ranked) for r, side in (("nearest", self.near), ("feedback", self.back))}
        curves = self.curves(values, literal)
        pairs, drawn = self.pairs(curves)
        fixed8, chosen, rows = self.accuracy(chosen)
        rows += drawn + curve_rows(net, curves) + chosen_rows(net, chosen) + taus + more + cost_rows(net, costs)
        rows.append(Row(f"{net}, learning rate that learning chose", self.rate))
        return Found(fixed8, curves, chosen, pairs), rows


def bench(options: Options) -> Result:
    """Curves of every order, rows and figures."""
    import torch

    torch.set_num_threads(options.threads)
    tell("reading images")
    data = cifar.load(options.data)
    found, rows, asked = dict[int, Found](), list[Row](), dict[str, Figure]()
    work = Work.of("criteria", (HIGH, LOW, CYCLES, SEED, CHOOSING), options.quick, about(options, data.test))
    for depth in options.depths:
        one = Bench(options, depth, data, work)
        found[depth], more = one.measured()
        rows += more
    asked |= figures(found[20]) if 20 in found else {}
    if options.full and 20 in found:
        on = subject(options, 20, data.draws[0])
        more, asked["rank_of_predicted_losses"] = predicted.rows("resnet20", on, evenly(data.test, predicted.TEST), work)
        rows += more
        for measure in (few_bits.measure, presets.measure, partial(accuracy.measure, among=LOWER)):
            more, beside = measure(options)
            rows, asked = rows + more, asked | beside
        more, beside = embeddings.rows()
        rows, asked = rows + more, asked | beside
    result = Result("criteria", tuple(rows), asked, machine(options.threads, options.command), versions())
    work.done()
    return result
