"""Values at their borders in every field of a file, all checksums made good: a small file loads or is refused, nothing else.

`python -m bench.robust.fields SERIES...` makes the trials of some series in a process that may not have much memory.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

from bench.robust.count import Count, counted, tell_count
from bench.robust.damage import THREE, Series, golden, outcome, trials
from bench.robust.subjects import alike
from bitladder import file
from bitladder.file.container import HEAD, PRELUDE, Prelude, Reader, divided, seal, texts
from bitladder.file.source import of_bytes

# What whole numbers may be at their borders; those of the file's own length and the field's own value are added.
BORDERS = (0, 1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
MOST = {"major": 2**16, "minor": 2**16, "total": 2**64}  # what fields of the prelude stay below; 2^32 if not named


def values(own: int, length: int) -> list[int]:
    """The numbers that a field is tried with."""
    return sorted({*BORDERS, own - 1, own, own + 1, length - 1, length, length + 1} - {-1})


def with_fields(data: bytes, **changes: int) -> bytes:
    """A file with other fields in its prelude, its checksums and its identity made good."""
    p = Prelude(*HEAD.unpack(data[: HEAD.size]))._replace(**changes)
    headers = data[PRELUDE:]
    where = (p.network, p.network + p.table, p.network + p.table + p.records)
    p = p._replace(
        network_crc=changes.get("network_crc", zlib.crc32(headers[: where[0]])),
        table_crc=changes.get("table_crc", zlib.crc32(headers[where[0] : where[1]])),
    )
    head = HEAD.pack(*p)
    start = head + hashlib.sha256(head + headers[: where[2]]).digest()
    return start + struct.pack("<I", zlib.crc32(start)) + headers


def fields() -> Iterator[str | None]:
    """Every whole number of the prelude at every border; what still loads is the same network."""
    for name, data in golden().items():
        whole = file.load(data)
        p = Prelude(*HEAD.unpack(data[: HEAD.size]))
        for field in Prelude._fields[1:]:
            for value in values(getattr(p, field), len(data)):
                if value < MOST.get(field, 2**32):
                    graph, wrong = outcome(with_fields(data, **{field: value}))
                    same = graph is None or alike(graph, whole)
                    yield wrong or (None if same else f"{name}: with {field} {value} it runs as another network")


def whole_numbers(x: object, at: tuple = ()) -> Iterator[tuple[tuple, int]]:
    """Every whole number in a tree, and the keys that lead there."""
    if type(x) is int:
        yield at, x
    for key, value in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield from whole_numbers(value, (*at, key))


def put(tree: object, at: tuple, value: object) -> object:
    """A tree with another value in one place."""
    if not at:
        return value
    copy: dict | list = dict(tree) if isinstance(tree, dict) else list(tree)  # type: ignore[call-overload]
    copy[at[0]] = put(copy[at[0]], at[1:], value)
    return copy


def bodies(reader: Reader, data: bytes) -> list[bytes]:
    """The segments of a file in its order."""
    spans = sorted((s.begin, s.end) for rows in reader.segments for s in rows)
    return [data[begin:end] for begin, end in spans]


def trees() -> Iterator[str | None]:
    """Every whole number of every header at every border."""
    for name, data in golden().items():
        reader = Reader(of_bytes(data))
        segments, every = bodies(reader, data), [reader.network, *reader.layers]
        for number, tree in enumerate(every):
            for at, own in whole_numbers(tree):
                for value in [v for v in values(own, len(data)) if v < 2**63] + [-1, -(2**63)]:
                    changed = [*every[:number], put(tree, at, value), *every[number + 1 :]]
                    network, *layers = changed
                    _, wrong = outcome(seal(*texts(network, layers), segments))  # type: ignore[arg-type]
                    yield wrong and f"{name}: {at} of header {number} is {value}: {wrong}"


def near(own: int) -> set[int]:
    """The bytes that a byte is tried with."""
    return {0, 1, 127, 128, 255, (own + 1) % 256, (own - 1) % 256} - {own}


def words() -> Iterator[str | None]:
    """Every byte of every header's text at its borders: counts, tags, places of strings, lengths."""
    for name, data in golden(THREE[:1]).items():
        reader = Reader(of_bytes(data))
        segments, (network, layers) = bodies(reader, data), texts(reader.network, reader.layers)
        every = [network, *layers]
        for number, text in enumerate(every):
            for at, own in enumerate(text):
                for value in near(own):
                    changed = [*every[:number], text[:at] + bytes([value]) + text[at + 1 :], *every[number + 1 :]]
                    _, wrong = outcome(seal(changed[0], changed[1:], segments))
                    yield wrong and f"{name}: byte {at} of header {number} is {value}: {wrong}"


def records() -> Iterator[str | None]:
    """Every byte of the table and of the layers' headers as stored, at its borders."""
    for name, data in golden().items():
        p = Prelude(*HEAD.unpack(data[: HEAD.size]))
        table, begin = PRELUDE + p.network, PRELUDE + p.network + p.table
        every = divided(data[begin : p.headers], data[table:begin], p.layers)
        ends = [begin + sum(map(len, every[: k + 1])) for k in range(len(every))]
        for at in [PRELUDE, *range(table, p.headers)]:
            for value in near(data[at]):
                hurt = bytearray(data)
                hurt[at] = value
                for end, record in zip(ends, every, strict=True):
                    if end - len(record) <= at < end - 4:
                        hurt[end - 4 : end] = struct.pack("<I", zlib.crc32(hurt[end - len(record) : end - 4]))
                _, wrong = outcome(with_fields(bytes(hurt)))
                yield wrong and f"{name}: byte {at} is {value}: {wrong}"


SERIES: dict[str, Series] = {"fields": fields, "trees": trees, "words": words, "records": records}


def every_field(*names: str) -> Count:
    """The trials of some series, in a process of their own."""
    return counted("bench.robust.fields", *(names or SERIES))


if __name__ == "__main__":
    tell_count(lambda arguments: trials(SERIES, arguments))
