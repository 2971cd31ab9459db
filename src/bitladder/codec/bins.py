"""Bins: yes-or-no answers coded by how likely they are. What `best` makes of anything is a row of bins (docs/coding.md).

A model is written once for both directions: it asks a `Coin` for each bin in turn, telling the answer where it knows it. An
`Encoder` is told and gives the same answer back; a `Decoder` is told anything and gives what the bytes say.
"""

from __future__ import annotations

from typing import Protocol

LEAST, MOST = 256, 65280  # chances, of 65536: so each bin costs 0.0056 bits or more
MEMORY = 255  # answers after which a bin forgets as fast as it learns
RATES = tuple(131072 // (2 * seen + 3) for seen in range(MEMORY + 1))
WHOLE = 2**64 - 1
WORD = 2**32 - 1


class Bin:
    """The chance that the next answer is one, of 65536: what the answers so far were, the last 256 or so."""

    __slots__ = ("chance", "seen")

    def __init__(self) -> None:
        self.chance = 32768
        self.seen = 0

    def learn(self, one: int, memory: int = MEMORY) -> None:
        self.chance += ((MOST if one else LEAST) - self.chance) * RATES[self.seen] >> 16
        self.seen = min(self.seen + 1, memory)


class Coin(Protocol):
    """An encoder or a decoder."""

    def odds(self, chance: int, one: int = 0) -> int:
        """The next answer, where the chance of one is `chance` of 65536, from LEAST to MOST."""

    def bit(self, bin: Bin, one: int = 0) -> int:
        """The next answer, with the chance that `bin` has learned; it learns this one too."""

    def even(self, bits: int, number: int = 0) -> int:
        """The next number of so many bits, 16 at most, where all are as likely."""


class Encoder:
    """Bins to bytes: each answer takes its share of a range of numbers, and the bytes are one number in what is left."""

    def __init__(self) -> None:
        self.low = 0
        self.range = WHOLE
        self.bytes = bytearray()

    def odds(self, chance: int, one: int = 0) -> int:
        """One keeps what is below the split, zero the rest."""
        split = (self.range >> 16) * chance
        self.keep(0, split) if one else self.keep(split, self.range - split)
        return one

    def bit(self, bin: Bin, one: int = 0) -> int:
        one = self.odds(bin.chance, one)
        bin.learn(one)
        return one

    def even(self, bits: int, number: int = 0) -> int:
        size = self.range >> bits
        self.keep(number * size, size)
        return number

    def keep(self, start: int, size: int) -> None:
        """Of the range `size` numbers are left, from `start` on; 32 bits leave when it has become narrow."""
        self.raise_to(self.low + start)
        self.range = size
        if size <= WORD:
            self.bytes += (self.low >> 32).to_bytes(4, "big")
            self.low = self.low << 32 & WHOLE
            self.range <<= 32

    def raise_to(self, low: int) -> None:
        """Make `low` the bottom of the range, carrying into the bytes that have left."""
        self.low = low & WHOLE
        if low > WHOLE:
            last = len(self.bytes) - 1
            while self.bytes[last] == 255:
                self.bytes[last] = 0
                last -= 1
            self.bytes[last] += 1

    def end(self) -> bytes:
        """The bytes: as few more as a range of this size needs at most, of the lowest such number in it."""
        count = tail(self.range)
        unit = 1 << (64 - 8 * count)
        self.raise_to((self.low + unit - 1) & -unit)
        return bytes(self.bytes) + self.low.to_bytes(8, "big")[:count]


class Decoder:
    """Bytes to bins. It takes those bytes only that an encoder of the same answers gives."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.range = WHOLE
        self.value = int.from_bytes(body[:8].ljust(8, b"\0"), "big")
        self.place = 8
        if self.value >= self.range:
            raise damaged()

    def odds(self, chance: int, one: int = 0) -> int:
        split = (self.range >> 16) * chance
        one = int(self.value < split)
        self.keep(0, split) if one else self.keep(split, self.range - split)
        return one

    def bit(self, bin: Bin, one: int = 0) -> int:
        one = self.odds(bin.chance)
        bin.learn(one)
        return one

    def even(self, bits: int, number: int = 0) -> int:
        size = self.range >> bits
        number = self.value // size
        if number >> bits:
            raise damaged()
        self.keep(number * size, size)
        return number

    def keep(self, start: int, size: int) -> None:
        self.value -= start
        self.range = size
        if size <= WORD:
            word = self.body[self.place : self.place + 4].ljust(4, b"\0")
            self.value = self.value << 32 | int.from_bytes(word, "big")
            self.range <<= 32
            self.place += 4

    def end(self) -> None:
        """Return if the bytes end where and as an encoder's do."""
        count = tail(self.range)
        if len(self.body) != self.place - 8 + count or self.value >> (64 - 8 * count):
            raise damaged()


def tail(range: int) -> int:
    """How many bytes more are sure to name a number in a range of this size: 1 to 4."""
    return next(count for count in (1, 2, 3, 4) if range >> (64 - 8 * count))


def damaged() -> ValueError:
    return ValueError("codec: the coded bytes must be just those that their encoder writes; they are damaged")
