"""What a benchmark says: rows, figures, the machine and the versions; as a table, as JSON, as a file in bench/results/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import bitladder
from bitladder.table import table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "torch", "scipy", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True)
class Row:
    """One comparison: what we measured, what the named peer did, ours / peer, and half of a 95 % interval of the difference."""

    what: str
    ours: float | None
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, what: str, ours: float, peer: float | None = None, peer_name: str = "", spread: float | None = None) -> Row:
        """A row with its ratio worked out."""
        return cls(what, ours, peer, peer_name, ours / peer if peer else None, spread)

    @classmethod
    def hits(cls, what: str, ours: np.ndarray, peer: np.ndarray, peer_name: str) -> Row:
        """Top-1 accuracies in per cent, from which images each got right; the interval is of paired answers, in points.

        >>> Row.hits("ours", np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1]), "theirs").ours
        75.0
        """
        difference = np.subtract(ours, peer, dtype=np.float64)
        spread = 1.96 * float(difference.std()) / len(difference) ** 0.5
        return cls.of(f"{what}, top-1 %", 100 * float(ours.mean()), 100 * float(peer.mean()), peer_name, 100 * spread)


@dataclass(frozen=True)
class Figure:
    """A number that was asked for: its value, the goal, and whether it is met. Without a goal it is met once measured."""

    value: float | None
    goal: float | None
    met: bool

    @classmethod
    def at_most(cls, value: float | None, goal: float | None, best: float | None = None) -> Figure:
        """Met when `value`, or the better end of its interval, is no more than the goal.

        >>> Figure.at_most(0.6, 0.5, best=0.4).met, Figure.at_most(0.6, 0.5).met, Figure.at_most(None, 0.5).met
        (True, False, False)
        """
        judged = value if best is None else best
        return cls(value, goal, judged is not None and (goal is None or judged <= goal))

    @classmethod
    def at_least(cls, value: float | None, goal: float, provided: bool = True) -> Figure:
        """Met when `value` is no less than the goal, provided that what it rests on holds."""
        return cls(value, goal, value is not None and value >= goal and provided)

    @classmethod
    def below(cls, value: float | None, goal: float) -> Figure:
        """Met when `value` is less than the goal."""
        return cls(value, goal, value is not None and value < goal)


@dataclass(frozen=True)
class Result:
    """Everything that one benchmark found."""

    bench: str
    rows: tuple[Row, ...]
    figures: Mapping[str, Figure]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    def json(self) -> dict[str, Any]:
        """The one object that `--json` prints."""
        return {
            "bench": self.bench,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "rows": [{k: rounded(v) for k, v in asdict(row).items()} for row in self.rows],
            "figures": {name: {k: rounded(v) for k, v in asdict(f).items()} for name, f in self.figures.items()},
        }

    def save(self, folder: Path = RESULTS) -> Path:
        """The file it was written to."""
        folder.mkdir(parents=True, exist_ok=True)
        path, part = folder / f"{self.bench}.json", folder / f"{self.bench}.json.part"
        part.write_text(json.dumps(self.json(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        return path

    def text(self) -> str:
        """Two tables, and what they were measured with."""
        rows = [
            (r.what, r.ours, r.peer, r.peer_name, r.ratio, "" if r.spread is None else f"+-{r.spread:.3g}") for r in self.rows
        ]
        figures = [(name, f.value, f.goal, f.met) for name, f in self.figures.items()]
        about = [f"{k} {v}" for part in (self.machine, self.versions) for k, v in part.items()]
        return "\n".join(
            [
                table(("what", "ours", "peer", "peer is", "ratio", "spread"), rows),
                "",
                table(("figure", "value", "goal", "met"), figures),
                "",
                ", ".join(about),
            ]
        )


def rounded(value: Any) -> Any:
    """A float with six digits, anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def machine(threads: int, command: str) -> dict[str, Any]:
    """What ran the benchmark, and how."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "command": command,
    }


def cpu() -> str:
    """The processor's name, as the system has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Python and the packages that results depend on; those that are not installed are left out."""
    found = {"bitladder": bitladder.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
