"""Where learning stands, and keeping it in a file so that it can go on: no pickle, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitladder.stats.differences import Differences

Tensor = Any
EVERY = 5.0  # seconds between saves, or more if saving is slow
PATIENCE = 20.0  # learning takes at least so many times as long as saving


@dataclass
class State:
    """Everything that a cycle changes, and nothing else. `whole` is False while half of a cycle's changes are made."""

    trained: Mapping[str, Tensor]
    speed: Mapping[str, Tensor]
    differences: Mapping[str, Differences]
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    whole: bool = True

    @classmethod
    def of(cls, trained: Mapping[str, Tensor], watched: Mapping[str, Tensor]) -> State:
        """The state before the first cycle."""
        speed = {name: torch.zeros_like(w) for name, w in trained.items()}
        zero = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in watched.items()}
        return cls(trained, speed, {name: Differences(0, z, z.clone()) for name, z in zero.items()})

    @property
    def cycle(self) -> int:
        """How many cycles are done."""
        return len(self.losses)

    def tensors(self) -> dict[str, Tensor]:
        """What changes, by name, sharing memory."""
        parts = {
            "weight": self.trained,
            "speed": self.speed,
            "mean": {name: d.mean for name, d in self.differences.items()},
            "deviations": {name: d.deviations for name, d in self.differences.items()},
        }
        return {f"{part}/{name}": x.detach() for part, held in parts.items() for name, x in held.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], losses: Iterable[float], seconds: float) -> None:
        """Become the state that was kept."""
        for name, x in self.tensors().items():
            x.copy_(torch.from_numpy(arrays[name]))
        self.reached(losses, seconds)

    def reached(self, losses: Iterable[float], seconds: float) -> None:
        """Count the cycles of a state whose tensors are already here."""
        self.losses[:] = [float(x) for x in losses]
        self.seconds = float(seconds)
        for moved in self.differences.values():
            moved.count = self.cycle


class Checkpoint:
    """A file that holds a state, and the fingerprint of what the state is of; without a folder, nothing."""

    def __init__(self, work: str | Path | None, fingerprint: Callable[[], str]):
        self.path = None if work is None else Path(work) / "learn" / "state.npz"
        self.key = "" if work is None else fingerprint()
        self.due = time.monotonic() + EVERY

    def resume(self, state: State, cycles: int) -> tuple[str, ...]:
        """Put `state` where it was left. What it returns are lines about a file that was found and not used."""
        if self.path is None or not self.path.exists():
            return ()
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                key, losses, seconds = str(held["key"]), held["losses"], float(held["seconds"])
                fits = key == self.key and len(losses) <= cycles
                arrays = {name: held[name] for name in state.tensors()} if fits else {}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return (self.anew("is damaged"),)
        if key != self.key:
            return (self.anew("is of another network, data or settings"),)
        if not fits:
            return (self.anew(f"is {len(losses)} cycles on, further than the {cycles} asked for"),)
        state.restore(arrays, losses, seconds)
        return ()

    def anew(self, why: str) -> str:
        """A line about a file that is not used."""
        return f"learn: the saved state {str(self.path)!r} {why}; learning starts anew"

    def now_and_then(self, state: State) -> None:
        """Save if it is time."""
        if time.monotonic() >= self.due:
            self.save(state)

    def save(self, state: State) -> None:
        """Write the state to a sibling and rename it; a state that is not whole leaves the last one in place."""
        if self.path is None or not state.whole:
            return
        began = time.monotonic()
        arrays = {name: x.cpu().numpy() for name, x in state.tensors().items()}
        sibling = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with sibling.open("wb") as file:
                np.savez(file, key=self.key, losses=np.array(state.losses, np.float64), seconds=state.seconds, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(sibling, self.path)
        except OSError as error:
            text = f"learn: the state must be writable at {str(self.path)!r}, got: {error}; free space or choose another folder"
            raise OSError(text) from None
        took = time.monotonic() - began
        self.due = time.monotonic() + max(EVERY, PATIENCE * took)


def fingerprint(about: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """A text that changes when any setting or any number does."""
    sum_ = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16)
    for a in arrays:
        sum_.update(f"{a.dtype}{a.shape}".encode())
        sum_.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
    return sum_.hexdigest()
