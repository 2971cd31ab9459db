"""Bytes of a file: a prelude, a network header, a table, a header for each layer, and segments (docs/file-format.md).

This half knows nothing of networks. `pack` takes trees and segments, `seal` texts; a `Reader` gives the trees and any segment,
reading nothing that was not asked for and trusting nothing that it reads.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitladder.codec import parts
from bitladder.codec.parts import BEST, RAW, Part
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.fields import LARGEST_FILE, LAYER, POLICIES, ROOT, Field, Tree, checked, damaged
from bitladder.file.source import Source
from bitladder.file.words import Words, bad, read_table, read_tree, strings, table, tree, varint

MAGIC = b"\x89LAD\r\n\x1a\n"
MAJOR, MINOR = 2, 0
MUST, DELTA = 0xFFFF, 1  # flags that must be understood; the only one there is
MOST_HEADER = 16 * 2**20
MOST_LAYER = 2**20
MOST_LAYERS = 65_535
START = b"NQ"
HEAD = struct.Struct("<8sHHIIIIIIQII")
IDENTITY = 32
PRELUDE = HEAD.size + IDENTITY + 4


class Prelude(NamedTuple):
    """What the first bytes of a file say."""

    magic: bytes
    major: int
    minor: int
    flags: int
    network: int  # bytes of the network header as stored
    decoded: int  # and of its text
    layers: int
    table: int
    records: int  # bytes of all headers of layers
    total: int  # of the whole file
    network_crc: int
    table_crc: int

    @property
    def headers(self) -> int:
        """Where the headers end and segments begin."""
        return PRELUDE + self.network + self.table + self.records


class Kind(NamedTuple):
    """What a file may be: its flags, and the fields of its network header and of its layers' headers."""

    flags: int
    root: Mapping[str, Field]
    layer: Mapping[str, Field]


NETWORK = Kind(0, ROOT, LAYER)


class Segment(NamedTuple):
    """Where bytes of a layer are in the file, and their checksum."""

    begin: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        return self.begin + self.size


# --------------------------------------------------------------------------------------------------------- writing


def pack(
    network: Tree,
    layers: Sequence[Tree],
    segments: Sequence[Sequence[bytes]],
    order: Sequence[int],
    coder: str,
    flags: int = 0,
) -> bytes:
    """The file of the trees of a network and its layers, the segments of each layer, and for each in the file its layer."""
    rows = [[[len(body), zlib.crc32(body)] for body in bodies] for bodies in segments]
    network = {**network, "order": b"".join(map(varint, order))}
    layers = [{**layer, "segments": row} for layer, row in zip(layers, rows, strict=True)]
    rest = [iter(bodies) for bodies in segments]
    return seal(*texts(network, layers), [next(rest[k]) for k in order], coder=coder, flags=flags)


def texts(network: Tree, layers: Sequence[Tree]) -> tuple[bytes, list[bytes]]:
    """The text of the network header, which has the strings of all, and those of the layers' headers."""
    known = strings([network, *layers])
    index = {text: place for place, text in enumerate(known)}
    return table(known) + tree(network, index), [tree(layer, index) for layer in layers]


def seal(
    network: bytes,
    layers: Sequence[bytes],
    segments: Sequence[bytes],
    *,
    coder: str = "raw",
    minor: int = MINOR,
    flags: int = 0,
) -> bytes:
    """The file of texts and segments, with the checksums they have; sense is not asked for, so tests can make nonsense."""
    texts = parts.Texts()
    first = stored(network, coder, texts)
    records = [record(number, text, coder, texts) for number, text in enumerate(layers)]
    lengths = b"".join(varint(len(r)) for r in records)
    sizes = [len(first), len(network), len(layers), len(lengths), sum(map(len, records))]
    total = PRELUDE + len(first) + len(lengths) + sizes[-1] + sum(map(len, segments))
    head = HEAD.pack(MAGIC, MAJOR, minor, flags, *sizes, total, zlib.crc32(first), zlib.crc32(lengths))
    headers = b"".join([first, lengths, *records])
    start = head + hashlib.sha256(head + headers).digest()
    return b"".join([start, struct.pack("<I", zlib.crc32(start)), headers, *segments])


def stored(text: bytes, coder: str, texts: parts.Texts) -> bytes:
    """A coding and the body of the next of the texts."""
    part = texts.encode(text, coder)
    if part.coding != RAW and len(text) > most_text(len(part.body)):
        part = Part(RAW, text)
    return bytes([part.coding]) + part.body


def record(number: int, text: bytes, coder: str, texts: parts.Texts) -> bytes:
    """The header of a layer as stored."""
    body = START + struct.pack("<H", number) + varint(len(text)) + stored(text, coder, texts)
    return body + struct.pack("<I", zlib.crc32(body))


