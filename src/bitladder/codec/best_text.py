"""Header text as bins (`BEST`): every bit of a byte is guessed from several contexts at once, and the guesses are mixed.

A context is some of the bytes before: the last few, or ones further back, past a checksum or a length that nobody can guess.
The guesses are added as logarithms of odds, each with a weight for how often its context was seen; weights learn too. The
model goes on from text to text of a file, as headers resemble each other.
"""

from __future__ import annotations

from collections import defaultdict

from bitladder.codec.bins import LEAST, MOST, Bin, Coin, Decoder, Encoder

WORD = 2**64 - 1
# Which of the eight bytes before make each context, the last one being the lowest.
CONTEXTS = (0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFFFFFF, 0xFF00, 0xFFFF0000, 0xFFFFFF0000000000)
BINS = 16  # bits of the number of bins a context has
SPREAD, MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd numbers with their bits well mixed
MEMORY = 16  # answers after which a bin forgets as fast as it learns
OFTEN = 7  # times a context was seen from which on its weight is the same
WEIGHT = 17920  # of a guess at first, of 65536
HEAVIEST = 1 << 20
SLOW = 15  # how slowly weights learn
# The chance, of 65536, at odds of e to the power -8, -7.5, .. 8.
CURVE = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)  # fmt: skip


def chance(odds: int) -> int:
    """The chance, of 65536, at a logarithm of odds in 256ths."""
    place = min(max(odds, -2047), 2047) + 2048
    low, part = place >> 7, place & 127
    return CURVE[low] * (128 - part) + CURVE[low + 1] * part >> 7


def inverse() -> tuple[int, ...]:
    """For chances by 16: the lowest logarithm of odds that has at least that chance."""
    found = []
    odds = -2047
    for step in range(4096):
        while odds < 2047 and chance(odds) < 16 * step:
            odds += 1
        found.append(odds)
    return tuple(found)


ODDS = inverse()


class Text:
    """What the texts so far let one expect. Coding a text and learning it come to the same state."""

    def __init__(self) -> None:
        self.bins: list[defaultdict[int, Bin]] = [defaultdict(Bin) for _ in CONTEXTS]
        self.weights = [[WEIGHT] * (OFTEN + 1) for _ in CONTEXTS]
        self.past = 0

    def learn(self, text: bytes) -> None:
        """Take in a text that is known."""
        for told in text:
            self.byte(Known(), told)

    def encode(self, text: bytes) -> bytes:
        """The bytes of the next text."""
        coin = Encoder()
        for told in text:
            self.byte(coin, told)
        return coin.end()

    def decode(self, body: bytes, length: int) -> bytes:
        """The next text, of `length` bytes."""
        coin = Decoder(body)
        text = bytes(self.byte(coin) for _ in range(length))
        coin.end()
        return text

    def byte(self, coin: Coin | Known, told: int = 0) -> int:
        """The next byte, from its highest bit down."""
        places = []
        for number, mask in enumerate(CONTEXTS):
            place = ((self.past & mask) + number * MIX) * SPREAD & WORD
            places.append(place ^ place >> 32)
        node = 1
        for bit in range(7, -1, -1):
            bins = [of[((place + node) * MIX & WORD) >> 64 - BINS] for of, place in zip(self.bins, places, strict=True)]
            node = node << 1 | self.bit(coin, bins, told >> bit & 1)
        self.past = (self.past << 8 | node & 255) & WORD
        return node & 255

    def bit(self, coin: Coin | Known, bins: list[Bin], told: int) -> int:
        """The next bit, of which each of `bins` has a guess."""
        guesses = [ODDS[bin.chance >> 4] for bin in bins]
        often = [min(bin.seen, OFTEN) for bin in bins]
        mixed = chance(sum(w[n] * guess >> 16 for w, n, guess in zip(self.weights, often, guesses, strict=True)))
        one = coin.odds(min(max(mixed, LEAST), MOST), told)
        off = (65535 if one else 0) - mixed
        for weights, n, guess, bin in zip(self.weights, often, guesses, bins, strict=True):
            weights[n] = min(max(weights[n] + (guess * off >> SLOW), -HEAVIEST), HEAVIEST)
            bin.learn(one, MEMORY)
        return one


class Known:
    """A coin for text that is known already: nothing is coded."""

    def odds(self, chance: int, one: int) -> int:
        return one
