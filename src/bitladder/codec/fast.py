"""The coder `fast`: codes and bit planes by static rANS, which decodes at hundreds of millions of weights a second.

Codes: their least value and, of those wider than 8 bits, the low bits are stored as they are; the rest is one symbol a code,
of the frequencies that the part begins with.

Planes: for each value that the planes before can have, one of a few levels says how sure the next bit is, and which bit it is.
The bits of all codes of one level follow its probability, four bits a symbol, or are stored as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from bitladder.codec import rans
from bitladder.codec.bits import take_bits, to_bytes
from bitladder.codec.dense import dense_bytes, pack, unpack

if TYPE_CHECKING:
    from bitladder.codec.parts import Grid, Kind

MOST_SYMBOLS = 256

# -------------------------------------------------------------------------------------------------------------- codes


def encode_codes(codes: np.ndarray, kind: Kind) -> bytes | None:
    """offset u32, shift u8, last symbol u8, frequencies, low bits, states and words. None if there is nothing to code.

    >>> from bitladder.codec.parts import Kind
    >>> encode_codes(np.array([0, -1, 0, 0, 1, 0]), Kind(2, -2, 1)).hex()
    ''
    """
    if not codes.size or kind.low == kind.high:
        return None
    values = codes.astype(np.int64).ravel()
    least = min(int(values.min()), kind.high - 1)  # so that there are two symbols
    values -= least
    shift = max(0, int(values.max()).bit_length() - 8)
    symbols = values >> shift
    counts = np.bincount(symbols, minlength=2).tolist()
    frequencies = rans.quantized(counts)
    head = (least - kind.low).to_bytes(4, "little") + bytes([shift, len(counts) - 1]) + rans.table(frequencies)
    low_bits = pack(values & (1 << shift) - 1, shift) if shift else b""
    return head + low_bits + rans.encode([(symbols, frequencies)])


def decode_codes(body: bytes, grid: Grid, kind: Kind) -> np.ndarray:
    """The codes, int64, flat."""
    if not grid.size or len(body) < 6:
        raise ValueError(f"codec: {grid.size} codes do not come of {len(body)} bytes in this coding")
    least, shift, symbols = kind.low + int.from_bytes(body[:4], "little"), body[4], body[5] + 1
    if shift > kind.bits or least + (symbols - 1 << shift) > kind.high:
        raise ValueError(f"codec: codes must not exceed {kind.high}, but their symbols reach {least + (symbols - 1 << shift)}")
    frequencies, at = rans.read_table(body, 6, symbols)
    end = at + dense_bytes(grid.size, shift)
    low_bits = unpack(body[at:end], shift, grid.size, signed=False) if shift else 0
    reader = rans.Reader(body, end, grid.size)
    values = reader.take(frequencies, grid.size).astype(np.int64)
    ends(body, reader.close())
    return least + (values << shift | low_bits)


def ends(body: bytes, at: int) -> None:
    """Return if a part has no bytes beyond `at`."""
    if at != len(body):
        raise ValueError(f"codec: a part must have {at} bytes, got {len(body)}")


# ------------------------------------------------------------------------------------------------------------- planes

# The probability of a one at each level, in 1/4096; 0: as they are. Equally far apart in the arc sine of their root, in which
# the cost of a wrong probability is nearly the same everywhere; between them the shares of ones up to which a level is used.
LEVELS = (0, 24, 128, 311, 565, 879, 1241, 1636)
BOUNDS = (66, 210, 430, 715, 1056, 1436, 1842)
INVERTED = 8  # in a level: ones and zeros change places


def level(ones: int, count: int) -> int:
    """The level for so many ones among `count` bits."""
    share = rans.share(ones, count) if count else rans.TOTAL // 2
    found = (bisect_right(BOUNDS, min(share, rans.TOTAL - share)) + 1) % len(LEVELS)
    return found | INVERTED if found and 2 * share > rans.TOTAL else found


def encode_plane(codes: np.ndarray, bits: int, number: int, sign: bool) -> bytes | None:
    """The level of each prefix, four bits each; the bits of level 0; states and words of the others. None for no codes."""
    if not codes.size:
        return None
    values = codes.astype(np.int64).ravel()
    prefix, plane = values >> bits - number, (values >> bits - 1 - number & 1).astype(np.uint8)
    counts, ones = (np.bincount(of, minlength=1 << number).tolist() for of in (prefix, prefix[plane == 1]))
    levels = np.array([level(*pair) for pair in zip(ones, counts, strict=True)])
    own, plane = levels[prefix] % INVERTED, plane ^ (levels[prefix] // INVERTED).astype(np.uint8)
    runs = [(rans.nibbles(plane[own == k]), rans.nibble_frequencies(LEVELS[k])) for k in range(1, len(LEVELS))]
    return pack(levels, 4) + to_bytes(plane[own == 0]) + rans.encode(runs)


def decode_plane(body: bytes, codes: np.ndarray, number: int, sign: bool) -> np.ndarray:
    """`codes`, which are the planes before, with this plane, uint8."""
    at = dense_bytes(1 << number, 4)
    levels = unpack(body[:at], 4, 1 << number, signed=False)
    if not codes.size or (levels == INVERTED).any():
        raise ValueError(f"codec: a plane of {codes.size} codes has levels that no encoder writes; the bytes are damaged")
    own, plane = levels[codes] % INVERTED, (levels[codes] // INVERTED).astype(np.uint8)
    counts = np.bincount(own.ravel(), minlength=len(LEVELS)).tolist()
    plane[own == 0] ^= take_bits(body, at, counts[0])
    symbols = [(count + 3) // 4 for count in counts]
    reader = rans.Reader(body, at + dense_bytes(counts[0], 1), sum(symbols[1:]))
    for k in range(1, len(LEVELS)):
        plane[own == k] ^= rans.from_nibbles(reader.take(rans.nibble_frequencies(LEVELS[k]), symbols[k]), counts[k])
    ends(body, reader.close())
    return (codes << 1 | plane).astype(np.uint8)
