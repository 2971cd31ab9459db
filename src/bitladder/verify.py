"""Whether every way to run a network gives what the reference gives: each node on each instruction set, all of them, ONNX.

Each node is a small network of its own that reads the reference's values, so a difference shows where it arises. Integer nodes
must be equal to the bit. A float node may be off by `TOLERANCE`, and a code that it makes by one where its value lies that near
a tie. Nodes that agree alone must agree together; where they do not, the first that goes apart is looked for from the front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitladder import native
from bitladder.engine import Bits, Engine, StepTime, part, runs
from bitladder.errors import Missing, Unsupported
from bitladder.formats import Encoding
from bitladder.ir.graph import Graph, Node
from bitladder.ir.ops import OPS
from bitladder.model import Model
from bitladder.ptq.calibrate import MOVES
from bitladder.runtime.integer import UNARY, Coded
from bitladder.runtime.reference import in_float, in_integers, real, start, step

Feeds = Mapping[str, np.ndarray]
Progress = Callable[[str, int, int], None]

TOLERANCE = 1e-5  # of a float node, relative, and absolute in the largest of its numbers (docs/numerics.md)
MANY = 32  # samples at a time for which weights may be laid out in another way
BORDERS = ("encode", "decode", "ring", "layout")  # steps that bring values into the form that a kernel wants
STEADY = (*UNARY, "add", "sub", "mul", "div", "min", "max", "clip", "where", "prelu")  # float nodes without an order of sums
EXACT_IN_ONNX = ("conv", "linear", "matmul", "global_avg_pool")  # where ONNX Runtime has an integer kernel


@dataclass(frozen=True)
class Row:
    """How one thing compares with the reference: `differing` of `count` numbers, by `largest` at most, in codes where it has
    codes. `wrong` where that is more than it may be; `count` is 0 where nothing could be compared, and `kernel` says why."""

    node: str
    op: str
    kind: str  # "integers", "moved", "float"; "network" for all nodes together
    kernel: str
    isa: str
    bits: str
    count: int = 0
    differing: int = 0
    largest: float = 0.0
    wrong: bool = False


@dataclass
class Verdict:
    """All rows, in the order in which they were checked: nodes, the network, ONNX; and what was left out."""

    rows: list[Row] = field(default_factory=list)
    whole: list[Row] = field(default_factory=list)
    onnx: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    order: Mapping[str, int] = field(default_factory=dict)  # of nodes in the network

    @property
    def first(self) -> Row | None:
        """The wrong row that is nearest to the inputs; None if nothing is wrong."""
        wrong = [r for r in (*self.rows, *self.whole, *self.onnx) if r.wrong]
        return min(wrong, key=lambda r: self.order.get(r.node, len(self.order)), default=None)


@dataclass(frozen=True)
class Truth:
    """One run of the reference: every value, and how each node computed."""

    graph: Graph
    values: Mapping[str, Any]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, graph: Graph, feeds: Feeds) -> Truth:
        """The reference on these inputs."""
        values, kinds = start(graph, feeds), {}
        for node in graph.nodes:
            made = in_integers(graph, node, values)
            kinds[node.name] = "integers" if made is not None else "moved" if moves(graph, node) else "float"
            values.update(zip(node.outputs, in_float(graph, node, values) if made is None else made, strict=False))
        return cls(graph, values, kinds)

    def feeds(self, graph: Graph) -> dict[str, np.ndarray]:
        """What a part of the graph reads, as reals."""
        return {v.name: np.asarray(real(self.values[v.name])) for v in graph.inputs}

    def unencoded(self, node: Node) -> dict[str, np.ndarray]:
        """What a node makes before it is encoded, as reals."""
        plain = self.graph.with_(encodings={k: e for k, e in self.graph.encodings.items() if k not in node.outputs})
        made = step(plain, node, self.values, OPS)
        return {name: np.asarray(real(value)) for name, value in zip(node.outputs, made, strict=False)}


def moves(graph: Graph, node: Node) -> bool:
    """Whether a node passes values on as they are, codes as the same codes."""
    before, after = graph.encodings.get(node.inputs[0]), graph.encodings.get(node.name)
    return node.op in MOVES and node.clip is None and alike(before, after)


def alike(a: Encoding | None, b: Encoding | None) -> bool:
    """Whether codes of one mean the same under the other."""
    if a is None or b is None:
        return a is b
    same = a.format == b.format and a.axes == b.axes and a.params.keys() == b.params.keys()
    return same and all(np.array_equal(p, b.params[k]) for k, p in a.params.items())


def levels(model: Model, bits: int | str | None = None) -> list[tuple[str, Bits]]:
    """The widths to check, with their names: one if `bits` says which, else the plan's and every width that differs."""
    if isinstance(bits, int):
        return [(str(bits), bits)]
    plan: list[tuple[str, Bits]] = [("plan", model.bits)] if isinstance(model.bits, Mapping) else []
    return [*plan, *((str(b), b) for b in reversed(model.widths))] or [("all", None)]


