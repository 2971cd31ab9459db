"""Bytes of a file: a prelude, a JSON header, and sections that follow each other without holes (docs/file-format.md).

This half knows nothing of networks. `pack` takes a header and sections; a `Reader` gives the header and any section,
reading nothing that was not asked for and trusting nothing that it reads.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.words import dumps, loads

MAGIC = b"\x89LADDER\n"
MAJOR, MINOR = 1, 0
PRELUDE = struct.Struct("<8sHHII")  # magic, major, minor, length of the header, CRC-32 of the header
MOST_HEADER = 16 * 2**20
ALIGN = 64
LARGEST_FILE = 2**63 - 1

Coder = Callable[[bytes], bytes]
CODINGS: dict[str, tuple[Coder, Coder]] = {"raw": (bytes, bytes)}  # name: (encode, decode)


@dataclass(frozen=True)
class Section:
    """A row of the section table: where its bytes are, counted from the first section, and how to check and decode them."""

    offset: int
    size: int
    crc: int
    coding: str = "raw"

    @property
    def end(self) -> int:
        return self.offset + self.size


def aligned(offset: int) -> int:
    """The first multiple of 64 at or after `offset`.

    >>> aligned(0), aligned(1), aligned(64)
    (0, 64, 64)
    """
    return -(-offset // ALIGN) * ALIGN


def pack(header: Mapping[str, Any], bodies: Sequence[bytes], coding: str = "raw") -> bytes:
    """The bytes of a file that holds `header` and `bodies`."""
    encode = CODINGS[coding][0]
    stored = [encode(body) for body in bodies]
    rows, end = [], 0
    for body in stored:
        rows.append([aligned(end), len(body), zlib.crc32(body), coding])
        end = aligned(end) + len(body)
    text = dumps({**header, "sections": rows})
    if len(text) > MOST_HEADER:
        raise Unsupported(f"save: the header takes {len(text)} bytes, must be at most {MOST_HEADER}; split the network")
    out = bytearray(PRELUDE.pack(MAGIC, MAJOR, MINOR, len(text), zlib.crc32(text)) + text)
    for body in stored:
        out += bytes(-len(out) % ALIGN) + body
    return bytes(out)


class Reader:
    """The header of an open file, and its sections on request."""

    def __init__(self, f: IO[bytes], name: str):
        self.f, self.name = f, name
        self.size = f.seek(0, os.SEEK_END)
        f.seek(0)
        prelude = f.read(PRELUDE.size)
        if MAGIC[: len(prelude)] != prelude[: len(MAGIC)]:
            raise Malformed(f"load: {name!r} does not begin like a ladder file; give a file that quantize wrote")
        self.require(PRELUDE.size)
        self.prelude = prelude  # with the checksum of the header, which has those of all sections
        _, major, minor, length, crc = PRELUDE.unpack(prelude)
        if major != MAJOR:
            raise Unsupported(f"load: {name!r} has format {major}.{minor}, must be {MAJOR}.x for this version; install another")
        if length > MOST_HEADER:
            raise Malformed(f"load: {name!r} has a header of {length} bytes, must be at most {MOST_HEADER}; it is damaged")
        self.header_end = PRELUDE.size + length
        self.start = aligned(self.header_end)
        self.require(self.header_end)
        text = self.exactly(length)
        if zlib.crc32(text) != crc:
            raise Malformed(f"load: the header of {name!r} has a wrong checksum; fetch the file again")
        self.minor = minor
        self.header = loads(text)
        if not isinstance(self.header, dict):
            raise Malformed(f"load: the header of {name!r} must be a JSON object; the file is damaged")
        self.sections = checked_sections(self.header.get("sections"))
        if self.size > self.total():
            raise Malformed(f"load: {name!r} has {self.size - self.total()} bytes after its end; the file is damaged")

    def require(self, needed: int) -> None:
        """Return if the file has `needed` bytes."""
        if self.size < needed:
            text = f"load: {self.name!r} ends after {self.size} bytes, must have at least {needed} for what was asked"
            raise Truncated(f"{text}; fetch the rest, or ask for fewer bits", needed)

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes of a file that has them; unbuffered files may give less than asked at a time."""
        parts = []
        while size and (part := self.f.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def span(self, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on. Threads and forked processes may share a plain file: its place is not used."""
        if not isinstance(self.f, io.FileIO) or not hasattr(os, "pread"):
            self.f.seek(begin)
            return self.exactly(size)
        parts, end = [], begin + size
        while begin < end and (part := os.pread(self.f.fileno(), end - begin, begin)):
            parts.append(part)
            begin += len(part)
        return b"".join(parts)

    def again(self) -> bytes:
        """All bytes of the file, if it still has the header it had."""
        data = self.span(0, self.total())
        if len(data) != self.total() or data[: PRELUDE.size] != self.prelude:
            raise Malformed(f"load: {self.name!r} has changed since it was opened; load it again")
        return data

    def needed(self, number: int) -> int:
        """How long a prefix of the file must be to hold section `number` and all before it."""
        return self.start + self.sections[number].end

    def total(self) -> int:
        """The length of the whole file."""
        return self.needed(len(self.sections) - 1) if self.sections else self.header_end

    def read(self, number: int) -> bytes:
        """The decoded bytes of section `number`, checked, with the padding before it."""
        section = self.sections[number]
        begin = self.start + self.sections[number - 1].end if number else self.header_end
        self.require(self.needed(number))
        data = self.span(begin, self.needed(number) - begin)
        if len(data) != self.needed(number) - begin:
            raise Malformed(f"load: {self.name!r} has become shorter since it was opened; fetch the file again")
        gap = len(data) - section.size
        if any(data[:gap]):
            raise Malformed(f"load: the padding before section {number} of {self.name!r} is not zero; the file is damaged")
        body = data[gap:]
        if zlib.crc32(body) != section.crc:
            raise Malformed(f"load: section {number} of {self.name!r} has a wrong checksum; fetch the file again")
        return CODINGS[section.coding][1](body)


def checked_sections(rows: Any) -> list[Section]:
    """The section table, every row checked: known coding, whole numbers, aligned, no hole, no overlap, no overflow."""
    if not isinstance(rows, list):
        raise Malformed("load: the header must have a list of sections; the file is damaged")
    out: list[Section] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 4:
            raise Malformed(f"load: section {number} must have offset, size, checksum and coding; the file is damaged")
        offset, size, crc, coding = row
        for what, value, most in (("offset", offset, LARGEST_FILE), ("size", size, LARGEST_FILE), ("checksum", crc, 2**32 - 1)):
            if type(value) is not int or not 0 <= value <= most:
                raise Malformed(f"load: {what} of section {number} must be a whole number up to {most}, got {value!r}")
        if not isinstance(coding, str) or coding not in CODINGS:
            raise Malformed(f"load: section {number} has coding {coding!r}, must be one of {', '.join(CODINGS)}")
        expected = aligned(out[-1].end) if out else 0
        if offset != expected:
            raise Malformed(f"load: section {number} is at {offset}, must be at {expected}, after the one before")
        if offset + size > LARGEST_FILE - 2 * MOST_HEADER:
            raise Malformed(f"load: section {number} ends at {offset + size}, beyond any file; the file is damaged")
        out.append(Section(offset, size, crc, coding))
    return out
