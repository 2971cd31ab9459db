"""The native core's codings, called like their definitions and equal to them byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitladder import native
from bitladder.codec.dense import smallest

if TYPE_CHECKING:
    from bitladder.codec.parts import Grid, Kind

core = native.core  # None: the definitions do everything


def codes(
    coding: int,
) -> tuple[Callable[[np.ndarray, Kind], bytes | None], Callable[[bytes, Grid, Kind], np.ndarray]]:
    """Codes (rows, cols) to bytes and back."""

    def encode(codes: np.ndarray, kind: Kind) -> bytes | None:
        rows, cols = codes.shape
        return core.codec_encode_codes(coding, codes.astype("<i4").tobytes(), rows, cols, *kind)

    def decode(body: bytes, grid: Grid, kind: Kind) -> np.ndarray:
        dtype = smallest(kind.low, kind.high)
        found = sound(core.codec_decode_codes(coding, body, *grid, *kind, dtype.itemsize))
        return np.frombuffer(found, dtype.newbyteorder("<")).reshape(grid)

    return encode, decode


def planes(
    coding: int,
) -> tuple[Callable[[np.ndarray, int, int, bool], bytes | None], Callable[[bytes, np.ndarray, int, bool], np.ndarray]]:
    """A plane of codes (rows, cols) to bytes, and back to codes that have it."""

    def encode(codes: np.ndarray, bits: int, number: int, sign: bool) -> bytes | None:
        rows, cols = codes.shape
        return core.codec_encode_plane(coding, codes.astype(np.uint8).tobytes(), rows, cols, bits, number, sign)

    def decode(body: bytes, before: np.ndarray, number: int, sign: bool) -> np.ndarray:
        return with_planes([(coding, body)], before, number, sign)

    return encode, decode


def with_planes(parts: Sequence[tuple[int, bytes]], before: np.ndarray, known: int, sign: bool) -> np.ndarray:
    """Codes (rows, cols) of `known` planes with those of `parts`, each a coding and its bytes."""
    rows, cols = before.shape
    found = sound(core.codec_decode_planes(list(parts), before.tobytes(), rows, cols, sign, known))
    return np.frombuffer(found, np.uint8).reshape(rows, cols)


def numbers(
    coding: int,
) -> tuple[
    Callable[[np.ndarray, np.ndarray | None], bytes | None], Callable[[bytes, np.dtype, int, np.ndarray | None], np.ndarray]
]:
    """An array to bytes and back."""

    def encode(values: np.ndarray, before: np.ndarray | None) -> bytes | None:
        return core.codec_encode_numbers(coding, values.dtype.name, little(values), None if before is None else little(before))

    def decode(body: bytes, dtype: np.dtype, count: int, before: np.ndarray | None) -> np.ndarray:
        near = None if before is None else little(before)
        found = sound(core.codec_decode_numbers(coding, body, dtype.name, count, near))
        return np.frombuffer(found, dtype.newbyteorder("<")).astype(dtype)

    return encode, decode


def little(values: np.ndarray) -> bytes:
    """Numbers as they lie in files: in C order, little-endian."""
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def sound(found: bytes | None) -> bytes:
    """What the core found, if it took the bytes."""
    if found is None:
        raise ValueError("codec: the coded bytes must be just those that their encoder writes; they are damaged")
    return found
