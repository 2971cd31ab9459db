"""Codes as one stream of bits: code i is bits i * width and up of a little-endian stream, in two's complement.

So 8-bit codes are plain bytes, 16-bit codes little-endian words, and of two 4-bit codes the first is the low nibble.
"""

from __future__ import annotations

import numpy as np

MOST_BITS = 32


def smallest(low: int, high: int) -> np.dtype:
    """The smallest type of codes from `low` to `high`: unsigned ones from 0 on.

    >>> smallest(-8, 7), smallest(0, 300)
    (dtype('int8'), dtype('uint16'))
    """
    kinds = (np.uint8, np.uint16, np.int32, np.int64) if low >= 0 else (np.int8, np.int16, np.int32, np.int64)
    return np.dtype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))


def dense_bytes(count: int, bits: int) -> int:
    """How many bytes `count` codes of `bits` bits take.

    >>> dense_bytes(3, 4), dense_bytes(3, 8)
    (2, 3)
    """
    return (count * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> bytes:
    """`codes` as a stream of `bits` bits each; negative ones in two's complement.

    >>> pack(np.array([-1, 2, 7]), 4).hex()
    '2f07'
    """
    words = np.asarray(codes).astype("<i8").ravel()
    if words.size and not (-(2 ** (bits - 1)) <= int(words.min()) and int(words.max()) < 2**bits):
        raise ValueError(f"pack: codes must fit in {bits} bits, got {words.min()}..{words.max()}")
    if bits % 8 == 0:
        return words.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()
    grid = np.empty((words.size, bits), np.uint8)
    for k in range(bits):
        grid[:, k] = (words >> k) & 1
    return np.packbits(grid, bitorder="little").tobytes()


def unpack(data: bytes, bits: int, count: int, signed: bool) -> np.ndarray:
    """The `count` codes of a stream, int64; a stream of another length, or with bits set after the last code, is an error.

    >>> unpack(bytes.fromhex("2f07"), 4, 3, signed=True)
    array([-1,  2,  7])
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"unpack: width must be 1..{MOST_BITS} bits, got {bits}")
    if len(data) != dense_bytes(count, bits):
        raise ValueError(f"unpack: {count} codes of {bits} bits must have {dense_bytes(count, bits)} bytes, got {len(data)}")
    if (used := count * bits % 8) and data[-1] >> used:
        raise ValueError("unpack: bits are set after the last code; the bytes are damaged")
    if bits in (8, 16, 32):
        return np.frombuffer(data, f"<{'i' if signed else 'u'}{bits // 8}").astype(np.int64)
    grid = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    codes = np.zeros(count, np.int64)
    for k in range(bits):
        codes |= grid[:, k].astype(np.int64) << k
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes) if signed else codes
