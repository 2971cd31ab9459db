"""What a quantization is asked for: a goal, and how its search goes about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitladder.assign.budget import MILLISECONDS, target
from bitladder.assign.classes import MODES
from bitladder.assign.criteria import parts
from bitladder.assign.search import SEARCHES
from bitladder.assign.solve import SOLVERS
from bitladder.assign.times import NATIVE, TIMES
from bitladder.errors import require
from bitladder.stats.differences import NORMALIZATIONS, STATISTICS


@dataclass(frozen=True)
class Goal:
    """What a search is asked for, and how it goes about it."""

    criterion: str = "weight_difference"
    search: str = "bisection"
    statistic: str = "mean_square"
    normalize: str = "none"
    start: str = "float"
    cycles: int = 100
    low: int = 4
    count: int | None = None
    skip_smallest: bool = False
    accept_at_most: int = 0
    head_rule: str = "log2"
    max_drop: float | None = None
    budget: str | None = None
    seed: int = 0
    keep: int | None = None
    work: Path | None = None
    table: Path | None = None
    levels: str | None = None
    times: str = NATIVE

    @property
    def by_table(self) -> bool:
        """Whether a sensitivity table finds the plan."""
        return self.table is not None or (self.budget is not None and target(self.budget)[0] == MILLISECONDS)

    def __post_init__(self) -> None:
        words: dict[str, Mapping[str, Any]] = {
            "search": SEARCHES | SOLVERS,
            "statistic": STATISTICS,
            "normalize": NORMALIZATIONS,
            "head_rule": MODES,
            "times": TIMES,
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ValueError(f"quantize: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        parts(self.criterion)
        for name, least in {"low": 1, "cycles": 1, "keep": 2, "count": 0, "accept_at_most": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"quantize: {name} must be at least {least}, got {value}")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"quantize: max_drop must be a fraction in [0, 1), got {self.max_drop}; one point is 0.01")
        if self.budget is not None:
            target(self.budget)
        asks = {"search": self.search in SOLVERS, "levels": self.levels is not None, "times": self.times != NATIVE}
        for name, asked in asks.items():
            if asked and not self.by_table:
                raise ValueError(f"quantize: {name} {getattr(self, name)!r} is for sensitivity tables; name one with table")
        if self.times != NATIVE:
            require(self.times, "onnx", f"quantize: times {self.times}")
        if self.search == "budget" and self.budget is None:
            raise ValueError("quantize: search budget needs a budget such as 0.5MB or avg_bits=4; give one")
        if self.search == "count" and self.count is None:
            raise ValueError("quantize: search count needs the number of layers; give count")
