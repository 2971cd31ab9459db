"""A process that saves again and again is killed at a random moment: its path holds a whole file, the old or the new one.

`python -m bench.robust.kills TRIALS SEED` makes the trials in one process that forks a child for each; half of the children
are killed at any moment, half soon after a new file has appeared beside the path, while it is being written.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.robust.count import Count, counted, held, tell_count
from bench.robust.subjects import heavy
from bitladder import disk, file
from bitladder.ir.graph import Graph

NAME = "net.ladder"
LONGEST = 10.0  # seconds that a child may take to begin writing


def saving(graphs: Sequence[Graph], path: Path) -> int:
    """The process that saves the networks in turn, for ever."""
    child = os.fork()
    if child:
        return child
    try:
        while True:
            for graph in graphs:
                file.save(graph, path, coder="raw")
    finally:
        os._exit(1)


def writing(path: Path, sizes: Sequence[int]) -> bool:
    """Whether a new file is beside the path, or the one that has it is of another size."""
    return len(os.listdir(path.parent)) > 1 or not path.exists() or path.stat().st_size not in sizes


def kill(graphs: Sequence[Graph], sizes: Sequence[int], path: Path, rng: random.Random, took: float) -> None:
    """Start saving, and end it by force at a moment that `rng` chooses."""
    child = saving(graphs, path)
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 2 * took))
    else:
        end = time.monotonic() + LONGEST
        while not writing(path, sizes) and time.monotonic() < end:
            time.sleep(0)
        time.sleep(rng.choice((0.0, 1e-4, 1e-3, 1e-2)) * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def trial(
    graphs: Sequence[Graph], files: Sequence[bytes], path: Path, rng: random.Random, took: float
) -> tuple[bool, str | None]:
    """Whether the kill came while a file was written, and what went wrong: nothing, if all that is promised holds."""
    kill(graphs, [len(data) for data in files], path, rng, took)
    has, left = held(path), [name for name in os.listdir(path.parent) if name != NAME]
    if has not in files:
        return bool(left), f"the path holds {len(has)} bytes that are neither file"
    try:
        file.load(path)
        file.save(graphs[0], path, coder="raw")
    except (OSError, ValueError) as error:
        return bool(left), f"after a kill: {error}"
    if path.read_bytes() != files[0]:
        return bool(left), "the save after a kill wrote something else"
    return bool(left), swept(path, left)


def swept(path: Path, left: Sequence[str]) -> str | None:
    """What a save an hour later leaves of what a killed one left; None if nothing."""
    for name in left:
        with suppress(FileNotFoundError):
            os.utime(path.with_name(name), (0, 0))
    disk.sweep(path)
    rest = [name for name in os.listdir(path.parent) if name != NAME]
    return f"{rest[0]} stays for ever" if rest else None


def trials(arguments: Sequence[str]) -> Count:
    """So many kills from a seed."""
    many, rng = int(arguments[0]), random.Random(int(arguments[1]))
    graphs = [heavy(0), heavy(1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        files, took = [], 0.0
        for graph in reversed(graphs):
            began = time.monotonic()
            file.save(graph, path, coder="raw")
            took = time.monotonic() - began
            files.insert(0, path.read_bytes())
        found = [trial(graphs, files, path, rng, took) for _ in range(many)]
    amid = sum(wrote for wrote, _ in found)
    return Count.of((wrong for _, wrong in found), f"{amid} of {many} came while a file was being written")


def kills(many: int, seed: int) -> Count:
    """So many kills, in a process of their own."""
    return counted("bench.robust.kills", many, seed)


if __name__ == "__main__":
    tell_count(trials)
