"""Searches along one number that stands for a whole plan. Pure functions of numbers, no network."""

from __future__ import annotations

from collections.abc import Callable
from math import log2, sqrt

STRIDE = 8.0  # factor between the numbers that are tried until the edge lies between two of them
STRIDES = 6  # at most so many of them
HALVINGS = 5  # how often the interval between the two is halved, on a logarithmic scale

TRIES = 8  # at most so many numbers are tried to meet a size
WASTE = 0.01  # share of a size that may be left unused


def edge(holds: Callable[[float], bool], start: float) -> tuple[float | None, float | None]:
    """The largest number seen that holds and the smallest above it that does not; None where there was none in reach.

    If `holds` is not monotone, this is one of its edges.

    >>> below, above = edge(lambda x: x < 0.03, 1.0)
    >>> round(below, 4), round(above, 4), edge(lambda x: True, 1.0)
    (0.0293, 0.0312, (262144.0, None))
    """
    below = above = None
    x = start
    for _ in range(STRIDES + 1):
        if holds(x):
            below, x = x, x * STRIDE
        else:
            above, x = x, x / STRIDE
        if below is not None and above is not None:
            break
    for _ in range(HALVINGS if below is not None and above is not None else 0):
        assert below is not None and above is not None  # noqa: PT018
        middle = sqrt(below * above)
        below, above = (middle, above) if holds(middle) else (below, middle)
    return below, above


def meet(size: Callable[[float], float], limit: float, start: float, slope: float) -> float | None:
    """The smallest number seen whose size is within `limit`; None if none is. Numbers near the limit are tried.

    size: falls as the number grows, about as a straight line over its logarithm. slope: by how much it falls, to begin with,
    when the number doubles.

    >>> round(meet(lambda x: 100 - 10 * log2(x), 80.0, 1.0, 5.0), 2)
    4.12
    """
    x, found, before = log2(start), None, None
    for _ in range(TRIES):
        at = size(2.0**x)
        if at <= limit and (found is None or x < found):
            found = x
        if limit * (1 - WASTE) <= at <= limit:
            break
        if before is not None and (before[1] - at) * (x - before[0]) > 0:
            slope = (before[1] - at) / (x - before[0])
        before = (x, at)
        x += max(-STRIDES, min(STRIDES, (at - limit * (1 - WASTE / 2)) / slope))
    return None if found is None else 2.0**found
