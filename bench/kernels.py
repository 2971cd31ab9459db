"""Kernels alone: a matrix times a vector at every width, transposed convolutions, and the layers of real networks.

The matrix is measured twice: used again and again, so that it stays in the last-level cache, and in turn with so many others
that each comes from memory. Layers are held against what the machine does at most, which is measured beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bench import nbits, peers
from bench.layers import Layer, coded, distinct, layers, one, stuffed, stuffing, transposed
from bench.nets import Net
from bench.options import Options, tell
from bench.ours import call, isas, opened, ours, steps
from bench.peak import Peak, last_cache, peak
from bench.race import Race, judged, race, rounds, threaded
from bench.result import Figure, Result, Row, machine, versions
from bitladder import Model
from bitladder.peers import onnxruntime
from bitladder.timing import Run

SIZE = 4096
WIDTHS = (8, 4, 2)
SETTINGS = tuple(nbits.Setting(bits, block) for bits in WIDTHS for block in (32, 128))
OTHERS = tuple(nbits.Setting(bits, 32, 0) for bits in WIDTHS)  # slow: they decode to float first
SEVERAL = 4  # times the last-level cache are what turns in memory
FEWER = {8: None, 4: 0.6, 2: 0.4}  # of our own time at 8 bits, from memory
CACHED = {8: 1.0, 4: 1.0, 2: 0.6}  # of the peer's time, from the cache
KERNELS = (4, 3)  # of transposed convolutions: height and width
TRANSPOSED = ((64, 64, 32), (128, 64, 32), (256, 128, 16), (256, 256, 16))  # channels in and out, height and width
NETS = ("resnet20", "mobilenet_v2", "resnet50", "minilm")

Found = tuple[list[Row], dict[str, Figure]]


def vector(size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, size)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ matrix times vector


def matrix(text: str, seed: int = 0, size: int = SIZE) -> Model:
    """A square matrix of random codes."""
    return Model(one("linear", (1, size), coded(text, (size, size), seed=seed)))


def at_widths(nested: Model, x: Mapping[str, np.ndarray], threads: int, isa: str = "") -> dict[str, Run]:
    """Calls of one nested matrix at every width."""
    whole = opened(nested, threads, isa)
    return {f"nested8 at {bits} bits": call(whole.at(bits), x) for bits in WIDTHS}


def cached(options: Options, threads: int) -> Race:
    """The matrix in the last-level cache, ours in several formats, the peer's in several settings."""
    x = {"x": vector()}
    calls = at_widths(matrix("nested8"), x, threads)
    calls |= {f"{text} per channel": ours(matrix(text), x, threads) for text in ("int8", "int4")}
    if "avx2" in isas()[1:]:
        calls |= {f"{name}, avx2": run for name, run in at_widths(matrix("nested8"), x, threads, "avx2").items()}
    settings = few_bits(SETTINGS + (OTHERS if options.full else ()))
    theirs = {str(s): onnxruntime(nbits.model(SIZE, SIZE, s), x, threads) for s in settings}
    return race(f"matrix {SIZE} x {SIZE} in cache, {threaded(threads)}", calls, theirs, rounds(options), threads=threads)


def few_bits(settings: Sequence[nbits.Setting]) -> Sequence[nbits.Setting]:
    """The peer's settings, none where it is not installed."""
    return settings if peers.there("MatMulNBits", peers.ONNX) else ()


def turning(calls: Sequence[Run]) -> Run:
    """A call that runs the next of several each time."""
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


