"""Codes as bit planes: one byte string per bit, most significant first, so that a prefix of planes is a shorter code.

Within a plane, code i (in C order) is bit i % 8 of byte i // 8, bit 0 being the least significant. A plane of n codes
takes ceil(n / 8) bytes; the unused high bits of its last byte are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_BITS = 16


def plane_bytes(count: int) -> int:
    """How many bytes one plane of `count` codes takes.

    >>> plane_bytes(0), plane_bytes(8), plane_bytes(9)
    (0, 1, 2)
    """
    return (count + 7) // 8


def to_planes(codes: np.ndarray, bits: int) -> list[bytes]:
    """The `bits` planes of non-negative `codes`, most significant first.

    >>> [plane.hex() for plane in to_planes(np.array([3, 0, 1, 2]), 2)]
    ['09', '05']
    """
    check_width(bits)
    flat = np.asarray(codes).ravel()
    if flat.size and (int(flat.min()) < 0 or int(flat.max()) >= 2**bits):
        raise ValueError(f"planes: codes must be 0..{2**bits - 1} to fit in {bits} bits, got {flat.min()}..{flat.max()}")
    flat = flat.astype(np.uint16)
    return [np.packbits((flat >> (bits - 1 - p)) & 1, bitorder="little").tobytes() for p in range(bits)]


def from_planes(planes: Sequence[bytes], bits: int, count: int) -> np.ndarray:
    """The `count` codes whose leading bits are `planes`: all of a code, or its prefix `code >> (bits - len(planes))`.

    They come in the smallest unsigned type that holds `bits` bits.

    >>> from_planes([bytes([9]), bytes([5])], 2, 4), from_planes([bytes([9])], 2, 4)
    (array([3, 0, 1, 2], dtype=uint8), array([1, 0, 0, 1], dtype=uint8))
    """
    check_width(bits)
    if len(planes) > bits:
        raise ValueError(f"planes: must be at most {bits} of them for {bits}-bit codes, got {len(planes)}")
    for number, plane in enumerate(planes):
        check_plane(plane, number, count)
    dtype = np.uint8 if bits <= 8 else np.uint16
    codes: np.ndarray = bits_of(planes[0], count).astype(dtype, copy=False) if planes else np.zeros(count, dtype)
    for plane in planes[1:]:
        codes = np.left_shift(codes, 1) | bits_of(plane, count)
    return codes


def bits_of(plane: bytes, count: int) -> np.ndarray:
    """The `count` bits of a plane, uint8."""
    return np.unpackbits(np.frombuffer(plane, np.uint8), count=count, bitorder="little")


def check_plane(plane: bytes, number: int, count: int) -> None:
    """Return if a plane has the length it must have and no bits after the last code."""
    if len(plane) != plane_bytes(count):
        raise ValueError(f"planes: plane {number} of {count} codes must have {plane_bytes(count)} bytes, got {len(plane)}")
    if count % 8 and plane[-1] >> (count % 8):
        raise ValueError(f"planes: plane {number} has bits set after its last code; the bytes are damaged")


def check_width(bits: int) -> None:
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"planes: width must be 1..{MOST_BITS} bits, got {bits}")
