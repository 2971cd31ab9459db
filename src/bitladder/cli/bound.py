"""What a run of `quantize` leaves beside its file: the recipe, and the lock that it is held to or that it writes."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import disk, lock, recipes
from bitladder.cli.arrays import Samples
from bitladder.ir.graph import Graph


@dataclass(frozen=True)
class Bound:
    """Where a file goes, the recipe that makes it, and its lock: `now` what it is made of, `then` what it must be made of.

    table: the file of a sensitivity table that was read or made.
    """

    output: str
    recipe: Mapping[str, Any]
    recipe_out: str | None
    path: str
    now: Mapping[str, Any] | None
    then: Mapping[str, Any] | None
    table: str | None = None

    @classmethod
    def of(
        cls, args: Namespace, recipe_file: str | None, words: Mapping[str, Any], net: Graph, data: Mapping[str, Samples]
    ) -> Bound:
        """What the command line asks for; with --locked, nothing goes on that differs from the lock."""
        if args.lock and args.locked:
            raise ValueError("quantize: --lock writes what --locked reads; give one of them")
        path, told = lock.beside(recipe_file or args.output), recipes.told(words)
        bound = args.lock or args.locked
        hashes = {name: hashed(samples) for name, samples in data.items()} if bound else {}
        now = lock.lock(told, net, hashes, args.table) if bound else None
        then = lock.read(path) if args.locked else None
        if args.lock:
            disk.check_writable(path)
        if then is not None and now is not None:
            lock.check(path, then, now)
        return cls(args.output, told, args.recipe_out, path, now, then, args.table)

    def save(self, write: Callable[[str], None]) -> None:
        """Write the file with `write`, and what goes beside it; a file that is not the lock's stays where it was made."""
        if self.then is not None and self.now is not None:
            made = Path(f"{self.output}.unlocked")
            write(os.fspath(made))
            lock.check_made(self.path, self.then, self.now, made)
            os.replace(made, self.output)
        else:
            write(self.output)
            if self.now is not None:
                lock.write(self.path, self.now, self.output, self.table)
        if self.recipe_out is not None:
            recipes.write(self.recipe_out, self.recipe)


def hashed(samples: Samples) -> dict[str, np.ndarray]:
    """All arrays of some samples, labels among them."""
    return samples.feeds if samples.labels is None else {**samples.feeds, "labels of samples": samples.labels}
