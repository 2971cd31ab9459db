"""Streaming moments and extremes per channel, of a stream that is never kept (S3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Count, mean, the 2nd to 4th central power sums, and extremes, one entry per channel.

    `update` takes a batch of rows (channels, n), `merge` another's result; both return a new value, and the order of
    batches, processes or devices changes the result only by rounding. One pass, after Pebay (2008).

    >>> m = Moments.of(np.array([[1.0, 2.0, 3.0]]))
    >>> float(m.mean[0]), float(m.variance[0]), float(m.high[0])
    (2.0, 0.6666666666666666, 3.0)
    """

    n: int
    mean: np.ndarray
    m2: np.ndarray
    m3: np.ndarray
    m4: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """The moments of one batch of rows (channels, n)."""
        rows = rows.astype(np.float64)
        mean = rows.mean(1)
        d = rows - mean[:, None]
        square = d * d
        return cls(rows.shape[1], mean, square.sum(1), (square * d).sum(1), (square * square).sum(1), rows.min(1), rows.max(1))

    def update(self, rows: np.ndarray) -> Moments:
        """With one more batch of rows."""
        return self.merge(Moments.of(rows)) if rows.shape[1] else self

    def merge(self, other: Moments) -> Moments:
        """The moments of both streams together."""
        n = self.n + other.n
        d = other.mean - self.mean
        a, b = self.n / n, other.n / n
        m2 = self.m2 + other.m2 + d**2 * self.n * b
        m3 = self.m3 + other.m3 + d**3 * self.n * b * (a - b) + 3 * d * (a * other.m2 - b * self.m2)
        m4 = (
            self.m4
            + other.m4
            + d**4 * self.n * b * (a * a - a * b + b * b)
            + 6 * d**2 * (a * a * other.m2 + b * b * self.m2)
            + 4 * d * (a * other.m3 - b * self.m3)
        )
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return replace(self, n=n, mean=self.mean + d * b, m2=m2, m3=m3, m4=m4, low=low, high=high)

    @property
    def variance(self) -> np.ndarray:
        return self.m2 / self.n

    @property
    def skewness(self) -> np.ndarray:
        """0 for a constant channel."""
        return np.divide(np.sqrt(self.n) * self.m3, self.m2**1.5, out=np.zeros_like(self.m2), where=self.m2 > 0)

    @property
    def kurtosis(self) -> np.ndarray:
        """3 for a normal distribution, 0 for a constant channel."""
        return np.divide(self.n * self.m4, self.m2**2, out=np.zeros_like(self.m2), where=self.m2 > 0)
