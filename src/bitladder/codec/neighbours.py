"""What the codes around a code say about it: how large it may be and which sign it may have.

Codes are a matrix whose rows are output channels. The two codes before it in its row and the mean magnitude of its column so
far say how large a code may be; the codes one and three before it say its sign, for kernels are smooth along and across.
"""

from __future__ import annotations

CAP = 4095  # magnitudes count as this at most
CLASSES = 31  # of sizes
SIGNS = 17  # classes of expected signs
DEPTHS = tuple((size - 1 >> 1).bit_length() if size else 0 for size in range(CLASSES))  # of the trees of lengths, by class
SLOWEST = 4  # a column's mean follows a new magnitude by 1/16 or faster


def size_class(left: int, left2: int, mean: int) -> int:
    """A class for each half octave of the expected size, from the magnitudes before and the mean of the column."""
    expected = 2 * min(left, CAP) + min(left2, CAP) + (3 * mean >> 6)
    octave = expected.bit_length() - 1
    return 0 if expected == 0 else 1 + 2 * octave + (expected >> (octave - 1) & 1 if octave else 0)


def sign_class(left: int, left3: int) -> int:
    """A class for each octave of the expected code, from the codes before."""
    expected = 2 * left + left3
    length = min(abs(expected).bit_length(), SIGNS // 2)
    return SIGNS // 2 + (-length if expected < 0 else length)


def follow(mean: int, magnitude: int, row: int) -> int:
    """The mean of a column, in 64ths, with the magnitude that it has in `row`."""
    return mean + ((64 * min(magnitude, CAP) - mean) >> min(row.bit_length(), SLOWEST))
