"""The benchmark of sparse students: equal steps, splits that do not meet, runs that go on, figures that say what was missed."""

import numpy as np
import pytest
import torch

from bench import cifar, work
from bench import train_sparse as bench
from bench.result import Row

ONCE = {bench.FOUR: 1, bench.DIGITS: 1}
SMALL = bench.Size(None, 1, 2, ONCE, ONCE, ONCE, 8)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def few(name, classes):
    """A task of random images."""
    draw = np.random.default_rng(classes)

    def some(n):
        labels = np.arange(n) % classes
        return cifar.Split((draw.standard_normal((n, 3, 32, 32)) + labels[:, None, None, None]).astype(np.float32), labels)

    return bench.Task(name, some(16), some(8).images, some(8))


def test_digits_for_reports_choosing_and_learning_do_not_meet():
    said, choosing = bench.digits(), bench.digits(True)
    assert np.array_equal(said.learn.images, choosing.learn.images)
    assert said.classes == 10
    counts = len(said.learn), len(said.test), len(choosing.test)
    assert counts == (1077, 360, 360)
    assert not np.array_equal(said.test.images, choosing.test.images)
    assert said.learn.images.shape[1:] == (3, 32, 32)


def test_photos_are_of_the_tasks_classes():
    images = np.zeros((20, 3, 32, 32), np.float32)
    split = cifar.Split(images, np.arange(20) % 10)
    six, four = (bench.photos(name, split, split, split, low) for name, low in (("six classes", 0), (bench.FOUR, 6)))
    assert (len(six.learn), six.classes, len(four.learn), four.classes) == (12, 6, 8, 4)


def test_networks_and_masks_are_kept_as_arrays():
    net = bench.fresh(6, 0)
    sparse = bench.Sparse(net, schedule=bench.Schedule(0.5, 0))
    again, masks = bench.unflat(bench.flat(net, sparse.masks), bench.fresh(6, 1))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    assert masks.keys() == sparse.masks.keys()
    assert all(torch.equal(masks[n], m) for n, m in sparse.masks.items())
    assert "linear.weight" not in masks
    assert len(masks) == 19


def test_a_schedule_ends_within_its_steps():
    for samples, epochs in ((1077, 8), (4000, 2), (16, 1), (26_000, 12)):
        ramp, steps = bench.ramp(samples, epochs), -(-samples * epochs // bench.BATCH)
        assert ramp.until <= ramp.end < max(steps, 1)
        assert ramp(ramp.end) == bench.SPARSITY


def test_all_runs_of_a_task_and_their_rows(tmp_path, monkeypatch):
    """Every network is made, kept and compared; what was measured is not measured again."""
    tasks = [few(bench.FOUR, 4), few(bench.DIGITS, 10)]
    monkeypatch.setattr(bench, "splits", lambda data, size: (few("six classes", 6), tasks))
    monkeypatch.setattr(bench, "FULL", SMALL)
    monkeypatch.setattr(bench, "BATCH", 8)
    monkeypatch.setattr(bench, "BITS", (8,))
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(work, "FOLDER", tmp_path)
    found = bench.rows(tmp_path, False)
    assert len(found) == 1 + 2 * 5
    smaller = [r for r in found if "bytes" in r.what]
    assert len(smaller) == 2
    assert all(r.ours < 0.6 * r.peer for r in smaller)
    assert set(bench.figures(found)) == {
        f"sparse: points {what}, {task}"
        for what in ("lost by the student", "over pruning while fine-tuning")
        for task in (bench.FOUR, bench.DIGITS)
    }
    monkeypatch.setattr(bench, "train_student", None)
    assert [r.ours for r in bench.rows(tmp_path, False)] == [r.ours for r in found]
    assert not list(tmp_path.rglob("student.pt"))


def test_figures_say_what_was_missed():
    def rows(task, student, dense, pruned):
        what = f"{task}: {bench.LOCKED}, top-1 %"
        return [Row.of(what, student, dense, bench.DENSE, 0.3), Row.of(what, student, pruned, bench.PRUNED, 0.3)]

    found = bench.figures([*rows(bench.FOUR, 90.0, 90.8, 87.0), *rows(bench.DIGITS, 95.0, 96.2, 94.0)])
    assert [(round(f.value, 2), f.met) for f in found.values()] == [(0.8, True), (3.0, True), (1.2, False), (1.0, False)]


def test_the_arithmetic_of_an_index():
    assert round(32 / bench.bits_of(0.9, 8), 1) == 25.2
    assert round(32 / (0.1 * 8 + 1), 1) == 17.8
