"""What a command says: progress while it works, then one table, the path of what it wrote, and JSON if asked."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REDRAW = 0.1  # seconds between two drawings of a plain progress line


@dataclass(frozen=True)
class Outcome:
    """What a command found: lines to read, a table, the path written, facts for JSON, and whether the goal was met."""

    table: str
    wrote: str | None = None
    lines: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    met: bool = True


class Terminal:
    """Standard output and error of one command; progress is drawn only if someone watches."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.bars: Any = None
        self.tasks: dict[str, Any] = {}
        self.drawn, self.last = 0, 0.0

    def __enter__(self) -> Terminal:
        if self.live:
            self.bars = rich_bars()
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()
        self.clear()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Draw how far a stage is; a total of 0 means that nobody knows."""
        if not self.live:
            return
        if self.bars is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total or None)
            self.bars.update(self.tasks[stage], completed=done, total=total or None)
        elif time.monotonic() - self.last > REDRAW or done == total:
            self.last = time.monotonic()
            text = f"{stage} {done}/{total}" if total else f"{stage} {done}" if done else stage
            sys.stderr.write("\r" + text.ljust(self.drawn))
            sys.stderr.flush()
            self.drawn = len(text)

    def clear(self) -> None:
        """Wipe the plain progress line."""
        if self.drawn:
            sys.stderr.write("\r" + " " * self.drawn + "\r")
            self.drawn = 0

    def finish(self, outcome: Outcome, as_json: bool) -> None:
        """Print what a command found."""
        if not self.quiet:
            for line in outcome.lines:
                print(line)
            if outcome.table:
                print(outcome.table)
            if outcome.wrote is not None:
                size = f" ({os.path.getsize(outcome.wrote):,} bytes)" if os.path.isfile(outcome.wrote) else ""
                print(f"wrote {outcome.wrote}{size}")
        if as_json:
            print(json.dumps(plain({**outcome.facts, "wrote": outcome.wrote, "goal_met": outcome.met}), allow_nan=False))
        sys.stdout.flush()

    def fail(self, text: str) -> None:
        """Print the one line of an error."""
        self.clear()
        print(f"bitladder: {text}", file=sys.stderr)


def rich_bars() -> Any:
    """Progress bars, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        return None
    return Progress(console=Console(stderr=True), transient=True)


def plain(x: Any) -> Any:
    """`x` as JSON has it: text for keys, numbers of Python, null for what is not finite."""
    if isinstance(x, Mapping):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, tuple | list):
        return [plain(v) for v in x]
    if hasattr(x, "tolist"):
        return plain(x.tolist())
    return None if isinstance(x, float) and not math.isfinite(x) else x
