"""One file that holds a network at every precision (docs/file-format.md).

`save` writes it whole or not at all; `load` reads no further than the bits asked for need, and of a file that is cut what
is there.
"""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import IO, Any

from bitladder.disk import replacing
from bitladder.errors import Unsupported
from bitladder.file import layout
from bitladder.file.arrival import Arrival
from bitladder.file.container import Reader
from bitladder.file.contents import MOST, parameters
from bitladder.file.layout import Overview
from bitladder.file.reading import from_reader
from bitladder.file.source import Opened, Source, is_url, of_bytes, of_chunks, of_url
from bitladder.file.widths import Bits, planes_wanted
from bitladder.file.writing import Gains, to_file
from bitladder.ir.graph import Graph

CHUNK = 2**16  # bytes that are taken at a time from a file object that cannot seek

__all__ = [
    "MOST",
    "Arrival",
    "Bits",
    "Gains",
    "Overview",
    "attach",
    "check_bits",
    "identity",
    "load",
    "load_from",
    "overview",
    "parameters",
    "planes_wanted",
    "save",
    "sizes",
    "source",
    "to_bytes",
]


def save(
    graph: Graph, path: str | os.PathLike[str], *, coder: str = "best", order: str = "plane", gains: Gains | None = None
) -> None:
    """Write `graph` to `path`; the same graph gives the same bytes. What could not be read again is not written.

    coder: "best" for the fewest bytes, "fast" for those that decode at the speed of memory, "raw". order: "layer" (all planes
    of a layer together), "plane" (all layers' first planes, then their second ones), or "importance", with `gains`: for a
    weight and a number of planes the loss that the last of them takes away.
    """
    data = to_file(graph, coder, order, gains)
    try:
        load_from(io.BytesIO(data), os.fspath(path), most=2**63)
    except ValueError as error:
        words = str(error).removeprefix("load: ").removesuffix("; the file is damaged")
        raise Unsupported(f"save: {words}; mend the graph") from None
    with replacing(path) as f:
        f.write(data)


def to_bytes(graph: Graph, coder: str = "raw") -> bytes:
    """The file of `graph`, in memory and unchecked: what the native core reads."""
    return to_file(graph, coder)


def load(path: Any, bits: Bits = None, *, most: int = MOST, recover: bool = False) -> Graph:
    """The graph of a file, or what `graph.at(bits)` would be, reading no more planes than that takes.

    path: a path, bytes, a file object, chunks of bytes, or an address of the web. bits: a width, a width per
    weight, "auto" for the widths the file marks as its default, None for all there is. most: bytes that all decoded tensors
    may take. recover: work around damage; the graph's metadata then says what of it there was.
    """
    check_bits(bits)
    if isinstance(path, str | os.PathLike) and not is_url(path):
        with open(path, "rb", buffering=0) as f:
            return load_from(f, os.fspath(path), bits, most=most, recover=recover)
    return from_reader(Reader(source(path), recover), bits, most=most, whole=bits is None, recover=recover)


def load_from(f: IO[bytes], name: str, bits: Bits = None, *, most: int = MOST, recover: bool = False) -> Graph:
    """The graph in an open binary file that can seek; `name` is what errors call it."""
    check_bits(bits)
    return from_reader(Reader(Opened(f, name), recover), bits, most=most, recover=recover)


def source(place: Any) -> Source:
    """The bytes of a path, of bytes, of a file object, of chunks of bytes, or of an address of the web."""
    if is_url(place):
        return of_url(place)
    if isinstance(place, bytes | bytearray | memoryview):
        return of_bytes(bytes(place))
    if isinstance(place, str | os.PathLike):
        f = open(place, "rb", buffering=0)  # noqa: SIM115  # closed with the source
        opened = Opened(f, os.fspath(place))
        weakref.finalize(opened, f.close)
        return opened
    if hasattr(place, "read"):
        name = str(getattr(place, "name", "file"))
        seekable = getattr(place, "seekable", lambda: hasattr(place, "seek"))()
        return Opened(place, name) if seekable else of_chunks(iter(lambda: place.read(CHUNK), b""), name)
    if isinstance(place, Iterable):
        return of_chunks(place)
    raise TypeError(f"load: must be a path, bytes, a file, chunks of bytes or an address, got {type(place).__name__}")


def attach(place: Any, bits: Bits = None, *, most: int = MOST, recover: bool = False) -> Arrival:
    """A file whose codes stay there, checked as `load` does, with its graph; of chunks no more are taken than that needs.

    The file stays open until nothing needs it, so its name may go or be another file's. What changed in it is `Malformed`.
    """
    check_bits(bits)
    return Arrival(source(place), bits, bits is None and is_url(place), most, recover)


def identity(place: Any) -> str:
    """What tells a file from all others: a hash over its headers, which hold the checksums of the rest, as hexadecimal."""
    return Reader(source(place)).identity.hex()


def sizes(place: Any) -> tuple[dict[str, int], dict[int, int]]:
    """Bytes of the codes of each tensor as stored, and of the prefix that each width needs; only the headers are read."""
    return layout.sizes(Reader(source(place)))


def overview(place: Any, *, recover: bool = False) -> Overview:
    """What a file says of itself, and what each useful prefix of it gives; only the headers are read."""
    return layout.overview(Reader(source(place), recover))


def check_bits(bits: Bits) -> None:
    """Return if `bits` is a width, a width per weight, "auto" or None."""
    if isinstance(bits, str) and bits == "auto":
        return
    for width in bits.values() if isinstance(bits, Mapping) else [bits]:
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise ValueError(f"bits: must be a whole number from 1 up, got {width!r}")
