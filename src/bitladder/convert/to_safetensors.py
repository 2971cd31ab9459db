"""A network's tensors as a safetensors file (docs/interchange.md).

The file holds codes in the smallest integer type, the parameters of their formats as NAME.scale and so on, and all other
constants. What the codes mean, the bit map, is one JSON text under "bitladder" in the metadata. The graph itself is not in it.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bitladder.disk import replacing
from bitladder.errors import Unsupported, require
from bitladder.formats import Encoding, QTensor
from bitladder.formats.tensor import store
from bitladder.ir.graph import Graph, PerWidth

KEY = "bitladder"
VERSION = 1
CODES, FLOAT = "codes", "float"  # what the tensors of a file are
Json = dict[str, Any]


def to_safetensors(graph: Graph, path: str | os.PathLike[str], *, decoded: bool = False) -> None:
    """Write the tensors of a network, whole or not at all: codes, or with `decoded` what they stand for, float32."""
    library = require("safetensors.numpy", "torch", "to_safetensors")
    arrays: dict[str, np.ndarray] = {}
    for name, a in reals(graph) if decoded else integers(graph):
        if name in arrays:
            raise Unsupported(f"to_safetensors: two tensors would be called {name!r}; rename that constant")
        if a.dtype.kind not in "biuf":
            raise Unsupported(f"to_safetensors: {name!r} has type {a.dtype}, must hold numbers; convert it first")
        arrays[name] = np.array(a, a.dtype.newbyteorder("="), order="C")
    text = json.dumps(bit_map(graph, FLOAT if decoded else CODES), allow_nan=False, separators=(",", ":"))
    data = library.save(arrays, {KEY: text})
    with replacing(path) as f:
        f.write(data)


def integers(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    """Every array that a network is made of, by its name in the file."""
    for name, c in graph.constants.items():
        if isinstance(c, QTensor):
            yield name, store(c.codes, c.format)
            yield from parameters(name, c.encoding)
        elif isinstance(c, PerWidth):
            yield from ((f"{name}.bits{bits}", np.asarray(c.arrays[bits])) for bits in sorted(c.arrays))
        else:
            yield name, np.asarray(c)
    for name, e in graph.encodings.items():
        yield from parameters(name, e)


def parameters(name: str, e: Encoding) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((f"{name}.{p}", np.asarray(a)) for p, a in sorted(e.params.items()))


def reals(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    """Every constant as the numbers it stands for, under its own name."""
    for name, c in graph.constants.items():
        if isinstance(c, PerWidth):
            yield name, np.asarray(c.at(max(c.arrays)))
        else:
            yield name, c.decode() if isinstance(c, QTensor) else np.asarray(c)


def bit_map(graph: Graph, tensors: str) -> Json:
    """What the metadata say: the format of everything, the plan as text, and what is known of the network."""
    floors = graph.meta.get("min_bits", {})
    weights = {n: c for n, c in graph.constants.items() if isinstance(c, QTensor)}
    rows = {n: {**row(c.encoding), "bits": c.format.bits} for n, c in weights.items()}
    for name in set(rows) & set(floors):
        rows[name]["min_bits"] = int(floors[name])
    formats = {n: str(weights[n].format) if n in weights else "float" for n, _ in graph.weights()}
    inputs = [{"name": v.name, "dtype": v.dtype, "shape": v.shape and list(v.shape)} for v in graph.inputs]
    return {
        "version": VERSION,
        "tensors": tensors,
        "weights": rows,
        "activations": {n: row(e) for n, e in graph.encodings.items()},
        "versions": {n: {"of": c.of, "bits": sorted(c.arrays)} for n, c in graph.constants.items() if isinstance(c, PerWidth)},
        "plan": {glob.escape(n): text for n, text in (formats | dict(graph.meta.get("plan", {}))).items()},
        "inputs": inputs,
        "nodes": [n.name for n in graph.nodes],
        "meta": plain(dict(graph.meta)),
    }


def row(e: Encoding) -> Json:
    return {"format": str(e.format), "axes": list(e.axes), "params": sorted(e.params)}


def plain(value: Any) -> Any:
    """`value` in JSON; numbers that are not finite, for which it has no word, become null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
