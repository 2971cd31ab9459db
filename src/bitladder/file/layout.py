"""What a file gives for how many of its bytes, known from its headers alone."""

from __future__ import annotations

from bitladder.file.container import Reader
from bitladder.file.contents import Entry, Layer, contents
from bitladder.file.reading import Wish, needed


def layers_of(reader: Reader) -> tuple[list[Layer], Wish]:
    """The layers of a file, and the wish for all its planes."""
    wish = Wish.of(None, reader.network["meta"])
    return contents(reader, wish.floors).layers, wish


def stored_bytes(entry: Entry) -> int:
    """How many bytes the codes of a tensor take in the file."""
    return 0 if entry.codes is None else sum(place.size for plane in entry.codes.planes for place in plane)


def sizes(reader: Reader) -> tuple[dict[str, int], dict[int, int]]:
    """How many bytes the codes of each tensor take in a file, and how long a prefix each width needs."""
    layers, wish = layers_of(reader)
    stored = {e.name: stored_bytes(e) for layer in layers for e in layer.entries if e.codes is not None}
    most = max((planes for layer in layers for _, planes in layer.steps.spans.values()), default=0)
    return stored, {b: prefix(reader, layers, Wish(b, False, wish.floors)) for b in range(1, most + 1)}


def prefix(reader: Reader, layers: list[Layer], wish: Wish) -> int:
    """The shortest prefix that has what is wished."""
    return max([reader.prelude.headers, *(needed(reader, layer, wish) for layer in layers)])
