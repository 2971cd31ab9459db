"""Channels made of random numbers, of as many shapes as activations have: what the network of types learns from (S7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from bitladder.stats.densities import DENSITIES, quantile
from bitladder.stats.types import TYPES

Draw = Callable[[np.random.Generator, int], np.ndarray]


@cache
def quantiles(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the values of a density and the values below which they lie, up to the middle, close together far out."""
    p = np.concatenate([np.geomspace(1e-9, 1e-5, 400), np.linspace(1e-5, 0.5, 50_000)[1:]])
    return p, quantile(DENSITIES[name], p)


def of_type(name: str) -> Draw:
    """Magnitudes of one of the eight."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        p, x = quantiles(name)
        return -np.interp(rng.random(n) / 2, p, x)

    return draw


def positive_normal(rng: np.random.Generator, n: int, mean: np.ndarray | float) -> np.ndarray:
    """What a ReLU lets through of normal values around `mean`: through even shares of what lies above zero."""
    from scipy.special import ndtr, ndtri

    return np.asarray(mean - ndtri(rng.random(n) * ndtr(mean)))


def generalized_normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """exp(-|x|^b), from peaked to nearly flat."""
    b = math.exp(rng.uniform(math.log(0.5), math.log(8)))
    return rng.gamma(1 / b, 1, n) ** (1 / b)


def relu(rng: np.random.Generator, n: int) -> np.ndarray:
    return positive_normal(rng, n, rng.uniform(-4, 4))


def clipped(rng: np.random.Generator, n: int) -> np.ndarray:
    """After a ReLU with an upper end."""
    x = positive_normal(rng, n, rng.uniform(-2, 3))
    return np.minimum(x, np.quantile(x, rng.uniform(0.7, 1)))


def weibull(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.weibull(math.exp(rng.uniform(math.log(0.6), math.log(4))), n)


def student(rng: np.random.Generator, n: int) -> np.ndarray:
    return abs(rng.standard_t(rng.uniform(3, 20), n))


def scales(rng: np.random.Generator, n: int) -> np.ndarray:
    """Normal in every image, with a deviation of its own."""
    deviations = np.exp(rng.normal(0, rng.uniform(0, 1), rng.integers(3, 40)))
    return abs(rng.normal(0, 1, n)) * rng.choice(deviations, n)


def shifted(rng: np.random.Generator, n: int) -> np.ndarray:
    return abs(rng.normal(rng.uniform(0, 3), 1, n))


def images(rng: np.random.Generator, n: int) -> np.ndarray:
    """After a ReLU, with a mean and a deviation for every image."""
    means = rng.normal(rng.uniform(-3, 2), rng.uniform(0, 1.5), rng.integers(3, 20)).clip(-4, 5)
    which = rng.integers(0, len(means), n)
    deviations = np.exp(rng.normal(0, 0.3, len(means)))
    return positive_normal(rng, n, means[which]) * deviations[which]


DRAWS: tuple[Draw, ...] = (
    *map(of_type, TYPES),
    generalized_normal, relu, clipped, weibull, student, scales, shifted, images,
)  # fmt: skip


def channel(rng: np.random.Generator, least: int, most: int) -> np.ndarray:
    """The magnitudes of a random channel: a few values to as many as ten images have, sometimes as many as there may be."""
    n = int(math.exp(rng.uniform(math.log(least), math.log(most / 10)))) if rng.random() < 0.97 else most
    return DRAWS[rng.integers(len(DRAWS))](rng, n)
