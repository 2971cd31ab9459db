"""A file as a network: what lies where is known and checked, now it is read, as far as was asked and as far as it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.codec import parts
from bitladder.errors import Malformed, Unsupported
from bitladder.file.container import Reader
from bitladder.file.contents import MOST, Entry, Layer, Numbers, check_values, contents, parameters
from bitladder.file.fields import GRAPH, INPUT, NODE, Tree, checked, damaged
from bitladder.file.stored import Fetch, InFile, fetch_from
from bitladder.file.widths import Bits, planes_wanted
from bitladder.file.words import bad
from bitladder.formats import Encoding, QTensor
from bitladder.ir.graph import Constant, Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS


def widths_in(meta: Tree, key: str) -> dict[str, int]:
    """An entry of metadata that gives bits by weight."""
    found = meta.get(key, {})
    if not (isinstance(found, dict) and all(type(b) is int and 1 <= b <= 64 for b in found.values())):
        raise damaged(f"{key!r} of meta", "bits by weight", found)
    return found


@dataclass(frozen=True)
class Wish:
    """How many planes of each tensor are asked for: so many that there is an error without them, and at most so many."""

    bits: int | Mapping[str, int] | None
    plan: bool  # whether the widths are the file's own, of which a cut file gives what it has
    floors: Mapping[str, int]

    @classmethod
    def of(cls, bits: Bits, meta: Tree) -> Wish:
        """The wish of a reader of `bits`."""
        floors, default = (widths_in(meta, key) for key in ("min_bits", "default_bits"))
        return cls((default or None) if isinstance(bits, str) else bits, isinstance(bits, str), floors)

    def most(self, entry: Entry) -> int:
        """The planes of a tensor that are of use."""
        assert entry.format is not None
        return planes_wanted(entry.name, entry.format, self.bits, self.floors)

    def least(self, entry: Entry) -> int:
        """The planes of a tensor that must be there."""
        assert entry.format is not None
        named = self.bits is not None and not self.plan and (isinstance(self.bits, int) or entry.name in self.bits)
        return planes_wanted(entry.name, entry.format, self.bits if named else 1, self.floors)


def from_reader(
    reader: Reader,
    bits: Bits = None,
    *,
    most: int = MOST,
    whole: bool = False,
    stay: bool = False,
    recover: bool = False,
) -> Graph:
    """The network of an open file, its nested weights narrowed to `bits`, or to what there is.

    most: bytes that all decoded tensors may take. whole: ask the source for all of the file first. stay: codes are checked and
    stay in the file, which is read again whenever they are asked for. recover: a damaged segment is as good as a missing one.
    """
    meta = reader.network["meta"]
    wish = Wish.of(bits, meta)
    there = contents(reader, wish.floors, most)
    reader.require(furthest(reader, there.layers, wish, least=True))
    if whole or bits is not None:
        reader.fetch(reader.total if whole else furthest(reader, there.layers, wish))
    bodies = segments(reader, there.layers, wish, recover)
    constants: dict[str, Constant] = {}
    for k, layer in enumerate(there.layers):
        constants.update(tensors(reader, layer, wish, bodies[k], stay))
        bodies[k].clear()  # bytes of a layer that is decoded are not needed
    encodings = {
        name: Encoding(f, values(f"activation {name!r}", str(f), p), a) for name, (f, a, p) in sorted(there.activations.items())
    }
    for name, c in constants.items():
        if isinstance(c, PerWidth) and not isinstance(constants.get(c.of), QTensor):
            raise damaged(f"'of' of tensor {name!r}", "the name of a tensor of codes", c.of)
    told = {**meta, "recovered": list(reader.recovered)} if reader.recovered else meta
    graph = build(reader.network["graph"], constants, encodings, told, reader.newer)
    return graph if wish.bits is None else graph.at(wish.bits)


def segments_wanted(layer: Layer, wish: Wish, least: bool = False) -> int:
    """How many segments of a layer are asked for, or must be there."""
    last = 0
    for entry in layer.entries:
        if entry.name in layer.steps.spans:
            last = max(last, layer.steps.plane(entry.name, wish.least(entry) if least else wish.most(entry)))
    return last + 1


def furthest(reader: Reader, layers: list[Layer], wish: Wish, least: bool = False) -> int:
    """How long a prefix of the file holds what is wanted."""
    wanted = ((layer.number, segments_wanted(layer, wish, least)) for layer in layers)
    return max([reader.prelude.headers, *(s.end for k, count in wanted for s in reader.segments[k][:count])])


def segments(reader: Reader, layers: list[Layer], wish: Wish, recover: bool) -> list[dict[int, bytes]]:
    """The segments of each layer that are wanted and there, read in the order of the file; the reader notes what is damaged."""
    wanted = [min(segments_wanted(layer, wish), reader.whole(layer.number)) for layer in layers]
    places = sorted((reader.segments[k][n].begin, n, k) for k, count in enumerate(wanted) for n in range(count))
    out: list[dict[int, bytes]] = [{} for _ in layers]
    lost: set[int] = set()
    for _, n, k in places:
        try:
            if k not in lost:
                out[k][n] = reader.segment(k, n)
        except Malformed:
            if not recover or n == 0:
                raise
            lost.add(k)
            where = f"layer {k} ({reader.layers[k]['name']!r})"
            reader.recovered.append(f"{where} runs without its segments from {n} on, the first of which is damaged")
    return out


def tensors(reader: Reader, layer: Layer, wish: Wish, read: dict[int, bytes], stay: bool) -> dict[str, Constant]:
    """The constants of a layer of which these segments were read, the first ones."""
    fetch, out = fetch_from(read), dict[str, Constant]()
    for entry in layer.entries:
        if entry.kind == "array":
            out[entry.name] = number(entry.arrays[""], fetch, entry.where)
        elif entry.kind == "widths":
            out[entry.name] = versions(entry, fetch, len(read))
        else:
            out[entry.name] = codes(reader, layer, entry, wish, fetch, len(read), stay)
    return out


def codes(reader: Reader, layer: Layer, entry: Entry, wish: Wish, fetch: Fetch, count: int, stay: bool) -> QTensor:
    """A tensor of codes, of a nested one as many planes as are wanted and in the `count` segments that were read."""
    assert entry.format is not None
    assert entry.codes is not None
    e = Encoding(entry.format, values(entry.where, str(entry.format), entry.arrays, fetch), tuple(entry.tree["axes"]))
    there = entry.codes
    if entry.name in layer.steps.spans:
        planes = min(layer.steps.planes(entry.name, count), wish.most(entry))
        e, there = e.at(planes), there._replace(planes=there.planes[:planes])
    decoded = there.decode(fetch, entry.where)
    return QTensor(e, InFile(reader, layer.number, there, entry.where) if stay else decoded)


def versions(entry: Entry, fetch: Fetch, count: int) -> PerWidth:
    """A constant with the versions that lie in the first `count` segments, each read with the one before it."""
    out, before = {}, None
    for b, n in zip(entry.tree["bits"], entry.arrays.values(), strict=True):
        if not isinstance(n.place, bytes) and n.place.segment >= count:
            break
        before = out[b] = number(n, fetch, entry.where, before)
    return PerWidth(entry.tree["of"], out)


def values(where: str, fmt: str, arrays: Mapping[str, Numbers], fetch: Fetch | None = None) -> dict[str, np.ndarray]:
    """The parameters that a format needs, checked."""
    params = {k: number(arrays[k], fetch, f"{k} of {where}") for k in sorted(set(arrays) & set(parameters(fmt)))}
    check_values(params, where)
    return params


def number(n: Numbers, fetch: Fetch | None, where: str, before: np.ndarray | None = None) -> np.ndarray:
    """An array; every bool is 0 or 1."""
    count = int(np.prod(n.shape, dtype=np.int64))
    try:
        if isinstance(n.place, bytes):
            a = np.frombuffer(n.place, n.dtype.newbyteorder("<")).astype(n.dtype)
        else:
            assert fetch is not None
            a = parts.decode_numbers(fetch(n.place), n.dtype, count, before)
    except ValueError as error:
        raise bad(f"{where}: {error}") from None
    if n.dtype.kind == "b" and (a.view(np.uint8) > 1).any():
        raise damaged(f"bytes of {where}", "zeros and ones", "other bytes")
    return a.reshape(n.shape)


def frozen(value: Any) -> Any:
    """A value with tuples for lists, as nodes have them."""
    if isinstance(value, list):
        return tuple(frozen(v) for v in value)
    return {k: frozen(v) for k, v in value.items()} if isinstance(value, dict) else value


def build(x: Any, constants: Mapping[str, Constant], encodings: Mapping[str, Encoding], meta: Tree, newer: bool) -> Graph:
    """The graph of its entry, whose operators and attributes must be known words."""
    entry = checked(x, GRAPH, "the graph", newer)
    inputs = [checked(v, INPUT, "an input", newer) for v in entry["inputs"]]
    nodes = [checked(n, NODE, "a node", newer) for n in entry["nodes"]]
    if unknown := sorted({n["op"] for n in nodes} - set(OPS)):
        raise Unsupported(f"load: operators {', '.join(unknown)[:200]} are unknown here; install a version that has them")
    try:
        graph = Graph(
            tuple(Value(v["name"], v["dtype"], None if v["shape"] is None else tuple(v["shape"])) for v in inputs),
            tuple(entry["outputs"]),
            tuple(
                Node(n["op"], tuple(n["inputs"]), tuple(n["outputs"]), frozen(n.get("attrs", {})), frozen(n.get("clip")))
                for n in nodes
            ),
            constants,
            encodings,
            meta,
        )
    except ValueError as error:
        raise Malformed(f"load: {error}; the file is damaged") from None
    made = {v.name for v in graph.inputs} | {o for n in graph.nodes for o in n.outputs}
    if lost := sorted(set(encodings) - made):
        raise damaged("encodings", "of values that the graph makes", lost[0])
    if len({v.name for v in graph.inputs}) != len(graph.inputs) or {v.name for v in graph.inputs} & set(constants):
        raise damaged("inputs", "names of their own", [v.name for v in graph.inputs])
    return graph
