"""Weighted points per channel: what a format is fitted to, whether a whole tensor or a histogram of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Points:
    """Values (channels, n) with their counts (channels, n), and each channel's extremes (channels,)."""

    values: np.ndarray
    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, axes: tuple[int, ...] = ()) -> Points:
        """Every element of `x` once, one channel for each position along `axes`.

        >>> Points.of(np.array([[1.0, -2.0], [0.0, 3.0]]), (0,)).low
        array([-2.,  0.])
        """
        rows = np.moveaxis(x, axes, range(len(axes)))
        count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
        rows = rows.reshape(count, -1).astype(np.float64)
        return cls(rows, np.ones((1, 1)), rows.min(1, initial=0.0), rows.max(1, initial=0.0))

    def mean(self, f: np.ndarray) -> np.ndarray:
        """Count-weighted mean of `f` (channels, n) over each channel."""
        counts = np.broadcast_to(self.counts, f.shape)
        return (f * counts).sum(1) / np.maximum(counts.sum(1), 1e-30)
