"""Ternary packing: two weights of -1, 0, 1 are an item of 4 bits; one flag says whether it is zero, else three bits say which.

A second stage codes the flags again, and the three bits, in the shortest of the ways there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitladder.codec import rans
from bitladder.codec.bits import BitReader, field, take_bits, to_bytes, unary
from bitladder.codec.fast import ends

if TYPE_CHECKING:
    from bitladder.codec.parts import Grid, Kind

ITEMS = (0b0001, 0b0011, 0b0100, 0b0101, 0b0111, 0b1100, 0b1101, 0b1111)  # the items that are not zero, by their three bits
WEIGHTS = np.array([0, 1, 0, -1])  # of the two bits of a weight; 10 is none
RAW, RUNS, PAIRS, RANS = range(4)  # ways of the second stage
MOST_RICE = 7  # so that a bit stands for 256 weights at most


def encode_codes(codes: np.ndarray, kind: Kind) -> bytes | None:
    """The ways, u8 (flags in bits 0-1, values in bits 2-3), the flags and the values. None if codes are not ternary.

    >>> from bitladder.codec.parts import Kind
    >>> encode_codes(np.array([0, 0, 1, 0, -1, 1, 0, -1]), Kind(2, -1, 1)).hex()
    '000e7200'
    """
    if not codes.size or kind.low < -1 or kind.high > 1 or codes.min() < -1 or codes.max() > 1:
        return None
    flags, values = items(codes.astype(np.int64).ravel())
    coded_flags = {RAW: to_bytes(flags), RUNS: runs(flags), PAIRS: pairs(flags), RANS: rans_flags(flags)}
    coded_values = {RAW: three_bits(values), RANS: rans_values(values)} if values.size else {RAW: b""}
    way = min(coded_flags, key=lambda k: (len(coded_flags[k]), k)), min(coded_values, key=lambda k: (len(coded_values[k]), k))
    return bytes([way[0] | way[1] << 2]) + coded_flags[way[0]] + coded_values[way[1]]


def decode_codes(body: bytes, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes, int64, flat."""
    if not grid.size or kind.low < -1 or kind.high > 1 or not body or body[0] >> 4:
        raise ValueError(f"codec: {grid.size} codes of {kind.low}..{kind.high} do not come of {len(body)} bytes in this coding")
    way = body[0] & 3, body[0] >> 2
    flags, at = FLAGS[way[0]](body, 1, (grid.size + 1) // 2)
    count = int(flags.sum())
    if way[1] == RAW:
        values = take_bits(body, at, 3 * count).reshape(-1, 3) @ np.array([1, 2, 4])
        at += (3 * count + 7) // 8
    elif way[1] == RANS and count:
        values, at = read_rans_values(body, at, count)
    else:
        raise ValueError(f"codec: the way of {count} values must be {RAW} or {RANS}, got {way[1]}")
    ends(body, at)
    whole = np.zeros(flags.size, np.int64)
    whole[flags == 1] = np.array(ITEMS)[values]
    weights = WEIGHTS[np.stack([whole >> 2, whole & 3], 1)].ravel()
    if weights[grid.size :].any():
        raise ValueError("codec: a weight is set after the last one; the bytes are damaged")
    return weights[: grid.size]


def items(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A flag for each two weights, and the three bits of those that are not zero; a zero follows an odd last weight."""
    two = np.pad(weights & 3, (0, weights.size % 2)).reshape(-1, 2)
    whole = two[:, 0] << 2 | two[:, 1]
    return (whole != 0).astype(np.uint8), np.searchsorted(ITEMS, whole[whole != 0])


def three_bits(values: np.ndarray) -> bytes:
    """Values of three bits as one stream."""
    return to_bytes((values[:, None] >> np.arange(3) & 1).ravel())


# -------------------------------------------------------------------------------------------- flags once more, and back


def runs(flags: np.ndarray) -> bytes:
    """k, u8, and the runs of zero flags as Rice codes: run >> k in unary, then k bits. A set flag ends each but the last."""
    places = np.flatnonzero(flags).tolist()
    lengths = [place - before - 1 for before, place in zip([-1, *places], places, strict=False)]
    if not flags[-1]:
        lengths.append(len(flags) - 1 - (places[-1] if places else -1))
    k = min(range(MOST_RICE + 1), key=lambda k: (sum((run >> k) + 1 + k for run in lengths), k))
    return bytes([k]) + to_bytes([bit for run in lengths for bit in unary(run >> k) + field(run, k)])


def read_runs(body: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    k = body[at] if at < len(body) else MOST_RICE + 1
    if k > MOST_RICE:
        raise ValueError(f"codec: runs must have {MOST_RICE} low bits at most; the bytes are damaged")
    reader, flags, place = BitReader(body, at + 1), np.zeros(count, np.uint8), 0
    while place < count:
        place += (reader.unary(count) << k) + reader.field(k)
        if place < count:
            flags[place] = 1
        elif place > count:
            raise ValueError(f"codec: runs must end at flag {count}, got {place}; the bytes are damaged")
        place += 1
    return flags, reader.close()


def pairs(flags: np.ndarray) -> bytes:
    """A flag for each two flags, then two bits for each pair that is not zero: 1, 2 or 3, the first flag the lowest bit."""
    two = np.pad(flags, (0, flags.size % 2)).reshape(-1, 2)
    some = two.max(axis=1)
    return to_bytes(some) + to_bytes(two[some == 1].ravel())


def read_pairs(body: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    some = take_bits(body, at, (count + 1) // 2).astype(bool)
    at += (len(some) + 7) // 8
    two = np.zeros((len(some), 2), np.uint8)
    two[some] = take_bits(body, at, 2 * int(some.sum())).reshape(-1, 2)
    if not two[some].any(axis=1).all() or two.ravel()[count:].any():
        raise ValueError("codec: a pair of flags is zero or past the last flag; the bytes are damaged")
    return two.ravel()[:count], at + (2 * int(some.sum()) + 7) // 8


def rans_flags(flags: np.ndarray) -> bytes:
    """The probability of a set flag in 1/4096, u16, and the flags, four a symbol."""
    p = rans.share(int(flags.sum()), len(flags))
    return p.to_bytes(2, "little") + rans.encode([(rans.nibbles(flags), rans.nibble_frequencies(p))])


def read_rans_flags(body: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    p = int.from_bytes(body[at : at + 2], "little")
    if not rans.SURE <= p <= rans.TOTAL - rans.SURE or at + 2 > len(body):
        raise ValueError(f"codec: a probability must be {rans.SURE}..{rans.TOTAL - rans.SURE}, got {p}")
    symbols = (count + 3) // 4
    reader = rans.Reader(body, at + 2, symbols)
    return rans.from_nibbles(reader.take(rans.nibble_frequencies(p), symbols), count), reader.close()


def rans_values(values: np.ndarray) -> bytes:
    """The frequencies of the eight values, and the values."""
    frequencies = rans.quantized(np.bincount(values, minlength=8).tolist())
    return rans.table(frequencies) + rans.encode([(values, frequencies)])


def read_rans_values(body: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    frequencies, at = rans.read_table(body, at, 8)
    reader = rans.Reader(body, at, count)
    return reader.take(frequencies, count), reader.close()


def read_raw(body: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    return take_bits(body, at, count), at + (count + 7) // 8


FLAGS = (read_raw, read_runs, read_pairs, read_rans_flags)
