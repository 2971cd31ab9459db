"""The benchmark of integer weights: every run resumes to the bit, and figures say what was missed."""

import numpy as np
import pytest
import torch

from bench import cifar
from bench import train_updates as updates
from bench.result import Row

pytestmark = pytest.mark.usefixtures("one_thread")


def few(seed):
    draw = np.random.default_rng(seed)
    return cifar.Split(draw.standard_normal((16, 3, 32, 32)).astype(np.float32), draw.integers(0, 10, 16))


@pytest.mark.parametrize("name", list(updates.METHODS)[:3])
def test_an_interrupted_run_goes_on_to_the_same_answers(tmp_path, monkeypatch, name):
    """Interrupted after the first epoch and started again, a run ends in the same network."""
    monkeypatch.setattr(updates, "BATCH", 8)
    monkeypatch.setattr(updates, "FOLDER", tmp_path)
    made = []

    def right(net, test):
        made.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
        return np.ones(len(test), bool)

    monkeypatch.setattr(updates, "right", right)
    size, method = updates.Size(16, 2, (0,), 16), updates.METHODS[name]
    updates.trained(method, name, few(0), few(1), size, 0)
    keep = updates.keep

    def interrupted(*of):
        keep(*of)
        raise KeyboardInterrupt

    monkeypatch.setattr(updates, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        updates.trained(method, name, few(0), few(1), size, 0)
    monkeypatch.setattr(updates, "keep", keep)
    updates.trained(method, name, few(0), few(1), size, 0)
    assert torch.equal(*made)
    assert not list(tmp_path.rglob("*.pt"))


def test_figures_say_what_was_missed():
    """A loss within 0.3 point is met, whatever its interval; without a memory five points must be lost."""
    found = [Row.of("a", 80.2, 80.4, "float SGD", 0.2), Row.of("b", 80.0, 80.4, "float SGD", 0.2), Row.of("c", 70.0, 80.4)]
    assert [f.met for f in updates.figures(found).values()] == [True, False, True]
    assert updates.row("task", "name", np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0])).ours == 50


def test_each_method_is_beside_float_sgd_with_the_same_seeds(tmp_path, monkeypatch):
    """Weights without a memory run with the first seed alone, and so does what they are held against."""
    right = {updates.PEER: (3, 1), updates.BARE: (2,)}

    def trained(make, name, learn, test, size, seed):
        return np.arange(4) < right.get(name, (4, 2))[seed]

    monkeypatch.setattr(updates, "FULL", updates.Size(16, 1, (0, 1), 4))
    monkeypatch.setattr(updates.Work, "of", lambda *about: updates.Work(tmp_path, ""))
    monkeypatch.setattr(updates, "trained", trained)
    for name in ("splits", "digits_rows", "cost_rows"):
        monkeypatch.setattr(updates, name, lambda *of: (None, None) if of else [])
    found = {row.what.split(": ")[1]: (row.ours, row.peer) for row in updates.rows(tmp_path, quick=False)}
    assert [found[f"{name}, top-1 %"] for name in list(updates.METHODS)[1:]] == [(75, 50), (75, 50), (50, 75)]
