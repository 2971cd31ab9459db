"""What a file gives for how many of its bytes, known from its headers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitladder.file.container import Reader
from bitladder.file.contents import Entry, Layer, contents
from bitladder.file.reading import Wish, furthest
from bitladder.formats.tensor import width_of

BETWEEN = 8  # of a file in order of importance, so many prefixes besides those of the widths are told


@dataclass(frozen=True)
class Prefix:
    """What the first `nbytes` bytes of a file give.

    bits: the widest width that is whole, None if even the narrowest is all there is. average: planes of a weight. coded: bits
    that the codes of a weight take in these bytes.
    """

    nbytes: int
    bits: int | None
    average: float
    coded: float


@dataclass(frozen=True)
class Overview:
    """What a file says of itself: its order, what its headers take, and what each prefix of interest gives."""

    identity: str
    policy: str
    header_bytes: int
    file_bytes: int
    missing: int
    stored: dict[str, int]  # bytes of the codes of each tensor
    prefixes: list[Prefix]


def layers_of(reader: Reader) -> tuple[list[Layer], Wish]:
    """The layers of a file, and the wish for all its planes."""
    wish = Wish.of(None, reader.network["meta"])
    return contents(reader, wish.floors, most=2**63).layers, wish


def sizes(reader: Reader) -> tuple[dict[str, int], dict[int, int]]:
    """How many bytes the codes of each tensor take in a file, and how long a prefix each width needs."""
    layers, wish = layers_of(reader)
    stored = {e.name: stored_bytes(e) for layer in layers for e in layer.entries if e.codes is not None}
    return stored, by_width(reader, layers, wish)


def by_width(reader: Reader, layers: list[Layer], wish: Wish) -> dict[int, int]:
    """How long a prefix each width needs."""
    most = max((planes for layer in layers for _, planes in layer.steps.spans.values()), default=0)
    return {b: furthest(reader, layers, Wish(b, False, wish.floors)) for b in range(1, most + 1)}


def overview(reader: Reader) -> Overview:
    """What there is to say of a file."""
    layers, wish = layers_of(reader)
    widths = by_width(reader, layers, wish)
    lengths = set(widths.values()) or {furthest(reader, layers, wish)}
    if reader.network["policy"] == "importance":
        ends = sorted(s.end for rows in reader.segments for s in rows if s.end > min(lengths))
        lengths |= {ends[len(ends) * k // BETWEEN] for k in range(BETWEEN) if ends}
    return Overview(
        reader.identity.hex(),
        reader.network["policy"],
        reader.prelude.headers,
        reader.total,
        reader.missing,
        {e.name: stored_bytes(e) for layer in layers for e in layer.entries if e.codes is not None},
        [given(reader, layers, n, widths) for n in sorted(lengths)],
    )


def given(reader: Reader, layers: list[Layer], nbytes: int, widths: dict[int, int]) -> Prefix:
    """What a prefix of a file gives."""
    elements = planes = size = 0
    for layer in layers:
        rows = reader.segments[layer.number]
        count = next((k for k, s in enumerate(rows) if s.end > nbytes), len(rows))
        for e in layer.entries:
            if e.codes is not None and e.format is not None:
                n = math.prod(e.codes.shape)
                elements += n * width_of(e.format)
                planes += n * (layer.steps.planes(e.name, count) if e.name in layer.steps.spans else e.format.bits)
                size += stored_bytes(e, count)
    whole = max((b for b, n in widths.items() if n <= nbytes), default=None)
    return Prefix(nbytes, whole, planes / max(elements, 1), 8 * size / max(elements, 1))


def stored_bytes(entry: Entry, segments: int | None = None) -> int:
    """How many bytes the codes of a tensor take in the first `segments` segments of its layer, or in all."""
    if entry.codes is None:
        return 0
    places = (place for plane in entry.codes.planes for place in plane)
    return sum(place.size for place in places if segments is None or place.segment < segments)
