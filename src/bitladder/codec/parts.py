"""Parts of a file: codes, bit planes, numbers and text as bytes and back, each in the shortest of the codings there are.

A part is a coding and its bytes. A *coder* names the codings that a writer may choose from: "raw" none, "fast" those that
decode at the speed of memory, "best" the shortest. Which coding a part has is part of the file, so readers need no coder.
The normative text is docs/coding.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from bitladder.codec import dense
from bitladder.codec.planes import from_planes, to_planes

RAW, BEST, FAST, TERNARY, TRELLIS = range(5)
CODERS: dict[str, tuple[int, ...]] = {"raw": (), "fast": (FAST, TERNARY), "best": (BEST, TERNARY, TRELLIS)}
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
CODES: dict[int, tuple[Callable[[np.ndarray, Kind], bytes | None], Callable[[bytes, Grid, Kind], np.ndarray]]] = {}


def encode_codes(codes: np.ndarray, kind: Kind, coder: str) -> Part:
    """The part that holds `codes` (rows, cols), integers of `kind`."""
    coded = [Part(c, body) for c in CODERS[coder] if c in CODES and (body := CODES[c][0](codes, kind)) is not None]
    return shortest(dense.pack(codes, kind.bits), coded)


def decode_codes(part: Part, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes (rows, cols) of a part, int64. ValueError if its bytes are not what its coding makes of such codes."""
    if part.coding == RAW:
        codes = dense.unpack(part.body, kind.bits, grid.size, signed=kind.low < 0)
    else:
        bounded(part, grid.size)
        codes = known(CODES, part.coding)[1](part.body, grid, kind)
    if codes.size and (codes.min() < kind.low or codes.max() > kind.high):
        raise ValueError(f"codec: codes must be between {kind.low} and {kind.high}, got {codes.min()}..{codes.max()}")
    return codes.reshape(grid)


# ------------------------------------------------------------------------------------------------------------ planes

# By coding: codes (rows, cols) of so many bits, the number of a plane and whether the first plane is a sign, to the bytes of
# that plane; and back, from the codes that the planes before it make, to those with this plane (uint8).
PLANES: dict[
    int, tuple[Callable[[np.ndarray, int, int, bool], bytes], Callable[[bytes, np.ndarray, int, bool], np.ndarray]]
] = {}


def encode_planes(codes: np.ndarray, bits: int, sign: bool, coder: str) -> list[Part]:
    """The parts of the `bits` planes of `codes` (rows, cols), most significant first; sign: the first plane is a sign."""
    raw = to_planes(codes, bits)
    return [
        shortest(raw[p], [Part(c, PLANES[c][0](codes, bits, p, sign)) for c in CODERS[coder] if c in PLANES])
        for p in range(bits)
    ]


def decode_planes(
    parts: Sequence[Part], grid: Grid, sign: bool, before: np.ndarray | None = None, known_planes: int = 0
) -> np.ndarray:
    """The codes (rows, cols), uint8, of the planes in `parts`; they go on from the `known_planes` planes of `before`."""
    codes = np.zeros(grid, np.uint8) if before is None else np.asarray(before, np.uint8).reshape(grid)
    for number, part in enumerate(parts, known_planes):
        if part.coding == RAW:
            codes = codes << 1 | from_planes([part.body], 1, grid.size).reshape(grid)
        else:
            bounded(part, grid.size)
            codes = known(PLANES, part.coding)[1](part.body, codes, number, sign)
    return codes


# ----------------------------------------------------------------------------------------------------------- numbers

# By coding: an array and the array it is predicted from (or None) to bytes, and back.
NUMBERS: dict[
    int,
    tuple[
        Callable[[np.ndarray, np.ndarray | None], bytes | None], Callable[[bytes, np.dtype, int, np.ndarray | None], np.ndarray]
    ],
] = {}


def encode_numbers(values: np.ndarray, coder: str, before: np.ndarray | None = None) -> Part:
    """The part of an array; `before`: an array of the same shape and type that its values are near to."""
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    coded = [Part(c, body) for c in CODERS[coder] if c in NUMBERS and (body := NUMBERS[c][0](values, before)) is not None]
    return shortest(raw, coded)


def decode_numbers(part: Part, dtype: np.dtype, count: int, before: np.ndarray | None = None) -> np.ndarray:
    """The `count` numbers of a part, bit for bit."""
    if part.coding == RAW:
        if len(part.body) != count * dtype.itemsize:
            raise ValueError(
                f"codec: {count} numbers of {dtype} must have {count * dtype.itemsize} bytes, got {len(part.body)}"
            )
        return np.frombuffer(part.body, dtype.newbyteorder("<")).astype(dtype)
    bounded(part, count)
    return known(NUMBERS, part.coding)[1](part.body, dtype, count, before)


# -------------------------------------------------------------------------------------------------------------- text

# By coding: bytes and those that came before them in the file to coded bytes, and back.
TEXT: dict[int, tuple[Callable[[bytes, bytes], bytes], Callable[[bytes, int, bytes], bytes]]] = {}


def encode_text(text: bytes, coder: str, before: bytes = b"") -> Part:
    """The part of a header; `before`: what has been read before it, which it resembles."""
    return shortest(text, [Part(c, TEXT[c][0](text, before)) for c in CODERS[coder] if c in TEXT])


def decode_text(part: Part, length: int, before: bytes = b"") -> bytes:
    """The `length` bytes of a header."""
    if part.coding == RAW:
        if len(part.body) != length:
            raise ValueError(f"codec: a header must have {length} bytes, got {len(part.body)}")
        return part.body
    bounded(part, length)
    return known(TEXT, part.coding)[1](part.body, length, before)


def known(table: dict[int, T], coding: int) -> T:
    """The functions of a coding."""
    if coding not in table:
        raise ValueError(f"codec: coding must be one of {', '.join(map(str, [RAW, *table]))} here, got {coding}")
    return table[coding]
