"""One nested file at every width, against networks quantized at just that width with the same method.

The nested file is what `quantize(net, calib, plan="nested8")` writes: error feedback, biases per width, first and last layer
on at least six planes. It is saved, and each width is read back from the file. A dedicated network of b bits is fitted for b
alone (`nested b`, the code the file has), or has integers with a float scale per channel (`int b`); its first and last layer
have max(b, 6) bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench import cifar
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Interval, Judge, Subject, about, evenly, loss, subject
from bench.work import Work
from bitladder import file
from bitladder.formats import Format, Int, Nested
from bitladder.goal import Goal
from bitladder.ir.graph import Graph
from bitladder.task import END_BITS, Outcome, Task

WIDTHS = (8, 7, 6, 5, 4, 3, 2)
JUDGED = {8: 0.5, 4: 0.5}  # widths with a goal: points that the nested file may lose against the dedicated network
ALSO = (3, 2)  # widths with a figure and no goal
SCHEMES = ("midrise", "tree", "sign")
QUICK = 2000  # test images

PEERS = {"nested": lambda b: Nested(b, matter={b: 1.0}), "int": Int}

Hits = Mapping[int, np.ndarray]


def nested_graph(on: Subject, scheme: str) -> Graph:
    """What the recipe makes of a plan that gives every weight eight planes."""
    formats: dict[str, Format] = {name: Nested(8, scheme) for name in on.names()}
    task = Task(replace(on.feedback, memo={}), on.raw, formats, Goal(), on.batches, None, lambda stage, done, total: None)
    return task.model(Outcome()).graph


def dedicated_graph(on: Subject, kind: str, bits: int) -> Graph:
    """The network rounded with error feedback for one width alone."""
    widths = {name: max(bits, END_BITS) if name in on.ends() else bits for name in on.names()}
    formats = {name: PEERS[kind](b) for name, b in widths.items()}
    return replace(on.feedback, memo={}).network(formats)


@dataclass
class Shelf:
    """Networks as files in a folder: made once, read at any width, weighed."""

    folder: Path
    made: set[str] = field(default_factory=set)

    def put(self, name: str, graph: Graph) -> Path:
        """The path of a network, which is written."""
        file.save(graph, self.folder / name)
        self.made.add(name)
        return self.folder / name

    def bytes(self, name: str) -> int:
        return (self.folder / name).stat().st_size


@dataclass
class Bench:
    """One network, one draw of calibration images: hits at every width, and files. Networks are made when first asked for."""

    options: Options
    depth: int
    draw: int
    data: cifar.Data
    test: cifar.Split
    work: Work
    shelf: Shelf
    known: dict[str, Subject] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = Judge(f"resnet{self.depth}, draw {self.draw}", self.test, lambda: self.on().plain, self.work, memory=0)

    def on(self) -> Subject:
        """The calibrated network."""
        if "it" not in self.known:
            self.known["it"] = subject(self.options, self.depth, self.data.draws[self.draw])
        return self.known["it"]

    def path(self, name: str) -> Path:
        """The file of the nested network of a scheme, or of a dedicated one such as "int4"."""
        if name not in self.shelf.made:
            tell(f"rounding {name}")
            kind = next((k for k in PEERS if name.startswith(k)), None)
            made = dedicated_graph(self.on(), kind, int(name[len(kind) :])) if kind else nested_graph(self.on(), name)
            self.shelf.put(name, made)
        return self.shelf.folder / name

    def float_hits(self) -> np.ndarray:
        return self.judge("float", lambda: self.on().plain).value

    def nested(self, scheme: str, bits: int) -> np.ndarray:
        """Hits of one nested file read at a width."""
        return self.judge(f"nested8 {scheme} at {bits} bits", lambda: file.load(self.path(scheme), bits)).value

    def dedicated(self, kind: str, bits: int) -> np.ndarray:
        """Hits of the network made for that width alone."""
        return self.judge(f"{kind}{bits} alone", lambda: file.load(self.path(f"{kind}{bits}"))).value

    def sizes(self) -> dict[str, int]:
        """Bytes of the nested file, of what each width reads of it, and of the dedicated files."""

        def weigh() -> np.ndarray:
            read = file.sizes(self.path("midrise"))[1]
            dedicated = [self.path(f"nested{b}").stat().st_size for b in WIDTHS]
            return np.array([self.path("midrise").stat().st_size, *(read[b] for b in WIDTHS), *dedicated])

        names = ["file", *(f"read {b}" for b in WIDTHS), *(f"nested{b}" for b in WIDTHS)]
        return dict(zip(names, map(int, self.work(f"sizes {self.depth} {self.draw}", weigh).value), strict=True))


def percent(hits: np.ndarray) -> float:
    return 100 * float(hits.mean())


def accuracy_rows(net: str, scheme: str, ours: Hits, peers: Mapping[str, Hits], plain: np.ndarray) -> list[Row]:
    """A row for every width and peer: accuracies in percent, half a 95 % interval of the difference in points."""
    rows = []
    for bits, hits in ours.items():
        what = f"{net}, {scheme} at {bits} bits, top-1 %"
        for name, theirs in [*((f"{kind}{bits} alone", each[bits]) for kind, each in peers.items()), ("float", plain)]:
            rows.append(Row.of(what, percent(hits), percent(theirs), name, loss([hits], [theirs]).half))
    return rows


def byte_rows(net: str, sizes: Mapping[str, int]) -> list[Row]:
    """The one file against all dedicated ones, and what a width reads against its dedicated file."""
    apart = sum(sizes[f"nested{b}"] for b in WIDTHS)
    rows = [Row.of(f"{net}, bytes of one file for all widths", sizes["file"], apart, "files of one width")]
    return rows + [
        Row.of(f"{net}, bytes read at {b} bits", sizes[f"read {b}"], sizes[f"nested{b}"], f"nested{b} alone") for b in WIDTHS
    ]


def figures(losses: Mapping[int, Interval]) -> dict[str, Figure]:
    """One figure for each width that has a loss against its dedicated network; the better end of the interval is judged."""
    return {f"nested_{b}_loss": Figure.at_most(lost.mean, JUDGED.get(b), lost.low) for b, lost in losses.items()}


def measured(bench: Bench) -> list[Row]:
    """Every row of one network."""
    net = f"resnet{bench.depth}"
    ours = {s: {b: bench.nested(s, b) for b in WIDTHS} for s in SCHEMES}
    peers = {kind: {b: bench.dedicated(kind, b) for b in WIDTHS} for kind in PEERS}
    rows = [Row(f"{net}, float, top-1 %", percent(bench.float_hits()))]
    for scheme, hits in ours.items():
        rows += accuracy_rows(net, "nested8" if scheme == "midrise" else f"nested8:{scheme}", hits, peers, bench.float_hits())
    return rows + byte_rows(net, bench.sizes())


def loss_at(benches: Sequence[Bench], bits: int) -> Interval:
    """What the nested file loses against the dedicated network of a width, the mean of the draws."""
    return loss([b.nested("midrise", bits) for b in benches], [b.dedicated("nested", bits) for b in benches])


def bench(options: Options) -> Result:
    """Every width of one file, rows and figures."""
    import torch

    torch.set_num_threads(options.threads)
    tell("reading images")
    data = cifar.load(options.data)
    test = evenly(data.test, QUICK if options.quick else len(data.test))
    work = Work.of("nested", about(options, test))
    with tempfile.TemporaryDirectory() as folder:

        def network(depth: int, draw: int) -> Bench:
            place = Path(folder) / f"{depth}-{draw}"
            place.mkdir()
            return Bench(options, depth, draw, data, test, work, Shelf(place))

        firsts = [network(depth, 0) for depth in options.depths]
        rows = [row for first in firsts for row in measured(first)]
        others = [network(20, draw) for draw in range(1, options.draws)]
        found = {b: loss_at([firsts[0], *(others if b in JUDGED else ())], b) for b in (*JUDGED, *ALSO)}
    draws = f"mean of {options.draws} calibration draws" if options.draws > 1 else "one calibration draw"
    rows += [
        Row(f"resnet20, points lost at {b} bits against nested{b} alone, {draws if b in JUDGED else 'one calibration draw'}",
            lost.mean, spread=lost.half) for b, lost in found.items()
    ]  # fmt: skip
    result = Result("nested", tuple(rows), figures(found), machine(options.threads, options.command), versions())
    work.done()
    return result
