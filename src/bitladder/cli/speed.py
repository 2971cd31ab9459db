"""`bitladder bench`: how long a network takes for one batch, at its widths, and how long other runtimes take for the same."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitladder import native
from bitladder.cli import arrays, inputs
from bitladder.cli.network import network
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.convert.to_onnx import to_onnx
from bitladder.errors import require
from bitladder.ir.graph import Graph
from bitladder.model import Model, load
from bitladder.peers import IN_FLOAT, PEERS, Arrays
from bitladder.recipe import quantize
from bitladder.table import table
from bitladder.timing import ROUNDS, Run, Times, interleaved, ratio
from bitladder.verify import levels

OURS = "bitladder"
CALIBRATION = 16  # random samples that a network is calibrated on: what its integers are does not change its time
PAUSE = 0.005  # seconds until the threads of another runtime have stopped looking for work
NAMED = 6  # nodes in a line


def bench(args: Namespace, terminal: Terminal) -> Outcome:
    """A row for each of our widths and each runtime; all are timed in turns."""
    peers = chosen(args.against)
    terminal.progress("open", 0, 0)
    model, plain = subject(args)
    model = model.with_(threads=args.threads, batch=args.batch)
    feeds = inputs.samples(args.data, model.whole, args.batch)
    ours = our_calls(model, feeds, args.bits)
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        theirs: dict[str, Run] = {}
        for name in peers:
            for what, graph in (("", model.graph), (", float", plain)):
                if graph is not None:
                    path = written(graph, Path(folder))
                    theirs[f"{name}{what}"] = opened(name, path, feeds, args.threads)
                    notes += [] if what else in_float(name, path)
        terminal.progress("time", 0, 0)
        times = interleaved({**ours, **theirs}, ROUNDS, pause=PAUSE if args.threads > 1 else 0.0)
    return told(args, model, {n: times[n] for n in ours}, {n: times[n] for n in theirs}, [*fallen_back(model), *notes])


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
        model = load(args.net)
        return (model if args.bits == "auto" else model.at(args.bits)), None
    samples = {} if args.data is None else arrays.read(args.data)
    if not samples and not args.net.endswith(".onnx"):
        raise ValueError(f"bench: {args.net!r} does not say what its inputs are; give some with --data X.npz")
    plain = network(args.net, args.weights, samples)
    calib = inputs.samples(args.data, plain, CALIBRATION)
    if args.bits == "auto":
        return quantize(plain, calib, plan="int8", effort="fast"), plain
    return quantize(plain, calib, plan="nested8", effort="fast").at(args.bits), plain


def our_calls(model: Model, feeds: Arrays, bits: int | str) -> dict[str, Run]:
    """A call at the width asked for, or at the plan's and at every width of the file; the first is what peers run too."""
    given = list(feeds.values())
    found: dict[str, Run] = {}
    for label, width in levels(model, bits):
        at = model if width is None else model.at(width)
        name = OURS if not found else f"{OURS}, {label} bit{'s'[: width != 1]}"
        found[name] = lambda at=at: at(*given)  # type: ignore[misc]
    return found


# ------------------------------------------------------------------------------------------------------------ peers


def written(graph: Graph, folder: Path) -> Path:
    """The network as an ONNX file; few bits take int8 there, which is faster than int4."""
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    to_onnx(graph, path, int4=False)
    return path


def opened(name: str, path: Path, feeds: Arrays, threads: int) -> Run:
    """A call that runs the file in another runtime."""
    try:
        return PEERS[name](path, feeds, threads)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"bench: {name} does not take this network ({words}); time it without --against {name}") from None


def in_float(name: str, path: Path) -> list[str]:
    """A line about the layers that another runtime computes in float."""
    nodes = IN_FLOAT[name](path)
    return [f"{name} computes in float: {shortened(nodes)}"] if nodes else []


def fallen_back(model: Model) -> list[str]:
    """A line about the nodes that our core has no kernel for."""
    if native.core is None:
        return [f"no native core, everything runs on the reference: {native.why}"]
    nodes = list(model.engine.reasons())
    return [f"on the reference, without a kernel (bitladder doctor says why): {shortened(nodes)}"] if nodes else []


def shortened(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# ----------------------------------------------------------------------------------------------------------- report


def told(args: Namespace, model: Model, ours: Mapping[str, Times], theirs: Mapping[str, Times], notes: list[str]) -> Outcome:
    """A row of the table for each call; in JSON one for each of ours and each peer, in the shape of `python -m bench`."""
    isa, threads = native.isa() or "reference", f"{args.threads} thread{'s'[: args.threads > 1]}"
    head = (
        f"{threads}, {isa}, batch {args.batch}, {model.average_bits:.3g} bits on average; medians of {ROUNDS} rounds in turns"
    )
    text = table(
        ("runtime", "ms", "best", "ours / it", "95 %"), [cells(name, t, ours) for name, t in {**ours, **theirs}.items()]
    )
    rows: list[dict[str, Any]] = []
    for name, t in ours.items():
        own = {"what": f"{name}, {threads}, ms", "ours": 1e3 * t.median}
        rows += [own | against(t, peer, other) for peer, other in theirs.items()] or [own | against(t)]
    facts = {
        "threads": args.threads,
        "batch": args.batch,
        "isa": isa,
        "average_bits": model.average_bits,
        "rows": rows,
        "times": {name: {"median": 1e3 * t.median, "best": 1e3 * t.best} for name, t in {**ours, **theirs}.items()},
        "notes": notes,
    }
    return Outcome(text, None, [head, *notes], facts)


def cells(name: str, times: Times, ours: Mapping[str, Times]) -> tuple[object, ...]:
    """The row of one call; ratios are of what stands first."""
    first = next(iter(ours.values()))
    if times is first:
        return name, 1e3 * times.median, 1e3 * times.best, None, ""
    held = ratio(first, times)
    return name, 1e3 * times.median, 1e3 * times.best, held.value, f"{held.low:.3g} .. {held.high:.3g}"


def against(ours: Times, name: str = "", peer: Times | None = None) -> dict[str, Any]:
    """What a row of JSON says of a peer."""
    if peer is None:
        return {"peer": None, "peer_name": "", "ratio": None, "spread": None}
    held = ratio(ours, peer)
    return {"peer": 1e3 * peer.median, "peer_name": name, "ratio": held.value, "spread": held.half}
