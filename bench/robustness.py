"""What is promised about files, tried: kills, failing disks, damage, hostile files, cut files, fuzzing.

Trials that are drawn at random add up over runs in bench/results/robustness.json, each run from a seed of its own; those that
are all there are (every bit of a file, every call of a save) count as of the last run. No failure in N trials drawn at random
means that fewer than 3 in N fail, at 95 %. `python -m bench.robustness NAME TRIALS FAILURES` adds trials made elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.options import Options, tell
from bench.result import RESULTS, Figure, Result, Row, machine, versions
from bench.robust.count import Count
from bench.robust.faults import faults
from bench.robust.kills import kills


@dataclass(frozen=True)
class Kind:
    """Trials of one kind: what they are, how many at least, and what makes them of (options, trials so far); None: it cannot.

    every: they are all there are, so that a run replaces the count of the one before.
    """

    says: str
    goal: int
    make: Callable[[Options, int], Count | None]
    every: bool = False


KINDS: dict[str, Kind] = {
    "kills": Kind("kills during a save", 300, lambda o, past: kills(60 if o.quick else 300, past)),
    "faults": Kind("calls of a save that fail, in every way", 300, lambda o, past: faults(), every=True),
}
# What else the trials measured: the figure's goal, an upper limit.
LIMITS: dict[str, float] = {}


def past(folder: Path = RESULTS) -> dict[str, Count]:
    """The counts of all runs so far, by kind."""
    path = folder / "robustness.json"
    if not path.exists():
        return {}
    kinds = {kind.says: name for name, kind in KINDS.items()}
    rows = json.loads(path.read_text())["rows"]
    return {kinds[r["what"]]: Count(r["peer"], r["ours"]) for r in rows if r["what"] in kinds}


def row(kind: Kind, count: Count) -> Row:
    """Failures, trials, their ratio, and the bound of the failure rate where no random trial failed."""
    bound = 3 / count.trials if count.trials and not count.failures and not kind.every else None
    rate = count.failures / count.trials if count.trials else None
    return Row(kind.says, count.failures, count.trials, "all there are" if kind.every else "trials so far", rate, bound)


def figures(counts: Mapping[str, Count]) -> dict[str, Figure]:
    """Trials and failures of every kind, and what was measured; a kind never tried misses its goal."""
    out = {}
    for name, kind in KINDS.items():
        count = counts.get(name)
        out[f"{name}_trials"] = Figure.at_least(count and count.trials, kind.goal)
        out[f"{name}_failures"] = Figure.at_most(count and count.failures, 0)
    values = {key: value for count in counts.values() for key, value in count.values.items()}
    return out | {name: Figure.at_most(values.get(name), limit) for name, limit in LIMITS.items()}


def summed(kind: Kind, before: Count | None, found: Count | None) -> Count | None:
    """What is known of a kind after a run that found this, or nothing."""
    if found is None or before is None or kind.every:
        return found or before
    return before + found


def result(counts: Mapping[str, Count], options: Options) -> Result:
    """The counts as what every benchmark gives."""
    rows = tuple(row(KINDS[name], counts[name]) for name in KINDS if name in counts)
    return Result("robustness", rows, figures(counts), machine(options.threads, options.command), versions())


def bench(options: Options) -> Result:
    """Trials of every kind, added to those of earlier runs."""
    counts = past()
    for name, kind in KINDS.items():
        before = counts.get(name)
        found = kind.make(options, before.trials if before else 0)
        said = "not possible here" if found is None else f"{found.trials} trials, {found.failures} failed {found.note}".strip()
        tell(f"robustness: {kind.says}: {said}")
        for line in found.lines if found else ():
            tell(f"robustness:   {line}")
        if (count := summed(kind, before, found)) is not None:
            counts[name] = count
    return result(counts, options)


def add(name: str, trials: int, failures: int) -> Path:
    """The file of results, with trials that were made elsewhere added to it."""
    if name not in KINDS or KINDS[name].every:
        names = ", ".join(n for n, kind in KINDS.items() if not kind.every)
        raise ValueError(f"robustness: NAME must be one of {names}, got {name!r}")
    counts = past()
    counts[name] = counts.get(name, Count(0, 0)) + Count(trials, failures)
    return result(counts, Options(command=f"python -m bench.robustness {name} {trials} {failures}")).save()


if __name__ == "__main__":
    print(add(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
