"""Curves of bytes against accuracy: networks by their size and the images they get right, and what a loss costs on them.

A curve is the lower convex hull of the networks: between two of them its bytes are interpolated. Every coder is read off in
the same way, so luck in a few images helps all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 400  # of images, for an interval


@dataclass(frozen=True)
class Point:
    """A network: what it is called, the bytes of its file, and which images it gets right."""

    name: str
    bytes: int
    hits: np.ndarray


def bytes_at(lost: np.ndarray, sizes: np.ndarray, most: float) -> float:
    """The least bytes on the lower hull of the points (lost, sizes) that lose no more than `most`; infinite if none does.

    >>> bytes_at(np.array([0.0, 1.0]), np.array([300.0, 100.0]), 0.5)
    200.0
    """
    within = lost <= most
    if not within.any():
        return float("inf")
    best = float(sizes[within].min())
    x, y, far, less = lost[within, None], sizes[within, None], lost[None, ~within], sizes[None, ~within]
    between = y + (less - y) * (most - x) / (far - x)
    return min(best, float(between.min())) if between.size else best


def at(points: Sequence[Point], plain: np.ndarray, most: float) -> float | None:
    """Bytes at `most` points lost against the images that `plain` gets right; None if all lose more."""
    sizes = np.array([p.bytes for p in points], float)
    lost = np.array([100 * (plain.mean() - p.hits.mean()) for p in points])
    found = bytes_at(lost, sizes, most) if points else float("inf")
    return found if np.isfinite(found) else None


def half(ours: Sequence[Point], theirs: Sequence[Point], plain: np.ndarray, most: float, seed: int = 0) -> float | None:
    """Half of a 95 % interval of the ratio of bytes at `most` points lost: a bootstrap that draws images."""
    count = len(plain)
    sizes = [np.array([p.bytes for p in points], float) for points in (ours, theirs)]
    lost = [np.stack([100.0 * plain - 100.0 * p.hits for p in points]) for points in (ours, theirs)]
    draw = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS):
        weights = np.bincount(draw.integers(0, count, count), minlength=count) / count
        a, b = (bytes_at(each @ weights, size, most) for each, size in zip(lost, sizes, strict=True))
        if np.isfinite(a) and np.isfinite(b):
            ratios.append(a / b)
    if len(ratios) < 0.9 * DRAWS:
        return None
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(high - low) / 2
