"""Files against NNCodec 2, and codes against general compressors: bytes at equal accuracy, speed, what nesting costs.

NNCodec is measured at many settings (`nncodec.settings`), we at many plans; both curves are read off in the same way. It
quantizes weights and needs no data, its network runs in float; ours has been calibrated and runs on integers. Sizes are of
whole files: biases, scales and headers are in them, on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from bench import cifar, coded, curve, nncodec, resnet, sentences
from bench.coded import Codes
from bench.compressors import Squeezed
from bench.curve import Point
from bench.environment import Unavailable
from bench.nested import nested_graph, percent
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Subject, about, evenly, loss, subject
from bench.work import FOLDER, Work, digest, source
from bitladder import Model, load
from bitladder.formats import Int
from bitladder.ir.graph import Graph

PEER = "NNCodec"
QUICK = 4000  # test images
DRAWS = {20: 3}  # of calibration images, unless quick; one for every other depth
BATCH = 250
LOST = {0.3: 0.75, 1.0: 0.7}  # points lost against float: what share of NNCodec's bytes may be needed
ALL_WIDTHS = {20: 1.08, 56: 1.05}  # depth: one file for all widths over the best 8-bit file alone
NESTING, HEADER, ENCODING = 1.02, 0.005, 1.0
SPEEDS = {"fast_int4": 200e6, "fast_nested8": 100e6, "best_nested8": 20e6, "best_int8": 20e6}  # weights a second
SYMBOLS = "resnet56_best_int8"  # another of them, with the goal of "best_int8"
ROUNDS = 20  # of coding ResNet-56's symbols, which takes 0.1 s

T = TypeVar("T")


# -------------------------------------------------------------------------------------------------------- NNCodec


@dataclass
class Peer:
    """NNCodec on one ResNet: what each setting costs, and which test images its network gets right."""

    options: Options
    depth: int
    test: cifar.Split

    def __post_init__(self) -> None:
        self.net = resnet.load(self.options.data, self.depth)
        self.state = nncodec.stored(self.net.state_dict())
        sources = (nncodec.REQUIREMENTS, nncodec.DRIVER, resnet.path(self.options.data, self.depth))
        parts = [*(p.read_bytes() for p in sources), self.test.images.tobytes()]
        self.work = Work(FOLDER / "codec", digest(parts))

    def hits(self, arrays: nncodec.Arrays) -> np.ndarray:
        """Which images a network with these arrays gets right, in float."""
        self.net.load_state_dict({**self.net.state_dict(), **{k: torch.from_numpy(a.copy()) for k, a in arrays.items()}})
        net, images = self.net.to(memory_format=torch.channels_last), torch.from_numpy(self.test.images)
        batches = (images[at : at + BATCH].to(memory_format=torch.channels_last) for at in range(0, len(images), BATCH))
        with torch.inference_mode():
            best = torch.cat([net(batch).argmax(1) for batch in batches])
        return np.asarray(best) == self.test.labels

    def plain(self) -> np.ndarray:
        """Hits of the network as it came."""
        return self.work(f"{self.depth} float", lambda: self.hits(self.state)).value

    def measured(self, name: str, settings: nncodec.Settings) -> np.ndarray:
        """Bytes and three times of a setting, and the hits after them."""

        def make() -> np.ndarray:
            timed = settings["qp"] == nncodec.SPEED_QP
            made = nncodec.code(self.state, settings, nncodec.blocks(self.state), nncodec.REPEATS if timed else 1)
            hits = self.hits(nncodec.restored(made.weights))
            tell(f"resnet{self.depth}: NNCodec {name}: {made.bytes} bytes, {percent(hits):.2f} %")
            return np.array([made.bytes, made.encode, made.quantize, made.decode, *hits])

        return self.work(f"{self.depth} {dict(settings)}", make).value

    def points(self) -> dict[str, tuple[Point, np.ndarray]]:
        """By setting: the network, and seconds of encoding, quantizing and decoding."""
        found = {name: self.measured(name, settings) for name, settings in nncodec.settings(self.depth > 20).items()}
        return {n: (Point(n, int(v[0]), v[4:].astype(bool)), v[1:4]) for n, v in found.items()}


# ------------------------------------------------------------------------------------------------------------ ours


@dataclass
class Ours:
    """Our networks on one ResNet: files, codes, and which test images they get right."""

    options: Options
    depth: int
    data: cifar.Data
    test: cifar.Split
    work: Work
    known: dict[int, Subject] = field(default_factory=dict)

    def on(self, draw: int = 0) -> Subject:
        """The network calibrated on a draw of images."""
        if draw not in self.known:
            self.known[draw] = subject(self.options, self.depth, self.data.draws[draw])
        return self.known[draw]

    def points(self) -> list[Point]:
        """Our curve: bytes and hits of each network, their means over the draws."""
        draws = DRAWS.get(self.depth, 1) if not self.options.quick else 1
        curves = [self.curve(draw) for draw in range(draws)]
        return [
            Point(same[0].name, round(np.mean([p.bytes for p in same])), np.mean([p.hits for p in same], axis=0))
            for same in zip(*curves, strict=True)
        ]

    def curve(self, draw: int) -> list[Point]:
        """Our curve from one draw of calibration images."""
        found = []
        for name, make in coded.curve(self.on(draw)):
            value = self.work(f"{self.depth} draw {draw} {name}", partial(self.measured, make)).value
            found.append(Point(name, int(value[0]), value[1:]))
            tell(f"resnet{self.depth}: draw {draw}, {name}: {value[0]:.0f} bytes, {percent(value[1:]):.2f} %")
        return found

    def measured(self, make: Callable[[], Graph]) -> np.ndarray:
        """The bytes of a network's file, and which test images the network in the file gets right."""
        stored = coded.file_bytes(make())
        return np.array([len(stored), *hits(load(stored, threads=self.options.threads, batch=BATCH), self.test)])

    def widths(self) -> float:
        """One file for all widths over the best 8-bit file for that width alone."""
        alone = [len(coded.file_bytes(graph)) for graph in coded.alone(self.on())]
        return len(coded.file_bytes(nested_graph(self.on(), "midrise"))) / min(alone)

    def codes(self) -> dict[str, dict[str, Codes]]:
        """The codes of every weight, by plan."""
        return {name: coded.weights_of(graph) for name, graph in coded.plans(self.on())}


