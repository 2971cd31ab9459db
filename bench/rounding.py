"""What few bits cost without training: plans of 4, 3 and 2 bits, one nested file at every width, steps that are powers of two.

Rows of `criteria --full` too. Networks are made by `quantize(..., effort="best")`; activations are int8, the first and the last
layer have eight bits (in the nested file six at least). In plans of mid-rise codes the last of the largest layers pays for that
with a bit of its own, so that the mean is no more than was asked for. Coded networks have the mean that was asked for in their
whole file. Every loss is against the float network on the same test images, paired image by image, the mean of the calibration
draws. Settings were chosen on training images. --full adds ResNet-56.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

import bitladder as bl
from bench import cifar, resnet
from bench.learning import learned
from bench.options import Options, tell
from bench.plans import KINDS, average, one_width
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Interval, Judge, Subject, about, evenly, loss, subject
from bench.work import Work
from bitladder.assign.criteria import order, weight_difference
from bitladder.assign.search import bisection
from bitladder.ir.graph import Graph
from bitladder.model import Model

LOSSES = {4: 0.2, 3: 0.6, 2: 1.8}  # points that a network of so many bits a weight may lose
NESTED = {8: 0.2, 4: 0.4, 3: 0.6, 2: 2.0}  # points that one nested file may lose at its widths
POWERS = 0.3  # points that fixed point may lose against float steps at 4 bits
LAYERS = {4: (0.9, 0.3), 3: (0.6, 0.6)}  # bits -> the share of the layers that should do with them, within so many points
QUICK = 2000  # test images
CHOOSING = {20: 4845, 56: 2000}  # images that layers are lowered by; each costs more in the deep network

BESIDE = 4  # bits at which kinds stand beside each other


@dataclass
class Side:
    """One network on one draw of calibration images: hits of whatever is made of it."""

    options: Options
    depth: int
    draw: int
    data: cifar.Data
    test: cifar.Split
    work: Work
    known: dict[str, Subject] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = f"rounding, resnet{self.depth}, draw {self.draw}"
        self.judge = Judge(self.label, self.test, lambda: self.on().plain, self.work, memory=0)

    def on(self) -> Subject:
        """The calibrated network."""
        if "it" not in self.known:
            self.known["it"] = subject(self.options, self.depth, self.data.draws[self.draw])
        return self.known["it"]

    def sizes(self) -> dict[str, int]:
        """Elements of every weight."""
        return {name: int(np.prod(self.on().plain.constants[name].shape)) for name in self.on().names()}  # type: ignore[union-attr]

    def model(self, **how: object) -> Model:
        """What `quantize` makes of the network."""
        net = resnet.load(self.options.data, self.depth)
        return bl.quantize(net, self.data.draws[self.draw].images, **{"effort": "best", **how})  # type: ignore[arg-type]

    def float_hits(self) -> np.ndarray:
        return self.judge("float", lambda: self.on().plain).value

    def hits(self, kind: str, bits: int) -> np.ndarray:
        """Hits of a plan of one width."""
        return self.judge(f"{kind} {bits}", lambda: self.model(plan=one_width(self.sizes(), kind, bits)).graph).value

    def coded(self, bits: int) -> np.ndarray:
        """Hits of a network whose file has so many bits a weight."""
        how = {"plan": "int8", "rounding": "rate", "budget": f"avg_bits={bits}"}
        return self.judge(f"coded {bits}", lambda: self.model(**how).graph).value

    def nested(self, bits: int) -> np.ndarray:
        """Hits of the nested network at a width."""

        def made() -> Graph:
            if "nested" not in self.models:
                self.models["nested"] = self.model(plan="nested8")
            return self.models["nested"].at(bits).graph

        return self.judge(f"nested at {bits}", made).value

    def lowered(self, names: Sequence[str], bits: int) -> Graph:
        """The 8-bit network with some layers at fewer bits."""
        widths = {n: bits if n in names else 8 for n in self.on().names()}
        return self.model(plan={n: KINDS["mid-rise"](b) for n, b in widths.items()}).graph


def layers_at(side: Side, ranked: Sequence[str], bits: int) -> tuple[float, Interval]:
    """The share of the layers that bisection puts at few bits on choosing images, and what that loses on the test images."""
    judges = {
        name: Judge(f"{side.label}, layers at best, {name}", split, lambda: side.on().plain, side.work, memory=0)
        for name, split in (("choosing", evenly(side.data.choose, CHOOSING[side.depth])), ("test", side.test))
    }

    def lost(names: Sequence[str], where: str = "choosing") -> Interval:
        def hits(low: Sequence[str]) -> np.ndarray:
            key = f"{bits} bits: " + ("+".join(str(side.on().names().index(n)) for n in low) or "none")
            return judges[where](key, lambda: side.lowered(low, bits)).value

        return loss([hits(names)], [hits(())])

    chosen = bisection(ranked, lambda names: lost(names).mean, LAYERS[bits][1]).chosen
    return len(chosen) / len(ranked), lost(chosen, "test")


def measured(
    options: Options, depth: int, data: cifar.Data, test: cifar.Split, work: Work
) -> tuple[list[Row], dict[str, Figure]]:
    """Every row of one network, and its figures; one draw of the deep one."""
    draws = options.draws if depth == 20 else 1
    sides = [Side(options, depth, draw, data, test, work) for draw in range(draws)]
    floats = [side.float_hits() for side in sides]
    net, of = f"resnet{depth}", f"mean of {draws} draws" if draws > 1 else "one draw"
    rows, figures = [], {}

    def row(what: str, hits: Sequence[np.ndarray], peer: Sequence[np.ndarray], name: str) -> Interval:
        found, drawn = loss(hits, peer), of if len(hits) == draws else "one draw"
        rows.append(
            Row.of(f"{net}, {what}, top-1 %, {drawn}", 100 * float(np.mean(hits)), 100 * float(np.mean(peer)), name, found.half)
        )
        return found

    for bits, goal in LOSSES.items():
        for kind in KINDS if bits == BESIDE else ("mid-rise",):
            size = average(sides[0].sizes(), one_width(sides[0].sizes(), kind, bits))
            lost = row(f"{kind}, {size:.2f} bits a weight", [s.hits(kind, bits) for s in sides], floats, "float")
            if kind == "mid-rise":
                figures[f"{net}_loss_{bits}_bits"] = Figure.at_most(lost.mean, goal, lost.low)
        lost = row(f"coded, {bits} bits a weight in the file", [s.coded(bits) for s in sides], floats, "float")
        figures[f"{net}_loss_{bits}_bits_coded"] = Figure.at_most(lost.mean, goal, lost.low)
    for bits, goal in NESTED.items():
        lost = row(f"one nested file at {bits} bits", [s.nested(bits) for s in sides], floats, "float")
        figures[f"{net}_nested_loss_{bits}_bits"] = Figure.at_most(lost.mean, goal, lost.low)
    fixed, scaled = ([side.hits(kind, BESIDE) for side in sides] for kind in ("fixed", "int"))
    lost = row(f"fixed, {BESIDE} bits", fixed, scaled, f"int, {BESIDE} bits")
    figures[f"{net}_loss_powers"] = Figure.at_most(lost.mean, POWERS, lost.low)
    ranked = order(weight_difference(learned(sides[0].on(), data.learn, None, work)[0])).ranked
    for bits, (share, allowed) in LAYERS.items():
        found, lost = layers_at(sides[0], ranked, bits)
        rows.append(
            Row(
                f"{net}, share of the layers at {bits} bits, points lost on the test images",
                lost.mean,
                0.0,
                "the 8-bit network",
                None,
                lost.half,
            )
        )
        rows.append(Row(f"{net}, share of the layers at {bits} bits, one draw", found))
        figures[f"{net}_layers_at_{bits}_bits_in_passes"] = Figure.at_least(found, share, lost.low <= allowed)
    return rows, figures


def measure(options: Options) -> tuple[list[Row], dict[str, Figure]]:
    """Rows and figures of every network."""
    tell("reading images")
    data = cifar.load(options.data)
    test = evenly(data.test, QUICK if options.quick else len(data.test))
    rows, figures = list[Row](), dict[str, Figure]()
    for depth in options.depths:
        shared = replace(options, network=depth)
        more, asked = measured(options, depth, data, test, Work.of("rounding", options.quick, about(shared, test)))
        rows, figures = rows + more, figures | asked
    return rows, figures


def bench(options: Options) -> Result:
    """Every plan, rows and figures."""
    import torch

    torch.set_num_threads(options.threads)
    rows, figures = measure(options)
    return Result("rounding", tuple(rows), figures, machine(options.threads, options.command), versions())