def most_text(size: int) -> int:
    """How long a text the coded bytes of one may stand for."""
    return 64 * size + 1024


# --------------------------------------------------------------------------------------------------------- reading


class Reader:
    """The headers of a file, checked, and its segments on request.

    network, layers: their trees. segments: those of each layer. size: how many bytes were at hand.
    """

    def __init__(self, source: Source, recover: bool = False, kind: Kind = NETWORK):
        self.source, self.name, self.kind, self.recovered, self.size = source, source.name, kind, list[str](), 0
        self.prelude, self.start = opened(source, kind.flags)
        self.identity = self.start[HEAD.size : HEAD.size + IDENTITY]
        self.fetch(self.prelude.headers)
        self.require(self.prelude.headers)
        stored_network, records = self.headers(recover)
        texts = parts.Texts()
        text = decoded(stored_network, self.prelude.decoded, f"the network header of {self.name!r}", texts)
        words = Words(text, "the network header")
        words.texts = read_table(words)
        self.network = checked(read_tree(words), self.kind.root, "the network header", self.newer)
        if not self.newer and self.network["policy"] not in POLICIES:
            raise damaged("policy", f"one of {', '.join(POLICIES)}", self.network["policy"])
        self.room = MOST_HEADER  # for the texts of layers
        self.layers = [self.layer(number, data, texts, words.texts) for number, data in enumerate(records)]
        self.segments = self.placed()

    @property
    def newer(self) -> bool:
        """Whether the file may use words that came after this version."""
        return self.prelude.minor > MINOR

    @property
    def total(self) -> int:
        """The length of the whole file."""
        return self.prelude.total

    @property
    def missing(self) -> int:
        """How many bytes of it are not at hand."""
        return self.total - self.size

    def fetch(self, needed: int) -> None:
        """Ask for `needed` bytes; there may be fewer."""
        self.source.want(needed)
        self.size = self.source.size
        if self.size > self.total:
            raise bad(f"{self.name!r} has {self.size - self.total} bytes after its end")

    def require(self, needed: int) -> None:
        """Return when there are `needed` bytes."""
        if self.size < needed:
            self.fetch(needed)
        if self.size < needed:
            text = f"load: {self.name!r} ends after {self.size} bytes, must have at least {needed} for what was asked"
            raise Truncated(f"{text}; fetch the rest, or ask for fewer bits", needed)

    def headers(self, recover: bool) -> tuple[bytes, list[bytes]]:
        """The network header and the layers' headers as stored, their checksums and the identity checked."""
        p, stop = self.prelude, PRELUDE
        data = self.source.span(stop, p.headers - stop)
        network, lengths, records = (
            data[: p.network],
            data[p.network : p.network + p.table],
            data[p.network + p.table :],
        )
        if zlib.crc32(network) != p.network_crc:
            raise Malformed(f"load: the network header of {self.name!r} has a wrong checksum; fetch the file again")
        same = hashlib.sha256(self.start[: HEAD.size] + data).digest() == self.identity
        if not recover:
            if zlib.crc32(lengths) != p.table_crc:
                raise Malformed(f"load: the table of {self.name!r} has a wrong checksum; fetch the file again")
            if not same:
                raise Malformed(f"load: {self.name!r} is not the file its identity names; fetch the file again")
            return network, divided(records, lengths, p.layers)
        from bitladder.file.recovery import found

        if not same:
            self.recovered.append("the identity does not match")
        try:
            if zlib.crc32(lengths) == p.table_crc:
                return network, divided(records, lengths, p.layers)
        except Malformed:
            pass
        self.recovered.append("the table of layers was damaged and has been rebuilt")
        return network, found(records, p.layers)

    def layer(self, number: int, data: bytes, texts: parts.Texts, known: Sequence[str]) -> Tree:
        """The tree of the next layer's header."""
        where = f"the header of layer {number}"
        if len(data) < 10 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
            raise Malformed(f"load: {where} of {self.name!r} has a wrong checksum; fetch the file again")
        if data[:4] != START + struct.pack("<H", number):
            raise damaged(where, "with the start code of its number", data[:4].hex())
        words = Words(data[4:-4], where)
        length = words.varint()
        if length > MOST_LAYER:
            raise damaged(where, f"at most {MOST_LAYER} bytes long", length)
        if (room := self.room - length) < 0:
            raise damaged("headers of layers", f"at most {MOST_HEADER} bytes long together", MOST_HEADER - room)
        self.room = room
        text = decoded(words.take(words.left), length, where, texts)
        return checked(read_tree(Words(text, where, known)), self.kind.layer, where, self.newer)

    def placed(self) -> list[list[Segment]]:
        """The segments of each layer, laid one after the other as the order says; they must end where the file does."""
        rows = [iter(layer["segments"]) for layer in self.layers]
        out: list[list[Segment]] = [[] for _ in rows]
        words, at = Words(self.network["order"], "the order of segments"), self.prelude.headers
        while words.left:
            if (layer := words.varint()) >= len(rows) or (row := next(rows[layer], None)) is None:
                raise bad(f"the order of segments names layer {layer} too often")
            out[layer].append(Segment(at, *row))
            if (at := at + row[0]) > self.total:
                break
        if at != self.total or any(next(rest, None) is not None for rest in rows):
            raise bad(f"the segments of {self.name!r} end at {at}, must end at {self.total} and all be named")
        return out

    def segment(self, layer: int, number: int) -> bytes:
        """The bytes of a segment, checked."""
        s = self.segments[layer][number]
        self.require(s.end)
        data = self.source.span(s.begin, s.size)
        if len(data) != s.size:
            raise Malformed(f"load: {self.name!r} has become shorter since it was opened; fetch the file again")
        if zlib.crc32(data) != s.crc:
            where = f"segment {number} of layer {layer} ({self.layers[layer]['name']!r})"
            raise Malformed(f"load: {where} of {self.name!r} has a wrong checksum; fetch the file again")
        return data

    def whole(self, layer: int) -> int:
        """How many of a layer's segments are at hand, from the first on."""
        rows = self.segments[layer]
        return next((k for k, s in enumerate(rows) if s.end > self.size), len(rows))

    def again(self) -> bytes:
        """All bytes at hand, if the file still has the headers it had."""
        data = self.source.span(0, self.size)
        if len(data) != self.size or data[:PRELUDE] != self.start:
            raise Malformed(f"load: {self.name!r} has changed since it was opened; load it again")
        return data


