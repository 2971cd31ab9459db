"""How long a network takes at each width on this machine: measured once, kept as JSON, read by the dial.

Widths take turns, in an order drawn anew for each round, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import disk
from bitladder.device.machine import Terminal, terminal
from bitladder.model import Model, by_name, checked


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
    """What `measure` found: a time for each width, where, and milliseconds of layers by the names of their weights."""

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
    model: Model, widths: Sequence[int], example: Any, *, repeats: int = 30, seed: int = 0, layers: bool = False
) -> Times:
    """Milliseconds of a call with `example` at each width: an array, a tuple of them, or a dict by input name.

    layers: profile each layer too, and keep the median; layers that run on the reference together with others are left out.
    """
    if repeats < 1 or not widths:
        raise ValueError(f"measure: needs a width and repeats from 1 up, got widths {list(widths)} and repeats {repeats}")
    models = {bits: model.at(bits) for bits in widths}
    arrays = example if isinstance(example, tuple) else (example,)
    spent: dict[int, list[float]] = {bits: [] for bits in models}
    profiles: dict[int, list[dict[str, float]]] = {bits: [] for bits in models}
    for each in models.values():
        each(*arrays)  # the first call prepares
    order = np.random.default_rng(seed)
    for _ in range(repeats):
        for bits in map(int, order.permutation(list(models))):
            began = time.perf_counter()
            models[bits](*arrays)
            spent[bits].append(time.perf_counter() - began)
            if layers:
                profiles[bits].append(profile(models[bits], arrays))
    return Times({bits: Time.of(seconds) for bits, seconds in spent.items()}, terminal(), medians(profiles))


def profile(model: Model, arrays: tuple[Any, ...]) -> dict[str, float]:
    """Milliseconds of one call by the names of the weights, of those whose layer is a step of its own."""
    feeds = checked(model.whole.inputs, by_name(model.whole.inputs, arrays))
    weights = {node.name: weight for weight, node in model.whole.weights()}
    return {weights[s.node]: s.milliseconds for s in model.engine.profile(feeds, model.bits) if s.node in weights}


def medians(profiles: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, dict[int, float]]:
    """The median of every layer that is in all profiles of a width, by width."""
    found: dict[str, dict[int, float]] = {}
    for bits, rounds in profiles.items():
        for name in rounds[0] if rounds else ():
            found.setdefault(name, {})[bits] = round(float(np.median([each[name] for each in rounds])), 6)
    return found
