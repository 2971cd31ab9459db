"""What few bits cost without training: plans of 4, 3 and 2 bits, one nested file at every width, steps that are powers of two.

Rows of `criteria`. Weights are rounded as `quantize(..., rounding="sequence")` does, activations are int8, the first and the
last layer have eight bits (in the nested file six at least). Every loss is against the float network on the same test images,
paired image by image, the mean of the calibration draws. Settings were chosen on training images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench import cifar
from bench.options import Options
from bench.result import Figure, Row
from bench.subject import Interval, Judge, Subject, loss, subject
from bench.work import Work
from bitladder.assign.search import bisection
from bitladder.formats import Fixed, Format, Int, Nested
from bitladder.ir.graph import Graph
from bitladder.ptq.workbench import Workbench
from bitladder.task import END_BITS

ENDS = 8  # bits of the first and the last layer in plans of one width
LOSSES = {4: 0.2, 3: 0.6, 2: 1.8}  # points that a network of about so many bits a weight may lose
NESTED = {8: 0.2, 4: 0.4, 3: 0.6, 2: 2.0}  # points that one nested file may lose at its widths
POWERS = 0.3  # points that fixed point may lose against float steps at 4 bits
LAYERS = {4: (0.9, 0.3), 3: (0.6, 0.6)}  # bits -> the share of the layers that should do with them, within so many points

KINDS: dict[str, Callable[[int], Format]] = {"mid-rise": lambda b: Nested(b, matter={b: 1.0}), "int": Int, "fixed": Fixed}


def one_width(on: Subject, kind: str, bits: int) -> dict[str, Format]:
    """Every layer at one width, the ends at eight."""
    return {name: KINDS[kind](ENDS if name in on.ends() else bits) for name in on.names()}


def average(on: Subject, formats: Mapping[str, Format]) -> float:
    """Bits a weight."""
    sizes = {name: int(np.prod(on.plain.constants[name].shape)) for name in formats}  # type: ignore[union-attr]
    return sum(formats[name].bits * size for name, size in sizes.items()) / sum(sizes.values())


def nested(on: Subject) -> dict[str, Format]:
    """The formats that `quantize` gives weights where no plan says otherwise."""
    formats: dict[str, Format] = dict.fromkeys(on.names(), Nested(8))
    widest = {b: w for b, w in Nested(8).matter.items() if b > END_BITS} | {END_BITS: 8.0}
    return formats | {name: Nested(8, matter=widest) for name in on.ends()}


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
    graphs: dict[str, Graph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = f"rounding, resnet{self.depth}, draw {self.draw}"
        self.judge = Judge(self.label, self.test, lambda: self.on().plain, self.work, memory=0)

    def on(self) -> Subject:
        """The calibrated network."""
        if "it" not in self.known:
            self.known["it"] = subject(self.options, self.depth, self.data.draws[self.draw])
        return self.known["it"]

    def bench(self) -> Workbench:
        """A workbench that rounds in passes."""
        return replace(self.on().feedback, passes=True, memo={})

    def float_hits(self) -> np.ndarray:
        return self.judge("float", lambda: self.on().plain).value

    def hits(self, kind: str, bits: int) -> np.ndarray:
        """Hits of a plan of one width."""
        return self.judge(f"{kind} {bits}", lambda: self.bench().finished(one_width(self.on(), kind, bits))).value

    def nested(self, bits: int) -> np.ndarray:
        """Hits of the nested network at a width."""

        def made() -> Graph:
            if "nested" not in self.graphs:
                least = dict.fromkeys(self.on().ends(), END_BITS)
                self.graphs["nested"] = self.bench().finished(nested(self.on()), least=least, widths=tuple(NESTED))
            return self.graphs["nested"].at(bits)

        return self.judge(f"nested at {bits}", made).value

    def lowered(self, names: Sequence[str], bits: int) -> Graph:
        """The 8-bit fixed-point network with some layers at fewer bits."""
        return self.bench().finished({n: Fixed(bits if n in names else 8) for n in self.on().names()})


def layers_at(side: Side, chooser: cifar.Split, ranked: Sequence[str], bits: int) -> tuple[float, Interval]:
    """The share of the layers that bisection puts at few bits on choosing images, and what that loses on the test images."""
    judges = {
        name: Judge(f"{side.label}, {name}", split, lambda: side.on().plain, side.work, memory=0)
        for name, split in (("choosing", chooser), ("test", side.test))
    }

    def lost(names: Sequence[str], where: str = "choosing") -> Interval:
        def hits(low: Sequence[str]) -> np.ndarray:
            key = f"{bits} bits: " + ("+".join(str(side.on().names().index(n)) for n in low) or "none")
            return judges[where](key, lambda: side.lowered(low, bits)).value

        return loss([hits(names)], [hits(())])

    chosen = bisection(ranked, lambda names: lost(names).mean, LAYERS[bits][1]).chosen
    return len(chosen) / len(ranked), lost(chosen, "test")


def measured(
    options: Options, depth: int, data: cifar.Data, test: cifar.Split, chooser: cifar.Split, ranked: Sequence[str], work: Work
) -> tuple[list[Row], dict[str, Figure]]:
    """Every row of one network, and its figures; `ranked` is the order in which layers are lowered."""
    draws = options.draws if depth == 20 else 1
    sides = [Side(options, depth, draw, data, test, work) for draw in range(draws)]
    floats = [side.float_hits() for side in sides]
    net, of = f"resnet{depth}", f"mean of {draws} draws" if draws > 1 else "one draw"
    rows, figures = [], {}

    def tell(what: str, hits: Sequence[np.ndarray], peer: Sequence[np.ndarray], name: str) -> Interval:
        found = loss(hits, peer)
        rows.append(
            Row.of(f"{net}, {what}, top-1 %, {of}", 100 * float(np.mean(hits)), 100 * float(np.mean(peer)), name, found.half)
        )
        return found

    for bits, goal in LOSSES.items():
        for kind in KINDS:
            size = average(sides[0].on(), one_width(sides[0].on(), kind, bits))
            lost = tell(f"{kind}, {size:.2f} bits a weight", [s.hits(kind, bits) for s in sides], floats, "float")
            if kind == "mid-rise":
                figures[f"{net}_loss_{bits}_bits"] = Figure.at_most(lost.mean, goal, lost.low)
    for bits, goal in NESTED.items():
        lost = tell(f"one nested file at {bits} bits", [s.nested(bits) for s in sides], floats, "float")
        figures[f"{net}_nested_loss_{bits}_bits"] = Figure.at_most(lost.mean, goal, lost.low)
    lost = tell("fixed, 4 bits", [s.hits("fixed", 4) for s in sides], [s.hits("int", 4) for s in sides], "int, 4 bits")
    figures[f"{net}_powers_of_two"] = Figure.at_most(lost.mean, POWERS, lost.low)
    for bits, (share, allowed) in LAYERS.items():
        found, lost = layers_at(sides[0], chooser, ranked, bits)
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
