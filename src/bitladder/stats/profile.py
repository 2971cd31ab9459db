"""What a channel looks like in seven moments: a fold of constant memory from which the type of its density is told (S7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POWERS = 6


@dataclass(frozen=True)
class Profile:
    """How many values are not zero, their sum, the sums of the powers of their magnitudes, and extremes, for each channel.

    Zeros are left out: fixed point holds them exactly, so they say nothing about its step. Magnitudes are all that counts, for
    levels lie the same on both sides of zero; so a channel after a ReLU is profiled like one that is symmetric. Sums of float32
    values neither overflow nor underflow: a channel times a power of two has the same standardized moments to the last bit.

    >>> p = Profile.of(np.array([[1.0, -3.0, 0.0]]))
    >>> p.count.tolist(), p.powers[0, :2].tolist(), p.merge(p).powers[0, :2].tolist()
    ([2.0], [4.0, 10.0], [8.0, 20.0])
    """

    count: np.ndarray  # (channels,)
    total: np.ndarray  # (channels,)
    powers: np.ndarray  # (channels, POWERS) sums of |x|^1 .. |x|^6
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, counts: np.ndarray | float = 1.0) -> Profile:
        """The profile of one batch of rows (channels, n), each value as often as `counts` says."""
        x = rows.astype(np.float64)
        power, magnitude, powers = np.where(x != 0, counts, 0.0), abs(x), np.empty((len(x), POWERS))
        count, total = power.sum(1), (x * counts).sum(1)
        for k in range(POWERS):
            power *= magnitude
            powers[:, k] = power.sum(1)
        return cls(count, total, powers, x.min(1, initial=0.0), x.max(1, initial=0.0))

    def update(self, rows: np.ndarray) -> Profile:
        """With one more batch of rows."""
        return self.merge(Profile.of(rows)) if rows.shape[1] else self

    def merge(self, other: Profile) -> Profile:
        """The profile of both streams together."""
        count, total, powers = self.count + other.count, self.total + other.total, self.powers + other.powers
        return Profile(count, total, powers, np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def pooled(self) -> Profile:
        """One profile of all channels together."""
        count, total, powers = (a.sum(0, keepdims=True) for a in (self.count, self.total, self.powers))
        return Profile(count, total, powers, self.low.min(keepdims=True), self.high.max(keepdims=True))

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation from zero, for codes have no offset; 0 if a channel is silent."""
        return np.sqrt(self.powers[:, 1] / np.maximum(self.count, 1e-300))

    @property
    def moments(self) -> np.ndarray:
        """The seven numbers (channels, 7): expected value, average magnitude, variance about zero, skewness, kurtosis,
        hyper-skewness and hyper-kurtosis of the magnitudes. All but the first three are standardized; 0 where it is silent."""
        many = np.maximum(self.count, 1e-300)
        mean, deviation = self.powers / many[:, None], np.where(self.count > 0, self.deviation, 1.0)[:, None]
        standardized = mean[:, 2:] / deviation ** np.arange(3, POWERS + 1)
        return np.concatenate([(self.total / many)[:, None], mean[:, :2], standardized], 1)