def from_memory(options: Options, threads: int) -> Race:
    """Matrices in turn, so many that they are several times what the cache holds."""
    x = {"x": vector()}
    counts = {bits: -(-SEVERAL * last_cache() // (SIZE * SIZE * bits // 8)) for bits in WIDTHS}
    models = [opened(matrix("nested8", seed), threads) for seed in range(max(counts.values()))]
    calls = {f"nested8 at {b} bits": turning([call(m.at(b), x) for m in models[:n]]) for b, n in counts.items()}
    theirs = {}
    for setting in few_bits(SETTINGS if options.full else SETTINGS[1::2]):
        files = [nbits.model(SIZE, SIZE, setting, seed) for seed in range(counts[setting.bits])]
        theirs[str(setting)] = turning([onnxruntime(file, x, threads) for file in files])
    what = f"matrix {SIZE} x {SIZE} from memory, {threaded(threads)}"
    return race(what, calls, theirs, rounds(options), threads=threads, settle=False)


def of_width(found: Race, bits: int) -> list[Row]:
    """Rows of our formats of a width against the peer's settings of the same."""
    return [
        found.row(name, peer)
        for name in found.ours
        for peer in found.peers
        if width(name) == bits and peer.startswith(f"MatMulNBits {bits} bits")
    ]


def width(name: str) -> int:
    """The bits that one of our calls runs at.

    >>> width("nested8 at 4 bits, avx2"), width("int8 per channel")
    (4, 8)
    """
    return next(bits for bits in WIDTHS if f"at {bits} bits" in name or f"int{bits} per" in name)


def matrix_rows(found: Race) -> list[Row]:
    """Ours against the peer, width by width, and against our own 8 bits."""
    return [row for bits in WIDTHS for row in of_width(found, bits)] + narrower(found)


def narrower(found: Race) -> list[Row]:
    """Each width of ours against our own 8 bits."""
    whole = Race(found.what, found.ours, {f"ours at {WIDTHS[0]} bits": found.ours[f"nested8 at {WIDTHS[0]} bits"]})
    return [whole.row(f"nested8 at {bits} bits", f"ours at {WIDTHS[0]} bits") for bits in WIDTHS[1:]]


def bandwidth(found: Race, top: Peak) -> list[Row]:
    """Bytes of weights read a second, against what memory gives at most."""
    if top.memory is None:
        return []
    read = {b: SIZE * SIZE * b / 8 / found.ours[f"nested8 at {b} bits"].median for b in WIDTHS}
    return [Row.of(f"{found.what}, GB/s of weights at {b} bits", r / 1e9, top.memory / 1e9, "memory") for b, r in read.items()]


def matrix_figures(cache: Race, memory: Race) -> dict[str, Figure]:
    """From memory against our own 8 bits, from the cache against the peer's best setting and against its usual one."""
    out = {}
    for row, bits in zip(narrower(memory), WIDTHS[1:], strict=True):
        out[f"matvec_memory_{bits}_vs_8"] = Figure.at_most(row.ratio, FEWER[bits])
    for bits, goal in CACHED.items():
        names = [str(s) for s in SETTINGS if s.bits == bits]
        mine = f"nested8 at {bits} bits"
        out[f"matvec_cache_{bits}"] = Figure.at_most(cache.share(mine, names), goal)
        out[f"matvec_cache_{bits}_blocks_32"] = Figure.at_most(cache.share(mine, names[:1]), goal)
    return out


def matrices(options: Options, top: Peak) -> Found:
    """Rows of both places and all threads (from memory, one alone with --quick), figures of one thread."""
    rows: list[Row] = []
    figures: dict[str, Figure] = {}
    for threads in sorted({1, options.threads}):
        tell(f"matrix times vector, threads {threads}")
        cache = cached(options, threads)
        rows += matrix_rows(cache)
        if threads == 1 or not options.quick:
            memory = from_memory(options, threads)
            rows += matrix_rows(memory)
        if threads == 1:
            rows += bandwidth(memory, top)
            figures = matrix_figures(cache, memory)
    return rows, figures


# --------------------------------------------------------------------------------------------- transposed convolution


def transposed_net(channels: int, outputs: int, size: int, kernel: int) -> Net:
    """The layer for the peers, with random weights."""
    layer = nn.ConvTranspose2d(channels, outputs, kernel, 2, 1, output_padding=kernel % 2)
    x = np.random.default_rng(2).normal(size=(8, channels, size, size)).astype(np.float32)
    return Net(f"transposed-{channels}-{outputs}-{size}-{kernel}", layer.eval(), {"x": x})


def transposed_race(options: Options, channels: int, outputs: int, size: int, kernel: int, threads: int = 1) -> Race:
    """Ours and the same by zero-stuffing, in int8; the peers in float and int8."""
    net, graph = transposed_net(channels, outputs, size, kernel), transposed(channels, outputs, size, kernel)
    mine = {
        "int8": ours(Model(graph), net.example, threads),
        "zero-stuffing": ours(Model(stuffed(graph)), {"x": stuffing(net.example["x"])}, threads),
    }
    theirs = peers.calls(net, threads)
    what = f"transposed {kernel}x{kernel}, {channels} to {outputs}, {size}x{size}, {threaded(threads)}"
    found = race(what, mine, theirs, rounds(options), threads=threads)
    return Race(what, {"int8": found.ours["int8"]}, {"our zero-stuffing": found.ours["zero-stuffing"], **found.peers})


def transposes(options: Options) -> Found:
    """Every shape; figures are of the shape that does worst."""
    tell("transposed convolutions")
    races = [transposed_race(options, *shape, kernel) for kernel in KERNELS for shape in TRANSPOSED]
    others = [*peers.INT8, *peers.FLOAT]
    rows = [row for found in races for row in found.rows()]
    return rows, {
        "transposed_vs_stuffing": Figure.at_most(worst(races, ["our zero-stuffing"]), 0.4),
        "transposed_vs_peer": Figure.at_most(worst(races, others), 0.8),
    }


def worst(races: Sequence[Race], among: Container[str]) -> float | None:
    """The largest share of a peer's time; None where there is no peer."""
    return max((share for found in races if (share := found.share("int8", among)) is not None), default=None)


# ----------------------------------------------------------------------------------------------------------- layers


def layer_seconds(options: Options, model: Model, x: np.ndarray, isa: str) -> float:
    """Median seconds of the steps that multiply, without those that turn reals into codes and back; all on the reference."""
    ready = opened(model, 1, isa)
    runs = [steps(ready, {"x": x}) for _ in range(2 + rounds(options))][2:]
    return float(np.median([sum(s.milliseconds for s in run if s.macs or not isa) for run in runs])) * 1e-3


@dataclass(frozen=True)
class Sum:
    """Multiply-accumulates and seconds of several layers."""

    macs: float = 0.0
    seconds: float = 0.0

    def plus(self, layer: Layer, count: int, seconds: float) -> Sum:
        return Sum(self.macs + count * layer.macs, self.seconds + count * seconds)

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second."""
        return self.macs / self.seconds


def net_rows(options: Options, net: str, isa: str, top: float | None, each: bool) -> list[Row]:
    """GMAC/s of a network's layers on an instruction set against the peak: all layers together, and each if asked for."""
    tell(f"layers of {net}, {isa or 'reference'}")
    whole, rows = Sum(), []
    for layer, count in distinct(layers(net)):
        graph = layer.graph()
        x = np.random.default_rng(3).normal(size=graph.inputs[0].shape).astype(np.float32)
        took = layer_seconds(options, Model(graph), x, isa)
        whole = whole.plus(layer, count, took)
        rows.append(rate_row(f"{net} {layer.name} ({count}x), {isa or 'reference'}, GMAC/s", layer.macs / took, top))
    total = rate_row(f"{net}, all layers, {isa or 'reference'}, GMAC/s", whole.rate, top)
    return [total, *(rows if each else [])]


def rate_row(what: str, rate: float, top: float | None) -> Row:
    return Row.of(what, rate / 1e9, top and top / 1e9, "peak" if top else "")


def real_layers(options: Options, top: Peak) -> Found:
    """Layers of every network on every instruction set that is meant to be fast, the slow twin with --full."""
    sets = [isa for isa in isas() if isa != "scalar" or options.full] or [""]
    rows, figures = [], {}
    for net, isa in itertools.product(NETS, sets):
        found = net_rows(options, net, isa, top.macs.get(isa), each=isa == sets[0] or options.full)
        rows += found
        figures[f"peak_{net}_{isa or 'reference'}"] = (
            Figure.at_most(None, None) if found[0].ratio is None else Figure(found[0].ratio, None, True)
        )
    return rows, figures


# ------------------------------------------------------------------------------------------------------------ whole


def bench(options: Options) -> Result:
    """Every part, rows and figures."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tell("what the machine does at most")
    top = peak()
    rows = [Row(f"peak of {isa}, one thread, GMAC/s", rate / 1e9) for isa, rate in top.macs.items()]
    rows += [Row("read from memory, one thread, GB/s", top.memory / 1e9)] if top.memory else []
    figures: dict[str, Figure] = {}
    parts: Sequence[Callable[[], Found]] = (
        lambda: matrices(options, top),
        lambda: transposes(options),
        lambda: real_layers(options, top),
    )
    for part in parts:
        more, found = part()
        rows += more
        figures |= found
    about = machine(options.threads, options.command) | {"isa": ", ".join(isas()) or "reference"}
    return Result("kernels", tuple(rows), judged(figures), about, versions())
