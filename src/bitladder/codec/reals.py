"""Reals as whole numbers that count a power of two: exact both ways.

There are two views. A *worth* is what a real is worth: sums, fixed points and float copies of integers are small multiples
of one power. A *pattern* is the bits of its magnitude, inverted (-1 - bits) where its sign is set, so that patterns rise
with the reals; it says all of them, not-a-numbers too.
"""

from __future__ import annotations

import numpy as np

from bitladder.codec.bins import damaged

LONGEST = 31  # bits of a worth's whole number
REALS = {2: (10, 15), 4: (23, 127), 8: (52, 1023)}  # by bytes: bits of the fraction, and the power of two in one's exponent
Whole = tuple[int, list[int]]  # the exponent of the power of two, and the numbers that count it


def zeros(number: int) -> int:
    """How many of the last bits are zero."""
    return (number & -number).bit_length() - 1


def magnitudes(values: np.ndarray) -> list[tuple[bool, int]]:
    """Of each value whether its sign is set, and its other bits."""
    size = values.dtype.itemsize
    sign = 1 << (8 * size - 1)
    return [(x >= sign, x & sign - 1) for x in map(int, values.view(f"u{size}"))]


def to_patterns(values: np.ndarray) -> Whole:
    """The patterns without the zeros that all of them end with."""
    power = min((zeros(x) for _, x in magnitudes(values) if x), default=0)
    return power, patterns_at(values, power)


def patterns_at(values: np.ndarray, power: int) -> list[int]:
    """Their patterns without so many last bits."""
    return [-1 - (x >> power) if minus else x >> power for minus, x in magnitudes(values)]


def to_worths(values: np.ndarray) -> Whole | None:
    """What the values are worth, if all of them are small multiples of one power of two."""
    fraction, one = REALS[values.dtype.itemsize]
    numbers, powers = [], []
    for minus, bits in magnitudes(values):
        field = bits >> fraction
        number = bits & (1 << fraction) - 1 | (field > 0) << fraction
        if field > 2 * one or (minus and not number):  # not finite, or minus zero
            return None
        down = zeros(number) if number else 0
        numbers.append(-(number >> down) if minus else number >> down)
        powers.append(max(field, 1) - one - fraction + down)
    power = min((p for n, p in zip(numbers, powers, strict=True) if n), default=0)
    if any(n and n.bit_length() + p - power > LONGEST for n, p in zip(numbers, powers, strict=True)):
        return None
    return power, [n << p - power if n else 0 for n, p in zip(numbers, powers, strict=True)]


def from_patterns(power: int, numbers: list[int], dtype: np.dtype) -> np.ndarray:
    """The values of patterns."""
    if not 0 <= power < 64:
        raise damaged()
    return assembled([(x < 0, (x if x >= 0 else -1 - x) << power) for x in numbers], dtype)


def from_worths(power: int, numbers: list[int], dtype: np.dtype) -> np.ndarray:
    """The values of worths."""
    return assembled([(x < 0, bits_of(abs(x), power, *REALS[dtype.itemsize])) for x in numbers], dtype)


def bits_of(number: int, power: int, fraction: int, one: int) -> int:
    """The bits of the real that is number * 2**power, if there is one."""
    if number == 0:
        return 0
    top = power + number.bit_length() - 1  # the power of its leading bit
    up = power - max(top, 1 - one) + fraction
    if number.bit_length() > LONGEST or top > one or up < -zeros(number):
        raise damaged()
    return (number << up if up >= 0 else number >> -up) + (max(top + one - 1, 0) << fraction)


def assembled(bits: list[tuple[bool, int]], dtype: np.dtype) -> np.ndarray:
    """The values of signs and other bits."""
    size = dtype.itemsize
    sign = 1 << (8 * size - 1)
    if any(x >= sign for _, x in bits):
        raise damaged()
    return np.array([minus * sign + x for minus, x in bits], f"u{size}").view(dtype)
