"""Nested codes: the leading bits of a code are themselves a valid code (S1, EP3671575).

Three schemes share one class; each says what integer a prefix stands for:

- "midrise": uniform, offset binary over [-range, range]. The prefix of b bits is exactly the code that a direct b-bit
  quantizer over the same range gives, and stands for an odd number of half steps: value = (2 v + 1 - 2^b) * range / 2^b.
- "tree": cells are split in two again and again where that lowers the error most; a table per width says what each
  cell decodes to, in int8 on the channel's 8-bit grid.
- "sign": the first plane is the sign, the rest a tree over magnitudes whose first cell is zero at every width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bitladder.formats.cells import GRID, Sums, centroids, grid_scale, halved, lloyd, partition, sorted_points
from bitladder.formats.tensor import Array, Params, like, ns, real, whole
from bitladder.formats.uniform import check_bits
from bitladder.stats.points import Points

SEED = 3  # depth at which a tree starts: 2 bits lose 0.04 dB against a start at 2, 5 bits gain 0.2 dB (Laplace)
MATTER = {2: 1.0, 3: 2.0, 4: 8.0, 8: 64.0}  # widths that matter to a fit, and how much


@dataclass(frozen=True)
class Nested:
    """Codes of `bits` bits of which every prefix is a code.

    matter: the widths the fit should serve, with their weights; cells: how a tree's first cells are chosen, "lloyd" or
    "entropy" (`cells.py`). Both are part of the fit, not of the format's identity.

    >>> str(Nested(8)), str(Nested(6, "tree")), Nested(8).at(3)
    ('nested8', 'nested6:tree', Nested(bits=3, scheme='midrise', per='channel', group=None))
    """

    bits: int = 8
    scheme: str = "midrise"
    per: str = "channel"
    group: None = None
    matter: Mapping[int, float] = field(default_factory=lambda: MATTER, compare=False, repr=False, hash=False)
    cells: str = field(default="lloyd", compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.cells not in SEEDS:
            raise ValueError(f"format nested: cells must be one of {', '.join(SEEDS)}, got {self.cells!r}")
        if self.scheme not in SCHEMES:
            raise ValueError(f"format nested: scheme must be one of {', '.join(SCHEMES)}, got {self.scheme!r}")
        check_bits(f"nested:{self.scheme}", self.bits, SCHEMES[self.scheme].least_bits, 8)

    def __str__(self) -> str:
        return (
            f"nested{self.bits}"
            + ("" if self.scheme == "midrise" else f":{self.scheme}")
            + ("/tensor" if self.per == "tensor" else "")
        )

    def span(self) -> tuple[int, int]:
        return (0, 2**self.bits - 1)

    def with_bits(self, bits: int) -> Nested:
        """The same format storing another number of planes."""
        return replace(self, bits=bits)

    def at(self, bits: int) -> Nested:
        """The format of the leading `bits` bits: never fewer than the scheme has; more than are stored is an error."""
        if bits > self.bits:
            raise ValueError(f"nested: width must be at most the {self.bits} stored bits, got {bits}")
        return replace(self, bits=max(bits, SCHEMES[self.scheme].least_bits))

    def child(self, codes: Array, parent: Array, deeper: int) -> Array:
        """The codes nearest to `codes` among the children of `parent`, codes of `deeper` fewer bits."""
        low = parent * 2**deeper
        near = codes.clip(low, low + 2**deeper - 1)
        if self.scheme != "sign":
            return near
        half = 2 ** (self.bits - 1)  # of the other sign: the smallest magnitude
        return ns(near).where((codes >= half) == (low >= half), near, real(low))

    def keep(self, params: Params) -> dict[str, np.ndarray]:
        """The parameters that codes of this width still need."""
        return {k: v for k, v in params.items() if not k.startswith("levels") or int(k[6:]) <= self.bits}

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """Parameters that serve all widths that matter, weighted: a range per channel, or a scale and tables."""
        matter = {b: w for b, w in self.matter.items() if b <= self.bits} or {self.bits: 1.0}
        return SCHEMES[self.scheme].fit(points, self.bits, matter, cover, SEEDS[self.cells])

    def encode(self, x: Array, p: Params) -> Array:
        return SCHEMES[self.scheme].encode(x, self.bits, p)

    def integers(self, codes: Array, p: Params) -> Array:
        return SCHEMES[self.scheme].integers(codes, self.bits, p)

    def step(self, p: Params) -> Array:
        return SCHEMES[self.scheme].step(self.bits, p)


Seed = Callable[[Sums, int, bool], np.ndarray]  # cuts of 2^depth cells, of which the first may be pinned to zero


@dataclass(frozen=True)
class Scheme:
    """One way to nest: plain functions of codes, width and parameters."""

    least_bits: int
    fit: Callable[[Points, int, Mapping[int, float], str, Seed], dict[str, np.ndarray]]
    encode: Callable[[Array, int, Params], Array]
    integers: Callable[[Array, int, Params], Array]
    step: Callable[[int, Params], Array]


# ---------------------------------------------------------------------------------------------------- mid-rise


def midrise_fit(points: Points, bits: int, matter: Mapping[int, float], cover: str, seed: Seed) -> dict[str, np.ndarray]:
    widest = np.maximum(np.abs(points.low), np.abs(points.high))
    widest = np.where(widest > 0, np.maximum(widest, 1e-30), 1.0)
    best, chosen = np.full(widest.shape, np.inf), widest
    for shrink in np.linspace(1.0, 0.2, 41) if cover == "mse" else [1.0]:
        half = (widest * shrink).astype(np.float32).astype(np.float64)
        error = np.zeros(widest.shape)
        for width, weight in matter.items():
            step = 2 * half[:, None] / 2**width
            cell = np.clip(np.floor(points.values / step), -(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1)
            error += weight * points.mean(((cell + 0.5) * step - points.values) ** 2)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, half, chosen)
    return {"range": chosen.astype(np.float32)}


def midrise_encode(x: Array, bits: int, p: Params) -> Array:
    cell = x / (p["range"] * 2.0**-7)  # always the 8-bit cell first, so that its prefix is this code whatever underflows
    floor = ns(cell).floor
    return floor(floor(cell).clip(-128, 127) * 2.0 ** (bits - 8)) + 2 ** (bits - 1)


def midrise_integers(codes: Array, bits: int, p: Params) -> Array:
    return 2 * codes + (1 - 2**bits)


# ------------------------------------------------------------------------------------------- trees with tables


def weighted(sums: Sums, depth: int, pinned: bool) -> np.ndarray:
    """Cuts of 2^depth cells of greatest weighted entropy: of magnitudes if `pinned`, else of values of both signs alike."""
    values = sums.values
    counts = np.diff(sums.mass)
    order = np.argsort(np.abs(values), kind="stable")
    parts = partition(np.abs(values)[order], counts[order], "entropy", pinned)
    cells = 2 ** (depth if pinned else max(depth - 1, 0))
    borders = parts.sums.values[parts.cut(cells)[1:-1]]
    above = np.searchsorted(values, borders)
    if pinned:
        inner = above
    else:
        inner = np.concatenate([np.searchsorted(values, -borders[::-1], "right"), [np.searchsorted(values, 0)], above])
    inner = inner if depth else inner[:0]
    return np.concatenate([[0], inner, np.full(2**depth - len(inner), len(values))])


SEEDS: dict[str, Seed] = {"lloyd": lloyd, "entropy": weighted}


def tree_levels(
    values: np.ndarray, counts: np.ndarray, depth: int, seed: int, pinned: bool = False, cells: Seed = lloyd
) -> dict[int, np.ndarray]:
    """Decode levels (2^b reals) of a split-up tree for every depth b up to `depth`; `values` sorted.

    Cells at depth `seed` are what `cells` says, shallower ones are unions of them, deeper ones are split in two.
    """
    seed, sums = min(seed, depth), Sums.of(values, counts)
    cuts = cells(sums, seed, pinned)
    by_depth = {b: cuts[:: 2 ** (seed - b)] for b in range(seed + 1)}
    for b in range(seed + 1, depth + 1):
        by_depth[b] = cuts = halved(sums, cuts, pinned)
    return {b: centroids(sums, cuts, pinned) for b, cuts in by_depth.items()}


def tree_fit(points: Points, bits: int, matter: Mapping[int, float], cover: str, seed: Seed) -> dict[str, np.ndarray]:
    return tables_fit(points, bits, matter, seed, signed=False)


def sign_fit(points: Points, bits: int, matter: Mapping[int, float], cover: str, seed: Seed) -> dict[str, np.ndarray]:
    return tables_fit(points, bits, matter, seed, signed=True)


def tables_fit(points: Points, bits: int, matter: Mapping[int, float], seed: Seed, signed: bool) -> dict[str, np.ndarray]:
    scale = grid_scale(points)
    values, counts = sorted_points(points, scale, signed)
    sign = int(signed)
    depth = max(min(SEED, max(matter)) - sign, 1)
    levels = tree_levels(values, counts, bits - sign, depth, signed, seed)
    first = SCHEMES["sign" if signed else "tree"].least_bits
    tables = {f"levels{b}": np.clip(np.round(levels[b - sign]), -GRID, GRID).astype(np.int8) for b in range(first, bits + 1)}
    return {"scale": scale.astype(np.float32), **tables}


def nearest(x: Array, table: np.ndarray) -> Array:
    """The position in a rising `table` of the entry nearest to each x; of equal entries the first."""
    unique = np.unique(table.astype(np.float32))
    first = np.searchsorted(table, unique).astype(np.float32)
    borders = ((unique[1:] + unique[:-1]) / 2).astype(np.float32)
    return like(x, first)[whole(ns(x).searchsorted(like(x, borders), x))]


def tree_encode(x: Array, bits: int, p: Params) -> Array:
    return nearest(x / p["scale"], as_numpy(p[f"levels{bits}"]))


def tree_integers(codes: Array, bits: int, p: Params) -> Array:
    return float_table(codes, p[f"levels{bits}"])[whole(codes)]


def sign_encode(x: Array, bits: int, p: Params) -> Array:
    y = x / p["scale"]
    magnitude = nearest(abs(y), as_numpy(p[f"levels{bits}"]))
    return magnitude + 2 ** (bits - 1) * real((y < 0) & (magnitude > 0))


def sign_integers(codes: Array, bits: int, p: Params) -> Array:
    half = 2 ** (bits - 1)
    negative = codes >= half
    magnitude = float_table(codes, p[f"levels{bits}"])[whole(codes) % half]
    return magnitude * (1 - 2 * real(negative))


def as_numpy(table: Array) -> np.ndarray:
    return table if ns(table) is np else table.cpu().numpy()


def float_table(codes: Array, table: Array) -> Array:
    return like(codes, as_numpy(table).astype(np.float32))


SCHEMES = {
    "midrise": Scheme(1, midrise_fit, midrise_encode, midrise_integers, lambda bits, p: p["range"] * 2.0**-bits),
    "tree": Scheme(1, tree_fit, tree_encode, tree_integers, lambda bits, p: p["scale"]),
    "sign": Scheme(2, sign_fit, sign_encode, sign_integers, lambda bits, p: p["scale"]),
}
