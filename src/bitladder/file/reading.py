"""A header and sections as a network: every word is checked before anything is made from it.

What must hold is in the tables of `bitladder.file.fields`; what depends on two fields at once is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from bitladder.errors import Malformed, Unsupported
from bitladder.file.container import MINOR, Reader
from bitladder.file.fields import (
    ARRAY,
    ENCODING,
    GRAPH,
    HEAD,
    INLINE,
    INPUT,
    KINDS,
    NODE,
    ROOT,
    Field,
    Json,
    checked,
    damaged,
    elements,
)
from bitladder.file.header import Bits, is_nested, planes_wanted
from bitladder.file.stored import InFile, decode
from bitladder.file.words import from_json
from bitladder.formats import Encoding, Format, QTensor, parse
from bitladder.formats.tensor import SPREAD
from bitladder.ir.graph import Constant, Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS
from bitladder.stats.points import Points


@cache
def parameters(text: str) -> dict[str, np.ndarray]:
    """The parameters a format needs, as its own fit gives them for one channel.

    >>> parameters("int8"), parameters("fixed8")
    ({'scale': array([1.], dtype=float32), 'zero_point': array([0.], dtype=float32)}, {'fl': array([7.], dtype=float32)})
    """
    fmt = parse(text)
    return {} if fmt is None else dict(fmt.fit(Points.of(np.zeros((1, 1)), (0,)), "max"))


MOST_FL = 126
MOST_GROUP = 2**31 - 1

GOOD_PARAMS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "scale": (lambda p: p > 0, "above zero"),
    "range": (lambda p: p > 0, "above zero"),
    "fl": (lambda p: (p == np.round(p)) & (abs(p) <= MOST_FL), f"whole numbers between -{MOST_FL} and {MOST_FL}"),
    "zero_point": (lambda p: (p == np.round(p)) & (abs(p) <= 2**24), "whole numbers that 24 bits hold"),
}


def check_params(
    fmt: Format, params: Mapping[str, np.ndarray], axes: tuple[int, ...], shape: list[int] | None, where: str
) -> None:
    """Return if `params` are what `fmt` needs for a tensor of `shape` (None: an activation, of any shape)."""
    if shape is not None and any(a >= len(shape) for a in axes):
        raise damaged(f"axes of {where}", f"axes of shape {shape}", list(axes))
    if fmt.group is not None and (shape is None or axes != (0,) or not shape):
        raise damaged(f"format of {where}", "without groups, or on a weight with axes [0]", str(fmt))
    for name, model in parameters(str(fmt)).items():
        if name not in params:
            raise damaged(f"params of {where}", f"an object with {name!r}", sorted(params))
        p = params[name]
        if name in SPREAD and fmt.group is not None:
            assert shape is not None
            want: tuple[int, ...] | None = (shape[0], -(-elements(shape[1:], where) // fmt.group))
        elif name in SPREAD:
            want = None if shape is None else tuple(shape[a] for a in axes)
        else:
            want = model.shape
        if p.dtype != model.dtype or (p.shape != want if want is not None else p.ndim != len(axes)):
            raise damaged(f"{name} of {where}", f"{model.dtype} of shape {want or axes}", f"{p.dtype} of shape {p.shape}")
        good, must = GOOD_PARAMS.get(name, (np.isfinite, "finite"))
        if not (np.isfinite(p) & good(p)).all():
            raise damaged(f"{name} of {where}", must, "other numbers")


@dataclass
class Source:
    """The sections of a file being read; every one may be taken once."""

    reader: Reader
    stay: bool = False  # whether codes stay in the file
    taken: set[int] = field(default_factory=set)

    @property
    def newer(self) -> bool:
        """Whether the file may use words that came after this version."""
        return self.reader.minor > MINOR

    @property
    def total(self) -> int:
        return len(self.reader.sections)

    def read(self, number: int, where: str) -> bytes:
        """The bytes of section `number`, which now belongs to `where`."""
        return self.reader.read(self.claim(number, where))

    def claim(self, number: int, where: str) -> int:
        """`number`, now belonging to `where`."""
        if number >= self.total or number in self.taken:
            raise damaged(f"section of {where}", f"a free one below {self.total}", number)
        self.taken.add(number)
        return number

    def array(self, x: Any, where: str, fields: Mapping[str, Field] = ARRAY) -> np.ndarray:
        entry = checked(x, fields, where, self.newer)
        dtype = np.dtype(entry["dtype"])
        size = elements(entry["shape"], where) * dtype.itemsize
        if ("hex" in entry) != (size <= INLINE) or ("data" in entry) != (size > INLINE):
            raise damaged(where, f"an object with 'hex' up to {INLINE} bytes, with 'data' above", sorted(entry))
        body = bytes.fromhex(entry["hex"]) if "hex" in entry else self.read(entry["data"], where)
        if len(body) != size:
            raise damaged(f"data of {where}", f"{size} bytes long", len(body))
        if dtype.kind == "b" and (np.frombuffer(body, np.uint8) > 1).any():
            raise damaged(f"data of {where}", "zeros and ones", "other bytes")
        return np.frombuffer(body, dtype.newbyteorder("<")).astype(dtype).reshape(entry["shape"])

    def encoding(self, entry: Json, where: str, shape: list[int] | None) -> Encoding:
        fmt = format_of(entry, where)
        known = parameters(str(fmt))
        params = {k: self.array(entry["params"][k], f"{k} of {where}") for k in sorted(set(entry["params"]) & set(known))}
        axes = tuple(entry["axes"])
        check_params(fmt, params, axes, shape, where)
        if not self.newer and (extra := sorted(set(entry["params"]) - set(known))):
            raise damaged(f"params of {where}", f"an object of {', '.join(known)}", extra)
        return Encoding(fmt, params, axes)

    def codes(self, entry: Json, e: Encoding, where: str) -> QTensor:
        """A tensor whose codes lie in one section."""
        body = self.read(entry["data"], where)
        return self.tensor([body], [entry["data"]], entry, e, where)

    def tensor(self, bodies: list[bytes], numbers: list[int], entry: Json, e: Encoding, where: str) -> QTensor:
        """A tensor of the codes in `bodies`, the sections `numbers`; what stays in the file is only checked here."""
        shape = tuple(entry["shape"])
        codes = decode(bodies, e.format, shape, where)
        narrow = e.at(len(bodies)) if is_nested(e.format) else e
        return QTensor(narrow, InFile(self.reader, tuple(numbers), e.format, shape, where) if self.stay else codes)


def format_of(entry: Json, where: str) -> Format:
    """The format of a header entry."""
    try:
        fmt = parse(entry["format"])
    except ValueError:
        fmt = None
    if (
        fmt is None
        or str(fmt) != entry["format"]
        or (fmt.group or 1) > MOST_GROUP
        or abs(getattr(fmt, "fl", None) or 0) > MOST_FL
    ):
        raise damaged(f"format of {where}", "one that this version knows", entry["format"])
    return fmt


def last_needed(tensors: list[Json], total: int, bits: int | Mapping[str, int] | None, floors: Mapping[str, int]) -> int:
    """The number of the last section that a reader of `bits` needs; -1 if none."""
    spared: set[int] = set()
    for entry in tensors:
        if entry["kind"] == "codes" and "planes" in entry:
            fmt = format_of(entry, f"tensor {entry['name']!r}")
            if is_nested(fmt):
                spared.update(entry["planes"][planes_wanted(entry["name"], fmt, bits, floors) :])
    return max(set(range(total)) - spared, default=-1)


def widths_in(meta: Json, key: str) -> dict[str, int]:
    """An entry of metadata that gives bits by weight."""
    found = meta.get(key, {})
    if not (isinstance(found, dict) and all(type(b) is int and 1 <= b <= 64 for b in found.values())):
        raise damaged(f"{key!r} of meta", "bits by weight", found)
    return found


def layout(reader: Reader) -> tuple[dict[str, int], dict[int, int]]:
    """How many bytes the codes of each tensor take in a file, and how long a prefix each width needs."""
    tensors = [checked(entry, HEAD, "a tensor", newer=True) for entry in reader.header["tensors"]]
    stored = {
        e["name"]: sum(reader.sections[n].size for n in e.get("planes", [e.get("data")]) if n is not None)
        for e in tensors
        if e["kind"] == "codes"
    }
    floors = widths_in(from_json(reader.header["meta"], list), "min_bits")
    most = max((len(e["planes"]) for e in tensors if e["kind"] == "codes" and "planes" in e), default=0)
    total = len(reader.sections)
    return stored, {b: reader.needed(last_needed(tensors, total, b, floors)) for b in range(1, most + 1)}


def from_header(reader: Reader, bits: Bits, stay: bool = False) -> Graph:
    """The network of an open file, its nested weights narrowed to `bits`; everything is checked before it is used.

    stay: codes are checked and stay in the file, which is read again whenever they are asked for.
    """
    source = Source(reader, stay)
    root = checked(reader.header, ROOT, "the header", source.newer)
    meta = from_json(root["meta"], list)
    floors, default = (widths_in(meta, key) for key in ("min_bits", "default_bits"))
    wanted = (default or None) if isinstance(bits, str) else bits
    for entry in root["tensors"]:
        head = checked(entry, HEAD, "a tensor", newer=True)
        checked(entry, {**HEAD, **KINDS[head["kind"]]}, f"tensor {head['name']!r}", source.newer)
    if (last := last_needed(root["tensors"], source.total, wanted, floors)) >= 0:
        reader.require(reader.needed(last))
    constants: dict[str, Constant] = {}
    nested: dict[str, tuple[Json, Encoding]] = {}
    for entry in root["tensors"]:
        name, where = entry["name"], f"tensor {entry['name']!r}"
        if name in constants or not name:
            raise damaged("names of tensors", "different from each other", name)
        constants[name] = tensor(entry, source, nested, where)
    encodings = {}
    for name, entry in sorted(root["encodings"].items()):
        where = f"activation {name!r}"
        encodings[name] = source.encoding(checked(entry, ENCODING, where, source.newer), where, None)
    constants.update(planes(source, nested, wanted, floors))
    if len(source.taken) != source.total:
        raise damaged("sections", f"all used, {source.total} of them", len(source.taken))
    for name, c in constants.items():
        if isinstance(c, PerWidth) and not isinstance(constants.get(c.of), QTensor):
            raise damaged(f"'of' of tensor {name!r}", "the name of a tensor of codes", c.of)
    graph = build(root["graph"], constants, encodings, meta, source.newer)
    return graph if wanted is None else graph.at(wanted)


def tensor(entry: Json, source: Source, nested: dict[str, tuple[Json, Encoding]], where: str) -> Any:
    """The constant of one entry; a nested one is noted in `nested`, because its planes come later in the file."""
    if entry["kind"] == "array":
        return source.array(entry, where, {**HEAD, **ARRAY})
    if entry["kind"] == "widths":
        versions = source.array(entry, where, {**HEAD, **KINDS["widths"]})
        if entry["shape"][:1] != [len(entry["bits"])]:
            raise damaged(f"shape of {where}", f"{len(entry['bits'])} versions long", entry["shape"])
        return PerWidth(entry["of"], {b: version.copy() for b, version in zip(entry["bits"], versions, strict=True)})
    encoding = source.encoding(entry, where, entry["shape"])
    if is_nested(encoding.format):
        if len(entry.get("planes", [])) != encoding.format.bits or "data" in entry:
            raise damaged(f"planes of {where}", f"{encoding.format.bits} numbers of sections", entry.get("planes"))
        nested[entry["name"]] = (entry, encoding)
        return None
    if "data" not in entry or "planes" in entry:
        raise damaged(where, "an object with 'data' and without 'planes'", sorted(entry))
    return source.codes(entry, encoding, where)


def planes(
    source: Source, nested: Mapping[str, tuple[Json, Encoding]], bits: int | Mapping[str, int] | None, floors: Mapping[str, int]
) -> dict[str, QTensor]:
    """The nested tensors, from as many planes as `bits` needs, read in the order of the file."""
    before = max(source.taken, default=-1)
    wanted: list[tuple[int, str]] = []
    for name, (entry, encoding) in nested.items():
        numbers = [source.claim(n, f"tensor {name!r}") for n in entry["planes"]]
        if numbers != sorted(numbers) or numbers[0] <= before:
            raise damaged(f"planes of tensor {name!r}", "rising, after all that every width needs", numbers)
        wanted += [(n, name) for n in numbers[: planes_wanted(name, encoding.format, bits, floors)]]
    bodies: dict[str, list[bytes]] = {name: [] for name in nested}
    for number, name in sorted(wanted):
        bodies[name].append(source.reader.read(number))
    out = {}
    for name, (entry, encoding) in nested.items():
        read = bodies.pop(name)
        out[name] = source.tensor(read, entry["planes"][: len(read)], entry, encoding, f"tensor {name!r}")
    return out


def build(x: Any, constants: Mapping[str, Constant], encodings: Mapping[str, Encoding], meta: Json, newer: bool) -> Graph:
    """The graph of its header entry, whose operators and attributes must be known words."""
    entry = checked(x, GRAPH, "the graph", newer)
    inputs = [checked(v, INPUT, "an input", newer) for v in entry["inputs"]]
    nodes = [checked(n, NODE, "a node", newer) for n in entry["nodes"]]
    if unknown := sorted({n["op"] for n in nodes} - set(OPS)):
        raise Unsupported(f"load: operators {', '.join(unknown)[:200]} are unknown here; install a version that has them")
    try:
        graph = Graph(
            tuple(Value(v["name"], v["dtype"], None if v["shape"] is None else tuple(v["shape"])) for v in inputs),
            tuple(entry["outputs"]),
            tuple(node_from_json(n) for n in nodes),
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


def node_from_json(n: Json) -> Node:
    clip = from_json(n["clip"]) if "clip" in n else None
    return Node(n["op"], tuple(n["inputs"]), tuple(n["outputs"]), from_json(n.get("attrs", {})), clip)