def opened(source: Source, flags: int = 0) -> tuple[Prelude, bytes]:
    """The prelude of a file, and its bytes."""
    source.want(PRELUDE)
    start, name = source.span(0, PRELUDE), source.name
    if MAGIC[: len(start)] != start[: len(MAGIC)]:
        raise Malformed(f"load: {name!r} does not begin like a ladder file; give a file that quantize wrote")
    if len(start) < PRELUDE:
        text = f"load: {name!r} ends after {len(start)} bytes, must have at least {PRELUDE} for what was asked"
        raise Truncated(f"{text}; fetch the rest", PRELUDE)
    p = Prelude(*HEAD.unpack(start[: HEAD.size]))
    if p.major != MAJOR:
        raise Unsupported(f"load: {name!r} has format {p.major}.{p.minor}, must be {MAJOR}.x for this version; install another")
    if struct.unpack("<I", start[-4:])[0] != zlib.crc32(start[:-4]):
        raise Malformed(f"load: the first {PRELUDE} bytes of {name!r} have a wrong checksum; fetch the file again")
    if p.flags & MUST & ~DELTA:
        raise Unsupported(f"load: {name!r} has flags {p.flags & MUST:#x}, unknown here; install a version that has them")
    if flags & DELTA & ~p.flags:
        raise Malformed(f"load: {name!r} is a network of its own; give a file that diff wrote")
    if p.flags & DELTA & ~flags:
        raise Unsupported(f"load: {name!r} holds only what differs from another file; give it together with that one")
    for what, value, most in (
        ("a network header", p.network, MOST_HEADER),
        ("a decoded network header", p.decoded, MOST_HEADER),
        ("headers of layers", p.records, MOST_HEADER),
        ("layers", p.layers, min(MOST_LAYERS, p.table)),
        ("a table", p.table, 10 * p.layers),
        ("bytes in all", p.total, LARGEST_FILE),
    ):
        if value > most:
            raise damaged(f"{name!r}", f"a file with {what} of at most {most}", value)
    return p, start


def divided(records: bytes, lengths: bytes, layers: int) -> list[bytes]:
    """The header of each layer, as long as the table says."""
    words, out, at = Words(lengths, "the table of layers"), [], 0
    for _ in range(layers):
        size = words.varint()
        out.append(records[at : at + size])
        at += size
    words.end()
    if at != len(records):
        raise damaged("the table of layers", f"of {len(records)} bytes together", at)
    return out


def decoded(data: bytes, length: int, where: str, texts: parts.Texts) -> bytes:
    """The next of the texts, of `length` bytes, from its coding and body."""
    if not data or data[0] not in (RAW, BEST) or (data[0] != RAW and length > most_text(len(data) - 1)):
        raise damaged(where, "a coding and enough bytes", data[:1].hex())
    try:
        return texts.decode(Part(data[0], data[1:]), length)
    except ValueError as error:
        raise bad(f"{where}: {error}") from None
