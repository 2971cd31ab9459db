"""A batch taken apart by samples: some of them run on one network, some on another, and outputs are put back in their places.

Samples lie along axis 0 of every input and of every output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.formats.tensor import ns
from bitladder.model import Model

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of a model: arrays in order, or one dict by name."""

    given: tuple[Any, ...]

    def arrays(self) -> list[Any]:
        """The arrays, whatever names they have."""
        return [a for part in self.given for a in (part.values() if isinstance(part, Mapping) else (part,))]

    def __len__(self) -> int:
        counts = {len(a) if np.ndim(a) else 0 for a in self.arrays()}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"dial: every input must hold the same number of samples, at least one, got {sorted(counts)}")
        return counts.pop()

    def at(self, which: np.ndarray) -> Batch:
        """The samples of these numbers."""

        def take(part: Any) -> Any:
            if isinstance(part, Mapping):
                return {name: take(a) for name, a in part.items()}
            return (part if hasattr(part, "shape") else np.asarray(part))[which]

        return Batch(tuple(map(take, self.given)))

    def run(self, model: Model, which: np.ndarray | None = None) -> Outputs:
        """What a model makes of these samples, or of those in `which`: numpy arrays by the names of its outputs."""
        part = self if which is None or len(which) == len(self) else self.at(which)
        return by_name(model, model(*part.given), len(self) if which is None else len(which))

    def back(self, outputs: Outputs) -> Any:
        """Outputs as a model would give them for this call: one, a tuple or a dict, tensors where tensors came in."""
        space = next((a for a in self.arrays() if hasattr(a, "detach")), None)
        made = outputs if space is None else {n: ns(space).from_numpy(a).to(space.device) for n, a in outputs.items()}
        if len(made) == 1:
            return next(iter(made.values()))
        return made if len(self.given) == 1 and isinstance(self.given[0], Mapping) else tuple(made.values())


def by_name(model: Model, made: Any, count: int) -> Outputs:
    """What a model returned, as numpy arrays by name; each must hold one row for each sample."""
    names = model.graph.outputs
    if not isinstance(made, Mapping):
        made = dict(zip(names, made if isinstance(made, tuple) else (made,), strict=True))
    out = {name: np.asarray(a.detach().cpu() if hasattr(a, "detach") else a) for name, a in made.items()}
    for name, a in out.items():
        if a.ndim == 0 or len(a) != count:
            raise ValueError(f"dial: output {name!r} must hold a row for each of {count} samples, got shape {a.shape}")
    return out


def placed(whole: Outputs, which: np.ndarray, part: Outputs) -> None:
    """Put the rows of `part` at the places `which` of `whole`."""
    for name, a in part.items():
        whole[name][which] = a


def room(count: int, like: Outputs) -> Outputs:
    """Empty outputs for so many samples."""
    return {name: np.empty((count, *a.shape[1:]), a.dtype) for name, a in like.items()}
