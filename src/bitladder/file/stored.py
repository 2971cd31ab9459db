"""Parts where they lie in a file, decoded whenever they are asked for; codes that stay there are never kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from bitladder.codec import parts
from bitladder.codec.parts import Grid, Kind, Part
from bitladder.file.container import Reader
from bitladder.file.grouping import grid, tiles
from bitladder.file.widths import is_nested
from bitladder.file.words import bad
from bitladder.formats import Format
from bitladder.formats.tensor import store


class Place(NamedTuple):
    """Where a part lies: bytes `begin` to `begin + size` of a segment of a layer."""

    segment: int
    begin: int
    size: int
    coding: int


Fetch = Callable[[Place], Part]  # the part that lies there


class Codes(NamedTuple):
    """Where the codes of a tensor lie: for each plane, or once, the tiles."""

    format: Format  # of all the planes the file has
    shape: tuple[int, ...]
    rows: int  # of a tile
    planes: tuple[tuple[Place, ...], ...]

    def decode(self, fetch: Fetch, where: str) -> np.ndarray:
        """The codes, each one of the format; of a nested one those of as many planes as there are."""
        whole = grid(self.shape)
        out = np.empty(whole, store(np.zeros(0), self.format).dtype)
        try:
            for number, (at, tile) in enumerate(tiles(whole, self.rows)):
                out[at : at + tile.rows] = self.tile([fetch(plane[number]) for plane in self.planes], tile)
        except ValueError as error:
            if str(error).startswith("load: "):
                raise
            raise bad(f"codes of {where}: {error}") from None
        return out.reshape(self.shape)

    def tile(self, read: Sequence[Part], tile: Grid) -> np.ndarray:
        """The codes of one tile."""
        if is_nested(self.format):
            return parts.decode_planes(read, tile, getattr(self.format, "scheme", "") == "sign")
        return parts.decode_codes(read[0], tile, Kind(self.format.bits, *self.format.span()))


def fetch_from(segments: dict[int, bytes]) -> Fetch:
    """A function that cuts parts from the segments of a layer."""
    return lambda p: Part(p.coding, segments[p.segment][p.begin : p.begin + p.size])


@dataclass(frozen=True)
class InFile:
    """The codes of a tensor in an open file; its pickles and deep copies are the codes themselves."""

    reader: Reader
    layer: int
    codes: Codes
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def read(self) -> np.ndarray:
        """The codes, with every check that loading made."""
        numbers = sorted({place.segment for plane in self.codes.planes for place in plane})
        segments = {n: self.reader.segment(self.layer, n) for n in numbers}
        return self.codes.decode(fetch_from(segments), self.where)

    def __rshift__(self, bits: int) -> InFile:
        """The same codes without their last `bits` bits, each of which is a plane."""
        planes = self.codes.planes
        return replace(self, codes=self.codes._replace(planes=planes[: len(planes) - bits]))

    def __reduce__(self) -> tuple[Any, ...]:
        return np.array, (self.read(),)
