"""What an interrupted benchmark has measured already: one small file each, thrown away once the benchmark is done."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bitladder

FOLDER = Path(__file__).parent / ".work"
ROOMS = ("assign", "convert", "formats", "ir", "ptq", "runtime", "stats", "train")  # whose code results depend on
OURS = ("cifar", "resnet", "subject")


@dataclass(frozen=True)
class Measured:
    """An array that was measured, and the processor seconds that it took (all threads)."""

    value: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Work:
    """Measured values of one benchmark by key; keys hold for the same code and the same `about`."""

    folder: Path
    about: str

    @classmethod
    def of(cls, bench: str, *about: object) -> Work:
        """The work of a benchmark about these things: networks, data, settings."""
        return cls(FOLDER / bench, f"{code()}{about!r}")

    def __call__(self, key: str, make: Callable[[], np.ndarray]) -> Measured:
        """What was measured under `key` before the interruption, else what `make` gives now."""
        path = self.folder / f"{hashlib.sha256(f'{self.about}{key}'.encode()).hexdigest()[:32]}.npz"
        if path.exists():
            with np.load(path) as kept:
                return Measured(kept["value"], float(kept["seconds"]))
        began = time.process_time()
        measured = Measured(np.asarray(make()), time.process_time() - began)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, value=measured.value, seconds=measured.seconds)
        part.replace(path)
        return measured

    def done(self) -> None:
        """Throw everything away: the next run measures anew."""
        shutil.rmtree(self.folder, ignore_errors=True)


def code() -> str:
    """A hash of the source that measured values depend on."""
    return source(("", *ROOMS), OURS)


def source(rooms: Iterable[str], ours: Iterable[str]) -> str:
    """A hash of the Python files of some folders of the package, and of some modules here."""
    root, here = Path(bitladder.__file__).parent, Path(__file__).parent
    files = [f for room in rooms for f in sorted((root / room).glob("*.py"))]
    return digest(f.read_bytes() for f in [*files, *(here / f"{name}.py" for name in ours)])


def digest(parts: Iterable[bytes]) -> str:
    """A hash of bytes, one part after the other."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.hexdigest()[:32]
