"""Codes as bins (`BEST`): their magnitudes and signs, as their neighbours let one expect.

Codes count from `centre`, their median, so that those of tables and of unsigned formats are small around zero too.
`TRELLIS` is for the codes of a trellis: they go column by column, and as the parity of a code is known from those before it,
only half of it is coded.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from bitladder.codec.bins import Bin, Coin, Decoder, Encoder, damaged
from bitladder.codec.magnitude import Magnitudes
from bitladder.codec.neighbours import DEPTHS, SIGNS, follow, sign_class, size_class

if TYPE_CHECKING:
    from bitladder.codec.parts import Grid, Kind

# By state: the state after an even level and after an odd one (dependent quantization with 8 states).
NEXT = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))


class Around:
    """The codes so far, from the centre, and what they say about the next."""

    def __init__(self, rows: int, cols: int) -> None:
        self.codes = [[0] * (cols + 3) for _ in range(rows)]  # three zeros stand before each row
        self.means = [0] * cols

    def classes(self, row: int, col: int) -> tuple[int, int]:
        """The classes of size and of sign of the code at a place."""
        left3, left2, left = self.codes[row][col : col + 3]
        return size_class(abs(left), abs(left2), self.means[col]), sign_class(left, left3)

    def put(self, row: int, col: int, code: int) -> None:
        self.codes[row][col + 3] = code
        self.means[col] = follow(self.means[col], abs(code), row)


def plain(coin: Coin, codes: np.ndarray, kind: Kind, centre: int) -> None:
    """Fill `codes` (rows, cols) with the next codes; an encoder is told those that are in it, and the centre."""
    centre = signed(coin, Magnitudes(32), centre)
    if not kind.low <= centre <= kind.high:
        raise damaged()
    rows, cols = codes.shape
    around = Around(rows, cols)
    sizes = Magnitudes(max(abs(kind.high - centre), abs(kind.low - centre)).bit_length(), DEPTHS)
    signs = [Bin() for _ in range(SIGNS)]
    for row, col in product(range(rows), range(cols)):
        size, sign = around.classes(row, col)
        told = int(codes[row, col]) - centre
        code = sizes.code(coin, size, abs(told))
        if code and coin.bit(signs[sign], int(told < 0)):
            code = -code
        around.put(row, col, code)
        codes[row, col] = code + centre


def signed(coin: Coin, sizes: Magnitudes, told: int) -> int:
    """The next number of either sign."""
    number = sizes.code(coin, 0, abs(told))
    return -number if number and coin.even(1, int(told < 0)) else number


def trellis(coin: Coin, codes: np.ndarray, kind: Kind) -> None:
    """Fill `codes` (rows, cols) with the next codes of a trellis; an encoder is told those that are in it."""
    rows, cols = codes.shape
    around = Around(rows, cols)
    longest = (max(abs(kind.high), abs(kind.low)) + 1 >> 1).bit_length()
    sizes = Magnitudes(longest, [depth for depth in DEPTHS for _ in range(2)])
    signs = [Bin() for _ in range(SIGNS)]
    state = 0
    for col, row in product(range(cols), range(rows)):
        size, sign = around.classes(row, col)
        told = int(codes[row, col])
        odd = state & 1
        level = sizes.code(coin, 2 * size + odd, abs(told) + odd >> 1)
        code = 2 * level - odd if level else 0
        if code and coin.bit(signs[sign], int(told < 0)):
            code = -code
        around.put(row, col, code)
        codes[row, col] = code
        state = NEXT[state][level & 1]


def admissible(codes: np.ndarray) -> bool:
    """Whether a trellis can give these codes: each has the parity that the state asks for, or is zero."""
    state = 0
    for code in map(int, codes.T.ravel()):
        if code and (code ^ state) & 1:
            return False
        state = NEXT[state][(abs(code) + (state & 1) >> 1) & 1]
    return True


def fits(kind: Kind) -> bool:
    """Whether codes are small enough for the arithmetic."""
    return -(2**31) <= kind.low <= kind.high < 2**31


def encode(codes: np.ndarray, kind: Kind) -> bytes | None:
    """The bytes of codes (rows, cols)."""
    if not codes.size or not fits(kind):
        return None
    coin = Encoder()
    plain(coin, codes.astype(np.int64), kind, int(np.sort(codes, axis=None)[codes.size // 2]))
    return coin.end()


def decode(body: bytes, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes of these bytes."""
    coin, codes = Decoder(body), np.zeros(grid, np.int64)
    if not fits(kind):
        raise ValueError(f"codec: codes must be of 32 bits at most here, got {kind.low}..{kind.high}")
    plain(coin, codes, kind, 0)
    coin.end()
    return codes


def encode_trellis(codes: np.ndarray, kind: Kind) -> bytes | None:
    """The bytes of codes (rows, cols) that a trellis gave; None if none gives such."""
    if not codes.size or not fits(kind) or not admissible(codes):
        return None
    coin = Encoder()
    trellis(coin, codes.astype(np.int64), kind)
    return coin.end()


def decode_trellis(body: bytes, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes of these bytes."""
    coin, codes = Decoder(body), np.zeros(grid, np.int64)
    if not fits(kind):
        raise ValueError(f"codec: codes must be of 32 bits at most here, got {kind.low}..{kind.high}")
    trellis(coin, codes, kind)
    coin.end()
    return codes
