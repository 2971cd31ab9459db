"""A number from 0 as bins: how long it is in bits, one bin a bit, then its bits from the top.

The bins of a length are apart for each class that the caller puts the number in; the bins of the first bits below the
leading one are common to all, and bits further down are as likely one as zero.
"""

from __future__ import annotations

from collections import defaultdict

from bitladder.codec.bins import Bin, Coin

LEARNED = 3  # bits below the leading one that have bins


class Magnitudes:
    """The bins of numbers of at most `longest` bits in so many classes, and of `learned` bits below the leading one."""

    def __init__(self, longest: int, classes: int = 1, learned: int = LEARNED) -> None:
        self.longest = longest
        self.learned = learned
        self.lengths = [[Bin() for _ in range(longest)] for _ in range(classes)]
        self.below: defaultdict[tuple[int, int], Bin] = defaultdict(Bin)  # by length and by the bits so far

    def code(self, coin: Coin, which: int, number: int = 0) -> int:
        """The next number, of class `which`."""
        lengths = self.lengths[which]
        length = 0
        while length < self.longest and coin.bit(lengths[length], int(number >> length > 0)):
            length += 1
        return self.rest(coin, length, number)

    def rest(self, coin: Coin, length: int, number: int = 0) -> int:
        """The number of that length."""
        top = min(length, 1)
        for place in range(length - 2, -1, -1):
            one = number >> place & 1
            top = top << 1 | (coin.bit(self.below[length, top], one) if top >> self.learned == 0 else coin.half(one))
        return top


def even(coin: Coin, bits: int, number: int = 0) -> int:
    """A number of so many bits, each as likely one as zero."""
    top = 0
    for place in range(bits - 1, -1, -1):
        top = top << 1 | coin.half(number >> place & 1)
    return top
