"""A network as a header and sections (docs/file-format.md says the same in words).

Sections are numbered in the order in which a narrow reader needs them: first what every width needs, then planes, most
significant first across all tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bitladder.codec.dense import pack
from bitladder.codec.planes import to_planes
from bitladder.errors import Unsupported
from bitladder.file.fields import (
    DTYPES,
    INLINE,
    Json,
)
from bitladder.file.words import to_json
from bitladder.formats import Encoding, Format, QTensor, parse
from bitladder.ir.graph import Constant, Graph, Node, PerWidth

Bits = int | Mapping[str, int] | str | None  # a width, one per weight, "auto" for what the file marks as its default, or all


def planes_wanted(name: str, fmt: Format, bits: int | Mapping[str, int] | None, floors: Mapping[str, int]) -> int:
    """How many planes of a nested tensor a reader of `bits` needs: what `Graph.at` would leave of it."""
    wanted = fmt.bits if bits is None else (bits if isinstance(bits, int) else bits.get(name, fmt.bits))
    wanted = max(wanted, int(floors.get(name, 1)))
    return fmt.bits if wanted >= fmt.bits else int(fmt.at(wanted).bits)  # type: ignore[attr-defined]


def is_nested(fmt: Format) -> bool:
    """Whether codes of a format are stored as planes: those of which a prefix is a code."""
    return hasattr(fmt, "at")


@dataclass
class Shelf:
    """The sections of a file being made; `put` gives back the number of the one it adds."""

    bodies: list[bytes] = field(default_factory=list)

    def put(self, body: bytes) -> int:
        self.bodies.append(body)
        return len(self.bodies) - 1

    def array(self, a: np.ndarray, where: str) -> Json:
        """The entry of an array: its type, its shape, and its bytes if they are few, else the number of their section."""
        if a.dtype.name not in DTYPES:
            raise Unsupported(f"save: {where} has type {a.dtype}, must be one of {', '.join(DTYPES)}; convert it")
        body = a.astype(a.dtype.newbyteorder("<")).tobytes()
        place = {"hex": body.hex()} if len(body) <= INLINE else {"data": self.put(body)}
        return {"dtype": a.dtype.name, "shape": list(a.shape), **place}

    def encoding(self, e: Encoding, where: str) -> Json:
        """The entry of an encoding: its format as text, the axes of its parameters, and those."""
        if (text := str(e.format)) == "" or parse(text) != e.format:
            raise Unsupported(f"save: {where} has format {e.format!r}, whose text {text!r} does not lead back to it")
        params = {k: self.array(np.asarray(e.params[k]), f"{k} of {where}") for k in sorted(e.params)}
        return {"format": text, "axes": list(e.axes), "params": params}

    def tensor(self, name: str, c: Constant) -> Json:
        """The entry of a constant; planes of nested tensors are put later."""
        where = f"constant {name!r}"
        if isinstance(c, QTensor):
            entry = {"name": name, "kind": "codes", "shape": list(c.shape), **self.encoding(c.encoding, where)}
            return entry if is_nested(c.format) else {**entry, "data": self.put(pack(c.codes, c.format.bits))}
        if isinstance(c, PerWidth):
            widths = sorted(c.arrays)
            versions = [np.asarray(c.arrays[b]) for b in widths]
            if len({(v.shape, v.dtype) for v in versions}) > 1:
                raise Unsupported(f"save: {where} must have versions of one shape and type, got several; make them alike")
            return {"name": name, "kind": "widths", "of": c.of, "bits": widths, **self.array(np.stack(versions), where)}
        return {"name": name, "kind": "array", **self.array(np.asarray(c), where)}


def to_header(graph: Graph) -> tuple[Json, list[bytes]]:
    """The header of a network and its sections in the order of the file."""
    shelf = Shelf()
    tensors = {name: shelf.tensor(name, c) for name, c in graph.constants.items()}
    made = {v.name for v in graph.inputs} | {name for n in graph.nodes for name in n.outputs}
    encodings = {k: shelf.encoding(graph.encodings[k], f"activation {k!r}") for k in sorted(made & set(graph.encodings))}
    floors = graph.meta.get("min_bits", {})
    planes = []
    for order, (name, c) in enumerate(graph.constants.items()):
        if isinstance(c, QTensor) and is_nested(c.format):
            tensors[name]["planes"] = [0] * c.format.bits
            for number, body in enumerate(to_planes(c.codes, c.format.bits)):
                planes.append((rung(name, c.format, number, floors), number, order, name, body))
    for _, number, _, name, body in sorted(planes, key=lambda p: p[:3]):
        tensors[name]["planes"][number] = shelf.put(body)
    header = {
        "graph": {
            "inputs": [{"name": v.name, "dtype": v.dtype, "shape": v.shape and list(v.shape)} for v in graph.inputs],
            "outputs": list(graph.outputs),
            "nodes": [node_to_json(n) for n in graph.nodes],
        },
        "encodings": encodings,
        "meta": to_json(dict(graph.meta), "meta"),
        "tensors": list(tensors.values()),
    }
    return header, shelf.bodies


def rung(name: str, fmt: Format, plane: int, floors: Mapping[str, int]) -> int:
    """The narrowest width whose readers need plane number `plane` of a tensor."""
    return next(b for b in range(1, fmt.bits + 1) if planes_wanted(name, fmt, b, floors) > plane)


def node_to_json(node: Node) -> Json:
    out: Json = {"op": node.op, "inputs": list(node.inputs), "outputs": list(node.outputs)}
    if node.attrs:
        out["attrs"] = to_json(dict(node.attrs), f"node {node.name!r}")
    if node.clip is not None:
        out["clip"] = to_json(node.clip, f"node {node.name!r}")
    return out
