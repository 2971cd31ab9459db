"""Parts of a file: codes, bit planes, numbers and text as bytes and back, each in the shortest of the codings there are.

A part is a coding and its bytes. A *coder* names the codings that a writer may choose from: "raw" none, "fast" those that
decode at the speed of memory, "best" the shortest. Which coding a part has is part of the file, so readers need no coder.
The normative text is docs/coding.md. The tables hold the definition of each coding; where there is a native core, its twins
do the same at speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from bitladder.codec import best_codes, best_numbers, best_planes, best_text, dense, fast, ternary, twins
from bitladder.codec.planes import check_plane, to_planes

RAW, BEST, FAST, TERNARY, TRELLIS = range(5)
CODERS: dict[str, tuple[int, ...]] = {"raw": (), "fast": (FAST, TERNARY), "best": (BEST, TERNARY, TRELLIS)}
SIDE: dict[str, tuple[int, ...]] = {"raw": (), "fast": (BEST,), "best": (BEST,)}  # of numbers and headers, which are small
WORTH = 0.99  # a coding that does not come below this share of the raw bytes is not used
MOST_PER_BYTE = 2048  # numbers that one coded byte may stand for: what keeps a small file from filling a large memory


T = TypeVar("T")


class Part(NamedTuple):
    """How the bytes of a part are coded, and the bytes."""

    coding: int
    body: bytes


class Grid(NamedTuple):
    """What codes are a matrix of: rows (of the first axis) and columns (all others, in C order)."""

    rows: int
    cols: int

    @property
    def size(self) -> int:
        return self.rows * self.cols


class Kind(NamedTuple):
    """Of which codes a tensor is made: `bits` each, from `low` to `high`."""

    bits: int
    low: int
    high: int


def shortest(raw: bytes, coded: Sequence[Part]) -> Part:
    """The shortest of the codings, raw where that is nearly as short."""
    best = min(coded, key=lambda part: len(part.body), default=Part(RAW, raw))
    return best if len(best.body) < WORTH * len(raw) else Part(RAW, raw)


def bounded(part: Part, count: int) -> None:
    """Return if the bytes of a coded part may stand for so many numbers."""
    if part.coding != RAW and count > MOST_PER_BYTE * len(part.body):
        raise ValueError(
            f"codec: {len(part.body)} coded bytes must stand for {MOST_PER_BYTE} numbers each at most, got {count}"
        )


# ------------------------------------------------------------------------------------------------------------- codes

# By coding: codes (rows, cols) and their kind to bytes, None where it does not apply; and back, int64.
CODES: dict[int, tuple[Callable[[np.ndarray, Kind], bytes | None], Callable[[bytes, Grid, Kind], np.ndarray]]] = {
    BEST: (best_codes.encode, best_codes.decode),
    FAST: (fast.encode_codes, fast.decode_codes),
    TERNARY: (ternary.encode_codes, ternary.decode_codes),
    TRELLIS: (best_codes.encode_trellis, best_codes.decode_trellis),
}


def encode_codes(codes: np.ndarray, kind: Kind, coder: str) -> Part:
    """The part that holds `codes` (rows, cols), integers of `kind`."""
    there = [c for c in CODERS[coder] if c in CODES and kind.low >= -(2**31) and kind.high < 2**31]
    coded = [Part(c, body) for c in there if (body := of(CODES, twins.codes, c)[0](codes, kind)) is not None]
    return shortest(dense.pack(codes, kind.bits), coded)


def decode_codes(part: Part, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes (rows, cols) of a part, in the smallest integers that hold all of the kind.

    ValueError if its bytes are not what its coding makes of such codes.
    """
    if part.coding == RAW:
        codes = dense.unpack(part.body, kind.bits, grid.size, signed=kind.low < 0)
    else:
        bounded(part, grid.size)
        if not -(2**31) <= kind.low <= kind.high < 2**31:
            raise ValueError(f"codec: coded codes must be of 32 bits at most, got {kind.low}..{kind.high}")
        codes = of(CODES, twins.codes, part.coding)[1](part.body, grid, kind)
    if codes.size and (codes.min() < kind.low or codes.max() > kind.high):
        raise ValueError(f"codec: codes must be between {kind.low} and {kind.high}, got {codes.min()}..{codes.max()}")
    return codes.reshape(grid).astype(dense.smallest(kind.low, kind.high), copy=False)


# ------------------------------------------------------------------------------------------------------------ planes

# By coding: codes (rows, cols) of so many bits, the number of a plane and whether the first plane is a sign, to the bytes of
# that plane; and back, from the codes that the planes before it make, to those with this plane (uint8).
PLANES: dict[
    int,
    tuple[Callable[[np.ndarray, int, int, bool], bytes | None], Callable[[bytes, np.ndarray, int, bool], np.ndarray]],
] = {BEST: (best_planes.encode, best_planes.decode), FAST: (fast.encode_plane, fast.decode_plane)}


