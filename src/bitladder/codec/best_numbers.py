"""Numbers as bins (`BEST`): scales, biases, tables, weights left as reals; bit for bit.

Numbers are whole numbers, those of reals from one of two views (reals.py). They are coded as they are, from their median,
each from the one before it, or from those of another array. The encoder tries all views and ways and keeps the shortest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bitladder.codec import reals
from bitladder.codec.bins import Bin, Coin, Decoder, Encoder, damaged
from bitladder.codec.magnitude import Magnitudes, even

LONGEST = 64  # bits of a difference
PLAIN, MEDIAN, PREVIOUS, BEFORE = range(4)
PATTERN, WORTH = range(2)


class View(NamedTuple):
    """Whole numbers and what they count."""

    which: int
    power: int
    numbers: list[int]
    before: list[int] | None = None


class Lengths:
    """The bins of lengths near a middle one: whether it is that, whether it is longer, and how many steps away it is."""

    def __init__(self, middle: int) -> None:
        if middle > LONGEST:
            raise damaged()
        self.middle = middle
        self.other = Bin()
        self.longer = Bin()
        self.steps = [[Bin() for _ in range(LONGEST)] for _ in range(2)]

    def code(self, coin: Coin, told: int = 0) -> int:
        """The next length."""
        if not coin.bit(self.other, int(told != self.middle)):
            return self.middle
        longer = coin.bit(self.longer, int(told > self.middle))
        most = LONGEST - self.middle if longer else self.middle
        steps = min(most, 1)
        while steps < most and coin.bit(self.steps[longer][steps], int(abs(told - self.middle) > steps)):
            steps += 1
        return self.middle + (steps if longer else -steps)


def wrap(number: int) -> int:
    """A whole number in 64 bits, two's complement."""
    return (number + 2**63) % 2**64 - 2**63


def middle(numbers: list[int]) -> int:
    """The median, the upper one of two."""
    return sorted(numbers)[len(numbers) // 2]


def views(values: np.ndarray, before: np.ndarray | None) -> Iterator[View]:
    """All views of the values."""
    if values.dtype.kind == "f":
        if worths := reals.to_worths(values):
            yield View(WORTH, *worths)
        power, numbers = reals.to_patterns(values)
        yield View(PATTERN, power, numbers, None if before is None else reals.patterns_at(before, power))
    else:
        yield View(PATTERN, 0, integers(values), None if before is None else integers(before))


def integers(values: np.ndarray) -> list[int]:
    return [wrap(int(x)) for x in values.ravel()]


def values_of(view: View, dtype: np.dtype) -> np.ndarray:
    """The values of a view; damaged if it holds others than `dtype` has."""
    if dtype.kind == "f":
        return (reals.from_worths if view.which == WORTH else reals.from_patterns)(view.power, view.numbers, dtype)
    if dtype == np.uint64:
        return np.array(view.numbers, np.int64).view(np.uint64)
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if not low <= min(view.numbers) <= max(view.numbers) <= high:
        raise damaged()
    return np.array(view.numbers, dtype)


def start(numbers: list[int], way: int, before: list[int]) -> tuple[int, int]:
    """What the first number is predicted from, and the middle length of differences."""
    base = {MEDIAN: middle(numbers), PREVIOUS: numbers[0]}.get(way, 0)
    guesses = {PREVIOUS: [base, *numbers], BEFORE: before}.get(way, [base] * len(numbers))
    return base, middle([abs(wrap(x - guess)).bit_length() for x, guess in zip(numbers, guesses, strict=False)])


def header(coin: Coin, real: bool, view: View, way: int) -> tuple[int, int, int]:
    """Which view, its power, and the way."""
    which = coin.even(1, view.which) if real else PATTERN
    power = even(coin, 12, view.power + 2048) - 2048 if real else 0
    return which, power, even(coin, 2, way)


def differences(coin: Coin, way: int, told: list[int], before: list[int], base: int, at: int) -> list[int]:
    """As many whole numbers as `told`; an encoder is told them and how they start."""
    if way in (MEDIAN, PREVIOUS):
        if (length := even(coin, 7, abs(base).bit_length())) > LONGEST:
            raise damaged()
        size = even(coin, length, abs(base))
        base = -size if coin.even(1, int(base < 0)) else size
    lengths, minus = Lengths(even(coin, 7, at)), Bin()
    sizes = Magnitudes(LONGEST, learned=min(max(len(told).bit_length() - 4, 0), 8))
    found: list[int] = []
    guess = wrap(base)
    for i, number in enumerate(told):
        guess = before[i] if way == BEFORE else guess
        difference = wrap(number - guess)
        size = sizes.rest(coin, lengths.code(coin, abs(difference).bit_length()), abs(difference))
        found.append(wrap(guess - size if size and coin.bit(minus, int(difference < 0)) else guess + size))
        guess = found[-1] if way == PREVIOUS else guess
    return found


def encode(values: np.ndarray, before: np.ndarray | None = None) -> bytes | None:
    """The bytes of an array; `before` is one of its shape and type that it may be near to."""
    if not values.size:
        return None
    bodies = []
    for view in views(values.ravel(), None if before is None else before.ravel()):
        for way in (PLAIN, MEDIAN, PREVIOUS) + ((BEFORE,) if view.before else ()):
            coin, near = Encoder(), view.before or []
            header(coin, values.dtype.kind == "f", view, way)
            differences(coin, way, view.numbers, near, *start(view.numbers, way, near))
            bodies.append(coin.end())
    return min(bodies, key=len)


def decode(body: bytes, dtype: np.dtype, count: int, before: np.ndarray | None = None) -> np.ndarray:
    """The `count` numbers of these bytes."""
    coin = Decoder(body)
    which, power, way = header(coin, dtype.kind == "f", View(PATTERN, 0, []), PLAIN)
    near: list[int] = []
    if way == BEFORE:
        if before is None or which == WORTH or not 0 <= power < 64:
            raise damaged()
        near = reals.patterns_at(before, power) if dtype.kind == "f" else integers(before)
    view = View(which, power, differences(coin, way, [0] * count, near, 0, 0))
    coin.end()
    return values_of(view, dtype)
