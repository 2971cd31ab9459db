"""Training at low precision: what every file `train_*.py` beside this one measures, one table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

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
        method = importlib.import_module(f"bench.{name}")
        found: list[Row] = method.rows(options.data, options.quick)
        judged: Mapping[str, Figure] = method.figures(found)
        rows += found
        figures |= judged
    return Result("training", tuple(rows), figures, machine(options.threads, options.command), versions())


def alone(rows: Callable[[Path, bool], list[Row]], figures: Callable[[list[Row]], Mapping[str, Figure]]) -> None:
    """One method on the command line: `python -m bench.train_NAME [--quick]`."""
    found = rows(Options().data, "--quick" in sys.argv)
    for row in found:
        print(row)
    print(figures(found))
