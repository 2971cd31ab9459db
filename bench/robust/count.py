"""What a series of trials came to, and how a series runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOLD = 20  # failures that are told in words


@dataclass(frozen=True)
class Count:
    """Trials, how many of them failed, and the first failures in a line each.

    note: what else the series showed. values: what it measured.
    """

    trials: int
    failures: int
    lines: Sequence[str] = ()
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, outcomes: Iterable[str | None], note: str = "", values: Mapping[str, float] | None = None) -> Count:
        """The count of trials of which each gave None, or what went wrong."""
        every = list(outcomes)
        wrong = [text for text in every if text is not None]
        return cls(len(every), len(wrong), tuple(wrong[:TOLD]), note, values or {})

    def __add__(self, other: Count) -> Count:
        lines, notes = [*self.lines, *other.lines][:TOLD], "; ".join(filter(None, (self.note, other.note)))
        return Count(self.trials + other.trials, self.failures + other.failures, lines, notes, {**self.values, **other.values})


def apart(module: str, *arguments: object, seconds: float = 900, environment: dict[str, str] | None = None) -> Any:
    """What `module`, run with these arguments in a Python of its own, prints as its last line of JSON."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1", **(environment or {})}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(f"bench: {module} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def counted(module: str, *arguments: object, seconds: float = 900, environment: dict[str, str] | None = None) -> Count:
    """The count of the trials that `module` makes in a process of its own."""
    return Count(**apart(module, *arguments, seconds=seconds, environment=environment))


def held(path: Path) -> bytes:
    """What a path holds; nothing if there is no file."""
    return path.read_bytes() if path.exists() else b""


def tell_count(make: Callable[[Sequence[str]], Count]) -> None:
    """The main program of such a module: its arguments to `make`, what that counts as a line of JSON."""
    print(json.dumps(asdict(make(sys.argv[1:]))))