def hits(model: Model, split: cifar.Split) -> np.ndarray:
    """Which images of a split a network gets right."""
    best = [np.asarray(model(split.images[at : at + BATCH])).argmax(1) for at in range(0, len(split), BATCH)]
    return np.asarray(np.concatenate(best) == split.labels, np.float64)


# ------------------------------------------------------------------------------------------------------- rows of nets


def curve_rows(net: str, ours: Sequence[Point], theirs: Mapping[str, tuple[Point, np.ndarray]], plain: np.ndarray) -> list[Row]:
    """A row for the bytes and one for the accuracy of every network on either curve."""
    rows = [Row(f"{net}, float, top-1 %", percent(plain))]
    for p in ours:
        rows += [Row(f"{net}, {p.name}, bytes", p.bytes)]
        rows += [Row.of(f"{net}, {p.name}, top-1 %", percent(p.hits), percent(plain), "float", loss([p.hits], [plain]).half)]
    for name, (p, _) in theirs.items():
        rows += [Row(f"{net}, bytes", None, p.bytes, f"{PEER}, {name}")]
        rows += [Row(f"{net}, top-1 %", None, percent(p.hits), f"{PEER}, {name}", spread=loss([p.hits], [plain]).half)]
    return rows


def equal_rows(net: str, ours: Sequence[Point], theirs: Sequence[Point], plain: np.ndarray, why: str) -> list[Row]:
    """Bytes at equal loss, on both curves."""
    rows = []
    for lost in LOST:
        a, b = curve.at(ours, plain, lost), curve.at(theirs, plain, lost)
        half = curve.half(ours, theirs, plain, lost) if a and b else None
        peer = f"{PEER}, best of its settings; it needs no data" if theirs else f"{PEER}: {why}"
        rows.append(Row(f"{net}, bytes at {lost:g} points lost", a, b, peer, a / b if a and b else None, half))
    return rows


def nesting(codes: Mapping[str, Codes]) -> float:
    """Bytes of planes over bytes of whole symbols, both at the best coder."""
    planes, whole = (sum(coded.length(coded.encode(c, "best", way)) for c in codes.values()) for way in (False, True))
    return planes / whole


# --------------------------------------------------------------------------------------------------------- figures


@dataclass
class Found:
    """What figures are made of; None where it was not measured."""

    share: dict[tuple[int, float], float | None] = field(default_factory=dict)  # (depth, points lost): of NNCodec's bytes
    widths: dict[int, float] = field(default_factory=dict)  # depth: one file for all over the best alone
    nesting: float | None = None
    header: float | None = None
    encoding: float | None = None
    speeds: dict[str, float] = field(default_factory=dict)


