"""Escalation against fixed widths: one nested file, every image at few bits, and those with a small margin again at more.

The file is what `quantize(net, calib, plan="nested8")` writes. Scores of every image at every width are computed once, by the
torch path; `Rule.replay` then does to them what an `Escalation` does when it runs, with the same code. Widths and thresholds
are chosen on the choosing images for a mean cost (the sum of the widths of all passes made for an image), and judged on the
test images at the cost that they have there: those are harder, so it is higher.

A fixed width of the same cost is two things: the best single width of at most that cost, and the mixture of the two
neighbouring widths that costs the same (each image at one of them at random; its accuracy is the interpolated one). The
figure counts the costs at which escalation beats both for certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bench import cifar
from bench.nested import nested_graph, percent
from bench.options import Options, tell
from bench.result import Figure, Row
from bench.subject import Interval, about, evenly, loss, subject
from bench.work import Work
from bitladder.convert.evaluate import Evaluator
from bitladder.dial import Climb, Rule, fit_rule
from bitladder.ir.graph import Graph

WIDTHS = (2, 3, 4, 8)
COSTS = (2.25, 2.5, 2.75, 3.0, 3.5)  # mean bits that rules are fitted for
WIDEST, CLOSE = 8, 0.2  # points that escalation may lose against all images at eight bits
QUICK = 2000  # images

Scores = Mapping[int, np.ndarray]


@dataclass
class Ladder:
    """One network and one draw of calibration images: scores of the test and the choosing images at every width."""

    options: Options
    depth: int
    draw: int
    data: cifar.Data
    splits: Mapping[str, cifar.Split]
    work: Work
    made: dict[str, Graph] = field(default_factory=dict)

    def graph(self) -> Graph:
        """The network with all its planes."""
        if "it" not in self.made:
            self.made["it"] = nested_graph(subject(self.options, self.depth, self.data.draws[self.draw]), "midrise")
        return self.made["it"]

    def scores(self, split: str) -> Scores:
        """Of each image at each width."""
        images = self.splits[split].images

        def at(bits: int) -> np.ndarray:
            tell(f"resnet{self.depth}, draw {self.draw}: {split} images at {bits} bits")
            return np.asarray(Evaluator(self.graph().at(bits))(images))

        key = f"escalation/resnet{self.depth}/{self.draw}/{split}"
        return {bits: self.work(f"{key}/{bits}", lambda bits=bits: at(bits)).value for bits in WIDTHS}

    def labels(self, split: str) -> np.ndarray:
        return self.splits[split].labels


@dataclass(frozen=True)
class Judged:
    """One draw: hits (images,) at every fixed width, and of the rule fitted for each cost, with its cost on the same images."""

    fixed: Mapping[int, np.ndarray]
    rules: Mapping[float, Rule]
    climbs: Mapping[float, Climb]
    labels: np.ndarray

    def hits(self, cost: float) -> np.ndarray:
        return self.climbs[cost].outputs["scores"].argmax(1) == self.labels

    def best_single(self, cost: float) -> np.ndarray:
        """Hits of the best single width of at most the cost of the rule for `cost`."""
        return max((hits for bits, hits in self.fixed.items() if bits <= self.climbs[cost].cost), key=np.mean)

    def mixture(self, cost: float) -> np.ndarray:
        """What each image is right on average when the neighbouring widths are mixed to the cost of the rule for `cost`."""
        spent = self.climbs[cost].cost
        low, high = next(pair for pair in pairwise(sorted(self.fixed)) if spent <= pair[1])
        share = (spent - low) / (high - low)
        return (1 - share) * self.fixed[low] + share * self.fixed[high]


def judged(ladder: Ladder, combine: str) -> Judged:
    """Rules fitted on the choosing images, replayed on the test images."""
    choose, test, labels = ladder.scores("choose"), ladder.scores("test"), ladder.labels("test")
    rules = {c: fit_rule(choose, c, labels=ladder.labels("choose"), combine=combine) for c in COSTS}
    fixed = {bits: scores.argmax(1) == labels for bits, scores in test.items()}
    return Judged(fixed, rules, {c: rule.replay(test) for c, rule in rules.items()}, labels)


def gain(ours: Sequence[np.ndarray], peers: Sequence[np.ndarray]) -> Interval:
    """Points that ours is more accurate than its peers, the mean over draws, paired image by image."""
    return loss(peers, ours)


def rows(net: str, draws: Sequence[Judged], means: Sequence[Judged]) -> list[Row]:
    """Fixed widths, then escalation at every cost against both fixed ways of spending it, and against means of all passes."""
    made = [
        Row(f"{net}, all images at {bits} bits, top-1 %", percent(np.array([d.fixed[bits] for d in draws]))) for bits in WIDTHS
    ]
    for cost in COSTS:
        spent = float(np.mean([d.climbs[cost].cost for d in draws]))
        what = f"{net}, escalation fitted for {cost:g} bits, {spent:.2f} on test images, top-1 %"
        hits = [d.hits(cost) for d in draws]
        for name, peers in {
            "best width of that cost": [d.best_single(cost) for d in draws],
            "mixture of widths of that cost": [d.mixture(cost) for d in draws],
            "mean of all passes": [d.hits(cost) for d in means],
        }.items():
            made.append(Row.of(what, percent(np.array(hits)), percent(np.array(peers)), name, gain(hits, peers).half))
    return made


def won(draws: Sequence[Judged]) -> dict[float, Interval]:
    """For each cost the gain over the better of the two fixed ways of spending it."""
    found = {}
    for cost in COSTS:
        hits = [d.hits(cost) for d in draws]
        against = [[d.best_single(cost) for d in draws], [d.mixture(cost) for d in draws]]
        found[cost] = min((gain(hits, peers) for peers in against), key=lambda g: g.mean)
    return found


def as_good_as_widest(draws: Sequence[Judged]) -> float | None:
    """The least mean cost at which escalation loses no more than a little against all images at the widest; None if none."""
    for cost in COSTS:
        lost = loss([d.hits(cost) for d in draws], [d.fixed[WIDEST] for d in draws]).mean
        if lost <= CLOSE:
            return float(np.mean([d.climbs[cost].cost for d in draws]))
    return None


def figures(draws: Sequence[Judged]) -> dict[str, Figure]:
    """How many costs are won for certain, and the bits that escalation needs to be as good as eight."""
    certain = sum(gained.low > 0 for gained in won(draws).values())
    return {
        "escalation_costs_won": Figure.at_least(certain, 2),
        "escalation_bits_as_good_as_8": Figure.below(as_good_as_widest(draws), WIDEST),
    }


def measure(options: Options, work: Work | None = None) -> tuple[list[Row], dict[str, Figure]]:
    """Rows and figures. Scores are kept in `work`, which its owner throws away, or in a folder that is gone at the end."""
    import torch

    torch.set_num_threads(options.threads)
    tell("reading images")
    data = cifar.load(options.data)
    count = QUICK if options.quick else len(data.test)
    splits = {"test": evenly(data.test, count), "choose": evenly(data.choose, count)}
    own = work or Work.of("escalation", about(options, splits["test"]))
    made: list[Row] = []
    found: dict[str, Figure] = {}
    for depth in options.depths:
        ladders = [Ladder(options, depth, draw, data, splits, own) for draw in range(options.draws if depth == 20 else 1)]
        draws, means = ([judged(ladder, combine) for ladder in ladders] for combine in ("last", "mean"))
        for cost, rule in draws[0].rules.items():
            tell(f"resnet{depth}, draw 0, {cost:g} bits: {rule}")
        made += rows(f"resnet{depth}", draws, means)
        found = found or figures(draws)
    if work is None:
        own.done()
    return made, found
