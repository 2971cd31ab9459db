"""Runs of `bitladder quantize` that are ended at random moments and started again: the same file comes out, nothing is left.

`python -m bench.robust.resume TRIALS SEED [JOB...]` makes so many trials of each job in one process that forks a child for each
run. Half of the children end at any moment, half at one that matters: as a stage tells of itself, as a file is about to reach
the disk or to get its name. Half are killed, half are interrupted as Ctrl-C does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.robust import jobs
from bench.robust.count import Count, counted, held, tell_count
from bitladder.cli import main
from bitladder.cli.terminal import Terminal

ENDS = (signal.SIGKILL, signal.SIGINT)
HEAVY = (
    "torch",
    "bitladder.cli.commands",
    "bitladder.convert.from_onnx",
    "bitladder.convert.evaluate",
    "bitladder.train.learn",
)
MOST = 120.0  # seconds that a run may take
INTERRUPTED = 130


@dataclass(frozen=True)
class Whole:
    """What a run that nobody ended made: its files by name, how many moments that matter it had, and the seconds it took."""

    files: Mapping[str, bytes]
    moments: int
    took: float


def run(folder: Path, words: Sequence[str], at: int = 0, end: int = signal.SIGKILL) -> int:
    """The process that quantizes in a folder, and sends itself a signal at a moment that matters, if one is named.

    Milliseconds are not measured, since no two runs have the same.
    """
    child = os.fork()
    if child:
        return child
    status, inside = 1, False
    try:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        jobs.untimed()
        state = import_module("bitladder.train.state")
        state.EVERY = state.PATIENCE = 0.0  # keep what was learned after every cycle
        counter = Counter(at, end)
        with counter.watching((Terminal, "progress"), (os, "fsync"), (os, "replace")):
            inside = True
            status = main(["quantize", *jobs.GIVEN, *words])
            inside = False
        (folder / "moments").write_text(str(counter.count))
    except KeyboardInterrupt:  # before the command began or once it was done, else it is the command that let it through
        status = status if inside else INTERRUPTED
    finally:
        os._exit(status)


@dataclass
class Counter:
    """Counts moments; at the one named it sends this process a signal."""

    at: int
    end: int
    count: int = 0

    @contextmanager
    def watching(self, *places: tuple[Any, str]) -> Any:
        """Functions that count their calls until the block ends."""
        usual = [(holder, name, getattr(holder, name)) for holder, name in places]
        for holder, name, function in usual:
            setattr(holder, name, self.counting(function))
        try:
            yield self
        finally:
            for holder, name, function in usual:
                setattr(holder, name, function)

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are moments."""

        def called(*given: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), self.end)
            return function(*given, **named)

        return called


def finished(child: int) -> int:
    """The status of a process that ends by itself, or minus the signal that ended it."""
    end = time.monotonic() + MOST
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder and in those within, by name."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "moments"
    }


def whole(given: Path, folder: Path, words: Sequence[str]) -> Whole:
    """A run from beginning to end."""
    fresh(given, folder)
    began = time.monotonic()
    if status := finished(run(folder, words)):
        raise RuntimeError(f"resume: {' '.join(words)} ended with status {status}")
    return Whole(files(folder), int((folder / "moments").read_text()), time.monotonic() - began)


def fresh(given: Path, folder: Path) -> None:
    """Make the folder what was given and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(given, folder)


def end_early(folder: Path, words: Sequence[str], wanted: Whole, rng: random.Random) -> int:
    """Start a run and end it at a moment that `rng` chooses; how it ended."""
    sign = rng.choice(ENDS)
    if rng.random() < 0.5:
        return finished(run(folder, words, rng.randint(1, wanted.moments), sign))
    child = run(folder, words)
    time.sleep(rng.uniform(0, wanted.took))
    os.kill(child, sign)
    return finished(child)


def trial(given: Path, folder: Path, words: Sequence[str], wanted: Whole, rng: random.Random) -> tuple[bool, str | None]:
    """Whether a run was ended before it was done, and what went wrong: nothing, if all that is promised holds."""
    fresh(given, folder)
    ended = False
    for _ in range(rng.choice((1, 1, 2))):
        status = end_early(folder, words, wanted, rng)
        ended |= status != 0
        if status not in (0, INTERRUPTED, -signal.SIGKILL, -signal.SIGINT):
            return ended, f"a run that was ended has status {status}"
        for name in (jobs.OUT, jobs.TABLE):
            if held(folder / name) not in (b"", wanted.files.get(name, b"")):
                return ended, f"after the end of a run {name} is neither whole nor absent"
        for scrap in folder.glob(".*"):  # of a process that was killed: they go with a write an hour later
            if status == INTERRUPTED:
                return ended, f"an interrupted run left {scrap.name}"
            os.utime(scrap, (0, 0))
    if status := finished(run(folder, words)):
        return ended, f"started again, it ends with status {status}"
    found = files(folder)
    if found.keys() != wanted.files.keys():
        return ended, f"there is {', '.join(sorted(found.keys() ^ wanted.files.keys()))} in one folder only"
    differ = [name for name, data in found.items() if data != wanted.files[name]]
    return ended, f"started again, it makes another {differ[0]}" if differ else None


def trials(arguments: Sequence[str]) -> Count:
    """So many trials, from a seed, of each job or of those that are named."""
    many, rng = int(arguments[0]), random.Random(int(arguments[1]))
    names, outcomes, ended = arguments[2:] or list(jobs.JOBS), list[str | None](), 0
    with tempfile.TemporaryDirectory() as place:
        given, folder = Path(place) / "given", Path(place) / "folder"
        given.mkdir()
        jobs.prepare(given)
        for module in HEAVY:  # once, for all children
            import_module(module)
        for name in names:
            wanted = whole(given, folder, jobs.JOBS[name])
            for _ in range(many):
                early, wrong = trial(given, folder, jobs.JOBS[name], wanted, rng)
                ended += early
                outcomes.append(None if wrong is None else f"{name}: {wrong}")
    return Count.of(outcomes, f"{ended} of {len(outcomes)} runs were ended before they were done")


def resumed(many: int, seed: int, *names: str) -> Count:
    """So many trials of each job, in a process of their own."""
    return counted("bench.robust.resume", many, seed, *names)


if __name__ == "__main__":
    if sys.platform == "win32":
        raise SystemExit("resume: needs processes that fork")
    tell_count(trials)