def figures(found: Found) -> dict[str, Figure]:
    """One for everything that was asked for."""
    made = {
        f"resnet{depth}_bytes_at_{lost:g}_lost": Figure.at_most(found.share.get((depth, lost)), most)
        for depth in ALL_WIDTHS
        for lost, most in LOST.items()
    }
    made["planes_over_symbols"] = Figure.at_most(found.nesting, NESTING)
    made["header_overhead"] = Figure.at_most(found.header, HEADER)
    made |= {f"decode_{name}": Figure.at_least(found.speeds.get(name), least) for name, least in SPEEDS.items()}
    made[f"decode_{SYMBOLS}"] = Figure.at_least(found.speeds.get(SYMBOLS), SPEEDS["best_int8"])
    made["encode_resnet56_vs_nncodec"] = Figure.at_most(found.encoding, ENCODING)
    made |= {f"resnet{d}_all_widths": Figure.at_most(found.widths.get(d), most) for d, most in ALL_WIDTHS.items()}
    return made


# ------------------------------------------------------------------------------------------------------------ bench


def network(options: Options, depth: int, data: cifar.Data, test: cifar.Split, work: Work, found: Found) -> list[Row]:
    """Every row of one ResNet."""
    net, peer, ours = f"resnet{depth}", Peer(options, depth, test), Ours(options, depth, data, test, work)
    theirs, why = tried(peer.points)
    mine, plain = ours.points(), peer.plain().astype(bool)
    points = [p for p, _ in (theirs or {}).values()]
    rows = equal_rows(net, mine, points, plain, why)
    found.share |= {(depth, lost): row.ratio for lost, row in zip(LOST, rows, strict=True)}
    found.widths[depth] = ours.widths()
    rows.append(Row(f"{net}, best, file of all widths over the best 8-bit file of one", found.widths[depth]))
    codes = ours.codes()
    cost = nesting(codes["nested8"])
    found.nesting = max(cost, found.nesting or 0.0)
    rows.append(Row(f"{net}, best, bytes of eight planes over those of whole symbols", cost))
    for name, each in codes.items():
        rows += coded.code_rows(
            f"{net}, {name} codes", each, coded.speeds(each), streams(theirs or {}) if name == "int4" else None
        )
    return rows + curve_rows(net, mine, theirs or {}, plain)


def streams(theirs: Mapping[str, tuple[Point, np.ndarray]]) -> dict[str, Squeezed]:
    """NNCodec's whole stream at the setting whose times are compared, with the seconds of coding alone."""
    name = f"dq, qp {nncodec.SPEED_QP}"
    if name not in theirs:
        return {}
    point, (encode, quantize, decode) = theirs[name]
    return {f"{PEER}, {name}, whole stream": Squeezed(point.bytes, float(encode - quantize), float(decode))}


def tried(make: Callable[[], T]) -> tuple[T | None, str]:
    """What is made, or why NNCodec could not be had."""
    try:
        return make(), ""
    except Unavailable as error:
        tell(str(error))
        return None, str(error)


def coding(options: Options, found: Found) -> list[Row]:
    """ResNet-56's codes: our best coder against NNCodec at its defaults less its quantizing, and whole symbols of 8 bits."""
    net = resnet.load(options.data, 56)
    state = nncodec.stored(net.state_dict())
    made, why = tried(lambda: nncodec.code(state, {"use_dq": True, "qp": nncodec.SPEED_QP}))
    matrices = {n: w for n, w in state.items() if w.ndim > 1}
    codes, symbols = ({n: coded.codes_of(t) for n, t in coded.rounded(matrices, Int(bits)).items()} for bits in (4, 8))
    ours = coded.speed(codes, "best").encode
    found.speeds[SYMBOLS] = sum(c.codes.size for c in symbols.values()) / coded.speed(symbols, "best", ROUNDS).decode
    peer = made.encode - made.quantize if made else None
    found.encoding = ours / peer if peer else None
    name = f"{PEER}, dq, qp {nncodec.SPEED_QP}, without its quantizing" if made else f"{PEER}: {why}"
    return [
        Row("resnet56, best, int4 codes, encode, s", ours, peer, name, found.encoding),
        Row("resnet56, best, int8 codes, decode, million weights a second", found.speeds[SYMBOLS] / 1e6),
    ]


def bench(options: Options) -> Result:
    """Bytes, accuracy and speed, rows and figures."""
    torch.set_num_threads(options.threads)
    tell("reading images")
    data = cifar.load(options.data)
    test = evenly(data.test, QUICK if options.quick else len(data.test))
    work, found = Work.of("codec", about(options, test), source(("codec", "file"), ("coded",))), Found()
    rows = [row for depth in options.depths for row in network(options, depth, data, test, work, found)]
    rows += coding(options, found)
    encoder, measured = sentences.rows(options)
    rows += encoder
    found.header, found.speeds = measured.header, found.speeds | measured.speeds
    made_with = versions() | nncodec.version()
    result = Result("codec", tuple(rows), figures(found), machine(options.threads, options.command), made_with)
    work.done()
    return result
