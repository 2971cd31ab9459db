"""Codes as files store them, and those that stay in an open file: read and checked whenever asked for, never kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitladder.codec.dense import unpack
from bitladder.codec.planes import from_planes
from bitladder.errors import Malformed
from bitladder.file.container import Reader
from bitladder.file.fields import damaged, elements
from bitladder.file.header import is_nested
from bitladder.formats import Format
from bitladder.formats.tensor import store


def decode(bodies: Sequence[bytes], fmt: Format, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The codes in a tensor's section; of a nested format in its planes, the first ones or all. Each must be one of `fmt`."""
    count = elements(list(shape), where)
    if is_nested(fmt):
        try:
            return from_planes(bodies, fmt.bits, count).reshape(shape)
        except ValueError as error:
            raise Malformed(f"load: {where}: {error}; the file is damaged") from None
    low, high = fmt.span()
    try:
        codes = unpack(bodies[0], fmt.bits, count, signed=low < 0)
    except ValueError as error:
        raise Malformed(f"load: codes of {where}: {error}; the file is damaged") from None
    if codes.size and (codes.min() < low or codes.max() > high):
        raise damaged(f"codes of {where}", f"between {low} and {high}", f"{codes.min()}..{codes.max()}")
    return store(codes, fmt).reshape(shape)


@dataclass(frozen=True)
class InFile:
    """The codes of a tensor in sections of an open file; its pickles and deep copies are the codes themselves."""

    reader: Reader
    sections: tuple[int, ...]
    format: Format  # of all the planes the file has
    shape: tuple[int, ...]
    where: str

    def read(self) -> np.ndarray:
        """The codes, with every check that loading made."""
        return decode([self.reader.read(n) for n in self.sections], self.format, self.shape, self.where)

    def __rshift__(self, bits: int) -> InFile:
        """The same codes without their last `bits` bits, each of which is a plane."""
        return replace(self, sections=self.sections[: len(self.sections) - bits])

    def __reduce__(self) -> tuple[Any, ...]:
        return np.array, (self.read(),)
