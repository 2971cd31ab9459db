"""Losses that outlive the process: one JSON line each, appended as they come, so a search goes on where it stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path


class Journal(MutableMapping[str, float]):
    """A mapping of text to number that writes every new entry to `path` at once.

    The first line names `about`: what the numbers depend on (network, data, formats). A file about something else is
    started anew, and `fresh` says why. Each line carries a checksum; a line torn by a crash, and all after it, are dropped.
    """

    def __init__(self, path: str | Path, about: str):
        self.path, self.about = Path(path), about
        self.fresh: str | None = None
        self.entries: dict[str, float] = {}
        kept = self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(kept)
        if kept == 0:
            self._append({"about": about})

    def _read(self) -> int:
        """How many bytes of the file are good; their entries are taken in."""
        if not self.path.exists():
            return 0
        kept = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            entry = parsed(line)
            if entry is None:
                break
            if kept == 0 and entry.get("about") != self.about:
                self.fresh = f"journal: {str(self.path)!r} is about another network, data or settings; it is started anew"
                return 0
            if "key" in entry:
                self.entries[entry["key"]] = float(entry["value"])
            kept += len(line)
        return kept

    def _append(self, entry: dict[str, object]) -> None:
        text = json.dumps(entry)
        with self.path.open("ab") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def __getitem__(self, key: str) -> float:
        return self.entries[key]

    def __setitem__(self, key: str, value: float) -> None:
        self._append({"key": key, "value": float(value)})
        self.entries[key] = float(value)

    def __delitem__(self, key: str) -> None:
        raise TypeError(
            f"journal: entries are only ever added, {key!r} cannot be deleted; delete {str(self.path)!r} to start anew"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def parsed(line: bytes) -> dict | None:
    """The entry of a whole line with the right checksum, else None."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
        return None
    entry = json.loads(text)
    return entry if isinstance(entry, dict) else None
