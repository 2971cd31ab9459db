"""A network as trees and segments (docs/file-format.md says the same in words)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitladder.codec import parts
from bitladder.codec.parts import Kind, Part
from bitladder.errors import Unsupported
from bitladder.file.container import pack
from bitladder.file.fields import DTYPES, INLINE, POLICIES, Tree
from bitladder.file.grouping import MOST_TILE, Group, grid, groups, ordered, tile_rows, tiles
from bitladder.file.widths import Steps, is_nested, planes_wanted
from bitladder.file.words import plain
from bitladder.formats import Encoding, QTensor, parse
from bitladder.ir.graph import Graph, Node, PerWidth

Gains = Mapping[tuple[str, int], float]  # by weight and number of planes: the loss that the last of them takes away


def to_file(graph: Graph, coder: str, order: str = "plane", gains: Gains | None = None, tile: int = MOST_TILE) -> bytes:
    """The bytes of a file."""
    if coder not in parts.CODERS:
        raise ValueError(f"save: coder must be one of {', '.join(parts.CODERS)}, got {coder!r}")
    if order not in POLICIES:
        raise ValueError(f"save: order must be one of {', '.join(POLICIES)}, got {order!r}")
    if (order == "importance") != (gains is not None):
        raise ValueError(f"save: gains must be given for order 'importance' and for no other, got order {order!r}")
    floors = graph.meta.get("min_bits", {})
    shared = common(graph)
    shelves = [Shelf.of(graph, group, floors, shared, coder, tile) for group in groups(graph)]
    made = {v.name for v in graph.inputs} | {name for n in graph.nodes for name in n.outputs}
    network: Tree = {
        "graph": {
            "inputs": [{"name": v.name, "dtype": v.dtype, "shape": plain(v.shape, f"input {v.name!r}")} for v in graph.inputs],
            "outputs": list(graph.outputs),
            "nodes": [node_tree(n) for n in graph.nodes],
        },
        "encodings": {k: encoding_tree(graph.encodings[k], f"activation {k!r}") for k in sorted(made & set(graph.encodings))},
        "meta": plain(dict(graph.meta), "meta"),
        "policy": order,
        "global": shared,
    }
    layers = [{"name": s.group.name, "op": s.group.op, "tensors": s.tensors} for s in shelves]
    segments = [[b"".join(bodies) for bodies in s.segments] for s in shelves]
    sizes = [[len(body) for body in bodies] for bodies in segments]
    depths = [[0, *s.steps.rises] for s in shelves]
    return pack(network, layers, segments, ordered(order, sizes, depths, by_segment(shelves, gains or {})), coder)


def by_segment(shelves: Sequence[Shelf], gains: Gains) -> dict[tuple[int, int], float]:
    """What each segment of each layer takes away of the loss."""
    out: dict[tuple[int, int], float] = {}
    for layer, shelf in enumerate(shelves):
        for name, (least, stored) in shelf.steps.spans.items():
            for number in range(least + 1, stored + 1):
                key = (layer, shelf.steps.plane(name, number))
                out[key] = out.get(key, 0.0) + gains.get((name, number), 0.0)
    return out


@dataclass
class Shelf:
    """The header and the segments of a layer being made."""

    group: Group
    steps: Steps
    coder: str
    tile: int
    tensors: list[Tree] = field(default_factory=list)
    segments: list[list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.segments = [[] for _ in range(self.steps.count)]

    @classmethod
    def of(cls, graph: Graph, group: Group, floors: Mapping[str, int], shared: Tree, coder: str, tile: int) -> Shelf:
        """The shelf of a group, filled."""
        spans = {
            name: (planes_wanted(name, c.format, 1, floors), c.format.bits)
            for name in group.constants
            if isinstance(c := graph.constants[name], QTensor) and is_nested(c.format)
        }
        shelf = cls(group, Steps(spans), coder, tile)
        for name in group.constants:
            c, where = graph.constants[name], f"constant {name!r}"
            if isinstance(c, QTensor):
                entry = {
                    "kind": "codes",
                    "shape": list(c.place.shape),
                    **local(c.encoding, where, shared, shelf),
                    **shelf.codes(name, c),
                }
            elif isinstance(c, PerWidth):
                entry = {"kind": "widths", **shelf.widths(c, where)}
            else:
                entry = {"kind": "array", **array_tree(np.asarray(c), where, shelf)}
            shelf.tensors.append({"name": name, **entry})
        return shelf

    def put(self, segment: int, part: Part) -> list[int]:
        """Where a part is, now that it lies in its segment."""
        self.segments[segment].append(part.body)
        return [segment, part.coding, len(part.body)]

    def codes(self, name: str, c: QTensor) -> Tree:
        """The parts of codes: tile by tile, or plane by plane and in each tile by tile."""
        whole, codes = grid(c.place.shape), c.codes
        rows = tile_rows(whole, self.tile)
        cut = [codes.reshape(whole)[at : at + g.rows] for at, g in tiles(whole, rows)]
        tile = {"tile": rows} if len(cut) > 1 else {}
        if not is_nested(c.format):
            kind = Kind(c.format.bits, *c.format.span())
            return {"data": [self.put(0, parts.encode_codes(part, kind, self.coder)) for part in cut], **tile}
        sign = getattr(c.format, "scheme", "") == "sign"
        coded = [parts.encode_planes(part, c.format.bits, sign, self.coder) for part in cut]
        planes = [[self.put(self.steps.plane(name, p + 1), planes[p]) for planes in coded] for p in range(c.format.bits)]
        return {"planes": planes, **tile}

    def widths(self, c: PerWidth, where: str) -> Tree:
        """The versions of a constant, each near to the one before."""
        bits = sorted(c.arrays)
        versions = [native(np.asarray(c.arrays[b]), where) for b in bits]
        if len({(v.shape, v.dtype) for v in versions}) > 1:
            raise Unsupported(f"save: {where} must have versions of one shape and type, got several; make them alike")
        trees: list[Tree] = []
        before = None
        for segment, version in zip(self.steps.versions(c.of, bits), versions, strict=True):
            trees.append(numbers_tree(version, self, segment, before))
            before = version
        return {"of": c.of, "bits": bits, "dtype": versions[0].dtype.name, "shape": list(versions[0].shape), "versions": trees}


def native(a: np.ndarray, where: str) -> np.ndarray:
    """An array in this machine's order of bytes, of a type that files have."""
    if a.dtype.name not in DTYPES:
        raise Unsupported(f"save: {where} has type {a.dtype}, must be one of {', '.join(DTYPES)}; convert it")
    return np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape)


