"""What is promised about files, tried: kills, failing disks, damage, hostile files, cut files, fuzzing.

Trials that are drawn at random add up over runs in bench/results/robustness.json, each run from a seed of its own; those that
are all there are (every bit of a file, every call of a save) count as of the last run. No failure in N trials drawn at random
means that fewer than 3 in N fail, at 95 %. `python -m bench.robustness NAME...` tries some kinds alone; with
TRIALS FAILURES after one name it adds trials made elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.options import Options, tell
from bench.result import RESULTS, Figure, Result, Row, machine, versions
from bench.robust.bombs import MOST_MIB, MOST_MS, bombs
from bench.robust.count import Count
from bench.robust.damage import damage
from bench.robust.faults import faults
from bench.robust.fields import every_field
from bench.robust.fuzzing import fuzz, mutants
from bench.robust.kills import kills
from bench.robust.prefixes import digits_borders, prefixes, resnet_borders


@dataclass(frozen=True)
class Kind:
    """Trials of one kind: what they are, how many at least, and what makes them of (options, trials so far); None: it cannot.

    every: they are all there are, so that a run replaces the count of the one before.
    """

    says: str
    goal: int
    make: Callable[[Options, int], Count | None]
    every: bool = False


def borders(options: Options) -> Count:
    """Every border of ResNet-20 where its data is, else of the digits."""
    try:
        return resnet_borders(options)
    except FileNotFoundError as error:
        tell(f"robustness: {error}; borders are those of the digits")
        return digits_borders()


KINDS: dict[str, Kind] = {
    "flips": Kind("single bits flipped in three golden files", 10_000, lambda o, past: damage("flips"), every=True),
    "cuts": Kind("beginnings of three golden files", 1_000, lambda o, past: damage("cuts"), every=True),
    "extensions": Kind("bytes after the end of three golden files", 500, lambda o, past: damage("extensions"), every=True),
    "fields": Kind("fields at their borders, checksums good", 10_000, lambda o, past: every_field(), every=True),
    "bombs": Kind("small files that claim gigabytes", 30, lambda o, past: bombs(), every=True),
    "prefixes": Kind("first T bytes of a file, T random", 300, lambda o, past: prefixes(300, past)),
    "borders": Kind("segment borders against shorter beginnings", 50, lambda o, past: borders(o), every=True),
    "kills": Kind("kills during a save", 300, lambda o, past: kills(60 if o.quick else 300, past)),
    "faults": Kind("calls of a save that fail, in every way", 300, lambda o, past: faults(), every=True),
    "mutants": Kind(
        "files mutated by structure, both readers", 100_000, lambda o, past: mutants(10_000 if o.quick else 100_000, past)
    ),
    "fuzz": Kind("inputs of coverage-guided fuzzing", 5_000_000, lambda o, past: fuzz(60 if o.quick else 300, past)),
}
# What else the trials measured: the figure's goal, an upper limit.
LIMITS: dict[str, float] = {"bombs_ms": MOST_MS, "bombs_mib": MOST_MIB, "borders_below": 0}


@dataclass(frozen=True)
class Book:
    """What all runs so far came to: counts by kind, and what else the last ones measured."""

    counts: Mapping[str, Count]
    values: Mapping[str, float]

    @classmethod
    def last(cls, folder: Path = RESULTS) -> Book:
        """What the file of results says."""
        path = folder / "robustness.json"
        if not path.exists():
            return cls({}, {})
        said, kinds = json.loads(path.read_text()), {kind.says: name for name, kind in KINDS.items()}
        counts = {kinds[r["what"]]: Count(r["peer"], r["ours"]) for r in said["rows"] if r["what"] in kinds}
        values = {name: f["value"] for name, f in said["figures"].items() if name in LIMITS and f["value"] is not None}
        return cls(counts, values)

    def plus(self, name: str, found: Count | None) -> Book:
        """The book after trials of a kind that came to this, or that could not be made."""
        if found is None:
            return self
        before = self.counts.get(name)
        count = found if before is None or KINDS[name].every else before + found
        return Book({**self.counts, name: count}, {**self.values, **found.values})

    def rows(self) -> tuple[Row, ...]:
        """A row for every kind that was tried."""
        return tuple(row(kind, self.counts[name]) for name, kind in KINDS.items() if name in self.counts)

    def figures(self) -> dict[str, Figure]:
        """Trials of every kind, a goal only met if none failed, and what was measured."""
        out = {}
        for name, kind in KINDS.items():
            count = self.counts.get(name, Count(0, 0))
            out[f"trials_{name}"] = Figure.at_least(count.trials or None, kind.goal, not count.failures)
        return out | {name: Figure.at_most(self.values.get(name), limit) for name, limit in LIMITS.items()}

    def result(self, options: Options) -> Result:
        """The book as what every benchmark gives."""
        return Result("robustness", self.rows(), self.figures(), machine(options.threads, options.command), versions())


def row(kind: Kind, count: Count) -> Row:
    """Failures, trials, their ratio, and the bound of the failure rate where no random trial failed."""
    bound = 3 / count.trials if count.trials and not count.failures and not kind.every else None
    rate = count.failures / count.trials if count.trials else None
    return Row(kind.says, count.failures, count.trials, "all there are" if kind.every else "trials so far", rate, bound)


def tried(book: Book, name: str, options: Options) -> Book:
    """The book with a kind's trials of now; it is saved at once, so that an interruption loses none."""
    kind, before = KINDS[name], book.counts.get(name)
    found = kind.make(options, before.trials if before else 0)
    said = "not possible here" if found is None else f"{found.trials} trials, {found.failures} failed"
    tell(f"robustness: {kind.says}: {said}{f'; {found.note}' if found and found.note else ''}")
    for line in found.lines if found else ():
        tell(f"robustness:   {line}")
    book = book.plus(name, found)
    book.result(options).save()
    return book


def bench(options: Options) -> Result:
    """Trials of every kind, added to those of earlier runs."""
    book = Book.last()
    for name in KINDS:
        book = tried(book, name, options)
    return book.result(options)


def add(name: str, trials: int, failures: int, folder: Path = RESULTS) -> Path:
    """The file of results, with trials that were made elsewhere added to it."""
    if name not in KINDS or KINDS[name].every:
        names = ", ".join(n for n, kind in KINDS.items() if not kind.every)
        raise ValueError(f"robustness: NAME must be one of {names}, got {name!r}")
    command = f"python -m bench.robustness {name} {trials} {failures}"
    return Book.last(folder).plus(name, Count(trials, failures)).result(Options(command=command)).save(folder)


def main(words: list[str]) -> None:
    """Try some kinds by name, or add TRIALS and FAILURES that were made elsewhere to one."""
    if len(words) == 3 and words[1].isdigit():
        print(add(words[0], int(words[1]), int(words[2])))
        return
    options = Options(quick="--quick" in words, command=f"python -m bench.robustness {' '.join(words)}")
    for name in [word for word in words if word != "--quick"]:
        tried(Book.last(), name, options)


if __name__ == "__main__":
    main(sys.argv[1:])
