"""Any levels: a table says what each code stands for, in int8 on the channel's 8-bit grid, so that codes sum in integers.

`Codebook` levels are fitted by weighted entropy (`cells.py`, S8), the same for both signs. How far a level reaches is not part
of the format: a value goes to the level nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitladder.formats.cells import GOALS, GRID, grid_scale, partition, sorted_points
from bitladder.formats.nested import as_numpy, float_table, nearest
from bitladder.formats.tensor import Array, Params, whole
from bitladder.formats.uniform import check_bits
from bitladder.stats.points import Points


@dataclass(frozen=True)
class Codebook:
    """Codes of `bits` bits with a table of `levels` levels, 2^bits unless said; a scale per channel (or tensor), one table.

    An odd number of levels has zero among them. So has a tensor that holds a zero, whatever the number; of an even one the last
    level then stands there twice. cells: what levels are to be good at, weighted entropy or least squared error; no reader
    needs to know.

    >>> str(Codebook(4)), str(Codebook(4, 11)), str(Codebook(3, per="tensor")), str(Codebook(4, cells="squares"))
    ('codebook4', 'codebook4:11', 'codebook3/tensor', 'codebook4:squares')
    """

    bits: int = 4
    levels: int | None = None
    per: str = "channel"
    group: None = None
    cells: str = "entropy"

    def __post_init__(self) -> None:
        check_bits("codebook", self.bits, 1, 8)
        most = 2**self.bits
        if self.levels is not None and not most / 2 < self.levels < most:
            few = most // 2 + 1
            raise ValueError(
                f"format codebook{self.bits}: levels must be {few}..{most - 1}, or left out for {most}, got {self.levels}"
            )
        if self.cells not in GOALS:
            raise ValueError(f"format codebook: cells must be one of {', '.join(GOALS)}, got {self.cells!r}")

    def __str__(self) -> str:
        number = "" if self.levels is None else f":{self.levels}"
        cells = "" if self.cells == "entropy" else f":{self.cells}"
        return f"codebook{self.bits}{number}{cells}{'/tensor' if self.per == 'tensor' else ''}"

    @property
    def count(self) -> int:
        """How many levels there are."""
        return self.levels or 2**self.bits

    def span(self) -> tuple[int, int]:
        return (0, self.count - 1)

    def with_bits(self, bits: int) -> Codebook:
        """The same format at another width; a table of an odd number of levels keeps its zero."""
        odd = self.count % 2 == 1 and bits > 1
        return replace(self, bits=bits, levels=2**bits - 1 if odd else None)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """A scale per channel and a rising int8 table for all; `cover` has nothing to say, the largest value is on the grid."""
        scale = grid_scale(points)
        magnitudes, counts = sorted_points(points, scale, magnitude=True)
        zero = self.count % 2 == 1 or not np.all(magnitudes)
        found = partition(magnitudes, counts, self.cells, pinned=zero)
        levels = found.levels(found.cut((self.count + self.count % 2) // 2))
        both = np.concatenate([-levels[: 0 if zero else None : -1], levels])
        table = np.concatenate([both, np.full(self.count - len(both), both[-1])])
        return {"scale": scale.astype(np.float32), "levels": np.clip(np.round(table), -GRID, GRID).astype(np.int8)}

    def encode(self, x: Array, p: Params) -> Array:
        return nearest(x / p["scale"], as_numpy(p["levels"]))

    def integers(self, codes: Array, p: Params) -> Array:
        return float_table(codes, p["levels"])[whole(codes)]

    def step(self, p: Params) -> Array:
        return p["scale"]
