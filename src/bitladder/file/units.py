"""What of a tensor is coded together: an array with its versions, or a tile of codes with its planes; and against another such.

Numbers are coded against those of another file as `codec.parts` codes numbers near to others, codes by their differences
modulo 2^bits, each the one nearest to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bitladder.codec import parts
from bitladder.codec.parts import Grid, Kind, Part
from bitladder.file.contents import Entry
from bitladder.file.fields import Tree
from bitladder.file.grouping import grid, tiles
from bitladder.file.stored import Fetch, Place
from bitladder.file.widths import is_nested

CODER = "best"  # of what stands in a delta


class Array(NamedTuple):
    """So many versions, most often one, of an array of so many numbers; each is coded near to the one before."""

    dtype: str
    versions: int
    size: int

    def decode(self, given: Sequence[Part]) -> np.ndarray:
        """The numbers (versions, size) of its parts, one for each version."""
        out: list[np.ndarray] = []
        for part in given:
            out.append(parts.decode_numbers(part, np.dtype(self.dtype), self.size, out[-1] if out else None))
        return np.stack(out)

    def encode(self, values: np.ndarray, coder: str) -> list[Part]:
        """Its parts."""
        return [parts.encode_numbers(v, coder, values[k - 1] if k else None) for k, v in enumerate(values)]

    def difference(self, values: np.ndarray, base: np.ndarray) -> Part:
        """The numbers, coded with others that they are near to."""
        return parts.encode_numbers(values.ravel(), CODER, base.ravel())

    def restored(self, part: Part, base: np.ndarray) -> np.ndarray:
        """The numbers whose difference to `base` is `part`."""
        return parts.decode_numbers(part, np.dtype(self.dtype), base.size, base.ravel()).reshape(base.shape)


class Tile(NamedTuple):
    """A tile of codes, in planes or not; sign: whether the first plane is a sign."""

    grid: Grid
    kind: Kind
    planes: bool
    sign: bool

    def decode(self, given: Sequence[Part]) -> np.ndarray:
        """The codes of its parts, one for each plane or one for all."""
        if self.planes:
            return parts.decode_planes(given, self.grid, self.sign)
        return parts.decode_codes(given[0], self.grid, self.kind)

    def encode(self, values: np.ndarray, coder: str) -> list[Part]:
        """Its parts."""
        if self.planes:
            return parts.encode_planes(values, self.kind.bits, self.sign, coder)
        return [parts.encode_codes(values, self.kind, coder)]

    @property
    def differences(self) -> Kind:
        """Of which codes the differences of such codes are made."""
        half = 1 << self.kind.bits - 1
        return Kind(self.kind.bits, -half, half - 1)

    def difference(self, values: np.ndarray, base: np.ndarray) -> Part:
        """The differences to other codes."""
        kind = self.differences
        return parts.encode_codes(wrapped(values.astype(np.int64) - base, kind.bits, kind.low), kind, CODER)

    def restored(self, part: Part, base: np.ndarray) -> np.ndarray:
        """The codes whose differences to `base` are `part`, of the type that `base` has."""
        delta = parts.decode_codes(part, self.grid, self.differences)
        low = 0 if self.kind.low >= 0 else self.differences.low
        return wrapped(base + delta.astype(np.int64), self.kind.bits, low).astype(base.dtype)


def wrapped(x: np.ndarray, bits: int, low: int) -> np.ndarray:
    """Whole numbers modulo 2^bits, from `low` on.

    >>> wrapped(np.array([5, -9, 255]), 4, -8)
    array([ 5,  7, -1])
    """
    return ((x - low) & ((1 << bits) - 1)) + low


class Unit(NamedTuple):
    """What is coded together, and its parts."""

    what: Array | Tile
    parts: tuple[Part, ...]

    @property
    def values(self) -> np.ndarray:
        """Its numbers."""
        return self.what.decode(self.parts)


def units(entry: Entry, fetch: Fetch) -> dict[str, Unit]:
    """The units of a tensor by what they are called, but for arrays that stand in the header."""
    out: dict[str, Unit] = {}
    placed = {k: n for k, n in entry.arrays.items() if isinstance(n.place, Place)}
    rows = {VERSIONS: list(placed.values())} if entry.kind == "widths" and placed else {k: [n] for k, n in placed.items()}
    for key, arrays in sorted(rows.items()):
        size = int(np.prod(arrays[0].shape, dtype=np.int64))
        what = Array(arrays[0].dtype.name, len(arrays), size)
        out[key] = Unit(what, tuple(fetch(n.place) for n in arrays if isinstance(n.place, Place)))
    if (c := entry.codes) is not None:
        kind, sign = Kind(c.format.bits, *c.format.span()), getattr(c.format, "scheme", "") == "sign"
        for number, (_, tile) in enumerate(tiles(grid(c.shape), c.rows)):
            placed_parts = tuple(fetch(plane[number]) for plane in c.planes)
            out[tile_name(number)] = Unit(Tile(tile, kind, is_nested(c.format), sign), placed_parts)
    return out


VERSIONS = "versions"


def tile_name(number: int) -> str:
    return f"tile {number}"


def slots(tree: Tree) -> dict[str, list[list[int]]]:
    """The parts of each unit of a tensor's entry, to read and to fill."""
    arrays = {k: [a] for k, a in sorted(tree.get("params", {}).items())} | {"": [tree], VERSIONS: tree.get(VERSIONS, [])}
    out = {k: found for k, rows in arrays.items() if (found := [a["part"] for a in rows if "part" in a])}
    tiled = zip(*tree["planes"], strict=True) if "planes" in tree else ([part] for part in tree.get("data", []))
    return out | {tile_name(number): list(given) for number, given in enumerate(tiled)}


def in_order(tree: Tree) -> list[list[int]]:
    """The parts of a tensor's entry in the order in which they lie in their segments."""
    rest = slots({k: v for k, v in tree.items() if k != "planes"})
    return [part for given in (*rest.values(), *tree.get("planes", [])) for part in given]
