"""What of a tensor is coded together: an array, or a tile of codes with all its planes; as parts, and against another such.

Numbers of a unit are coded against those of another file's as `codec.parts` codes numbers near to others; codes as their
differences modulo 2^bits, the one nearest to zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
    """An array of so many numbers."""

    dtype: str
    size: int

    def decode(self, given: Sequence[Part], before: np.ndarray | None) -> np.ndarray:
        """The numbers of its one part."""
        return parts.decode_numbers(given[0], np.dtype(self.dtype), self.size, before)

    def encode(self, values: np.ndarray, coder: str, before: np.ndarray | None) -> list[Part]:
        """Its part."""
        return [parts.encode_numbers(values, coder, before)]

    def difference(self, values: np.ndarray, base: np.ndarray) -> Part:
        """The numbers, coded with others that they are near to."""
        return parts.encode_numbers(values, CODER, base)

    def restored(self, part: Part, base: np.ndarray) -> np.ndarray:
        """The numbers whose difference is `part`."""
        return parts.decode_numbers(part, np.dtype(self.dtype), self.size, base)


class Tile(NamedTuple):
    """A tile of codes, in planes or not; sign: whether the first plane is a sign."""

    grid: Grid
    kind: Kind
    planes: bool
    sign: bool

    def decode(self, given: Sequence[Part], before: np.ndarray | None) -> np.ndarray:
        """The codes of its parts, one for each plane or one for all."""
        if self.planes:
            return parts.decode_planes(given, self.grid, self.sign)
        return parts.decode_codes(given[0], self.grid, self.kind)

    def encode(self, values: np.ndarray, coder: str, before: np.ndarray | None) -> list[Part]:
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


def units(entry: Entry, fetch: Fetch) -> list[Unit]:
    """The units of a tensor, but for arrays that stand in the header."""
    placed = [(Array(n.dtype.name, int(np.prod(n.shape, dtype=np.int64))), (n.place,)) for n in arrays(entry)]
    out = [Unit(what, tuple(map(fetch, places))) for what, places in placed]
    if (c := entry.codes) is not None:
        kind = Kind(c.format.bits, *c.format.span())
        sign = getattr(c.format, "scheme", "") == "sign"
        for number, (_, tile) in enumerate(tiles(grid(c.shape), c.rows)):
            what = Tile(tile, kind, is_nested(c.format), sign)
            out.append(Unit(what, tuple(fetch(plane[number]) for plane in c.planes)))
    return out


def arrays(entry: Entry) -> list[Any]:
    """The arrays of a tensor that lie in parts, in the order in which they do."""
    return [n for _, n in sorted(entry.arrays.items()) if isinstance(n.place, Place)]


def values(kind: str, given: Sequence[Unit]) -> list[np.ndarray]:
    """The numbers of the units of a tensor of that kind; of versions, each is near to the one before."""
    out: list[np.ndarray] = []
    for unit in given:
        out.append(unit.what.decode(unit.parts, before(kind, out)))
    return out


def before(kind: str, known: Sequence[np.ndarray]) -> np.ndarray | None:
    """What the next unit of a tensor is coded with: a version with the one before it, all others with none."""
    return known[-1] if kind == "widths" and known else None


def slots(tree: Tree) -> list[list[list[int]]]:
    """The parts of each unit of a tensor's entry, to read and to fill."""
    own = [tree["params"][k] for k in sorted(tree.get("params", {}))] + [tree] + tree.get("versions", [])
    out = [[x["part"]] for x in own if "part" in x]
    if "planes" in tree:
        return out + [list(parts) for parts in zip(*tree["planes"], strict=True)]
    return out + [[part] for part in tree.get("data", [])]


def in_order(tree: Tree) -> Iterator[list[int]]:
    """The parts of a tensor's entry in the order in which they lie in their segments."""
    of_codes = [part for plane in tree.get("planes", []) for part in plane]
    yield from (part for unit in slots({k: v for k, v in tree.items() if k != "planes"}) for part in unit)
    yield from of_codes
