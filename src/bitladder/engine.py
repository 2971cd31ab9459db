"""Who computes: the native core where it has a kernel, the reference for the rest.

An `Engine` holds a network once, at all the widths it has. It cuts the graph into pieces: runs of nodes that the core can
take, each loaded into it, and runs of nodes that are left to the reference, each with the reason. Without the core there is one
piece. Codes that cross a border go as reals and come back as the same codes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bitladder import file, native
from bitladder.errors import Unsupported
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.runtime.reference import run as reference

Bits = int | Mapping[str, int] | None
RUNGS_KEPT = 16  # small tables of widths that come again
SHAPES_KEPT = 64  # of inputs, with those of the outputs


@dataclass(frozen=True)
class StepTime:
    """One step of a run: the node it stands for, what ran, milliseconds, multiply-accumulates, bytes of weights."""

    node: str
    kernel: str
    milliseconds: float
    macs: int = 0
    nbytes: int = 0


@dataclass
class Piece:
    """Nodes that run together; `reason` says why they run on the reference, empty where the core runs them."""

    graph: Graph
    reason: str = ""
    networks: dict[tuple[str, ...], Any] = field(default_factory=dict)  # native.core.Network by the dtypes of its inputs
    rungs: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def held(self) -> Graph:
        """The graph with all codes in memory: what the reference runs, which reads them every time."""
        constants = {name: c.held() if isinstance(c, QTensor) else c for name, c in self.graph.constants.items()}
        return self.graph.with_(constants=constants)


class Engine:
    """A loaded network. Any number of threads may call `run` at once.

    graph: the network with all its planes. threads: of the private pool, all cores by default. batch: a hint for how many
    samples come at a time, which decides how weights lie in memory. isa: an instruction set, the best by default. origin: reads
    the file that all of `graph` came from.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        threads: int | None = None,
        batch: int = 1,
        isa: str = "",
        origin: Callable[[], bytes] | None = None,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads: must be a whole number from 1 up, got {threads!r}")
        self.graph, self.threads, self.batch, self.isa, self.origin = graph, threads or cores(), batch, isa, origin
        self.foreign: dict[str, str] = {}  # nodes without a kernel: why
        self._pieces: list[Piece] | None = None
        self._lock = threading.RLock()

    def run(
        self, feeds: Mapping[str, np.ndarray], bits: Bits = None, times: list[StepTime] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs by name, as reals, on the leading `bits` of nested weights; `times` gets what each step took."""
        return self._through(feeds, bits, times)

    def profile(self, feeds: Mapping[str, np.ndarray], bits: Bits = None) -> list[StepTime]:
        """What each step of one run took, in order; nodes on the reference are one step a piece."""
        times: list[StepTime] = []
        self._through(feeds, bits, times)
        return times

    def pieces(self) -> list[Piece]:
        """The graph in the pieces it runs in."""
        if (cut := self._pieces) is not None:
            return cut
        with self._lock:
            if self._pieces is None:
                self._pieces = self._cut()
            return self._pieces

    def reasons(self) -> dict[str, str]:
        """For each node that runs on the reference, why; as far as it is known, which a run may add to."""
        return {n.name: self.foreign.get(n.name, p.reason) for p in self.pieces() if p.reason for n in p.graph.nodes}

    @property
    def weight_bytes(self) -> int:
        """Memory of weights in the core, as far as they are loaded."""
        return sum(n.weight_bytes for p in self.pieces() for n in p.networks.values())

    @property
    def arena_bytes(self) -> int:
        """Memory of values in between in the core, of all shapes that came so far."""
        return sum(next(iter(p.rungs.values()))[0].arena_bytes for p in self.pieces() if p.rungs)

    # ------------------------------------------------------------------------------------------------------ cutting

    def _cut(self) -> list[Piece]:
        """Runs of nodes that the core takes and runs that it does not; everything on the reference where there is no core."""
        if native.core is None:
            return [Piece(self.graph, native.why)]
        made = {name for node in self.graph.nodes for name in node.outputs}
        if odd := [name for name in self.graph.outputs if name not in made]:
            return [Piece(self.graph, f"output {odd[0]!r} is made by no node")]
        if not self.foreign:
            self.foreign = dict(native.core.unsupported(self._bytes(self.graph)))
        return [Piece(part(self.graph, nodes), reason) for nodes, reason in runs(self.graph.nodes, self.foreign)]

    def _refused(self, piece: Piece, error: Unsupported) -> None:
        """The core found out that it cannot run a piece: its node goes to the reference, or all of it."""
        node = getattr(error, "node", "")
        names = [node] if node in {n.name for n in piece.graph.nodes} else [n.name for n in piece.graph.nodes]
        with self._lock:
            self.foreign.update({name: str(error) for name in names})
            self._pieces = None

    # ------------------------------------------------------------------------------------------------------ running

    def _through(self, feeds: Mapping[str, np.ndarray], bits: Bits, times: list[StepTime] | None) -> dict[str, np.ndarray]:
        while True:
            env: dict[str, np.ndarray] = dict(feeds)
            done: list[StepTime] = []
            for piece in self.pieces():
                try:
                    env.update(self._run_piece(piece, env, bits, None if times is None else done))
                except Unsupported as error:
                    if piece.reason:
                        raise
                    self._refused(piece, error)
                    break
            else:
                if times is not None:
                    times.extend(done)
                return {name: env[name] for name in self.graph.outputs}

    def _run_piece(
        self, piece: Piece, env: Mapping[str, np.ndarray], bits: Bits, times: list[StepTime] | None
    ) -> dict[str, np.ndarray]:
        if piece.reason:
            return self._on_reference(piece, {v.name: env[v.name] for v in piece.graph.inputs}, bits, times)
        arrays = [np.asarray(env[v.name], order="C") for v in piece.graph.inputs]
        rung, shapes = self._rung(piece, arrays, bits)
        key = tuple([a.shape for a in arrays])
        if (made := shapes.get(key)) is None:
            if len(shapes) >= SHAPES_KEPT:
                shapes.clear()
            made = shapes[key] = [(shape, np.dtype(name)) for shape, name in rung.prepare(list(key))]
        outputs = [np.empty(shape, dtype) for shape, dtype in made]
        if times is None:
            rung.run(arrays, outputs)
        else:
            rows = rung.profile(arrays, outputs)
            times.extend(StepTime(node, kernel, ns / 1e6, macs, nbytes) for node, kernel, ns, macs, nbytes in rows)
        return dict(zip(piece.graph.outputs, outputs, strict=True))

    def _on_reference(
        self, piece: Piece, feeds: Mapping[str, np.ndarray], bits: Bits, times: list[StepTime] | None
    ) -> dict[str, np.ndarray]:
        start = perf_counter()
        graph = piece.held if bits is None else piece.held.at(bits)
        out = {name: np.asarray(a) for name, a in reference(graph, feeds).items()}
        if times is not None:
            names = ", ".join(n.name for n in graph.nodes[:3]) + (", ..." if len(graph.nodes) > 3 else "")
            times.append(StepTime(names, "reference", (perf_counter() - start) * 1e3))
        return out

    def _rung(self, piece: Piece, arrays: Sequence[np.ndarray], bits: Bits) -> tuple[Any, dict[Any, Any]]:
        """The piece in the core at a width, loaded when it is first asked for, and the outputs of shapes that came before."""
        key = (tuple([a.dtype for a in arrays]), tuple(sorted(bits.items())) if isinstance(bits, Mapping) else bits)
        if (known := piece.rungs.get(key)) is not None:
            return known
        dtypes = tuple(a.dtype.name for a in arrays)
        with self._lock:
            if dtypes not in piece.networks:
                piece.networks[dtypes] = self._load(piece.graph, dtypes)
            named = bits.items() if isinstance(bits, Mapping) else ()
            each = {name: b for name, b in named if name in piece.graph.constants}
            rung = piece.networks[dtypes].at(bits if isinstance(bits, int) else 0, each)
            if len(piece.rungs) >= RUNGS_KEPT:
                piece.rungs.pop(next(iter(piece.rungs)))
            piece.rungs[key] = (rung, {})
            return piece.rungs[key]

    def _load(self, graph: Graph, dtypes: Sequence[str]) -> Any:
        inputs = tuple(Value(v.name, d, v.shape) for v, d in zip(graph.inputs, dtypes, strict=True))
        given = graph if inputs == graph.inputs else graph.with_(inputs=inputs)
        network = native.core.Network(self._bytes(given), self.threads, self.batch, self.isa or native.isa())
        native.trim()
        return network

    def _bytes(self, graph: Graph) -> bytes:
        """The file of a graph: the one it came from, if that is this graph, or one made here."""
        return self.origin() if self.origin and graph is self.graph else file.to_bytes(graph)


def cores() -> int:
    """The cores this process may use: its affinity, and its share where a control group limits it."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return there if quota == "max" else max(1, min(there, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return there


def runs(nodes: Sequence[Node], foreign: Mapping[str, str]) -> Iterator[tuple[list[Node], str]]:
    """Neighbouring nodes of one kind, with the reason of the first that the core does not take."""
    together: list[Node] = []
    for node in nodes:
        if together and (node.name in foreign) != (together[0].name in foreign):
            yield together, foreign.get(together[0].name, "")
            together = []
        together.append(node)
    if together:
        yield together, foreign.get(together[0].name, "")


def part(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """Some neighbouring nodes as a graph: what they read from others are its inputs, what others read its outputs."""
    made = {name for n in nodes for name in n.outputs}
    if len(nodes) == len(graph.nodes):
        return graph
    read = list(dict.fromkeys(name for n in nodes for name in n.inputs if name))
    given = {v.name: v for v in graph.inputs}
    inside = {id(n) for n in nodes}
    wanted = {name for n in graph.nodes if id(n) not in inside for name in n.inputs} | set(graph.outputs)
    constants = {name: graph.constants[name] for name in read if name in graph.constants}
    for c in list(constants.values()):
        if isinstance(c, PerWidth) and c.of not in constants:
            constants[c.of] = graph.constants[c.of]
    inputs = [name for name in read if name not in made and name not in graph.constants]
    return Graph(
        inputs=tuple(given.get(name, Value(name, "float32", None)) for name in inputs),
        outputs=tuple(name for n in nodes for name in n.outputs if name in wanted),
        nodes=tuple(nodes),
        constants=constants,
        encodings={k: e for k, e in graph.encodings.items() if k in made or k in inputs},
        meta={"min_bits": {k: b for k, b in graph.meta.get("min_bits", {}).items() if k in constants}},
    )
