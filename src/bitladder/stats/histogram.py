"""Streaming histograms per channel, whose memory does not grow and whose merging is exact (S3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitladder.stats.points import Points
from bitladder.stats.profile import Profile

BINS = 4096  # half of them negative


@dataclass(frozen=True)
class Histogram:
    """Counts of `BINS` even bins over [-2^exponent, 2^exponent), one exponent for each channel, with exact extremes.

    When a value does not fit, the range doubles and neighbouring bins are added in pairs, so the result does not depend on
    how the stream was cut into batches or spread over processes. A profile of the same stream is kept along if asked for.

    >>> h = Histogram.of(np.array([[0.5, -3.0]]))
    >>> int(h.exponent[0]), int(h.counts.sum()), h.merge(h).counts.sum()
    (2, 2, 4)
    """

    exponent: np.ndarray  # (channels,) int64
    counts: np.ndarray  # (channels, BINS) int64
    low: np.ndarray
    high: np.ndarray
    profile: Profile | None = None

    @classmethod
    def of(cls, rows: np.ndarray, profiled: bool = False) -> Histogram:
        """The histogram of one batch of rows (channels, n)."""
        channels = rows.shape[0]
        low, high = rows.min(1).astype(np.float64), rows.max(1).astype(np.float64)
        exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1].astype(np.int64).clip(-100, 127)
        scale = np.exp2(-exponent.astype(np.float64)).astype(np.float32)[:, None] * np.float32(BINS // 2)
        bins = np.floor(rows.astype(np.float32) * scale).astype(np.int32).clip(-(BINS // 2), BINS // 2 - 1)
        bins += (np.arange(channels, dtype=np.int64) * BINS + BINS // 2)[:, None].astype(
            bins.dtype if channels * BINS < 2**31 else np.int64
        )
        counts = np.bincount(bins.ravel(), minlength=channels * BINS).reshape(channels, BINS)
        return cls(exponent, counts, low, high, Profile.of(rows) if profiled else None)

    def update(self, rows: np.ndarray) -> Histogram:
        """With one more batch of rows."""
        return self.merge(Histogram.of(rows, self.profile is not None)) if rows.shape[1] else self

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both streams together, exactly."""
        exponent = np.maximum(self.exponent, other.exponent)
        counts = self._widened(exponent) + other._widened(exponent)
        profile = self.profile.merge(other.profile) if self.profile and other.profile else None
        return Histogram(exponent, counts, np.minimum(self.low, other.low), np.maximum(self.high, other.high), profile)

    def _widened(self, exponent: np.ndarray) -> np.ndarray:
        counts = self.counts
        lag = exponent - self.exponent
        for doubling in range(int(lag.max(initial=0))):
            pairs = counts.reshape(len(counts), BINS // 2, 2).sum(2)
            folded = np.zeros_like(counts)
            folded[:, BINS // 4 : BINS // 4 + BINS // 2] = pairs
            counts = np.where((lag > doubling)[:, None], folded, counts)
        return counts

    def points(self) -> Points:
        """Bin centres with their counts, clipped to the true extremes: what a format is fitted to."""
        width = np.exp2(self.exponent.astype(np.float64))[:, None] / (BINS // 2)
        centres = (np.arange(BINS) - BINS // 2 + 0.5) * width
        centres = np.clip(centres, self.low[:, None], self.high[:, None])
        used = np.flatnonzero(self.counts.any(0))
        counts, low, high = self.counts[:, used].astype(np.float64), np.minimum(self.low, 0), np.maximum(self.high, 0)
        return Points(centres[:, used], counts, low, high, self.profile)

    def pooled(self) -> Histogram:
        """One histogram of all channels together."""
        top = np.full_like(self.exponent, self.exponent.max())
        counts, profile = self._widened(top).sum(0, keepdims=True), self.profile and self.profile.pooled()
        return Histogram(top[:1], counts, self.low.min(keepdims=True), self.high.max(keepdims=True), profile)