def check(
    model: Model,
    feeds: Feeds,
    bits: int | str | None = None,
    *,
    onnx: bool = True,
    isas: Sequence[str] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Verdict:
    """Every node, the whole network and its ONNX file on these inputs, on each instruction set, at each of the widths."""
    graph, sets = model.whole, native.isas() if isas is None else list(isas)
    found = Verdict(order={n.name: i for i, n in enumerate(graph.nodes)})
    if native.core is None:
        found.notes.append(f"no native core: {native.why}; nothing but ONNX is compared with the reference")
    if onnx and (reason := absent()):
        found.notes.append(f"ONNX Runtime is skipped: {reason}")
    nodes = Nodes(graph)
    names = levels(model, bits)
    total, done = len(names) * (1 + len(graph.nodes) * len(sets)), 0
    for name, width in names:
        progress(f"reference, width {name}", done, total)
        truth = Truth.of(graph if width is None else graph.at(width), feeds)
        for isa in sets:
            rows = []
            for node in graph.nodes:
                rows.append(nodes.row(node, truth, isa, name, width))
                done += 1
                progress("nodes", done, total)
            found.rows += rows
            found.whole += networks(graph, truth, feeds, isa, name, width, {r.node for r in rows if r.differing or r.wrong})
        done += 1
        if onnx and not absent():
            progress(f"ONNX Runtime, width {name}", done, total)
            in_onnx(found, truth.graph, feeds, name)
    return found


# ----------------------------------------------------------------------------------------------------------- nodes


class Nodes:
    """The nodes of a graph, each in an engine of its own for each instruction set."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.engines: dict[tuple[str, str], Engine] = {}

    def row(self, node: Node, truth: Truth, isa: str, name: str, bits: Bits) -> Row:
        """One node at one width, on the reference's values."""
        key = (node.name, isa)
        if key not in self.engines:
            self.engines[key] = Engine(part(self.graph, [node]), threads=1, isa=isa)
        engine, times = self.engines[key], list[StepTime]()
        kind = truth.kinds[node.name]
        if not engine.graph.inputs:
            return Row(node.name, node.op, kind, "no input", isa, name)
        made = engine.run(truth.feeds(engine.graph), bits, times)
        if any(t.kernel == "reference" for t in times):
            why = next((p.reason for p in engine.pieces() if p.reason), "")
            return Row(node.name, node.op, kind, f"reference: {why}", isa, name)
        kernels = dict.fromkeys(t.kernel for t in times if t.kernel not in BORDERS)
        return compared(Row(node.name, node.op, kind, ", ".join(kernels), isa, name), made, truth, node)


def compared(row: Row, made: Feeds, truth: Truth, node: Node | None = None) -> Row:
    """The row with its counts; `node` is given where what it may be off by is to be found out."""
    numbers = [apart(made[name], truth.values[name]) for name in made]
    differing = sum(n for n, _ in numbers)
    free = node is not None and row.kind == "float" and within(made, truth, node)
    count, largest = sum(a.size for a in made.values()), max((far for _, far in numbers), default=0.0)
    return replace(row, count=count, differing=differing, largest=largest, wrong=differing > 0 and not free)


def apart(got: np.ndarray, want: Any) -> tuple[int, float]:
    """How many numbers are not those of the reference, and by how much at most: in codes, or in reals."""
    reals = np.asarray(real(want))
    if got.shape != reals.shape:
        return max(got.size, 1), float("inf")
    odd = ~((got == reals) | ((got != got) & (reals != reals)))
    if not odd.any():
        return 0, 0.0
    a, b = (want.encoding.encode(got), want.codes) if isinstance(want, Coded) else (got, reals)
    return int(odd.sum()), float(np.nanmax(np.abs(a[odd].astype(np.float64) - np.asarray(b)[odd])))


def within(made: Feeds, truth: Truth, node: Node) -> bool:
    """Whether the outputs of a float node are what its value, moved by no more than the tolerance, can give."""
    reals = truth.unencoded(node)
    return all(near(a, reals[name], truth.values[name]) for name, a in made.items())


def near(got: np.ndarray, exact: np.ndarray, want: Any) -> bool:
    """Whether `got` lies between what the reference makes of `exact` less and plus the tolerance."""
    if got.shape != exact.shape or exact.dtype.kind != "f":
        return False
    finite = np.abs(exact[np.isfinite(exact)])
    slack = np.float32(TOLERANCE) * (np.where(np.isfinite(exact), np.abs(exact), 0) + max(1.0, float(finite.max(initial=0))))
    low, high, value = exact - slack, exact + slack, got
    if isinstance(want, Coded):
        low, high, value = (want.encoding.encode(a) for a in (low, high, got))
        if not np.array_equal(want.encoding.decode(value), got):  # no real of a code
            return False
    return bool(np.all(((low <= value) & (value <= high)) | (np.isnan(got) & np.isnan(exact))))


# --------------------------------------------------------------------------------------------------------- networks


def networks(graph: Graph, truth: Truth, feeds: Feeds, isa: str, name: str, bits: Bits, off: set[str]) -> list[Row]:
    """The network; two threads, weights laid out for batches; samples one by one; between loose nodes, stretches.

    Loose are nodes that were off alone, and those that sum floats. All else must be equal to the bit; where there are loose
    nodes, differences of the whole network are told, and no more.
    """
    loose = {n.name: "loose" for n in graph.nodes if n.name in off or not steady(truth, n)}
    row = Row("network", "", "network", "", isa, name)
    one = Engine(graph, threads=1, isa=isa)
    made = one.run(feeds, bits)
    if all(p.reason for p in one.pieces()):
        return []
    rows = [found for nodes in stretches(graph, loose) for found in together(graph, nodes, truth, isa, name, bits)]
    same, exact = Truth(truth.graph, made, {}), not loose
    two = Engine(graph, threads=2, batch=MANY, isa=isa).run(feeds, bits)
    if loose or len(graph.nodes) == 1:
        rows.append(told(compared(row, made, truth), exact))
    rows.append(told(compared(replace(row, node="2 threads, batches"), two, same), exact))
    if (singles := one_by_one(one, graph, feeds, made, bits)) is not None:
        rows.append(told(compared(replace(row, node="samples one by one"), singles, same), exact))
    return rows


def stretches(graph: Graph, loose: Mapping[str, str]) -> list[list[Node]]:
    """Neighbouring nodes without a loose one, as far as they go; one node was checked alone."""
    return [nodes for nodes, why in runs(graph.nodes, loose) if not why and len(nodes) > 1]


def together(graph: Graph, nodes: Sequence[Node], truth: Truth, isa: str, name: str, bits: Bits) -> list[Row]:
    """Nodes that run together on the reference's values: a row, and if it is wrong, before it one for the first that is."""

    def run(some: Sequence[Node]) -> Row:
        some_graph = part(graph, some)
        made = Engine(some_graph, threads=1, isa=isa).run(truth.feeds(some_graph), bits)
        label = "network" if len(some) == len(graph.nodes) else f"{some[0].name} .. {some[-1].name}"
        return compared(Row(label, "", "network", "", isa, name), made, truth)

    row = run(nodes)
    if not row.wrong:
        return [row]
    count = next((k for k in range(1, len(nodes)) if run(nodes[:k]).wrong), len(nodes))
    culprit = nodes[count - 1]
    short = run(nodes[:count])
    return [replace(short, node=culprit.name, op=culprit.op, kernel="in the network"), row]


def steady(truth: Truth, node: Node) -> bool:
    """Whether a node gives the same bits in whatever order it is computed."""
    return truth.kinds[node.name] != "float" or node.op in STEADY


def told(row: Row, exact: bool) -> Row:
    """The row, wrong only where it had to be exact."""
    return replace(row, wrong=row.wrong and exact)


def one_by_one(engine: Engine, graph: Graph, feeds: Feeds, made: Feeds, bits: Bits) -> dict[str, np.ndarray] | None:
    """The outputs of samples that come alone; None where the network does not take them so."""
    counts = {len(a) if a.ndim else 0 for a in (*feeds.values(), *made.values())}
    if len(counts) != 1 or any(v.shape is not None and isinstance(v.shape[0], int) for v in graph.inputs):
        return None
    (count,) = counts
    if count < 2:
        return None
    parts = [engine.run({k: a[i : i + 1] for k, a in feeds.items()}, bits) for i in range(count)]
    return {name: np.concatenate([p[name] for p in parts]) for name in made}


# ------------------------------------------------------------------------------------------------------------- ONNX


def absent() -> str:
    """The package that a comparison with ONNX Runtime lacks, with how to get it; empty if there is none."""
    from bitladder.errors import require

    for module in ("onnx", "onnxruntime", "onnxscript"):
        try:
            require(module, "onnx", "verify")
        except Missing as error:
            return str(error)
    return ""


def in_onnx(found: Verdict, graph: Graph, feeds: Feeds, name: str) -> None:
    """Adds a row for each integer value of the exported network in ONNX Runtime, or a note why there is none."""
    try:
        found.onnx += list(onnx_rows(graph, feeds, name))
    except Unsupported as error:
        if (note := f"ONNX Runtime is skipped: {error}") not in found.notes:
            found.notes.append(note)


def onnx_rows(graph: Graph, feeds: Feeds, name: str) -> Iterator[Row]:
    """Every integer value given the reference's integers. It must be equal where numerics.md says so, else be off by one."""
    from bitladder.convert.check_onnx import compare

    for r in compare(graph, feeds):
        exact = r.op in EXACT_IN_ONNX and r.integer
        wrong = r.differing > 0 and (exact or r.largest > 1)
        kind = "integers" if r.integer else "float"
        yield Row(r.name, r.op, kind, r.by, "ONNX Runtime", name, r.count, r.differing, float(r.largest), wrong)
