"""`bitladder bench`: how long a network takes for one batch, and how long other runtimes take for the same."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitladder import native
from bitladder.cli import arrays
from bitladder.cli.network import network
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.engine import cores
from bitladder.errors import require
from bitladder.ir.graph import Graph, Value
from bitladder.model import Model, load
from bitladder.peers import PEERS, Arrays
from bitladder.recipe import quantize
from bitladder.table import table
from bitladder.timing import ROUNDS, Ratio, Run, Times, interleaved, ratio

OURS = "bitladder"
CALIBRATION = 16  # random samples that a network is calibrated on: what its integers are does not change its time
PAUSE = 0.005  # seconds until the threads of another runtime have stopped looking for work


def bench(args: Namespace, terminal: Terminal) -> Outcome:
    """A row for each runtime, ours first; all are timed in turns."""
    peers = chosen(args.against)
    terminal.progress("open", 0, 0)
    model, plain = subject(args)
    threads = args.threads or cores()
    feeds = first(args.data, model.whole.inputs)
    model = model.with_(threads=threads)
    given = list(feeds.values())
    calls: dict[str, Run] = {OURS: lambda: model(*given)}
    with tempfile.TemporaryDirectory() as folder:
        for name in peers:
            for what, graph in (("", model.graph), (", float", plain)):
                if graph is not None:
                    calls[f"{name}{what}"] = opened(name, graph, Path(folder), feeds, threads)
        terminal.progress("time", 0, 0)
        times = interleaved(calls, ROUNDS, pause=PAUSE if threads > 1 else 0.0)
    isa = native.isa() or "reference"
    found = {name: (t, ratio(times[OURS], t)) for name, t in times.items()}
    cells = [row(name, *each) for name, each in found.items()]
    on = f"{threads} thread{'s'[: threads > 1]}, {isa}"
    lines = [f"{on}, {model.average_bits:.3g} bits on average; medians of {ROUNDS} rounds in turns"]
    text = table(("runtime", "ms", "best", "ours / it", "95 %"), cells)
    facts = {"threads": threads, "isa": isa, "rows": [fact(name, *each) for name, each in found.items()]}
    return Outcome(text, None, lines, facts)


def chosen(against: str | None) -> list[str]:
    """The names of peers in a list with commas, each installed."""
    names = [name for name in (against or "").split(",") if name]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"bench: --against must name some of {', '.join(PEERS)}, got {name!r}")
        require(name, "onnx" if name == "onnxruntime" else "bench", "bench")
        require("onnx", "onnx", "bench")
    return names


def subject(args: Namespace) -> tuple[Model, Graph | None]:
    """The network that is timed, and its float version if it came as one."""
    if not args.net.endswith(".onnx") and ".py:" not in args.net:
        if args.weights is not None:
            raise ValueError("bench: --weights goes with file.py:function; a .ladder file has its own")
        return load(args.net, args.bits), None
    samples = {} if args.data is None else arrays.read(args.data)
    if not samples and not args.net.endswith(".onnx"):
        raise ValueError(f"bench: {args.net!r} does not say what its inputs are; give some with --data X.npz")
    plain = network(args.net, args.weights, samples)
    calib = random(plain.inputs, CALIBRATION) if args.data is None else first(args.data, plain.inputs, CALIBRATION)
    if args.bits == "auto":
        return quantize(plain, calib, plan="int8", effort="fast"), plain
    return quantize(plain, calib, plan="nested8", effort="fast").at(args.bits), plain


def first(path: str | None, inputs: Sequence[Value], count: int = 1) -> dict[str, np.ndarray]:
    """The first samples of a file, random ones without one."""
    if path is None:
        return random(inputs, count)
    found = arrays.samples(path, inputs)
    take = found.batch if found.fixed else count
    return {name: a[:take] if a.ndim else a for name, a in found.feeds.items()}


def random(inputs: Sequence[Value], count: int) -> dict[str, np.ndarray]:
    """Random numbers for inputs of real ones, zeros for others; `count` samples where the network leaves that open."""
    return {v.name: numbers(v, count) for v in inputs}


def numbers(value: Value, count: int) -> np.ndarray:
    """What `random` gives for one input."""
    shape = value.shape
    if shape is None or any(not isinstance(n, int) for n in shape[1:]):
        shown = "any" if shape is None else f"({', '.join(map(str, shape))})"
        raise ValueError(
            f"bench: input {value.name!r} has shape {shown}, its sizes must be known; give an array with --data X.npz"
        )
    sizes = [n if isinstance(n, int) else count for n in shape]
    if np.dtype(value.dtype).kind != "f":
        return np.zeros(sizes, value.dtype)
    return np.random.default_rng(0).normal(size=sizes).astype(value.dtype)


def opened(name: str, graph: Graph, folder: Path, feeds: Arrays, threads: int) -> Run:
    """A call that runs the network, written as ONNX, in another runtime."""
    from bitladder.convert.to_onnx import to_onnx

    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    to_onnx(graph, path, int4=False)
    try:
        return PEERS[name](path, feeds, threads)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"bench: {name} does not take this network ({words}); time it without --against {name}") from None


def row(name: str, times: Times, held: Ratio) -> tuple[object, ...]:
    """The cells of one runtime."""
    if name == OURS:
        return name, 1e3 * times.median, 1e3 * times.best, None, ""
    return name, 1e3 * times.median, 1e3 * times.best, held.value, f"{held.low:.3g} .. {held.high:.3g}"


def fact(name: str, times: Times, held: Ratio) -> dict[str, object]:
    """What JSON says of one runtime."""
    own = {"runtime": name, "milliseconds": 1e3 * times.median, "best": 1e3 * times.best}
    return own if name == OURS else {**own, "ratio": held.value, "interval": [held.low, held.high]}
