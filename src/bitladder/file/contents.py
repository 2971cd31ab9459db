"""What the headers of layers say lies where: every entry checked, every part placed, nothing read or reserved yet.

What must hold of one field is in the tables of `bitladder.file.fields`; what depends on several at once is here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from bitladder.codec import parts
from bitladder.codec.dense import dense_bytes
from bitladder.codec.parts import MOST_PER_BYTE, RAW
from bitladder.codec.planes import plane_bytes
from bitladder.errors import Malformed
from bitladder.file.container import Reader
from bitladder.file.fields import (
    ARRAY,
    ENCODING,
    HEAD,
    INLINE,
    KINDS,
    MOST_AXES,
    MOST_ELEMENTS,
    SHARED,
    VERSION,
    Tree,
    checked,
    damaged,
)
from bitladder.file.grouping import grid, tiles
from bitladder.file.stored import Codes, Place
from bitladder.file.widths import Steps, is_nested, planes_wanted
from bitladder.formats import Format, parse
from bitladder.formats.tensor import SPREAD, width_of
from bitladder.stats.points import Points

MOST = 8 * 2**30  # bytes of all decoded tensors together, unless the caller says otherwise
MOST_FL = 126
MOST_GROUP = 2**31 - 1
TINY = float(np.finfo(np.float32).tiny)


@cache
def parameters(text: str) -> dict[str, np.ndarray]:
    """The parameters a format needs, as its own fit gives them for one channel.

    >>> parameters("int8"), parameters("fixed8")
    ({'scale': array([1.], dtype=float32), 'zero_point': array([0.], dtype=float32)}, {'fl': array([7.], dtype=float32)})
    """
    fmt = parse(text)
    return {} if fmt is None else dict(fmt.fit(Points.of(np.zeros((1, 1)), (0,)), "max"))


@dataclass(frozen=True)
class Numbers:
    """Where an array lies: in a header, as bytes, or in its layer."""

    dtype: np.dtype
    shape: tuple[int, ...]
    place: bytes | Place


@dataclass(frozen=True)
class Entry:
    """One tensor of a layer: what its header says, and where its numbers and codes are.

    arrays: its parameters by name; the versions of a constant by their number; the one array that it is, by "".
    """

    name: str
    kind: str
    tree: Tree
    arrays: Mapping[Any, Numbers]
    format: Format | None = None
    codes: Codes | None = None

    @property
    def where(self) -> str:
        return f"tensor {self.name!r}"


@dataclass
class Layer:
    """The entries of a layer; parts are placed one behind the other in their segments."""

    number: int
    newer: bool
    shared: Tree
    steps: Steps
    fill: list[int]
    entries: list[Entry] = field(default_factory=list)

    def place(self, part: list[int], segment: int, count: int, raw: int, codings: Container[int], where: str) -> Place:
        """Where a part lies that holds `count` numbers, `raw` bytes if they are not coded."""
        number, coding, size = part
        if number != segment:
            raise damaged(f"a part of {where}", f"in segment {segment}", number)
        if coding == RAW and size != raw:
            raise damaged(f"a part of {where}", f"{raw} bytes long", size)
        if coding != RAW and not (coding in codings and 0 < count <= MOST_PER_BYTE * size):
            raise damaged(f"a part of {where} with {count} numbers", "of a known coding and long enough", part[1:])
        begin, self.fill[number] = self.fill[number], self.fill[number] + size
        return Place(number, begin, size, coding)

    def numbers(self, tree: Tree, dtype: np.dtype, shape: list[int], segment: int, where: str) -> Numbers:
        """Where an array lies: few bytes in the header, more in a part."""
        count = elements(shape, where)
        size = count * dtype.itemsize
        if ("bytes" in tree) != (size <= INLINE) or ("part" in tree) != (size > INLINE):
            raise damaged(where, f"a map with 'bytes' up to {INLINE} bytes, with 'part' above", sorted(tree))
        if "bytes" in tree:
            return inline(tree, dtype, shape, where)
        return Numbers(dtype, tuple(shape), self.place(tree["part"], segment, count, size, parts.NUMBERS, where))

    def array(self, x: Any, where: str, fields: Mapping[str, Any] = ARRAY) -> Numbers:
        """Where an array with its own type and shape lies."""
        tree = checked(x, fields, where, self.newer)
        return self.numbers(tree, np.dtype(tree["dtype"]), tree["shape"], 0, where)

    def versions(self, tree: Tree, where: str) -> dict[Any, Numbers]:
        """Where the versions of a constant lie."""
        if len(tree["versions"]) != len(tree["bits"]):
            raise damaged(f"versions of {where}", f"{len(tree['bits'])} of them", len(tree["versions"]))
        out, dtype = {}, np.dtype(tree["dtype"])
        for k, (x, segment) in enumerate(zip(tree["versions"], self.steps.versions(tree["of"], tree["bits"]), strict=True)):
            out[k] = self.numbers(checked(x, VERSION, where, self.newer), dtype, tree["shape"], segment, where)
        return out

    def codes(self, tree: Tree, name: str, fmt: Format, where: str) -> Codes:
        """Where the codes of a tensor lie."""
        whole, nested = grid(tree["shape"]), is_nested(fmt)
        if (given := tree.get("planes" if nested else "data")) is None or ("data" if nested else "planes") in tree:
            raise damaged(where, f"a map with {'planes' if nested else 'data'!r} and not both", sorted(tree))
        rows = tree.get("tile", whole.rows)
        if "tile" in tree and rows >= whole.rows:
            raise damaged(f"tile of {where}", f"fewer than {whole.rows} rows", rows)
        count = max(-(-whole.rows // max(rows, 1)), 1)
        planes = given if nested else [given]
        if len(planes) != (fmt.bits if nested else 1) or any(len(plane) != count for plane in planes):
            raise damaged(f"parts of {where}", f"{fmt.bits if nested else 1} times {count}", [len(plane) for plane in planes])
        cut = [g.size for _, g in tiles(whole, rows)]
        placed = []
        for number, plane in enumerate(planes, 1):
            segment = self.steps.plane(name, number) if nested else 0
            raw = [plane_bytes(n) if nested else dense_bytes(n, fmt.bits) for n in cut]
            table: Container[int] = parts.PLANES if nested else parts.CODES
            placed.append(tuple(self.place(p, segment, n, r, table, where) for p, n, r in zip(plane, cut, raw, strict=True)))
        return Codes(fmt, tuple(tree["shape"]), rows, tuple(placed))

    def entry(self, tree: Tree) -> Entry:
        """One tensor, its fields known to be good."""
        name, kind = tree["name"], tree["kind"]
        where = f"tensor {name!r}"
        if kind == "array":
            return Entry(name, kind, tree, {"": self.array(tree, where, {**HEAD, **ARRAY})})
        if kind == "widths":
            return Entry(name, kind, tree, self.versions(tree, where))
        fmt = format_of(tree, where)
        elements(tree["shape"], where)
        own, shared = tree.get("params", {}), self.shared.get("params", {})
        arrays = {k: self.array(own[k], f"{k} of {where}") for k in sorted(own)}
        for k in sorted(set(parameters(str(fmt))) & set(shared) - set(own)):
            arrays[k] = in_header(shared[k], f"{k} of 'global'", self.newer)
        check_params(fmt, arrays, tuple(tree["axes"]), tree["shape"], where, self.newer)
        return Entry(name, kind, tree, arrays, fmt, self.codes(tree, name, fmt, where))


@dataclass(frozen=True)
class Contents:
    """Everything that a file holds, by layer; and its activations: format, axes and parameters of each."""

    layers: list[Layer]
    activations: dict[str, tuple[Format, tuple[int, ...], Mapping[str, Numbers]]]


def contents(reader: Reader, floors: Mapping[str, int], most: int = MOST) -> Contents:
    """What is in a file, every part placed; all tensors together may take `most` bytes."""
    trees = reader.network["encodings"]
    activations = {name: activation(tree, f"activation {name!r}", reader.newer) for name, tree in trees.items()}
    shared = checked(reader.network["global"], SHARED, "'global' of the network header", reader.newer)
    layers, seen = [], set[str]()
    for number, tree in enumerate(reader.layers):
        layers.append(layer_of(reader, number, tree["tensors"], shared, floors))
        for entry in layers[-1].entries:
            if entry.name in seen or not entry.name:
                raise damaged("names of tensors", "different from each other", entry.name)
            seen.add(entry.name)
    size = sum(size_of(p) for _, _, params in activations.values() for p in params.values())
    size += sum(decoded_bytes(entry) for layer in layers for entry in layer.entries)
    size = max(size, reader.total - reader.prelude.headers)  # nobody needs a file that is longer than what it holds
    if size > most:
        text = f"load: {reader.name!r} takes {size} bytes decoded, must be at most {most}"
        raise Malformed(f"{text}; give a larger most= if you trust it")
    return Contents(layers, activations)


def activation(x: Tree, where: str, newer: bool) -> tuple[Format, tuple[int, ...], Mapping[str, Numbers]]:
    """The encoding of an activation, whose parameters are in the header."""
    tree = checked(x, ENCODING, where, newer)
    fmt, axes, params = format_of(tree, where), tuple(tree["axes"]), {}
    for k in sorted(tree["params"]):
        params[k] = in_header(tree["params"][k], f"{k} of {where}", newer)
    check_params(fmt, params, axes, None, where, newer)
    return fmt, axes, params


def in_header(x: Tree, where: str, newer: bool) -> Numbers:
    """An array that has its bytes with it, however many they are."""
    tree = checked(x, ARRAY, where, newer)
    if "bytes" not in tree or "part" in tree:
        raise damaged(where, "a map with 'bytes'", sorted(tree))
    return inline(tree, np.dtype(tree["dtype"]), tree["shape"], where)


def whole_entry(tree: Tree, shared: Tree) -> Tree:
    """An entry of codes with the format and the axes of all, where it has none of its own."""
    if tree["kind"] != "codes":
        return tree
    out: Tree = {k: shared[k] for k in ("format", "axes") if k in shared} | tree
    if lost := [k for k in ("format", "axes") if k not in out]:
        raise damaged(f"tensor {tree['name']!r}", f"a map with {lost[0]!r}, if not 'global' has it", sorted(tree))
    return out


def layer_of(reader: Reader, number: int, trees: list[Tree], shared: Tree, floors: Mapping[str, int]) -> Layer:
    """One layer, its parts filling its segments."""
    spans, entries = {}, []
    for given in trees:
        head = checked(given, HEAD, "a tensor", newer=True)
        checked(given, {**HEAD, **KINDS[head["kind"]]}, f"tensor {head['name']!r}", reader.newer)
        entries.append(tree := whole_entry(given, shared))
        if head["kind"] == "codes" and is_nested(fmt := format_of(tree, f"tensor {head['name']!r}")):
            spans[head["name"]] = (planes_wanted(head["name"], fmt, 1, floors), fmt.bits)
    layer = Layer(number, reader.newer, shared, Steps(spans), [0] * len(reader.segments[number]))
    if len(layer.fill) != layer.steps.count:
        raise damaged(f"segments of layer {number}", f"{layer.steps.count} of them", len(layer.fill))
    layer.entries = [layer.entry(tree) for tree in entries]
    sizes = [s.size for s in reader.segments[number]]
    if layer.fill != sizes:
        raise damaged(f"segments of layer {number}", f"filled by their parts, {sizes}", layer.fill)
    return layer


def inline(tree: Tree, dtype: np.dtype, shape: list[int], where: str) -> Numbers:
    """An array whose bytes are in the header."""
    if len(tree["bytes"]) != (size := elements(shape, where) * dtype.itemsize):
        raise damaged(f"bytes of {where}", f"{size} of them", len(tree["bytes"]))
    return Numbers(dtype, tuple(shape), tree["bytes"])


def elements(shape: list[int], where: str) -> int:
    """The number of elements of a shape, refusing those that no memory holds."""
    product = 1
    for n in shape[: MOST_AXES + 1]:
        product *= max(n, 1)
    if len(shape) > MOST_AXES or product > MOST_ELEMENTS:
        raise damaged(f"shape of {where}", f"at most {MOST_AXES} axes and {MOST_ELEMENTS} elements", shape)
    return product if all(shape) else 0


def format_of(tree: Tree, where: str) -> Format:
    """The format of an entry."""
    try:
        fmt = parse(tree["format"])
    except ValueError:
        fmt = None
    if (
        fmt is None
        or str(fmt) != tree["format"]
        or (fmt.group or 1) > MOST_GROUP
        or abs(getattr(fmt, "fl", None) or 0) > MOST_FL
    ):
        raise damaged(f"format of {where}", "one that this version knows", tree["format"])
    return fmt


def check_params(
    fmt: Format, params: Mapping[str, Numbers], axes: tuple[int, ...], shape: list[int] | None, where: str, newer: bool
) -> None:
    """Return if `params` have the types and shapes that `fmt` needs for a tensor of `shape` (None: an activation)."""
    if shape is not None and any(a >= len(shape) for a in axes):
        raise damaged(f"axes of {where}", f"axes of shape {shape}", list(axes))
    if fmt.group is not None and (shape is None or axes != (0,) or not shape):
        raise damaged(f"format of {where}", "without groups, or on a weight with axes [0]", str(fmt))
    if width_of(fmt) > 1 and (shape is None or len(shape) < 2):
        raise damaged(f"format of {where}", "without blocks, or on a weight of two axes or more", str(fmt))
    known = parameters(str(fmt))
    if lost := sorted(set(known) - set(params)):
        raise damaged(f"params of {where}", f"a map with {lost[0]!r}", sorted(params))
    if not newer and (extra := sorted(set(params) - set(known))):
        raise damaged(f"params of {where}", f"a map of {', '.join(known)}", extra)
    for name, model in known.items():
        p, want = params[name], wanted_shape(name, model, fmt, axes, shape, where)
        if p.dtype != model.dtype or (p.shape != want if want is not None else len(p.shape) != len(axes)):
            raise damaged(f"{name} of {where}", f"{model.dtype} of shape {want or axes}", f"{p.dtype} of shape {p.shape}")


def wanted_shape(
    name: str, model: np.ndarray, fmt: Format, axes: tuple[int, ...], shape: list[int] | None, where: str
) -> tuple[int, ...] | None:
    """The shape a parameter must have; None if any of as many axes will do."""
    if name not in SPREAD:
        return tuple(model.shape)
    if shape is None:
        return None
    if fmt.group is not None:
        return shape[0], -(-elements(shape[1:], where) // fmt.group)
    return tuple(shape[a] for a in axes)


GOOD_PARAMS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "scale": (lambda p: p >= TINY, "normal numbers above zero"),
    "range": (lambda p: p >= TINY, "normal numbers above zero"),
    "fl": (lambda p: (p == np.round(p)) & (abs(p) <= MOST_FL), f"whole numbers between -{MOST_FL} and {MOST_FL}"),
    "zero_point": (lambda p: (p == np.round(p)) & (abs(p) <= 2**24), "whole numbers that 24 bits hold"),
}


def check_values(params: Mapping[str, np.ndarray], where: str) -> None:
    """Return if parameters have values that they may have."""
    for name, p in params.items():
        good, must = GOOD_PARAMS.get(name, (np.isfinite, "finite"))
        if not (np.isfinite(p).all() and good(p).all()):
            raise damaged(f"{name} of {where}", must, "other numbers")


def size_of(a: Numbers) -> int:
    return elements(list(a.shape), "") * a.dtype.itemsize


def decoded_bytes(entry: Entry) -> int:
    """The bytes of a tensor in memory."""
    codes = 0
    if entry.codes is not None:
        bits, dim = entry.codes.format.bits, width_of(entry.codes.format)
        codes = elements(list(entry.codes.shape), "") * max(1 if bits <= 8 else 2 if bits <= 16 else 4, dim)
    return codes + sum(map(size_of, entry.arrays.values()))
