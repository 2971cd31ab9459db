"""A stream of bits, the lowest bit of a byte first; the unused high bits of its last byte are zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def to_bytes(bits: Sequence[int] | np.ndarray) -> bytes:
    """`bits` as whole bytes.

    >>> to_bytes([1, 0, 0, 0, 0, 0, 0, 0, 1]).hex()
    '0101'
    """
    return np.packbits(np.asarray(bits, np.uint8), bitorder="little").tobytes()


def field(value: int, width: int) -> list[int]:
    """The `width` low bits of a number, lowest first."""
    return [value >> k & 1 for k in range(width)]


def unary(value: int) -> list[int]:
    """So many ones and a zero."""
    return [1] * value + [0]


class BitReader:
    """Reads a stream of bits that begins at byte `at` and ends where its reader says."""

    def __init__(self, body: bytes, at: int) -> None:
        self.bits = np.unpackbits(np.frombuffer(body, np.uint8)[at:], bitorder="little")
        self.at, self.next = at, 0

    def field(self, width: int) -> int:
        """The number in the next `width` bits."""
        if self.next + width > len(self.bits):
            raise ValueError("codec: coded bits end too early; the bytes are damaged")
        bits = self.bits[self.next : self.next + width]
        self.next += width
        return sum(int(bit) << k for k, bit in enumerate(bits))

    def unary(self, most: int) -> int:
        """How many ones come before the next zero; more than `most` are an error."""
        for value in range(most + 1):
            if not self.field(1):
                return value
        raise ValueError(f"codec: a run of ones must be of {most} at most; the bytes are damaged")

    def close(self) -> int:
        """The byte after the stream."""
        if self.field(-self.next % 8):
            raise ValueError("codec: bits are set after the last one; the bytes are damaged")
        return self.at + self.next // 8


def take_bits(body: bytes, at: int, count: int) -> np.ndarray:
    """The `count` bits of the stream at byte `at`, uint8."""
    end = at + (count + 7) // 8
    if end > len(body):
        raise ValueError(f"codec: {count} bits must have {end - at} bytes, got {len(body) - at}")
    bits = np.unpackbits(np.frombuffer(body[at:end], np.uint8), bitorder="little")
    if bits[count:].any():
        raise ValueError("codec: bits are set after the last one; the bytes are damaged")
    return bits[:count]
