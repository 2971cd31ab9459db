"""A file taken apart: what follows from what, and what is said of each tensor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from bitladder.file.container import Reader
from bitladder.file.contents import Entry, contents
from bitladder.file.fields import Tree
from bitladder.file.reading import Wish
from bitladder.file.source import of_bytes
from bitladder.file.stored import fetch_from
from bitladder.file.units import Unit, in_order, units
from bitladder.file.words import Words


@dataclass(frozen=True)
class Net:
    """A file taken apart: its bytes, its headers, the segments of each layer, and where each tensor lies, by its name."""

    data: bytes
    reader: Reader
    segments: list[dict[int, bytes]]
    entries: Mapping[str, tuple[int, Entry]]

    @classmethod
    def of(cls, data: bytes, name: str) -> Net:
        """A file that must be whole and sound."""
        reader = Reader(of_bytes(data, name))
        reader.require(reader.total)
        there = contents(reader, Wish.of(None, reader.network["meta"]).floors)
        segments = [{n: reader.segment(k, n) for n in range(len(rows))} for k, rows in enumerate(reader.segments)]
        return cls(data, reader, segments, {e.name: (layer.number, e) for layer in there.layers for e in layer.entries})

    def units(self, name: str) -> dict[str, Unit]:
        """The units of a tensor, none if there is no such tensor."""
        if name not in self.entries:
            return {}
        layer, entry = self.entries[name]
        return units(entry, fetch_from(self.segments[layer]))

    @property
    def network(self) -> Tree:
        """The network header without the order of segments, and that as numbers."""
        order, numbers = Words(self.reader.network["order"], "the order of segments"), []
        while order.left:
            numbers.append(order.varint())
        return {**self.reader.network, "order": numbers}

    def outline(self, layer: int) -> Tree:
        """The header of a layer without what follows from its parts: their codings and lengths, and its segments."""
        out = copy.deepcopy({k: v for k, v in self.reader.layers[layer].items() if k != "segments"})
        for part in (part for tree in out["tensors"] for part in in_order(tree)):
            part[1:] = [0, 0]
        return out
