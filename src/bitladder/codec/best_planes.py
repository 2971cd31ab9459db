"""Bit planes as bins (`BEST`), each with the planes before it as context.

A code is a sign, its first plane, and a magnitude that the next planes make longer bit by bit; where the first plane is not
a sign (offset binary), the bits of codes below the middle count inverted. So magnitudes are small around zero at every width.
"""

from __future__ import annotations

import numpy as np

from bitladder.codec.bins import Bin, Coin, Decoder, Encoder
from bitladder.codec.neighbours import CLASSES, follow, size_class

NEAR = 4  # planes from this one on have nothing to learn from the neighbours


def first(coin: Coin, codes: np.ndarray) -> None:
    """Fill `codes` (rows, cols), 0 or 1, with the first plane: the bits one and three before say what to expect."""
    bins = [Bin() for _ in range(9)]
    for row in codes:
        before = [0, 0, 0]  # 1 and 2 for a bit that is there
        for col in range(len(row)):
            row[col] = coin.bit(bins[3 * before[-1] + before[-3]], int(row[col]))
            before.append(1 + int(row[col]))


def later(coin: Coin, codes: np.ndarray, number: int, sign: bool) -> None:
    """Make each of `codes` (rows, cols) one bit longer by plane `number`; an encoder is told the longer ones."""
    rows, cols = codes.shape
    bins = [[Bin() for _ in range(CLASSES)] for _ in range(1 << (number - 1))]
    means = [0] * cols
    for row in range(rows):
        left = left2 = 0
        for col in range(cols):
            told = int(codes[row, col])
            flip = 0 if sign or told >> number else 1
            magnitude = (told >> 1 ^ -flip) & (1 << (number - 1)) - 1
            size = size_class(left, left2, means[col]) if number < NEAR else 0
            one = coin.bit(bins[magnitude][size], told & 1 ^ flip)
            codes[row, col] = told & ~1 | one ^ flip
            left, left2 = magnitude << 1 | one, left
            means[col] = follow(means[col], left, row)


def encode(codes: np.ndarray, bits: int, number: int, sign: bool) -> bytes:
    """The bytes of plane `number` of codes (rows, cols) of so many bits."""
    coin, known = Encoder(), np.asarray(codes, np.int64) >> (bits - 1 - number)
    later(coin, known, number, sign) if number else first(coin, known)
    return coin.end()


def decode(body: bytes, before: np.ndarray, number: int, sign: bool) -> np.ndarray:
    """The codes (rows, cols) with plane `number`, from those without it."""
    coin, codes = Decoder(body), np.asarray(before, np.int64) << 1
    later(coin, codes, number, sign) if number else first(coin, codes)
    coin.end()
    return codes.astype(np.uint8)
