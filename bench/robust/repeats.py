"""What runs of `bitladder quantize` make, as hashes: the same with any number of threads and any seed of Python's own hashes.

`python -m bench.robust.repeats [JOB...]` prints the SHA-256 of each job's file, and of its table, as a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.robust import jobs
from bench.robust.count import Count, apart
from bitladder.cli import main

PLACES = ({"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}, {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "4242"})


def made(words: Sequence[str]) -> str:
    """The hashes of what a run leaves in the present folder, which is taken away again."""
    status = main(["quantize", *jobs.GIVEN, *words])
    found = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (jobs.OUT, jobs.TABLE) if Path(name).exists()]
    for name in (jobs.OUT, jobs.TABLE):
        Path(name).unlink(missing_ok=True)
    return " ".join([str(status), *found])


def all_made(names: Sequence[str]) -> dict[str, str]:
    """What each job leaves, by its name."""
    jobs.untimed()
    with tempfile.TemporaryDirectory() as folder:
        jobs.prepare(Path(folder))
        os.chdir(folder)
        return {name: made(jobs.KINDS[name]) for name in names or jobs.KINDS}


def repeated(*names: str) -> Count:
    """Jobs, run in each of the places; a failure is one that they make different files of, or none."""
    first, *others = (apart("bench.robust.repeats", *names, environment=place) for place in PLACES)
    differ = {name: [made for made in (first[name], *(other[name] for other in others))] for name in first}
    return Count.of(wrong(name, each) for name, each in differ.items())


def wrong(name: str, each: Sequence[str]) -> str | None:
    """What is wrong with what a job made in several places; nothing if all made one file."""
    if len(set(each)) > 1:
        return f"{name}: makes {' and '.join(dict.fromkeys(text[:16] for text in each))}"
    return None if len(each[0].split()) > 1 else f"{name}: makes no file, status {each[0]}"


if __name__ == "__main__":
    print(json.dumps(all_made(sys.argv[1:])))
