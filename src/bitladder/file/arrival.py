"""A file of which there may be more to come: what of it is there, and how to get the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from bitladder.errors import Truncated
from bitladder.file.container import Reader
from bitladder.file.layout import sizes
from bitladder.file.reading import from_reader
from bitladder.file.source import Arriving, Source
from bitladder.file.widths import Bits


class Arrival:
    """An open source and the network that is in what has come so far; its codes stay in the source."""

    def __init__(self, source: Source, bits: Bits, whole: bool, most: int, recover: bool):
        self.source, self.most, self.recover = source, most, recover
        self.lock = threading.RLock()
        self.reader = Reader(source, recover)
        self.graph = from_reader(self.reader, bits, most=most, whole=whole, stay=True, recover=recover)

    @property
    def missing(self) -> int:
        """How many bytes of the file are not there."""
        return self.reader.missing

    @property
    def again(self) -> Callable[[], bytes] | None:
        """A function that reads all bytes of the file, if they are there and none had to be worked around."""
        return None if self.missing or self.reader.recovered else self.reader.again

    def more(self, data: bytes | Iterable[bytes] | None, bits: int | None) -> Truncated | None:
        """Read on, and give the error of a source that ended before what was asked for."""
        if data is not None:
            if not isinstance(self.source, Arriving):
                raise TypeError(f"more: {self.source.name!r} is a file, which grows by itself; call more() without data")
            self.source.take(data)
        target = 0 if data is not None and bits is None else self.target(bits)
        before = [self.reader.whole(layer) for layer in range(len(self.reader.layers))]
        self.source.want(target)
        reader = Reader(self.source, self.recover)
        if [reader.whole(layer) for layer in range(len(reader.layers))] != before:
            self.graph = from_reader(reader, most=self.most, stay=True, recover=self.recover)
        self.reader = reader
        if reader.size >= target:
            return None
        text = f"more: {reader.name!r} ends after {reader.size} bytes, must have at least {target} for what was asked"
        return Truncated(f"{text}; fetch the rest", target)

    def target(self, bits: int | None) -> int:
        """How many bytes a width takes; without one, the next width that is not whole."""
        prefixes = sizes(self.reader)[1]
        if bits is None:
            return min((n for n in prefixes.values() if n > self.reader.size), default=self.reader.total)
        return prefixes.get(bits, max(prefixes.values(), default=self.reader.total))
