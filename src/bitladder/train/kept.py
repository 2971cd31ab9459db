"""A file that holds where a run of training stands, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bitladder.train.group import Group


class Kept:
    """The state of a run; without a file, nothing. `whole` is False while half of a step is made.

    held: what changes, by name, each with a `state_dict`. key: a text that says what run it is (`state.fingerprint`).
    """

    def __init__(self, path: Path | None, key: str, group: Group, held: Mapping[str, Any]):
        self.path, self.key, self.group, self.held, self.whole = path, key, group, held, True

    def resume(self) -> int:
        """How many steps are done, with everything as it was then; the first process's, whatever the others can see."""
        here = self.path is not None and self.group.rank == 0 and self.path.exists()
        found = [torch.load(self.path, weights_only=True) if here else None]
        if self.group.size > 1:
            dist.broadcast_object_list(found)
        kept = found[0]
        if kept is None:
            return 0
        if kept["key"] != self.key:
            raise ValueError(
                f"training: the saved state {str(self.path)!r} is of another network, data or settings; delete it to start anew"
            )
        for name, thing in self.held.items():
            thing.load_state_dict(kept["held"][name])
        return int(kept["step"])

    def save(self, step: int) -> None:
        """Write the state to a sibling and rename it; half a step leaves the last one in place."""
        if self.path is None or not self.whole or self.group.rank:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        sibling = self.path.with_suffix(".part")
        held = {name: thing.state_dict() for name, thing in self.held.items()}
        with sibling.open("wb") as file:
            torch.save({"held": held, "step": step, "key": self.key}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(sibling, self.path)
