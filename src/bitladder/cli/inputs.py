"""What a network is run on to be checked or timed: the first samples of a file, or seeded random numbers."""

from __future__ import annotations

import numpy as np

from bitladder.cli import arrays
from bitladder.formats import Encoding
from bitladder.formats.tensor import SPREAD
from bitladder.ir.graph import Graph, Value

SEED = 0
LOOKED_UP = {"gather": (0, 1), "embedding": (0, 1)}  # operators by which of their inputs are a table, and places in it


def samples(path: str | None, graph: Graph, count: int) -> dict[str, np.ndarray]:
    """At most `count` samples of an `.npz` file by input name, random ones where there is no file."""
    if path is None:
        draw = np.random.default_rng(SEED)
        return {v.name: numbers(graph, v, count, draw) for v in graph.inputs}
    found = arrays.samples(path, graph.inputs)
    take = found.batch if found.fixed else count
    return {name: a[:take] if a.ndim else a for name, a in found.feeds.items()}


def numbers(graph: Graph, value: Value, count: int, draw: np.random.Generator) -> np.ndarray:
    """Random numbers for one input: over the range of its encoding, or of the table whose places it names."""
    if value.shape is None or any(not isinstance(n, int) for n in value.shape[1:]):
        shown = "any" if value.shape is None else f"({', '.join(map(str, value.shape))})"
        raise ValueError(
            f"data: input {value.name!r} has shape {shown}, its sizes must be known; give an array with --data X.npz"
        )
    shape, dtype = tuple(n if isinstance(n, int) else count for n in value.shape), np.dtype(value.dtype)
    if dtype.kind != "f":
        return draw.integers(0, 2 if dtype.kind == "b" else places(graph, value.name), shape).astype(dtype)
    encoding = graph.encodings.get(value.name)
    low, high = (-3.0, 3.0) if encoding is None else reach(encoding)
    return np.clip((low + high) / 2 + (high - low) / 6 * draw.normal(size=shape), low, high).astype(dtype)


def places(graph: Graph, name: str) -> int:
    """How many different numbers an input of whole ones may hold: the rows of the tables it reads, else 0 and 1."""
    rows = [
        graph.constants[n.inputs[table]].shape[int(n.attrs.get("axis", 0))]  # type: ignore[union-attr]
        for n in graph.nodes
        for table, at in [LOOKED_UP.get(n.op, (0, 0))]
        if at and n.inputs[at] == name and n.inputs[table] in graph.constants
    ]
    return min(rows, default=2)


def reach(encoding: Encoding) -> tuple[float, float]:
    """The least and the largest real that the codes of an activation can mean."""
    first = {k: np.ravel(v)[:1] if k in SPREAD else v for k, v in encoding.params.items()}
    ends = Encoding(encoding.format, first).decode(np.array(encoding.format.span(), np.float32))
    return float(ends.min()), float(ends.max())
