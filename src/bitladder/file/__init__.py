"""One file that holds a network at every precision (docs/file-format.md).

`save` writes it whole or not at all; `load` reads one contiguous prefix, as long as the bits asked for need and no longer.
"""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Callable, Mapping
from typing import IO

from bitladder.disk import replacing
from bitladder.errors import Unsupported
from bitladder.file.container import Reader, pack
from bitladder.file.header import Bits, planes_wanted, to_header
from bitladder.file.reading import from_header, layout, parameters
from bitladder.ir.graph import Graph

__all__ = ["Bits", "attach", "check_bits", "load", "load_from", "parameters", "planes_wanted", "save", "sizes", "to_bytes"]


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write `graph` to `path`; the same graph gives the same bytes. What could not be read again is not written."""
    data = pack(*to_header(graph))
    try:
        load_from(io.BytesIO(data), os.fspath(path))
    except ValueError as error:
        words = str(error).removeprefix("load: ").removesuffix("; the file is damaged")
        raise Unsupported(f"save: {words}; mend the graph") from None
    with replacing(path) as f:
        f.write(data)


def to_bytes(graph: Graph) -> bytes:
    """The file of `graph`, in memory and unchecked: what the native core reads."""
    return pack(*to_header(graph))


def load(path: str | os.PathLike[str], bits: Bits = None) -> Graph:
    """The graph of a file, or what `graph.at(bits)` would be, reading no more planes than that takes.

    bits: a width, a width per weight, "auto" for the widths the file marks as its default, None for all there is.
    """
    with open(path, "rb", buffering=0) as f:
        return load_from(f, os.fspath(path), bits)


def attach(path: str | os.PathLike[str], bits: Bits = None) -> tuple[Graph, Callable[[], bytes]]:
    """The graph of a file whose codes stay there, checked as `load` does, and a function that reads the file again.

    The file stays open until nothing needs it, so its name may go or be another file's. What changed in it is `Malformed`.
    """
    check_bits(bits)
    f = open(path, "rb", buffering=0)  # noqa: SIM115  # closed with its reader
    try:
        reader = Reader(f, os.fspath(path))
        weakref.finalize(reader, f.close)
        return from_header(reader, bits, stay=True), reader.again
    except BaseException:
        f.close()
        raise


def load_from(f: IO[bytes], name: str, bits: Bits = None) -> Graph:
    """The graph in an open binary file that can seek; `name` is what errors call it."""
    check_bits(bits)
    return from_header(Reader(f, name), bits)


def sizes(path: str | os.PathLike[str]) -> tuple[dict[str, int], dict[int, int]]:
    """Bytes of the codes of each tensor as stored, and of the prefix that each width needs; only the header is read.

    Call it for a file that `load` accepts.
    """
    with open(path, "rb") as f:
        return layout(Reader(f, os.fspath(path)))


def check_bits(bits: Bits) -> None:
    """Return if `bits` is a width, a width per weight, "auto" or None."""
    if isinstance(bits, str) and bits == "auto":
        return
    for width in bits.values() if isinstance(bits, Mapping) else [bits]:
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise ValueError(f"bits: must be a whole number from 1 up, got {width!r}")
