"""Weighted points per channel: what a format is fitted to, whether a whole tensor or a histogram of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitladder.stats.profile import Profile


@dataclass(frozen=True)
class Points:
    """Values (channels, n) with their counts (channels, n), and each channel's extremes (channels,).

    kept: the profile of the stream that these stand for, where there is one.
    """

    values: np.ndarray
    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kept: Profile | None = None

    @classmethod
    def of(cls, x: np.ndarray, axes: tuple[int, ...] = (), counts: np.ndarray | None = None) -> Points:
        """Every element of `x` once (or as often as `counts`, of its shape, says), a channel for each position along `axes`.

        >>> Points.of(np.array([[1.0, -2.0], [0.0, 3.0]]), (0,)).low
        array([-2.,  0.])
        """
        channels = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))

        def by_channel(a: np.ndarray) -> np.ndarray:
            return np.moveaxis(a, axes, range(len(axes))).reshape(channels, -1).astype(np.float64)

        rows = by_channel(x)
        return cls(
            rows, np.ones((1, 1)) if counts is None else by_channel(counts), rows.min(1, initial=0.0), rows.max(1, initial=0.0)
        )

    def mean(self, f: np.ndarray) -> np.ndarray:
        """Count-weighted mean of `f` (channels, n) over each channel."""
        counts = np.broadcast_to(self.counts, f.shape)
        return (f * counts).sum(1) / np.maximum(counts.sum(1), 1e-30)

    @property
    def profile(self) -> Profile:
        """The profile that was kept, or that of these points."""
        return self.kept or Profile.of(self.values, self.counts)
