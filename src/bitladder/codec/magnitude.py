"""A number from 0 as bins: how long it is in bits, then its bits from the top.

The bins of a length are apart for each class that the caller puts the number in. They are a tree, so that a long number takes
few of them, then one a bit; where most numbers are zero there is no tree. The bins of the first bits below the leading one are
common to all. Bits further down are as likely one as zero, and all of them are one step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bitladder.codec.bins import Bin, Coin

LEARNED = 2  # bits below the leading one that have bins
STEP = 16  # even bits that are coded at once


class Magnitudes:
    """The bins of numbers of at most `longest` bits, by class, and of `learned` bits below the leading one.

    `depths`: how deep the tree of each class is, or as deep as lengths are that there can be.
    """

    def __init__(self, longest: int, depths: Sequence[int] = (0,), learned: int = LEARNED) -> None:
        self.longest = longest
        self.learned = learned
        self.depths = [min(depth, (longest + 1).bit_length() - 1) for depth in depths]
        self.lengths = [[Bin() for _ in range(longest + 1)] for _ in depths]
        self.below: defaultdict[tuple[int, int], Bin] = defaultdict(Bin)  # by length and by the bits so far

    def code(self, coin: Coin, which: int, number: int = 0) -> int:
        """The next number, of class `which`."""
        return self.rest(coin, self.length(coin, which, number.bit_length()), number)

    def length(self, coin: Coin, which: int, told: int = 0) -> int:
        """The next length: down the tree, then a one for each bit that it is longer than the last leaf."""
        bins, depth = self.lengths[which], self.depths[which]
        last = (1 << depth) - 1
        node = 1
        for place in range(depth - 1, -1, -1):
            node = 2 * node + coin.bit(bins[node], min(told, last) >> place & 1)
        length = node - last - 1
        while last <= length < self.longest and coin.bit(bins[length + 1], int(told > length)):
            length += 1
        return length

    def rest(self, coin: Coin, length: int, number: int = 0) -> int:
        """The number of that length."""
        top, below = min(length, 1), max(length - 1, 0)
        while below and top >> self.learned == 0:
            below -= 1
            top = 2 * top + coin.bit(self.below[length, top], number >> below & 1)
        return top << below | even(coin, below, number & (1 << below) - 1)


def even(coin: Coin, bits: int, number: int = 0) -> int:
    """A number of so many bits, all as likely: the highest first, STEP at once."""
    top = 0
    while bits > STEP:
        bits -= STEP
        top = top << STEP | coin.even(STEP, number >> bits & (1 << STEP) - 1)
    return top << bits | coin.even(bits, number & (1 << bits) - 1)
