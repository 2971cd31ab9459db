"""Where the bytes of a file come from: memory, an open file, chunks that arrive one after the other, or a web server.

All of them know how many bytes are at hand, give any span of those, and try to get more when asked.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Protocol


class Source(Protocol):
    """Bytes at hand, which may become more."""

    name: str

    @property
    def size(self) -> int:
        """How many bytes there are now."""

    def want(self, size: int) -> None:
        """Return when there are `size` bytes, or when there will be no more."""

    def span(self, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on, fewer where they end."""


class Opened:
    """An open binary file that can seek; threads and forked processes may share a plain one."""

    def __init__(self, f: IO[bytes], name: str):
        self.f, self.name = f, name
        self.lock = threading.Lock()

    @property
    def size(self) -> int:
        if isinstance(self.f, io.FileIO):
            return os.fstat(self.f.fileno()).st_size
        with self.lock:
            return self.f.seek(0, os.SEEK_END)

    def want(self, size: int) -> None:
        """A file is as long as it is."""

    def span(self, begin: int, size: int) -> bytes:
        if isinstance(self.f, io.FileIO) and hasattr(os, "pread"):
            fd = self.f.fileno()
            return joined(lambda done: os.pread(fd, size - done, begin + done), size)
        with self.lock:
            self.f.seek(begin)
            return joined(lambda done: self.f.read(size - done), size)


def joined(read: Callable[[int], bytes], size: int) -> bytes:
    """`size` bytes, or as many as there are, from a reader that may give fewer than asked at a time."""
    parts: list[bytes] = []
    done = 0
    while done < size and (part := read(done)):
        parts.append(part)
        done += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Arriving:
    """Bytes that come one after the other; `pull(at, upto)` gives the next ones from `at` on, none when they have ended."""

    def __init__(self, pull: Callable[[int, int], bytes], name: str, held: bytes = b""):
        self.pull, self.name = pull, name
        self.held = bytearray(held)
        self.lock = threading.Lock()  # bytes that are looked at cannot grow

    @property
    def size(self) -> int:
        return len(self.held)

    def want(self, size: int) -> None:
        while len(self.held) < size and (part := self.pull(len(self.held), size)):
            self.add(part)

    def span(self, begin: int, size: int) -> bytes:
        with self.lock:
            return bytes(memoryview(self.held)[begin : begin + size])

    def add(self, part: bytes) -> None:
        """One more piece."""
        with self.lock:
            self.held += part

    def take(self, parts: bytes | Iterable[bytes]) -> None:
        """Bytes that somebody else fetched, the next ones."""
        for part in [bytes(parts)] if isinstance(parts, bytes | bytearray | memoryview) else parts:
            self.add(part)


def of_bytes(data: bytes, name: str = "bytes") -> Arriving:
    """Bytes in memory."""
    return Arriving(lambda at, upto: b"", name, data)


def of_chunks(chunks: Iterable[bytes], name: str = "stream") -> Arriving:
    """Chunks of bytes, taken from their iterator when they are needed."""
    rest: Iterator[bytes] = iter(chunks)
    return Arriving(lambda at, upto: next((bytes(c) for c in rest if len(c)), b""), name)


def of_url(url: str) -> Arriving:
    """What a web server holds, read by ranges."""
    from bitladder.file.web import ranges

    return Arriving(ranges(url), url)


def is_url(place: Any) -> bool:
    return isinstance(place, str) and place.startswith(("http://", "https://"))
