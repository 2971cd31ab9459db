"""Static rANS: symbols of known frequencies as bytes, at nearly their entropy, and back at the speed of a table.

A state x is a number of 32 bits. Symbol s with frequency f of 4096, whose slots begin at b, takes it to
(x // f) * 4096 + b + x % f; the decoder finds s by the slot x % 4096 and goes back. A state that would grow past 32 bits first
gives its low 16 bits away as a word. Eight states take turns, so that a machine works on eight symbols at once. The encoder
goes from the last symbol to the first and begins with the state 65536, so the decoder must end there, all words read: that is
the check of the end. (Duda, "Asymmetric numeral systems", 2013.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitladder.codec.bits import BitReader, field, to_bytes, unary

TOTAL_BITS = 12
TOTAL = 1 << TOTAL_BITS  # what the frequencies of a run sum to
MOST = TOTAL - 12  # a frequency; so that a symbol costs more than 8 / 2048 bit
START = 1 << 16
LANES, FEW = 8, 8192  # states that take turns; for fewer symbols than this there is one

Run = tuple[np.ndarray, list[int]]  # symbols, and the frequency of each symbol 0, 1, ...


def lanes(symbols: int) -> int:
    """How many states code so many symbols."""
    return LANES if symbols >= FEW else 1


def encode(runs: Sequence[Run]) -> bytes:
    """The states, then the words: the symbols of all runs, of which number i of a run is in lane i % lanes."""
    total = sum(len(symbols) for symbols, _ in runs)
    if not total:
        return b""
    states, words = [START] * lanes(total), []
    for symbols, frequencies in reversed(runs):
        starts = [0, *np.cumsum(frequencies).tolist()]
        for i in reversed(range(len(symbols))):
            s, lane = int(symbols[i]), i % len(states)
            x, f = states[lane], frequencies[s]
            if x >= f << 32 - TOTAL_BITS:
                words.append(x & 0xFFFF)
                x >>= 16
            states[lane] = (x // f << TOTAL_BITS) + starts[s] + x % f
    return np.array(states, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes()


class Reader:
    """Decodes the runs of a stream that begins at byte `at` and holds so many symbols in all."""

    def __init__(self, body: bytes, at: int, symbols: int) -> None:
        self.end = at + 4 * lanes(symbols) if symbols else at
        if self.end > len(body):
            raise ValueError("codec: coded states end too early; the bytes are damaged")
        self.states = [int(x) for x in np.frombuffer(body[at : self.end], "<u4")]
        if any(x < START for x in self.states):
            raise ValueError(f"codec: a coded state must be {START} at least; the bytes are damaged")
        self.body = body

    def take(self, frequencies: Sequence[int], count: int) -> np.ndarray:
        """The next run: `count` symbols, uint8."""
        symbol_of = np.repeat(np.arange(len(frequencies)), frequencies).tolist()  # by slot
        starts = [0, *np.cumsum(frequencies).tolist()]
        out = np.zeros(count, np.uint8)
        for i in range(count):
            lane = i % len(self.states)
            slot = self.states[lane] % TOTAL
            s = symbol_of[slot]
            x = frequencies[s] * (self.states[lane] >> TOTAL_BITS) + slot - starts[s]
            self.states[lane] = x if x >= START else x << 16 | self.word()
            out[i] = s
        return out

    def word(self) -> int:
        """The next word."""
        self.end += 2
        if self.end > len(self.body):
            raise ValueError("codec: coded words end too early; the bytes are damaged")
        return int.from_bytes(self.body[self.end - 2 : self.end], "little")

    def close(self) -> int:
        """The byte after the stream."""
        if any(x != START for x in self.states):
            raise ValueError(f"codec: coded states must end at {START}; the bytes are damaged")
        return self.end


# -------------------------------------------------------------------------------------------------------- frequencies


def quantized(counts: Sequence[int]) -> list[int]:
    """Frequencies that sum to 4096, nearly in the proportion of `counts`, of which there are two or more and one is not 0.

    Every symbol that occurs has one. What rounding leaves goes one by one to where it gains most, or goes from where it costs
    least.

    >>> quantized([1, 2, 0, 1]), quantized([7, 0])
    ([1024, 2048, 0, 1024], [4084, 12])
    """
    total = sum(counts)
    out = [max(1, count * TOTAL // total) if count else 0 for count in counts]
    used = [s for s, count in enumerate(counts) if count]
    while sum(out) < TOTAL:
        out[max(used, key=lambda s: ((counts[s] << 20) // (2 * out[s] + 1), -s))] += 1
    while sum(out) > TOTAL:
        out[min((s for s in used if out[s] > 1), key=lambda s: ((counts[s] << 20) // (2 * out[s] - 1), s))] -= 1
    if max(out) > MOST:
        first = out.index(max(out))
        second = max((s for s in range(len(out)) if s != first), key=lambda s: (out[s], -s))
        out[second] += out[first] - MOST
        out[first] = MOST
    return out


def table(frequencies: Sequence[int]) -> bytes:
    """Frequencies as bits: for each, how its length differs from that of the one before, and the bits below the leading one.

    >>> table([4084, 12]).hex()
    'ffff9a1f01'
    """
    bits, before = [], 0
    for frequency in frequencies:
        length = frequency.bit_length()
        differs = length - before
        bits += unary(2 * differs if differs >= 0 else -2 * differs - 1)
        bits += field(frequency, max(length - 1, 0))
        before = length
    return to_bytes(bits)


def read_table(body: bytes, at: int, symbols: int) -> tuple[list[int], int]:
    """The frequencies of so many symbols from byte `at`, and the byte after them."""
    reader, out, length = BitReader(body, at), [], 0
    for _ in range(symbols):
        differs = reader.unary(2 * TOTAL_BITS)
        length += -(differs + 1 >> 1) if differs & 1 else differs >> 1
        if not 0 <= length <= TOTAL_BITS:
            raise ValueError(f"codec: a frequency must have 0..{TOTAL_BITS} bits, got {length}; the bytes are damaged")
        out.append(reader.field(length - 1) + (1 << length - 1) if length else 0)
    if sum(out) != TOTAL or max(out) > MOST:
        raise ValueError(f"codec: frequencies must sum to {TOTAL} and be {MOST} at most, got {sum(out)} and {max(out)}")
    return out, reader.close()


# --------------------------------------------------------------------------------------------------------------- bits

SURE = 24  # of 4096, the least probability of a bit; so that four bits cost more than 8 * 8 / 2048 bit


def share(ones: int, count: int) -> int:
    """The share of ones among `count` bits, of which there is one at least, in 1/4096, no surer than is allowed."""
    return min(max((2 * TOTAL * ones + count) // (2 * count), SURE), TOTAL - SURE)


def nibble_frequencies(p: int) -> list[int]:
    """The frequencies of four bits, the first the lowest, if a bit is one with probability p / 4096."""
    out = []
    for nibble in range(16):
        k = nibble.bit_count()
        out.append(max(1, p**k * (TOTAL - p) ** (4 - k) >> 3 * TOTAL_BITS))
    out[15 if 2 * p > TOTAL else 0] += TOTAL - sum(out)
    return out


def nibbles(bits: np.ndarray) -> np.ndarray:
    """Four bits a symbol, the first the lowest; zeros follow the last."""
    return np.pad(bits, (0, -len(bits) % 4)).reshape(-1, 4) @ np.array([1, 2, 4, 8], np.uint8)


def from_nibbles(symbols: np.ndarray, count: int) -> np.ndarray:
    """The `count` bits of symbols of four bits, uint8."""
    bits = (symbols[:, None] >> np.arange(4, dtype=np.uint8) & 1).ravel()
    if bits[count:].any():
        raise ValueError("codec: bits are set after the last one; the bytes are damaged")
    return bits[:count]
