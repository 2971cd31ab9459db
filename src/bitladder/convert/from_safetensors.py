"""Codes from a safetensors file onto the network they were made from, and plans from its bit map (docs/interchange.md)."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bitladder.convert.to_safetensors import CODES, KEY, VERSION, Json
from bitladder.errors import Malformed, require
from bitladder.formats import Encoding, QTensor, parse
from bitladder.formats.tensor import store
from bitladder.ir.graph import Constant, Graph, PerWidth

MOST_INPUT = 2**26  # numbers that an input of a torch module may have for it to be exported

# The parts of the bit map: what every row of one must say, by key.
ROWS: dict[str, dict[str, type]] = {
    "weights": {"format": str, "axes": list, "params": list},
    "activations": {"format": str, "axes": list, "params": list},
    "versions": {"of": str, "bits": list},
}


@dataclass(frozen=True)
class Tensors:
    """A file that was read: its name, its bit map, and its arrays."""

    path: str
    said: Json
    arrays: Mapping[str, np.ndarray]

    def bad(self, what: str, must: str, got: Any, do: str = "export it again") -> Malformed:
        shown = str(got)
        return Malformed(f"safetensors: {what} of {self.path!r} must {must}, got {shown[:80]}; {do}")

    def part(self, key: str) -> dict[str, Json]:
        """The rows of one part of the bit map, checked."""
        found = self.said.get(key, {})
        if not isinstance(found, dict):
            raise self.bad(f"{key!r} in the bit map", "be rows by name", found)
        for name, r in found.items():
            if not isinstance(r, dict) or any(not isinstance(r.get(word), kind) for word, kind in ROWS[key].items()):
                raise self.bad(f"{name!r} in the bit map", f"give {', '.join(ROWS[key])}", r)
            if any(type(n) is not int or not 0 <= n <= 64 for word in ROWS[key] if word in ("axes", "bits") for n in r[word]):
                raise self.bad(f"{name!r} in the bit map", "have axes and bits that are small whole numbers", r)
        return found

    def widths(self, key: str) -> Any:
        """An entry of the metadata of the network that gives bits by weight."""
        found = self.meta().get(key) or {}
        if not isinstance(found, dict) or any(type(b) is not int or not 1 <= b <= 64 for b in found.values()):
            raise self.bad(f"{key!r} in the bit map", "give bits by weight", found)
        return found

    def meta(self) -> Json:
        """What is known of the network."""
        found = self.said.get("meta", {})
        if not isinstance(found, dict):
            raise self.bad("'meta' in the bit map", "be an object", found)
        return found

    def example(self) -> dict[str, np.ndarray]:
        """Zeros for every input of the network that the file was made from, two along axes that are free."""
        out = {}
        for v in self.said.get("inputs", []):
            try:
                shape = tuple(n if isinstance(n, int) else 2 for n in v["shape"] or ())
                if math.prod(shape) > MOST_INPUT:
                    raise ValueError
                out[str(v["name"])] = np.zeros(shape, v["dtype"])
            except (TypeError, KeyError, ValueError):
                raise self.bad("'inputs' in the bit map", "give names, types and shapes", v) from None
        return out

    def array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise self.bad(f"tensor {name!r}", "be there", "none", "give a file with codes")
        return self.arrays[name]

    def encoding(self, name: str, r: Json) -> Encoding:
        """The encoding that a row of the bit map describes."""
        try:
            fmt = parse(r["format"])
        except ValueError:
            fmt = None
        if fmt is None:
            raise self.bad(f"{name!r}", "have a format that this version knows", repr(r["format"]), "install a newer version")
        return Encoding(fmt, {str(p): self.array(f"{name}.{p}") for p in r["params"]}, tuple(r["axes"]))

    def codes(self, name: str, e: Encoding) -> QTensor:
        """The tensor of codes `name`, every one a code of its format."""
        codes, (low, high) = self.array(name), e.format.span()
        if codes.dtype.kind not in "iu":
            raise self.bad(f"tensor {name!r}", "hold integers", codes.dtype)
        if codes.size and (int(codes.min()) < low or int(codes.max()) > high):
            raise self.bad(f"tensor {name!r}", f"hold codes from {low} to {high}", f"{codes.min()}..{codes.max()}")
        return QTensor(e, store(codes, e.format))

    @cached_property
    def constants(self) -> dict[str, Constant]:
        """All constants of the network that the file was made from."""
        weights = {n: self.encoding(n, r) for n, r in self.part("weights").items()}
        activations, versions = self.part("activations"), self.part("versions")
        out: dict[str, Constant] = {n: self.codes(n, e) for n, e in weights.items()}
        for name, r in versions.items():
            out[name] = PerWidth(r["of"], {b: self.array(f"{name}.bits{b}") for b in r["bits"]})
            if not r["bits"]:
                raise self.bad(f"{name!r} in the bit map", "have one width or more", "none")
        taken = {f"{n}.{p}" for n, e in weights.items() for p in e.params}
        taken |= {f"{n}.{p}" for n, r in activations.items() for p in r["params"]}
        taken |= {f"{n}.bits{b}" for n, r in versions.items() for b in r["bits"]}
        return out | {n: a for n, a in self.arrays.items() if n not in taken and n not in out}


def holds_codes(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that `to_safetensors` filled with codes; only its header is read."""
    try:
        return opened(path, with_arrays=False).said.get("tensors") == CODES
    except (ValueError, OSError):
        return False


