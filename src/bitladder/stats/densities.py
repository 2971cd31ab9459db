"""Eight symmetric densities of unit variance, and the exact error of evenly spaced levels under each (S7, US11836603).

A density is two functions of t >= 0: `tail`, the probability of x > t, and `rest`, the integral of the tail from t on. The mean
over x > t is then t tail(t) + rest(t), and no error needs more: of levels k s with borders t_k = (k - 1/2) s, k = 1..K,

    E[(x - Q)^2; x > 0] = 1/2 - 2 s sum_k (t_k tail(t_k) + rest(t_k)) + s^2 sum_k (2 k - 1) tail(t_k)
                        = 1/2 - 2 s sum_k rest(t_k),                            because 2 t_k = (2 k - 1) s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Density:
    """A density by the two functions of its upper half; `end` is beyond all values, or where a search for them may stop."""

    tail: Curve
    rest: Curve
    end: float = 2.0**20


def error(density: Density, step: float, below: int, above: int) -> float:
    """Mean square error of codes -below .. above times `step`, rounded to the nearest and clipped.

    >>> round(error(DENSITIES["uniform"], 3**0.5 / 4, 4, 4), 4), round(3 / 16 / 12, 4)
    (0.0156, 0.0156)
    """
    rest = density.rest((np.arange(max(below, above)) + 0.5) * step)
    return 1 - 2 * step * float(rest[:below].sum() + rest[:above].sum())


def quantile(density: Density, p: np.ndarray) -> np.ndarray:
    """The values below which a share `p` lies, by bisection; applied to even random numbers, samples."""
    low, high = np.zeros(np.shape(p)), np.full(np.shape(p), density.end)
    outside = np.minimum(p, 1 - p)
    for _ in range(64):
        middle = (low + high) / 2
        beyond = density.tail(middle) < outside
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.where(p < 0.5, -high, high)


def laplace() -> Density:
    b = math.sqrt(0.5)
    return Density(lambda t: np.exp(-t / b) / 2, lambda t: b / 2 * np.exp(-t / b))


def hyperbolic_secant() -> Density:
    """sech(pi x / 2) / 2; its rest is an inverse tangent integral."""

    def rest(t: np.ndarray) -> np.ndarray:
        from scipy.special import spence

        return np.imag(spence(1 - 1j * np.exp(-math.pi / 2 * t))) * (2 / math.pi) ** 2

    return Density(lambda t: np.arctan(np.exp(-math.pi / 2 * t)) * 2 / math.pi, rest)


def logistic() -> Density:
    a = math.sqrt(3) / math.pi
    return Density(lambda t: np.exp(-np.logaddexp(0, t / a)), lambda t: a * np.log1p(np.exp(-t / a)))


def normal() -> Density:
    def tail(t: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return np.asarray(ndtr(-t))

    return Density(tail, lambda t: np.exp(-t * t / 2) / math.sqrt(2 * math.pi) - t * tail(t))


def raised_cosine() -> Density:
    """(1 + cos(pi x / w)) / 2 w on -w .. w."""
    w = 1 / math.sqrt(1 / 3 - 2 / math.pi**2)

    def rest(t: np.ndarray) -> np.ndarray:
        u = np.minimum(t / w, 1)
        return w * ((1 - u) ** 2 / 4 - (1 + np.cos(math.pi * u)) / (2 * math.pi**2))

    def tail(t: np.ndarray) -> np.ndarray:
        u = np.minimum(t / w, 1)
        return (1 - u - np.sin(math.pi * u) / math.pi) / 2

    return Density(tail, rest, w)


def wigner() -> Density:
    """The semicircle sqrt(4 - x^2) / 2 pi on -2 .. 2."""

    def tail(t: np.ndarray) -> np.ndarray:
        u = np.minimum(t / 2, 1)
        return 0.5 - (u * np.sqrt(1 - u * u) + np.arcsin(u)) / math.pi

    def rest(t: np.ndarray) -> np.ndarray:
        u = np.minimum(t / 2, 1)
        return 4 / (3 * math.pi) * (1 - u * u) ** 1.5 - 2 * u * tail(t)

    return Density(tail, rest, 2.0)


def uniform() -> Density:
    w = math.sqrt(3)
    return Density(lambda t: (1 - np.minimum(t / w, 1)) / 2, lambda t: w / 4 * (1 - np.minimum(t / w, 1)) ** 2, w)


def super_cauchy() -> Density:
    """sqrt(2) / (pi (1 + x^4)): variance 1, and no moment from the third on."""
    c, r = math.sqrt(2) / math.pi, math.sqrt(2)

    def tail(t: np.ndarray) -> np.ndarray:
        # arctan(r t + 1) + arctan(r t - 1) = pi - arctan2(r t, t^2 - 1), and log1p keeps what is left far out
        return (np.arctan2(r * t, t * t - 1) - np.log1p(2 * r * t / (t * t - r * t + 1)) / 2) / (2 * math.pi)

    def rest(t: np.ndarray) -> np.ndarray:
        return c / 2 * np.arctan2(1, t * t) - t * tail(t)

    return Density(tail, rest)


DENSITIES = {  # in the order of their tails, heavy ones last
    "uniform": uniform(),
    "wigner": wigner(),
    "raised_cosine": raised_cosine(),
    "normal": normal(),
    "logistic": logistic(),
    "hyperbolic_secant": hyperbolic_secant(),
    "laplace": laplace(),
    "super_cauchy": super_cauchy(),
}