def numbers_tree(a: np.ndarray, shelf: Shelf | None, segment: int = 0, before: np.ndarray | None = None) -> Tree:
    """The bytes of an array where they are few or there is no shelf, else their part."""
    if shelf is None or a.nbytes <= INLINE:
        return {"bytes": a.astype(a.dtype.newbyteorder("<")).tobytes()}
    return {"part": shelf.put(segment, parts.encode_numbers(a, shelf.coder, before))}


def array_tree(a: np.ndarray, where: str, shelf: Shelf | None) -> Tree:
    """The entry of an array: its type, its shape, and its bytes or their part."""
    a = native(a, where)
    return {"dtype": a.dtype.name, "shape": list(a.shape), **numbers_tree(a, shelf)}


def encoding_tree(e: Encoding, where: str, shelf: Shelf | None = None) -> Tree:
    """The entry of an encoding: its format as text, the axes of its parameters, and those."""
    if (text := str(e.format)) == "" or parse(text) != e.format:
        raise Unsupported(f"save: {where} has format {e.format!r}, whose text {text!r} does not lead back to it")
    params = {k: array_tree(np.asarray(e.params[k]), f"{k} of {where}", shelf) for k in sorted(e.params)}
    return {"format": text, "axes": list(e.axes), "params": params}


def common(graph: Graph) -> Tree:
    """The global quantization block: what two tensors of codes or more have in common (S14).

    It is the format and axes that most have, and of these tensors the parameters that most have; the first of several.
    """
    encodings = [c.encoding for c in graph.constants.values() if isinstance(c, QTensor)]
    kinds = Counter((str(e.format), e.axes) for e in encodings)
    (text, axes), count = max(kinds.items(), key=lambda kind: kind[1], default=(("", ()), 0))
    if count < 2:
        return {}
    alike = [e for e in encodings if (str(e.format), e.axes) == (text, axes)]
    params: Tree = {}
    for name in sorted(alike[0].params):
        arrays = [array_tree(np.asarray(e.params[name]), f"{name} of all", None) for e in alike]
        most = max(arrays, key=arrays.count)
        if arrays.count(most) > 1:
            params[name] = most
    return {"format": text, "axes": list(axes), **({"params": params} if params else {})}


def local(e: Encoding, where: str, shared: Tree, shelf: Shelf) -> Tree:
    """The entry of an encoding less what all have in common."""
    alike = shared.get("params", {})
    own = {k: p for k, p in e.params.items() if array_tree(np.asarray(p), where, None) != alike.get(k)}
    tree = encoding_tree(Encoding(e.format, own, e.axes), where, shelf)
    if not own and e.params:
        del tree["params"]
    return {key: value for key, value in tree.items() if key == "params" or value != shared.get(key)}


def node_tree(node: Node) -> Tree:
    out: Tree = {"op": node.op, "inputs": list(node.inputs), "outputs": list(node.outputs)}
    if node.attrs:
        out["attrs"] = plain(dict(node.attrs), f"node {node.name!r}")
    if node.clip is not None:
        out["clip"] = plain(node.clip, f"node {node.name!r}")
    return out
