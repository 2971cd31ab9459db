"""What can be worked around in a damaged file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from bitladder.file.words import bad

START = b"NQ"


def found(records: bytes, layers: int) -> list[bytes]:
    """The headers of layers without their table: from one start code to the next, where the checksum confirms it."""
    out: list[bytes] = []
    at = 0
    for number in range(layers):
        end = next((end for end in ends(records, at, number, layers) if confirmed(records[at:end])), None)
        if end is None:
            raise bad(f"the header of layer {number} cannot be found again")
        out.append(records[at:end])
        at = end
    if at != len(records):
        raise bad(f"{len(records) - at} bytes after the header of the last layer belong to none")
    return out


def ends(records: bytes, at: int, number: int, layers: int) -> Iterator[int]:
    """Where the header of a layer may end: before each start code of the next, or with the bytes."""
    if number == layers - 1:
        yield len(records)
        return
    code = START + struct.pack("<H", number + 1)
    while (at := records.find(code, at + 1)) >= 0:
        yield at


def confirmed(record: bytes) -> bool:
    """Whether a header ends with its checksum."""
    return len(record) >= 10 and struct.unpack("<I", record[-4:])[0] == zlib.crc32(record[:-4])
