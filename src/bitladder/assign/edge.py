"""Where something stops holding as a number grows: steps outward, then bisection. A pure function of numbers, no network."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

STRIDE = 8.0  # factor between the numbers that are tried until the edge lies between two of them
STRIDES = 6  # at most so many of them
HALVINGS = 5  # how often the interval between the two is halved, on a logarithmic scale


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
