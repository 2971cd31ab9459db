"""Product codebooks: one code for a block of neighbouring weights, a table of centroids says what each block is (S11)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitladder.formats.cells import GRID, grid_scale
from bitladder.formats.tensor import Array, Params, like, ns, real
from bitladder.stats.points import Points

MOST_BLOCKS = 1 << 16  # that centroids are fitted to
ROUNDS = 20  # of k-means
FINE = 256  # parts of a grid step that distances tell apart, so that they are exact
AT_ONCE = 1 << 22  # distances in memory at once
SEED = 0


@dataclass(frozen=True)
class Product:
    """Codes of blocks of `dim` weights that neighbour along the inputs (axis 1); each stands for one of `count` centroids.

    Centroids are int8 on the 8-bit grid of the channel (or tensor), and one table for all. `bits` are those of a code, so a
    weight takes bits / dim. Codes have the shape of the weight with axis 1 cut into blocks.

    >>> str(Product()), Product(4, 16).bits
    ('product8x256', 4)
    """

    dim: int = 8
    count: int = 256
    per: str = "channel"
    group: None = None

    def __post_init__(self) -> None:
        if not (2 <= self.dim <= 32 and 2 <= self.count <= 65536):
            raise ValueError(f"format product: must be 2..32 weights x 2..65536 centroids, got {self.dim}x{self.count}")

    def __str__(self) -> str:
        return f"product{self.dim}x{self.count}{'/tensor' if self.per == 'tensor' else ''}"

    @property
    def bits(self) -> int:
        """Bits of the code of a block."""
        return (self.count - 1).bit_length()

    def span(self) -> tuple[int, int]:
        return (0, self.count - 1)

    def with_bits(self, bits: int) -> Product:
        """The same blocks with as many centroids as codes of another width tell apart."""
        return replace(self, count=2**bits)

    def fit(self, points: Points, cover: str = "mse") -> dict[str, np.ndarray]:
        """A scale per channel and the centroids (count, dim) int8 of k-means over the blocks of all channels.

        A channel's values come in blocks; `cover` has nothing to say, the largest value is on the grid.
        """
        scale = grid_scale(points)
        values = points.values / scale[:, None]
        counts = np.broadcast_to(points.counts, values.shape) * scale[:, None] ** 2 / np.mean(scale**2)
        pad = ((0, 0), (0, -values.shape[1] % self.dim))
        x, weight = (np.pad(a, pad).reshape(-1, self.dim) for a in (values, counts))
        found = centroids(x, weight, self.count)
        return {"scale": scale.astype(np.float32), "centroids": np.clip(np.round(found), -GRID, GRID).astype(np.int8)}

    def encode(self, x: Array, p: Params) -> Array:
        y = (x / p["scale"] * FINE).round().clip(-(2**20), 2**20)
        rows = parted(y, self.dim)
        table = p["centroids"] if ns(p["centroids"]) is np else p["centroids"].cpu().numpy()
        codes = nearest(rows.reshape(-1, self.dim), table.astype(np.float64))
        return real(codes.reshape(rows.shape[:-1]))

    def integers(self, codes: Array, p: Params) -> Array:
        table = p["centroids"]
        table = real(table if ns(table) is ns(codes) else like(codes, table))
        return joined(table[codes.astype(np.int64) if ns(codes) is np else codes.long()])

    def step(self, p: Params) -> Array:
        return p["scale"]


def parted(x: Array, dim: int) -> Array:
    """Weights (outputs, inputs, ...) as blocks (outputs, inputs / dim, ..., dim)."""
    shape = (x.shape[0], x.shape[1] // dim, dim, *x.shape[2:])
    return ns(x).moveaxis(x.reshape(shape), 2, -1)


def joined(blocks: Array) -> Array:
    """Weights of their blocks: `parted` undone."""
    x = ns(blocks).moveaxis(blocks, -1, 2)
    return x.reshape((x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]))


def nearest(rows: Array, table: np.ndarray) -> Array:
    """The centroid nearest to each row (in parts of a grid step), the first of several; distances are exact."""
    space = ns(rows)
    wide = rows.astype(np.float64) if space is np else rows.double()
    centres, half = like(wide, table.T), like(wide, FINE * (table**2).sum(1) / 2)
    size = max(AT_ONCE // len(table), 1)
    parts = [(half - wide[at : at + size] @ centres).argmin(1) for at in range(0, max(len(wide), 1), size)]
    return (np.concatenate if space is np else space.cat)(parts)


def centroids(x: np.ndarray, weight: np.ndarray, count: int, rounds: int = ROUNDS, seed: int = SEED) -> np.ndarray:
    """Centroids (count, dim) of rows (n, dim) by k-means, errors counted with weights of the shape of `x`; it never gets worse.

    It begins with rows drawn by the seed. A centroid that no row goes to becomes the row that is worst off.
    """
    draw = np.random.default_rng(seed)
    if len(x) > MOST_BLOCKS:
        some = np.sort(draw.choice(len(x), MOST_BLOCKS, replace=False))
        x, weight = x[some], weight[some]
    different = np.unique(x, axis=0)
    if len(different) <= count:
        return np.concatenate([different, np.repeat(different[-1:], count - len(different), axis=0)])
    centre = different[np.sort(draw.choice(len(different), count, replace=False))]
    for _ in range(rounds):
        code, error = assigned(x, weight, centre)
        mass = np.zeros_like(centre)
        moment = np.zeros_like(centre)
        np.add.at(mass, code, weight)
        np.add.at(moment, code, weight * x)
        centre = np.where(mass > 0, moment / np.maximum(mass, 1e-300), centre)
        empty = np.flatnonzero(np.bincount(code, minlength=count) == 0)
        centre[empty] = x[np.argsort(-error, kind="stable")[: len(empty)]]
    return centre


def assigned(x: np.ndarray, weight: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centroid of least weighted squared error for each row, and that error."""
    codes, errors = [], []
    size = max(AT_ONCE // len(centre), 1)
    for at in range(0, len(x), size):
        w, v = weight[at : at + size], x[at : at + size]
        distance = w @ (centre**2).T - 2 * (w * v) @ centre.T
        codes.append(distance.argmin(1))
        errors.append(distance.min(1) + (w * v**2).sum(1))
    return np.concatenate(codes), np.concatenate(errors)