def read(path: str | os.PathLike[str]) -> Tensors:
    """A file of codes, its tensors in memory."""
    found = opened(path)
    if found.said.get("tensors") != CODES:
        raise found.bad("the bit map", "say that tensors are codes", repr(found.said.get("tensors")), "export without --float")
    return found


def opened(path: str | os.PathLike[str], with_arrays: bool = True) -> Tensors:
    """What the library reads of a file; whatever it has to complain of is one line."""
    library, name = require("safetensors", "torch", "safetensors"), os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"safetensors: {name!r} does not exist; check the path")
    try:
        with library.safe_open(name, "numpy") as f:
            text = (f.metadata() or {}).get(KEY)
            arrays = {n: f.get_tensor(n) for n in f.keys()} if with_arrays else {}  # noqa: SIM118  # it is no mapping
    except Exception as error:  # the library raises types of its own
        words = " ".join(str(error).split())[:200]
        raise Malformed(f"safetensors: {name!r} must be a safetensors file ({words}); fetch it again") from None
    if text is None:
        raise Malformed(f"safetensors: {name!r} must have {KEY!r} in its metadata, the bit map; export it with bitladder")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("version", VERSION) != VERSION:
        raise Malformed(f"safetensors: the bit map of {name!r} must be a JSON object of version {VERSION}; export it again")
    return Tensors(name, said, arrays)


def made_from(graph: Graph, tensors: Tensors) -> bool:
    """Whether a file was made from this graph as it is, not from a float network that was simplified since."""
    same_nodes = tensors.said.get("nodes") == [n.name for n in graph.nodes]
    return same_nodes and set(graph.constants) == set(tensors.constants)


def onto(graph: Graph, tensors: Tensors) -> Graph:
    """The network `graph` with codes, parameters, biases and encodings of a file, whose constants must be those of `graph`."""
    constants, do = tensors.constants, "give the network that it was made from"
    for name in sorted({*graph.constants, *constants}):
        if name not in constants:
            raise tensors.bad(f"tensor {name!r}", "be there, as the network has it", "none", do)
        if name not in graph.constants:
            raise tensors.bad(f"tensor {name!r}", "be a constant of the network", "one that it has not", do)
        if (want := shape_of(graph.constants[name])) != (got := shape_of(constants[name])):
            raise tensors.bad(f"tensor {name!r}", f"have shape {want} as in the network", got, do)
    rows = tensors.part("activations")
    made = {v.name for v in graph.inputs} | {o for n in graph.nodes for o in n.outputs}
    if lost := sorted(set(rows) - made):
        raise tensors.bad(f"activation {lost[0]!r}", "be a value of the network", "none", do)
    for key in ("min_bits", "default_bits"):
        tensors.widths(key)
    return graph.with_(
        constants={name: constants[name] for name in graph.constants},
        encodings={name: tensors.encoding(name, r) for name, r in rows.items()},
        meta={**graph.meta, **tensors.meta()},
    )


def shape_of(c: Constant) -> tuple[int, ...]:
    """The shape of a constant, of one version where there are several."""
    return tuple((next(iter(c.arrays.values())) if isinstance(c, PerWidth) else c).shape)


def plan_in(path: str | os.PathLike[str]) -> dict[str, str]:
    """The plan of a file: formats by pattern, of weights and, after `a=`, of activations.

    Weights have what "plan" in the bit map says, or else the formats of its "weights".
    """
    found = opened(path, with_arrays=False)
    plan = found.said.get("plan", formats_in(found.said.get("weights")))
    if not isinstance(plan, dict) or not plan or not all(isinstance(text, str) for text in plan.values()):
        raise found.bad("'plan' in the bit map", "give formats by name", plan)
    return plan | {f"a={name}": text for name, text in (formats_in(found.said.get("activations")) or {}).items()}


def formats_in(rows: Any) -> dict[str, Any] | None:
    """The formats that rows by name give, each name as a pattern for itself alone; None if they are no such rows."""
    good = isinstance(rows, dict) and all(isinstance(r, dict) for r in rows.values())
    return {glob.escape(name): r.get("format") for name, r in rows.items()} if good else None
