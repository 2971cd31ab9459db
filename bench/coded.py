"""Our side of the codec benchmark: networks as files of each coder, and codes as parts, there and back."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench import compressors
from bench.compressors import Squeezed
from bench.nested import dedicated_graph
from bench.result import Row
from bench.subject import Subject
from bitladder import file
from bitladder.codec import parts
from bitladder.codec.parts import Grid, Kind, Part
from bitladder.formats import Format, Int, QTensor, fit
from bitladder.ir.graph import Graph
from bitladder.ptq import data
from bitladder.ptq.importance import importances
from bitladder.ptq.rate import Rate
from bitladder.ptq.workbench import Workbench

DIVERGENCES = (0.002, 0.004, 0.006, 0.009, 0.013, 0.019, 0.027, 0.04, 0.06)  # from float, of rounding for rate
PRELUDE = 88  # bytes before the headers
TILE = 2**20  # codes that are coded together at most


# ------------------------------------------------------------------------------------------------------------- files


def file_bytes(graph: Graph, coder: str = "best") -> bytes:
    """The file of a network, with the shortest codings that a coder has."""
    return file.to_bytes(graph, coder)


def header_bytes(stored: bytes) -> int:
    """Of a file: the prelude, the offset table and all headers, which is what no segment holds."""
    sizes = struct.unpack_from("<I8xII", stored, 16)
    return PRELUDE + sum(sizes)


# ---------------------------------------------------------------------------------------------------------- networks


def alone(on: Subject) -> Iterator[Graph]:
    """Networks of eight bits that hold that one width and nothing for others."""
    yield dedicated_graph(on, "int", 8)
    yield dedicated_graph(on, "nested", 8)


def curve(on: Subject) -> Iterator[tuple[str, Callable[[], Graph]]]:
    """The networks that our curve is measured at, by name: rounded for rate, and at one width with error feedback."""
    bench = for_rate(on)
    for divergence in DIVERGENCES:
        yield f"rate, divergence {divergence:g}", partial(at_divergence, bench, divergence)
    for bits in (8, 6, 5, 4):
        yield f"int{bits}", partial(dedicated_graph, on, "int", bits)


def for_rate(on: Subject) -> Workbench:
    """A workbench whose weights are rounded for rate, as `quantize(rounding="rate")` makes it."""
    minds = importances(on.plain, data.chunks(on.feedback.samples))
    return replace(on.feedback, rate=Rate.of(on.plain, minds), memo={})


def at_divergence(bench: Workbench, divergence: float) -> Graph:
    """The network whose weights may all together cost so many nats."""
    made = bench.at_divergence(divergence)
    return made.network({name: Int(8) for name, _ in made.plain.weights()})


def plans(on: Subject) -> Iterator[tuple[str, Graph]]:
    """Networks whose codes are given to every coder."""
    yield "int4", dedicated_graph(on, "int", 4)
    yield "int8", dedicated_graph(on, "int", 8)
    yield "nested8", dedicated_graph(on, "nested", 8)


# ------------------------------------------------------------------------------------------------------------- codes


@dataclass(frozen=True)
class Codes:
    """Codes (rows, cols) of one tensor, what they may be, and for nested ones whether the first plane is a sign."""

    codes: np.ndarray
    kind: Kind
    nested: bool = False
    sign: bool = False

    def tiles(self) -> Iterator[np.ndarray]:
        """Whole rows, at most TILE codes a tile."""
        rows = max(1, TILE // max(1, self.codes.shape[1]))
        return (self.codes[at : at + rows] for at in range(0, len(self.codes), rows))


def codes_of(tensor: QTensor) -> Codes:
    """The codes of a tensor as the file cuts them."""
    fmt = tensor.format
    is_nested = hasattr(fmt, "at")
    return Codes(
        np.ascontiguousarray(tensor.codes.reshape(tensor.shape[0], -1)),
        Kind(fmt.bits, *fmt.span()),
        is_nested,
        getattr(fmt, "scheme", "") == "sign",
    )


def weights_of(graph: Graph) -> dict[str, Codes]:
    """The codes of every weight."""
    return {name: codes_of(t) for name, _ in graph.weights() if isinstance(t := graph.constants[name], QTensor)}


def rounded(weights: Mapping[str, np.ndarray], fmt: Format) -> dict[str, QTensor]:
    """Matrices rounded to the nearest code of a format."""
    return {name: QTensor.of(w, fit(fmt, w)) for name, w in weights.items()}


def encode(codes: Codes, coder: str, whole: bool = False) -> list[list[Part]]:
    """The parts of each tile; whole: nested codes as symbols, too."""
    if codes.nested and not whole:
        bits, sign = codes.kind.bits, codes.sign
        return [parts.encode_planes(tile.astype(np.uint8), bits, sign, coder) for tile in codes.tiles()]
    return [[parts.encode_codes(tile, codes.kind, coder)] for tile in codes.tiles()]


def decode(codes: Codes, made: Iterable[list[Part]]) -> np.ndarray:
    """The codes that parts hold; of `codes` only shape and kind are read."""
    tiles = zip(made, (Grid(*tile.shape) for tile in codes.tiles()), strict=True)
    if codes.nested:
        return np.concatenate([parts.decode_planes(p, grid, codes.sign) for p, grid in tiles])
    return np.concatenate([parts.decode_codes(p[0], grid, codes.kind) for p, grid in tiles])


def length(made: Iterable[list[Part]]) -> int:
    """Bytes of parts."""
    return sum(len(part.body) for tile in made for part in tile)


@dataclass(frozen=True)
class Speed:
    """Bytes of all tensors, and the seconds that coding them took."""

    bytes: int
    encode: float
    decode: float


def speed(tensors: Mapping[str, Codes], coder: str, repeats: int = 3) -> Speed:
    """Every tensor there and back; the least of the repeats."""
    encoding, decoding = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        made = {name: encode(c, coder) for name, c in tensors.items()}
        between = time.perf_counter()
        again = {name: decode(c, made[name]) for name, c in tensors.items()}
        encoding.append(between - began)
        decoding.append(time.perf_counter() - between)
    for name, c in tensors.items():
        if not np.array_equal(again[name], c.codes):
            raise AssertionError(f"coded: {name} is not what was encoded")
    return Speed(sum(map(length, made.values())), min(encoding), min(decoding))


def speeds(tensors: Mapping[str, Codes]) -> dict[str, Speed]:
    """Every coder but raw."""
    return {coder: speed(tensors, coder) for coder in ("fast", "best")}


def packed(tensors: Mapping[str, Codes]) -> bytes:
    """All codes as a file has them without a coder."""
    return b"".join(part.body for codes in tensors.values() for tile in encode(codes, "raw") for part in tile)


def code_rows(
    what: str, codes: Mapping[str, Codes], found: Mapping[str, Speed], also: Mapping[str, Squeezed] | None = None
) -> list[Row]:
    """Bits a weight and seconds of our coders, against general compressors on the same codes and others on their own."""
    count = sum(c.codes.size for c in codes.values())
    peers = compressors.peers({n: c.codes for n, c in codes.items()}, packed(codes)) | dict(also or {})
    rows = []
    for coder, ours in found.items():
        bits = 8 * ours.bytes / count
        rows += [Row.of(f"{what}, {coder}, bits a weight", bits, 8 * p.bytes / count, name) for name, p in peers.items()]
        for word in ("encode", "decode"):
            rows += [
                Row.of(f"{what}, {coder}, {word}, s", getattr(ours, word), t, name)
                for name, p in peers.items()
                if (t := getattr(p, word)) is not None
            ]
        rows.append(Row(f"{what}, {coder}, decode, million weights a second", count / ours.decode / 1e6))
    return rows
