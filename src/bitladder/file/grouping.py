"""Which constants make a layer, how a tensor is cut into tiles, and in which order segments lie in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitladder.codec.parts import Grid
from bitladder.ir.graph import Graph

MOST_TILE = 2**20  # codes of a tile


class Group(NamedTuple):
    """The constants of one node, in the order of its inputs; those that no node reads have no name."""

    name: str
    op: str
    constants: tuple[str, ...]


def groups(graph: Graph) -> list[Group]:
    """The constants of a graph, each with the first node that reads it."""
    seen: set[str] = set()
    out = []
    for node in graph.nodes:
        if new := tuple(c for c in dict.fromkeys(node.inputs) if c in graph.constants and c not in seen):
            out.append(Group(node.name, node.op, new))
            seen.update(new)
    rest = tuple(c for c in graph.constants if c not in seen)
    return [*out, Group("", "", rest)] if rest else out


def grid(shape: Sequence[int]) -> Grid:
    """What codes of a shape are a matrix of.

    >>> grid((4, 2, 3)), grid((5,)), grid(())
    (Grid(rows=4, cols=6), Grid(rows=1, cols=5), Grid(rows=1, cols=1))
    """
    rows = shape[0] if len(shape) > 1 else 1
    return Grid(rows, math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape))


def tile_rows(whole: Grid, most: int) -> int:
    """How many rows a tile has, of at most so many codes if they are more than one."""
    return whole.rows if whole.size <= most else min(whole.rows, max(1, most // whole.cols))


def tiles(whole: Grid, rows: int) -> list[tuple[int, Grid]]:
    """The first row and the size of each tile.

    >>> tiles(Grid(5, 3), 2)
    [(0, Grid(rows=2, cols=3)), (2, Grid(rows=2, cols=3)), (4, Grid(rows=1, cols=3))]
    """
    return [(at, Grid(min(rows, whole.rows - at), whole.cols)) for at in range(0, whole.rows, max(rows, 1))] or [(0, whole)]


def ordered(
    policy: str, sizes: Sequence[Sequence[int]], depths: Sequence[Sequence[int]], gains: Mapping[tuple[int, int], float]
) -> list[int]:
    """The layer of each segment in the file.

    sizes: bytes of each layer's segments. depths: the number of planes each of them brings its layer to. gains: what a segment
    takes away of the loss, by layer and number.
    """
    if policy == "layer":
        return [layer for layer, rows in enumerate(sizes) for _ in rows]
    first = [layer for layer, rows in enumerate(sizes) if rows]
    rest = [(depths[layer][k], layer) for layer, rows in enumerate(sizes) for k in range(1, len(rows))]
    if policy == "plane":
        return first + [layer for _, layer in sorted(rest)]
    return first + by_gain(sizes, gains)


def by_gain(sizes: Sequence[Sequence[int]], gains: Mapping[tuple[int, int], float]) -> list[int]:
    """The layers of all segments but the first, those first that take away most of the loss for each byte.

    Segments of a layer stay in order; one that brings little may come early for the sake of those behind it.
    """
    at, out = [1] * len(sizes), []
    runs = {layer: best_run(rows, layer, 1, gains) for layer, rows in enumerate(sizes) if len(rows) > 1}
    while runs:
        layer = max(runs, key=lambda k: (runs[k][0], -at[k], -k))
        out += [layer] * runs[layer][1]
        at[layer] += runs.pop(layer)[1]
        if at[layer] < len(sizes[layer]):
            runs[layer] = best_run(sizes[layer], layer, at[layer], gains)
    return out


def best_run(sizes: Sequence[int], layer: int, begin: int, gains: Mapping[tuple[int, int], float]) -> tuple[float, int]:
    """The most loss taken away for a byte by the next segments of a layer together, and how many those are."""
    best, gain, size = (-math.inf, 1), 0.0, 0
    for number in range(begin, len(sizes)):
        gain += gains.get((layer, number), 0.0)
        size += max(sizes[number], 1)
        if gain / size > best[0]:
            best = (gain / size, number - begin + 1)
    return best
