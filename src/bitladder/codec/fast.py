"""The coder `fast`: codes and bit planes by static rANS, which decodes at hundreds of millions of weights a second.

Codes: their least value and, of those wider than 8 bits, the low bits are stored as they are; the rest is one symbol a code,
of the frequencies that the part begins with.

Planes: the bits of a plane fall into classes by how large the planes before say that a code is; the bits of a class follow
one transmitted probability, four bits a symbol, or are stored as they are where that is near one half.
"""

from __future__ import annotations

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

NEAR = 192  # of 4096: so near to one half a probability is not worth coding


def classes(prefix: np.ndarray, number: int, sign: bool) -> tuple[np.ndarray, np.ndarray]:
    """The class of each code whose `number` leading bits are `prefix`, and whether its further bits are inverted.

    A code of a symmetric range is inverted below its middle, so that its bits after the first say how far from the middle it
    is; where the first plane is a sign they say so anyhow. The class is the length of that number in bits.
    """
    if number == 0:
        return np.zeros_like(prefix), np.zeros_like(prefix)
    inverted = (prefix >> number - 1 ^ 1) & (not sign)
    distance = (prefix ^ -inverted) & (1 << number - 1) - 1
    lengths = sum(((distance >> k > 0).astype(np.int64) for k in range(number - 1)), np.zeros_like(prefix))
    return lengths, inverted


def encode_plane(codes: np.ndarray, bits: int, number: int, sign: bool) -> bytes:
    """For each class that occurs its probability of a one, u16, 0 if raw; the raw classes; states and words of the others."""
    values = codes.astype(np.int64).ravel()
    lengths, inverted = classes(values >> bits - number, number, sign)
    plane = (values >> bits - 1 - number & 1 ^ inverted).astype(np.uint8)
    head, raw, runs = b"", b"", []
    for length in range(max(number, 1)):
        own = plane[lengths == length]
        if not own.size:
            continue
        p = rans.ones(own)
        if abs(p - rans.TOTAL // 2) < NEAR:
            p, raw = 0, raw + to_bytes(own)
        else:
            runs.append((rans.nibbles(own), rans.nibble_frequencies(p)))
        head += p.to_bytes(2, "little")
    return head + raw + rans.encode(runs)


def decode_plane(body: bytes, codes: np.ndarray, number: int, sign: bool) -> np.ndarray:
    """`codes`, which are the planes before, with this plane, uint8."""
    lengths, inverted = classes(codes.astype(np.int64), number, sign)
    there = [own for length in range(max(number, 1)) if (own := lengths == length).any()]
    at = 2 * len(there)
    models = [int(p) for p in np.frombuffer(body[:at], "<u2")] if len(body) >= at else []
    if not all(p == 0 or rans.SURE <= p <= rans.TOTAL - rans.SURE for p in models) or len(models) < len(there):
        raise ValueError(f"codec: {len(there)} probabilities must be 0 or {rans.SURE}..{rans.TOTAL - rans.SURE}; got {models}")
    plane = np.zeros(codes.shape, np.uint8)
    counts = [int(own.sum()) for own in there]
    for own, p, count in zip(there, models, counts, strict=True):
        if not p:
            plane[own] = take_bits(body, at, count)
            at += (count + 7) // 8
    reader = rans.Reader(body, at, sum((count + 3) // 4 for p, count in zip(models, counts, strict=True) if p))
    for own, p, count in zip(there, models, counts, strict=True):
        if p:
            plane[own] = rans.from_nibbles(reader.take(rans.nibble_frequencies(p), (count + 3) // 4), count)
    ends(body, reader.close())
    return (codes << 1 | plane ^ inverted).astype(np.uint8)
