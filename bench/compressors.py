"""General compressors on the codes that we store: zstd -19, xz -9e, and the entropy that no coder of single codes beats."""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import util

import numpy as np


@dataclass(frozen=True)
class Squeezed:
    """How many bytes are left, and the seconds that making them and reading them back took (None where nothing is made)."""

    bytes: float
    encode: float | None = None
    decode: float | None = None


def timed(call: Callable[[], bytes]) -> tuple[bytes, float]:
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    made = call()
    return made, time.perf_counter() - began


def squeezed(data: bytes, encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes]) -> Squeezed:
    """Bytes there and back."""
    small, encoding = timed(lambda: encode(data))
    again, decoding = timed(lambda: decode(small))
    if again != data:
        raise AssertionError("compressors: what is decoded is not what was encoded")
    return Squeezed(len(small), encoding, decoding)


def zstd(data: bytes) -> Squeezed:
    """zstd at level 19."""
    import zstandard

    return squeezed(data, zstandard.ZstdCompressor(level=19).compress, zstandard.ZstdDecompressor().decompress)


def xz(data: bytes) -> Squeezed:
    """xz at level 9, extreme."""
    return squeezed(data, lambda d: lzma.compress(d, preset=9 | lzma.PRESET_EXTREME), lzma.decompress)


def entropies(tensors: Iterable[np.ndarray]) -> Squeezed:
    """Bytes at the order-0 entropy of each tensor's own codes, tables for free.

    >>> entropies([np.array([0, 1] * 4), np.zeros(100, int)]).bytes
    1.0
    """
    bits = 0.0
    for codes in tensors:
        counts = np.unique(codes, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return Squeezed(bits / 8 + 0.0)


def peers(codes: Mapping[str, np.ndarray], packed: bytes) -> dict[str, Squeezed]:
    """Every general compressor that is there, on the codes as bytes and as they are packed, and the entropy."""
    plain = b"".join(c.astype(np.int8 if c.min(initial=0) < 0 else np.uint8).tobytes() for c in codes.values())
    forms = {"codes as bytes": plain} | ({"codes packed": packed} if len(packed) != len(plain) else {})
    tools = ({"zstd -19": zstd} if util.find_spec("zstandard") else {}) | {"xz -9e": xz}
    made = {f"{name}, {form}": tool(data) for form, data in forms.items() for name, tool in tools.items()}
    return made | {"order-0 entropy of each tensor": entropies(codes.values())}
