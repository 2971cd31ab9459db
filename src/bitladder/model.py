"""A network ready for use: call it, print it, narrow it, save it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder import file, native
from bitladder.engine import Engine
from bitladder.errors import Unsupported
from bitladder.file.gains import gains as energy_gains
from bitladder.formats import Encoding, Format
from bitladder.formats.tensor import SPREAD, Array, cost_of, ns, width_of
from bitladder.ir.graph import CHANNEL_AXIS, Constant, Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS
from bitladder.runtime.integer import accumulators
from bitladder.table import table

Widths = int | Mapping[str, int] | None
COUNTED = ("conv", "conv_transpose", "linear")  # the operators whose weights count in average bits


@dataclass(frozen=True)
class Row:
    """What there is to say about one weight; `runs` is how its node computes, `sums` the bits that takes."""

    name: str
    op: str
    shape: tuple[int, ...]
    format: str
    bits: int | float
    nbytes: int
    runs: str
    sums: int | None


@dataclass(frozen=True, repr=False)
class Model:
    """A network that can be called with arrays; it never changes, `at` gives another that shares its weights.

    whole: the network with all the planes it has: what `at` widens to and `save` writes. bits: the widths it runs at, None
    for all. The engine is loaded when it is first called, once for all widths. arrival: the file it came from.
    """

    whole: Graph
    bits: Widths = None
    engine: Engine = None  # type: ignore[assignment]  # made below
    arrival: file.Arrival | None = None

    def __post_init__(self) -> None:
        if unknown := sorted({n.op for n in self.whole.nodes} - set(OPS)):
            raise Unsupported(
                f"model: operators {', '.join(unknown)} have no meaning here; see docs/operators.md for those that do"
            )
        if self.engine is None:
            object.__setattr__(self, "engine", Engine(self.whole))

    def __call__(self, *arrays: Array | Mapping[str, Array]) -> Any:
        """The output, or a tuple of several, as the kind of array that came in; given a dict, several come as a dict.

        Inputs are taken in the order of `graph.inputs`, or from one dict by name.
        """
        feeds = by_name(self.whole.inputs, arrays)
        space = next((a for a in feeds.values() if ns_of(a) is not np), None)
        outputs = self.engine.run(checked(self.whole.inputs, feeds), self.bits)
        results = {name: back(a, space) for name, a in outputs.items()}
        if len(results) == 1:
            return next(iter(results.values()))
        return results if len(arrays) == 1 and isinstance(arrays[0], Mapping) else tuple(results.values())

    @property
    def graph(self) -> Graph:
        """The network at the widths it runs at."""
        whole, narrow = self.__dict__.get("_narrow", (None, None))
        if narrow is None or whole is not self.whole:
            whole = self.whole
            narrow = whole if self.bits is None else whole.at(self.bits)
            object.__setattr__(self, "_narrow", (whole, narrow))
        return narrow

    @property
    def missing(self) -> int:
        """How many bytes of the file it came from have not come yet: without them it runs at fewer planes."""
        return 0 if self.arrival is None else self.arrival.missing

    def more(self, data: bytes | Iterable[bytes] | None = None, *, bits: int | None = None) -> bool:
        """Read on and run at what there is from the next call on; whether the file is complete now.

        data: bytes that somebody else fetched, the next ones of the file. Without them the stream, address or file that was
        loaded is read on: until width `bits` is there, by default the next wider one. `Truncated` if it ends before that; what
        came until then is in use all the same. Calls may go on meanwhile; models made with `at` stay as they were.
        """
        if self.arrival is None:
            raise ValueError("more: this network came from no file, so there is nothing to read on; load one")
        with self.arrival.lock:
            ended = self.arrival.more(data, bits)
            if self.arrival.graph is not self.whole:
                old = self.engine
                engine = Engine(
                    self.arrival.graph, threads=old.threads, batch=old.batch, isa=old.isa, origin=self.arrival.again
                )
                object.__setattr__(self, "whole", self.arrival.graph)
                object.__setattr__(self, "engine", engine)
        if ended is not None:
            raise ended
        return not self.missing

    def at(self, bits: int | Mapping[str, int]) -> Model:
        """The same network on the leading `bits` bits of its nested weights; a mapping gives some weights their own.

        No weight is copied: both run on the same ones.
        """
        file.check_bits(bits)
        if isinstance(bits, Mapping) and (lost := sorted(set(bits) - {name for name, _ in self.whole.weights()})):
            names = ", ".join(list(self.plan)[:6])
            raise ValueError(f"at: {lost[0]!r} must be the name of a weight, such as {names}")
        return Model(self.whole, dict(bits) if isinstance(bits, Mapping) else bits, self.engine, self.arrival)

    def with_(self, *, threads: int | None = None, batch: int = 1, isa: str = "") -> Model:
        """The same network in an engine of its own.

        threads: of its pool, all cores by default. batch: about how many samples come at a time; it decides how weights lie
        in memory. isa: an instruction set of `bitladder.native.isas()`, the best by default.
        """
        engine = Engine(self.whole, threads=threads, batch=batch, isa=isa, origin=self.engine.origin)
        return Model(self.whole, self.bits, engine, self.arrival)

    def save(
        self, path: str | os.PathLike[str], *, coder: str = "best", order: str = "plane", gains: file.Gains | None = None
    ) -> None:
        """Write the network to one file, whole or not at all.

        coder: "best" for the fewest bytes, "fast" to load sooner, "raw" for codes as they are. order: which planes come first
        in the file, so that its beginnings are good networks: "plane" by plane, by "layer", or by "importance", with `gains`,
        the loss that each plane of each weight takes away; without them, its share of the weight's squared error.
        """
        if order == "importance" and gains is None:
            gains = energy_gains(self.whole)
        file.save(self.whole, path, coder=coder, order=order, gains=gains)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as ONNX with QuantizeLinear and DequantizeLinear around its integers."""
        from bitladder.convert.to_onnx import to_onnx

        to_onnx(self.graph, path)

    def to_safetensors(self, path: str | os.PathLike[str], *, decoded: bool = False) -> None:
        """Write all codes that `save` would, with the bit map in the metadata; `from_safetensors` reads them back.

        decoded: write float32 weights instead, at the widths that the network runs at.
        """
        from bitladder.convert.to_safetensors import to_safetensors

        to_safetensors(self.graph if decoded else self.whole, path, decoded=decoded)

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes, if the network knows them."""
        return self.graph.meta.get("labels")

    @property
    def plan(self) -> dict[str, str]:
        """The format of every weight as text, "float" where it has none."""
        return {name: format_text(self.graph.constants[name]) for name, _ in self.graph.weights()}

    @property
    def nbytes(self) -> int:
        """Bytes of all constants, codes packed, with everything needed to decode them; what a file adds is its header."""
        side = sum(np.asarray(p).nbytes for e in self.graph.encodings.values() for p in e.params.values())
        return side + sum(constant_bytes(c) for c in self.graph.constants.values())

    @property
    def average_bits(self) -> float:
        """Sum of bits x elements over all convolution and linear weights, divided by their elements; before coding."""
        pairs = [
            (bits_of(self.graph.constants[n]), size_of(self.graph.constants[n]))
            for n, v in self.graph.weights()
            if v.op in COUNTED
        ]
        return sum(b * n for b, n in pairs) / max(sum(n for _, n in pairs), 1)

    @property
    def widths(self) -> list[int]:
        """The widths at which the nested weights differ, narrowest first; empty if there are none."""
        whole = self.whole
        nested = [(n, c) for n, c in whole.constants.items() if hasattr(c, "format") and hasattr(c.format, "at")]
        if not nested:
            return []
        floors = whole.meta.get("min_bits", {})
        low = min(file.planes_wanted(n, c.format, 1, floors) for n, c in nested)
        return list(range(low, max(c.format.bits for _, c in nested) + 1))

    def rows(self) -> list[Row]:
        """A row for every weight, in the order of the graph."""
        sums = accumulators(self.graph)
        return [row(self.graph, name, node, sums) for name, node in self.graph.weights()]

    def __str__(self) -> str:
        header = ("weight", "operator", "shape", "format", "bits", "bytes", "runs in")
        rows = self.rows()
        cells = [(r.name, r.op, r.shape, r.format, r.bits, r.nbytes, r.runs) for r in rows]
        integers = sum(r.runs == "integers" for r in rows)
        totals = ("total", "", "", "", self.average_bits, self.nbytes, f"{integers} of {len(rows)} in integers")
        return table(header, cells, totals)

    def __repr__(self) -> str:
        sizes = f"{len(self.graph.nodes)} nodes, {self.average_bits:.3g} bits on average, {self.nbytes:,} bytes"
        return f"<bitladder.Model of {sizes}>"


def load(
    source: Any,
    bits: file.Bits = None,
    *,
    most: int = file.MOST,
    recover: bool = False,
    threads: int | None = None,
    batch: int = 1,
    isa: str = "",
) -> Model:
    """The network of a file; with `bits`, at most that many leading planes of each weight are read.

    source: a path, bytes, a file object, an iterable of chunks of bytes, or an http address. A file that is cut
    runs with what is there, and `missing` says how much is not. Chunks are taken until the network can run, or can run at
    `bits`; `more` takes further ones.
    bits: a width, a width per weight, "auto" for no more planes than the file's plan runs on. None reads all there are and
    runs on the plan's; `at` can then go up to what is stored. most: bytes that all decoded tensors may take. recover: work
    around damage, which the network's metadata then names. threads, batch, isa: as for `Model.with_`.

    All of it is checked; codes then stay in the file, which stays open: its name may go, what is in it must not change.
    """
    arrival = file.attach(source, bits, most=most, recover=recover)
    graph, origin = arrival.graph, arrival.again if bits is None else None
    native.trim()
    engine = Engine(graph, threads=threads, batch=batch, isa=isa, origin=origin)
    return Model(graph, (graph.meta.get("default_bits") or None) if bits is None else None, engine, arrival)


def by_plan(graph: Graph) -> Model:
    """The network on the planes that its plan marks as default, all of them where it marks none."""
    marked = graph.meta.get("default_bits")
    return Model(graph, marked or None)


# ---------------------------------------------------------------------------------------------------------- inputs


def by_name(inputs: Sequence[Value], arrays: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the inputs."""
    names = [v.name for v in inputs]
    if len(arrays) == 1 and isinstance(arrays[0], Mapping):
        given = arrays[0]
        if missing := [n for n in names if n not in given]:
            raise ValueError(f"run: input {missing[0]!r} is missing; give an array for each of {', '.join(names)}")
        if extra := sorted(set(given) - set(names)):
            raise ValueError(f"run: {extra[0]!r} is no input of this network; its inputs are {', '.join(names)}")
        return {n: given[n] for n in names}
    if len(arrays) != len(names):
        raise TypeError(f"run: must get {len(names)} arrays ({', '.join(names)}), got {len(arrays)}")
    return dict(zip(names, arrays, strict=True))