def encode_planes(codes: np.ndarray, bits: int, sign: bool, coder: str) -> list[Part]:
    """The parts of the `bits` planes of `codes` (rows, cols), most significant first; sign: the first plane is a sign."""
    encoders = {c: of(PLANES, twins.planes, c)[0] for c in CODERS[coder] if c in PLANES}
    return [
        shortest(raw, [Part(c, body) for c, encode in encoders.items() if (body := encode(codes, bits, p, sign)) is not None])
        for p, raw in enumerate(to_planes(codes, bits))
    ]


def decode_planes(
    parts: Sequence[Part], grid: Grid, sign: bool, before: np.ndarray | None = None, known_planes: int = 0
) -> np.ndarray:
    """The codes (rows, cols), uint8, of the planes in `parts`; they go on from the `known_planes` planes of `before`."""
    codes = np.zeros(grid, np.uint8) if before is None else np.asarray(before, np.uint8).reshape(grid)
    if twins.core and all(part.coding in PLANES for part in parts if part.coding != RAW):
        for part in parts:
            bounded(part, grid.size)
        return twins.with_planes(parts, codes, known_planes, sign)
    for number, part in enumerate(parts, known_planes):
        if part.coding == RAW:
            check_plane(part.body, number, grid.size)
            plane = np.unpackbits(np.frombuffer(part.body, np.uint8), count=grid.size, bitorder="little").reshape(grid)
            codes = np.left_shift(codes, 1) | plane
        else:
            bounded(part, grid.size)
            codes = of(PLANES, twins.planes, part.coding)[1](part.body, codes, number, sign)
    return codes


# ----------------------------------------------------------------------------------------------------------- numbers

# By coding: an array and the array it is predicted from (or None) to bytes, and back.
NUMBERS: dict[
    int,
    tuple[
        Callable[[np.ndarray, np.ndarray | None], bytes | None], Callable[[bytes, np.dtype, int, np.ndarray | None], np.ndarray]
    ],
] = {BEST: (best_numbers.encode, best_numbers.decode)}


def encode_numbers(values: np.ndarray, coder: str, before: np.ndarray | None = None) -> Part:
    """The part of an array; `before`: an array of the same shape and type that its values are near to."""
    encoders = {c: of(NUMBERS, twins.numbers, c)[0] for c in SIDE[coder] if c in NUMBERS}
    coded = [Part(c, body) for c, encode in encoders.items() if (body := encode(values, before)) is not None]
    return shortest(twins.little(values), coded)


def decode_numbers(part: Part, dtype: np.dtype, count: int, before: np.ndarray | None = None) -> np.ndarray:
    """The `count` numbers of a part, bit for bit."""
    if part.coding == RAW:
        if len(part.body) != count * dtype.itemsize:
            raise ValueError(
                f"codec: {count} numbers of {dtype} must have {count * dtype.itemsize} bytes, got {len(part.body)}"
            )
        return np.frombuffer(part.body, dtype.newbyteorder("<")).astype(dtype)
    bounded(part, count)
    return of(NUMBERS, twins.numbers, part.coding)[1](part.body, dtype, count, before)


# -------------------------------------------------------------------------------------------------------------- text


class Model(Protocol):
    """What the texts so far let one expect."""

    def learn(self, text: bytes) -> None: ...
    def encode(self, text: bytes) -> bytes: ...
    def decode(self, body: bytes, length: int) -> bytes | None: ...


class Texts:
    """The headers of a file in order, each coded in view of all before it."""

    def __init__(self) -> None:
        self.model: Model = twins.core.Text() if twins.core else best_text.Text()
        self.unlearned = b""  # until a coded text comes, nothing has to be learned

    def encode(self, text: bytes, coder: str) -> Part:
        """The part of the next header."""
        coded = [Part(c, self.learned().encode(text)) for c in SIDE[coder]]
        self.unlearned += b"" if coded else text
        return shortest(text, coded)

    def decode(self, part: Part, length: int) -> bytes:
        """The `length` bytes of the next header."""
        if part.coding == RAW and len(part.body) != length:
            raise ValueError(f"codec: a header must have {length} bytes, got {len(part.body)}")
        if part.coding == RAW:
            self.unlearned += part.body
            return part.body
        if part.coding != BEST:
            raise ValueError(f"codec: coding must be one of {RAW}, {BEST} here, got {part.coding}")
        bounded(part, length)
        return twins.sound(self.learned().decode(part.body, length))

    def learned(self) -> Model:
        """The model when it has seen all texts so far."""
        self.model.learn(self.unlearned)
        self.unlearned = b""
        return self.model


def known(table: dict[int, T], coding: int) -> T:
    """The definition of a coding."""
    if coding not in table:
        raise ValueError(f"codec: coding must be one of {', '.join(map(str, [RAW, *table]))} here, got {coding}")
    return table[coding]


def of(table: dict[int, T], twin: Callable[[int], T], coding: int) -> T:
    """The functions of a coding: the core's, or those of the definition where there is no core."""
    definition = known(table, coding)
    return twin(coding) if twins.core else definition
