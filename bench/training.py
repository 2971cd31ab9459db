"""Training at low precision: what every benchmark `train_*.py` measures, one table."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions


def methods() -> list[str]:
    """The modules that measure a training method, by name."""
    return sorted(path.stem for path in Path(__file__).parent.glob("train_*.py"))


def bench(options: Options) -> Result:
    """The rows and figures of all methods, in the order of their names. A method may leave a state behind to go on from."""
    rows: list[Row] = []
    figures: dict[str, Figure] = {}
    for name in methods():
        tell(f"training: {name}")
        found: Result = importlib.import_module(f"bench.{name}").bench(options)
        rows += found.rows
        figures |= found.figures
    return Result("training", tuple(rows), figures, machine(options.threads, options.command), versions())


def alone(
    name: str, options: Options, rows: Callable[[Path, bool], list[Row]], figures: Callable[[list[Row]], Mapping[str, Figure]]
) -> Result:
    """One method, which is a benchmark too."""
    found = rows(options.data, options.quick)
    return Result(name, tuple(found), figures(found), machine(options.threads, options.command), versions())


def cost(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time."""
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)