def ns_of(a: Any) -> Any:
    """The module an array comes from; what is neither a numpy array nor a tensor is as good as numpy."""
    return ns(a) if hasattr(a, "detach") else np


def checked(inputs: Sequence[Value], feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Numpy arrays of the types the network wants; one line that names the input if one does not fit."""
    sizes: dict[str, tuple[int, str]] = {}
    return {v.name: fitting(v, feeds[v.name], sizes) for v in inputs}


def fitting(value: Value, given: Any, sizes: dict[str, tuple[int, str]]) -> np.ndarray:
    """`given` as the network's input `value`; free axes of one name must agree, `sizes` keeps what they were."""
    where = f"run: input {value.name!r}"
    try:
        a = np.asarray(given.detach().cpu().numpy() if hasattr(given, "detach") else given)
    except ValueError:
        raise ValueError(f"{where} must be an array, got a list of uneven rows; pad them to one length") from None
    check_shape(where, value, a, sizes)
    dtype = np.dtype(value.dtype)
    if a.dtype != dtype and not np.can_cast(a.dtype, dtype, "same_kind"):
        raise ValueError(f"{where} must be {dtype}, got {a.dtype}; convert it first")
    if a.dtype.kind == "f" and not (np.isfinite(a.min()) and np.isfinite(a.max())):
        what = "NaN" if np.isnan(a).any() else "infinity"
        raise ValueError(f"{where} must be finite, got {what} at {first_bad(a)}; clean the data")
    if a.dtype == dtype:
        return a
    out = a.astype(dtype)
    if out.dtype.kind in "iu" and not np.array_equal(out, a):
        raise ValueError(f"{where} must fit {dtype}, got numbers up to {a.max()}; convert it first")
    return out


def first_bad(a: np.ndarray) -> str:
    """Where the first number that is not finite stands."""
    return str([int(i) for i in np.argwhere(~np.isfinite(a))[0]])


def sizes_text(shape: tuple[int | str, ...]) -> str:
    """A shape as errors show it."""
    return "(" + ", ".join(map(str, shape)) + ")"


def check_shape(where: str, value: Value, a: np.ndarray, sizes: dict[str, tuple[int, str]]) -> None:
    """Return if `a` has the rank and the sizes that the network wants, and is not empty."""
    want = value.shape
    if want is not None:
        if a.ndim != len(want):
            hint = "; add the batch axis with x[None]" if a.ndim == len(want) - 1 else "; reshape it"
            raise ValueError(f"{where} must have shape {sizes_text(want)}, got {a.shape}{hint}")
        for axis, (n, got) in enumerate(zip(want, a.shape, strict=True)):
            if isinstance(n, int) and n != got:
                raise ValueError(
                    f"{where} must have shape {sizes_text(want)}, got {a.shape}: axis {axis} must be {n}; reshape or resize it"
                )
            if isinstance(n, str) and n and sizes.setdefault(n, (got, value.name))[0] != got:
                size, other = sizes[n]
                raise ValueError(f"{where} must have {size} for {n!r} on axis {axis}, as input {other!r} has, got {got}")
    if a.size == 0:
        raise ValueError(f"{where} is empty, shape {a.shape}; must hold at least one sample")


def back(a: np.ndarray, space: Any) -> Any:
    """`a` as the kind of array that `space` is, on its device; numpy if `space` is None."""
    if space is None:
        return a
    return ns(space).from_numpy(np.array(a)).to(space.device)


# --------------------------------------------------------------------------------------------------------- reports


def format_text(c: Constant) -> str:
    return str(c.format) if hasattr(c, "format") else "float"


def bits_of(c: Constant) -> int | float:
    """The bits that one element of a weight costs."""
    return cost_of(c.format) if hasattr(c, "format") else int(np.asarray(c).dtype.itemsize * 8)


def size_of(c: Constant) -> int:
    assert not isinstance(c, PerWidth)
    return int(np.prod(c.shape, dtype=np.int64))


def constant_bytes(c: Constant) -> int:
    """Bytes of one constant with its parameters."""
    if isinstance(c, PerWidth):
        return sum(np.asarray(a).nbytes for a in c.arrays.values())
    if isinstance(c, np.ndarray):
        return c.nbytes
    return c.nbytes + sum(np.asarray(p).nbytes for p in c.encoding.params.values())


def packed_bytes(graph: Graph, formats: Mapping[str, Format], activations: Mapping[str, Encoding]) -> int:
    """What `nbytes` would be if weights had these formats: codes and parameters counted, nothing encoded."""
    weights = dict(graph.weights())
    total = sum(np.asarray(p).nbytes for e in activations.values() for p in e.params.values())
    for name, c in graph.constants.items():
        if name in formats and name in weights and isinstance(c, np.ndarray):
            total += weight_bytes(c.shape, CHANNEL_AXIS[weights[name].op], formats[name])
        else:
            total += constant_bytes(c)
    return total


def weight_bytes(shape: tuple[int, ...], axis: int, fmt: Format) -> int:
    """Packed codes of a weight, and the parameters its format has for its channels, groups or whole.

    >>> from bitladder.formats import Nested
    >>> weight_bytes((4, 2, 3, 3), 0, Nested(8))
    88
    """
    elements = int(np.prod(shape, dtype=np.int64))
    sets = 1 if fmt.per == "tensor" or len(shape) < 2 else shape[axis]
    if fmt.group is not None:
        sets = shape[0] * -(-(elements // max(shape[0], 1)) // fmt.group)
    params = {k: p.nbytes * (sets if k in SPREAD else 1) for k, p in file.parameters(str(fmt)).items()}
    return (elements // width_of(fmt) * fmt.bits + 7) // 8 + sum(params.values())


def row(graph: Graph, name: str, node: Node, sums: Mapping[str, int | None]) -> Row:
    c = graph.constants[name]
    assert not isinstance(c, PerWidth)
    bits = sums.get(node.name)
    return Row(
        name,
        node.op,
        tuple(c.shape),
        format_text(c),
        bits_of(c),
        constant_bytes(c),
        "float" if bits is None else "integers",
        bits,
    )
