"""Runs of the command line that are ended at any moment and started again: trials, and that each kind of failure is noticed."""

import os
import random
import sys

import pytest

from bench.robust import jobs, resume

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.mark.parametrize(
    "names", [("default", "plan", "budget", "table"), [f"rounding {r}" for r in ("sequence", "moments", "rate")]]
)
def test_started_again_the_same_file_comes_out(names):
    """Wherever it was ended, by a kill or by Ctrl-C, once or twice; nothing half-written is left on the way."""
    pytest.importorskip("onnx_ir")
    pytest.importorskip("torch")
    count = resume.resumed(6, 11, *names)
    assert count.failures == 0, "\n".join(count.lines)
    assert count.trials == 6 * len(names)
    assert int(count.note.split()[0]) > count.trials // 2, "most of them were ended before they were done"


def child_that(acts):
    """A run that does something else."""

    def run(folder, words, at=0, end=0):
        child = os.fork()
        if child:
            return child
        acts(folder)
        os._exit(0)

    return run


def second(folder):
    """Nothing the first time, another file the second time."""
    begun = folder.parent / "begun"
    if begun.exists():
        (folder / jobs.OUT).write_bytes(b"another")
    begun.touch()


@pytest.mark.parametrize(
    ("acts", "words"),
    [
        (lambda folder: (folder / jobs.OUT).write_bytes(b"who"), "is neither whole nor absent"),
        (lambda folder: (folder / "scrap").write_bytes(b""), "there is out.ladder, scrap in one folder only"),
        (lambda folder: os._exit(3), "a run that was ended has status 3"),
        (second, "started again, it makes another out.ladder"),
        (lambda folder: (folder / jobs.OUT).write_bytes(b"whole"), None),
    ],
)
def test_failures_are_noticed(acts, words, tmp_path, monkeypatch):
    """Half a file, what is left over, and errors."""
    (tmp_path / "given").mkdir()
    monkeypatch.setattr(resume, "run", child_that(acts))
    rng = random.Random(0)
    rng.choice = lambda some: some[0]
    rng.random = lambda: 0.0
    _, found = resume.trial(tmp_path / "given", tmp_path / "folder", [], resume.Whole({jobs.OUT: b"whole"}, 9, 0.01), rng)
    assert (words is None and found is None) or words in found
