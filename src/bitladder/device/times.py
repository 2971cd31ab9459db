"""How long a network takes at each width on this machine: measured once, kept as JSON, read by the dial.

Widths take turns, in an order drawn anew for each round, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import disk
from bitladder.device.machine import Terminal, terminal
from bitladder.model import Model

Profile = Callable[[Model, Any], Mapping[str, float]]  # milliseconds by layer of one call


@dataclass(frozen=True)
class Time:
    """Milliseconds of one call: the median of all rounds, and the quartiles below and above it."""

    milliseconds: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Time:
        """The quartiles of measured seconds.

        >>> Time.of([0.001, 0.002, 0.003])
        Time(milliseconds=2.0, low=1.5, high=2.5)
        """
        low, middle, high = (round(1000 * float(q), 6) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
        return cls(middle, low, high)


@dataclass(frozen=True)
class Times:
    """What `measure` found: a time for each width, where and, if a profile was at hand, milliseconds of layers by width."""

    widths: Mapping[int, Time]
    where: Terminal = field(default_factory=Terminal)
    layers: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON, whole or not at all."""
        table = {
            "widths": {str(b): asdict(t) for b, t in self.widths.items()},
            "where": self.where.json(),
            "layers": {name: {str(b): ms for b, ms in each.items()} for name, each in self.layers.items()},
        }
        with disk.replacing(path) as file:
            file.write((json.dumps(table, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Times:
        """The table that `save` wrote."""
        try:
            said = json.loads(Path(path).read_text(encoding="utf-8"))
            widths = {int(b): Time(**t) for b, t in said["widths"].items()}
            layers = {name: {int(b): float(ms) for b, ms in each.items()} for name, each in said["layers"].items()}
            return cls(widths, Terminal.of_json(said["where"]), layers)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"times: {os.fspath(path)!r} must be a table that Times.save wrote, got {what}; measure again"
            ) from None


def measure(
    model: Model, widths: Sequence[int], example: Any, *, repeats: int = 30, seed: int = 0, profile: Profile | None = None
) -> Times:
    """Milliseconds of a call with `example` at each width: an array, a tuple of them, or a dict by input name.

    profile: milliseconds by layer of one call of a model, where the runtime can say them; the median of three is kept.
    """
    if repeats < 1 or not widths:
        raise ValueError(f"measure: needs a width and repeats from 1 up, got widths {list(widths)} and repeats {repeats}")
    models = {bits: model.at(bits) for bits in widths}
    arrays = example if isinstance(example, tuple) else (example,)
    spent: dict[int, list[float]] = {bits: [] for bits in models}
    for each in models.values():
        each(*arrays)  # the first call prepares
    order = np.random.default_rng(seed)
    for _ in range(repeats):
        for bits in order.permutation(list(models)):
            began = time.perf_counter()
            models[int(bits)](*arrays)
            spent[int(bits)].append(time.perf_counter() - began)
    layers = {} if profile is None else profiled(models, example, profile)
    return Times({bits: Time.of(seconds) for bits, seconds in spent.items()}, terminal(), layers)


def profiled(models: Mapping[int, Model], example: Any, profile: Profile, repeats: int = 3) -> dict[str, dict[int, float]]:
    """Median milliseconds of every layer at every width."""
    found: dict[str, dict[int, float]] = {}
    for bits, model in models.items():
        rounds = [profile(model, example) for _ in range(repeats)]
        for name in rounds[0]:
            found.setdefault(name, {})[bits] = float(np.median([each[name] for each in rounds]))
    return found
