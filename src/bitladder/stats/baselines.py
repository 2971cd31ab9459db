"""Plainer rules beside the network of types: one type for all, thresholds of kurtosis, the greatest likelihood (S7)."""

from __future__ import annotations

import numpy as np

from bitladder.stats import types
from bitladder.stats.densities import DENSITIES
from bitladder.stats.histogram import BINS, Histogram
from bitladder.stats.profile import Profile
from bitladder.stats.types import TYPES, Rule

KURTOSES = (1.8, 2.0, 2.406, 3.0, 4.2, 5.0, 6.0, 12.0)  # the last one has none; twice the one before stands for it


def certain(which: np.ndarray) -> np.ndarray:
    """Shares that are all of one type."""
    return np.eye(len(TYPES))[which]


def always(name: str) -> Rule:
    """The same type for every channel."""
    return lambda profile, bits: certain(np.full(profile.count.shape, TYPES.index(name)))


def by_name(profile: Profile, bits: np.ndarray) -> np.ndarray:
    """The network's first choice alone."""
    return certain(types.named(profile, bits))


def by_kurtosis(profile: Profile, bits: np.ndarray) -> np.ndarray:
    """The type of the nearest kurtosis, on a logarithmic scale.

    >>> TYPES[by_kurtosis(Profile.of(np.random.default_rng(0).normal(size=(1, 9999))), np.array([7])).argmax()]
    'normal'
    """
    borders = np.sqrt(np.array(KURTOSES[1:]) * KURTOSES[:-1])
    return certain(np.searchsorted(borders, profile.moments[:, 4]))


def by_likelihood(histogram: Histogram) -> Rule:
    """The type under which the bins of a profiled histogram are likeliest; zeros do not count."""

    def rule(profile: Profile, bits: np.ndarray) -> np.ndarray:
        counts = histogram.counts[:, BINS // 2 :] + histogram.counts[:, BINS // 2 - 1 :: -1]
        counts[:, 0] -= histogram.counts.sum(1) - profile.count.astype(np.int64)
        deviation = np.where(profile.deviation > 0, profile.deviation, 1.0)
        borders = np.arange(BINS // 2 + 1) * (np.exp2(histogram.exponent.astype(float)) / (BINS // 2) / deviation)[:, None]
        tails = [DENSITIES[name].tail(borders) for name in TYPES]
        logs = [np.log(np.maximum(t[:, :-1] - t[:, 1:], 1e-12)) for t in tails]
        return certain(np.argmax([(counts * log).sum(1) for log in logs], axis=0))

    return rule
