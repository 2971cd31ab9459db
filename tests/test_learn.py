"""Learning: what moves is recorded, nothing else changes, and every interruption, restart or split gives the same."""

import numpy as np
import pytest
import torch

from bitladder.assign.criteria import order, weight_difference
from bitladder.formats import fit, parse
from bitladder.train import state as state_module
from bitladder.train.learn import learn
from bitladder.train.lesson import Lesson

rng = np.random.default_rng(5)
X = rng.standard_normal((90, 1, 8, 8)).astype(np.float32)
Y = (X.reshape(90, -1)[:, :16].sum(1) > 0).astype(np.int64) + (X.mean((1, 2, 3)) > 0)
pytestmark = pytest.mark.usefixtures("one_thread")


def net(seed=0, tail=()):
    """A small convolutional classifier with batch norm and dropout."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(),
        torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(96, 3), *tail,
    )  # fmt: skip


def same(a, b):
    """Whether two results are equal to the bit."""
    assert list(a.differences) == list(b.differences)
    assert a.losses == b.losses
    for name, moved in a.differences.items():
        assert moved.count == b.differences[name].count
        np.testing.assert_array_equal(moved.mean, b.differences[name].mean)
        np.testing.assert_array_equal(moved.deviations, b.differences[name].deviations)


def brute(module, lesson_of, cycles, rate=0.01, momentum=0.9):
    """All weights after each cycle, by torch's own optimizer."""
    module.eval()
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=momentum)
    kept = []
    for c in range(cycles):
        rows = lesson_of.rows(c)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.from_numpy(X[rows])), torch.from_numpy(Y[rows])).backward()
        optimizer.step()
        kept.append({n: w.detach().double().numpy().copy() for n, w in module.named_parameters()})
    return kept


def test_differences_are_those_of_plain_training():
    """The same numbers as keeping every cycle's weights of torch's SGD; the module given does not change."""
    module = net()
    before = {n: v.clone() for n, v in module.state_dict().items()}
    learned = learn(module, X, Y, cycles=12, batch=32, rate=0.01)
    assert module.training
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
    lesson = Lesson.of(net(), X, Y, None, 32, 0)
    kept = brute(net(), lesson, 12)
    for name, moved in learned.differences.items():
        w0 = before[name].double().numpy()
        want = np.mean([(w[name] - w0) ** 2 for w in kept])
        assert moved.value() == pytest.approx(want, rel=1e-4)
        np.testing.assert_array_equal(learned.initial[name], before[name].numpy())
    assert list(learned.differences) == ["0.weight", "3.weight", "7.weight"]
    assert len(learned.losses) == 12


def test_batches_need_no_history():
    """Every epoch has every sample once, cycles are the same whenever asked for, seeds differ."""
    lesson = Lesson.of(net(), X, Y, None, 20, 3)
    epochs = np.concatenate([lesson.rows(c) for c in range(9)]).reshape(2, 90)
    assert (np.sort(epochs, 1) == np.arange(90)).all()
    assert not (epochs[0] == epochs[1]).all()
    assert (lesson.rows(7) == np.concatenate([lesson.rows(c) for c in range(9)])[140:160]).all()
    assert not (Lesson.of(net(), X, Y, None, 20, 4).rows(0) == lesson.rows(0)).all()


class Stop:
    """Interrupts when so many cycles are done."""

    def __init__(self, at):
        self.at = at

    def __call__(self, done, total, word):
        if done == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", sorted(np.random.default_rng(11).choice(np.arange(1, 9), 3, replace=False).tolist()))
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, at):
    """Interrupted at any cycle and called again, the result is that of one run; a third call has nothing to do."""
    whole = learn(net(), X, Y, cycles=9, batch=32)
    with pytest.raises(KeyboardInterrupt):
        learn(net(), X, Y, cycles=9, batch=32, work=tmp_path, progress=Stop(at))
    seen = []
    resumed = learn(net(), X, Y, cycles=9, batch=32, work=tmp_path, progress=lambda done, *_: seen.append(done))
    assert seen == list(range(at + 1, 10))
    same(whole, resumed)
    same(whole, learn(net(), X, Y, cycles=9, batch=32, work=tmp_path, progress=Stop(1)))
    assert [p.name for p in (tmp_path / "learn").iterdir()] == ["state.npz"]


def test_a_crash_goes_on_from_the_last_save(tmp_path, monkeypatch):
    """An interrupt in the middle of an update keeps the save before it, never a torn state."""
    monkeypatch.setattr(state_module, "EVERY", 0.0)
    monkeypatch.setattr(state_module, "PATIENCE", 0.0)
    updates = []
    real = state_module.Differences.update

    def torn(self, d):
        updates.append(1)
        if len(updates) == 3 * 4 + 2:
            raise KeyboardInterrupt
        return real(self, d)

    monkeypatch.setattr(state_module.Differences, "update", torn)
    with pytest.raises(KeyboardInterrupt):
        learn(net(), X, Y, cycles=7, batch=32, work=tmp_path)
    monkeypatch.setattr(state_module.Differences, "update", real)
    seen = []
    resumed = learn(net(), X, Y, cycles=7, batch=32, work=tmp_path, progress=lambda done, *_: seen.append(done))
    assert seen == [5, 6, 7]
    same(learn(net(), X, Y, cycles=7, batch=32), resumed)


@pytest.mark.parametrize(("change", "word"), [
    ({"rate": 0.02}, "another network, data or settings"),
    ({"seed": 1}, "another network, data or settings"),
    ({"module": net(1)}, "another network, data or settings"),
    ({"inputs": X + 1}, "another network, data or settings"),
    ({"start": "fixed8"}, "another network, data or settings"),
    ({"cycles": 2}, "further than the 2 asked for"),
])  # fmt: skip
def test_the_state_of_another_call_is_refused(tmp_path, change, word):
    """It starts anew, gives what it would have given, and says why in one line."""
    learn(net(), X, Y, cycles=3, batch=32, work=tmp_path)
    call = {"module": net(), "inputs": X, "labels": Y, "cycles": 3, "batch": 32, **change}
    learned = learn(**call, work=tmp_path)
    assert word in learned.notes[0]
    assert "\n" not in learned.notes[0]
    same(learned, learn(**call))


def test_more_cycles_go_on_from_fewer(tmp_path):
    """A finished state is a beginning of a longer one."""
    learn(net(), X, Y, cycles=3, batch=32, work=tmp_path)
    longer = learn(net(), X, Y, cycles=5, batch=32, work=tmp_path, progress=Stop(3))
    assert not longer.notes
    same(longer, learn(net(), X, Y, cycles=5, batch=32))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-200], lambda b: b"", lambda b: b[:500] + b"\0" * 50 + b[550:], lambda b: b"not a zip"]
)
def test_a_damaged_state_is_refused(tmp_path, damage):
    """Cut, empty, overwritten or something else: a line, and a fresh start."""
    whole = learn(net(), X, Y, cycles=2, batch=32, work=tmp_path)
    path = tmp_path / "learn" / "state.npz"
    path.write_bytes(damage(path.read_bytes()))
    again = learn(net(), X, Y, cycles=2, batch=32, work=tmp_path)
    assert "is damaged" in again.notes[0]
    same(whole, again)


def test_a_state_that_cannot_be_written(tmp_path):
    """One line with the path."""
    (tmp_path / "learn").write_text("a file where a folder must be")
    with pytest.raises(OSError, match=r"learn: the state must be writable at .*state\.npz"):
        learn(net(), X, Y, cycles=1, work=tmp_path)


def test_frozen_and_tied_weights():
    """Frozen layers do not move and come last in the order; a parameter under two names counts once."""
    module = net()
    parameters = dict(module.named_parameters())
    names = {
        "a": parameters["0.weight"],
        "b": parameters["3.weight"],
        "c": parameters["7.weight"],
        "again": parameters["3.weight"],
    }
    learned = learn(module, X, Y, cycles=3, weights=names, frozen=["a"])
    assert list(learned.differences) == ["a", "b", "c"]
    assert learned.frozen == ("a",)
    ranking = order(weight_difference(learned))
    assert ranking.silent == ("a",)
    assert set(ranking.ranked) == {"b", "c"}
    module[3].weight.requires_grad_(False)
    assert learn(module, X, Y, cycles=1).frozen == ("3.weight",)


def test_rates_by_pattern():
    """The last match wins, and differences are divided by the square of their rate where rates differ."""
    one = learn(net(), X, Y, cycles=1, rate=0.01)
    two = learn(net(), X, Y, cycles=1, rate={"*": 0.01, "7.*": 0.02})
    assert two.rates == {"0.weight": 0.01, "3.weight": 0.01, "7.weight": 0.02}
    values = [weight_difference(x) for x in (one, two)]
    assert two.differences["7.weight"].value() == pytest.approx(4 * values[0]["7.weight"], rel=1e-4)
    assert values[1]["7.weight"] == pytest.approx(values[0]["7.weight"] / 0.01**2, rel=1e-4)


def test_learning_on_eight_bits_watches_the_floats_behind():
    """FIG 14: the loss is the quantized network's, the float weights behind it move where codes may not."""
    module = net()
    floats = learn(module, X, Y, cycles=3, batch=90, start="fixed8", rate=1e-5)
    codes = learn(module, X, Y, cycles=3, batch=90, start="fixed8", rate=1e-5, on_codes=True)
    assert all(moved.value() > 0 for moved in floats.differences.values())
    assert min(moved.value() for moved in codes.differences.values()) == 0
    assert floats.losses == codes.losses
    encodings = {n: fit(parse("fixed8"), w.detach().numpy()) for n, w in module.named_parameters() if w.ndim > 1}
    same(floats, learn(module, X, Y, cycles=3, batch=90, start="fixed8", rate=1e-5, encodings=encodings))
    rounded = net().eval()
    with torch.no_grad():
        for name, w in rounded.named_parameters():
            if name in encodings:
                w.copy_(encodings[name].decode(encodings[name].encode(w)))
        first = torch.nn.functional.cross_entropy(rounded(torch.from_numpy(X)), torch.from_numpy(Y))
    assert floats.losses[0] == pytest.approx(float(first), rel=1e-6)


def test_a_softmax_at_the_end_is_seen():
    """Probabilities are judged as such: the same learning as from the scores before the softmax."""
    scores, chances = (learn(net(tail=t), X, Y, cycles=3) for t in ((), (torch.nn.Softmax(1),)))
    assert chances.losses == pytest.approx(scores.losses, rel=1e-5)


class Words(torch.nn.Module):
    """Integers in, vectors out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = torch.nn.Embedding(20, 6), torch.nn.Linear(6, 4)

    def forward(self, ids):
        return {"all": self.out(self.table(ids)), "pooled": self.table(ids).mean(1)}


def test_without_labels_there_is_still_a_gradient():
    """Class scores learn their own classes, other outputs themselves at disturbed inputs; everything moves."""
    ids = np.random.default_rng(0).integers(0, 20, (30, 5))
    for module, inputs in ((net(), X), (net(tail=(torch.nn.Linear(3, 1),)), {"x": X}), (Words(), (ids,))):
        learned = learn(module, inputs, cycles=4)
        assert all(moved.value() > 0 for moved in learned.differences.values())
        same(learned, learn(module, inputs, cycles=4))


def test_own_classes_taken_once_are_those_of_every_batch():
    """A network that comes to all samples says its classes once; fewer cycles than that ask batch by batch, as ever."""
    lesson = Lesson.of(net().eval(), X, None, None, 32, 0)
    once = lesson.asked(len(X) // 32 + 1)
    assert once.own is not None
    assert lesson.asked(1) is lesson
    for cycle in range(4):
        rows = lesson.rows(cycle)
        share = np.arange(0, len(rows), 2)
        (images,), classes = lesson.question(cycle, rows, share)
        (same_images,), same_classes = once.question(cycle, rows, share)
        assert (images == same_images).all()
        assert (classes == same_classes).all()
    assert Lesson.of(net(), X, Y, None, 32, 0).asked(100).own is None


def test_own_loss_and_labels_per_position():
    """A loss of one's own takes any labels; class numbers may be one per position, classes last."""
    targets = X.mean((1, 2, 3))
    learned = learn(net(), X, targets, cycles=2, loss=lambda out, y: ((out[:, 0] - y) ** 2).mean())
    assert learned.differences["7.weight"].value() > 0
    ids = np.random.default_rng(0).integers(0, 20, (30, 5))
    assert len(learn(Words(), (ids,), ids % 4, cycles=2).losses) == 2


def test_the_rate_suits_the_network():
    """The same function with weights of another scale learns at a lower rate instead of diverging, and says which."""
    easy, hard = net(), net()
    with torch.no_grad():
        for w, factor in ((hard[0].weight, 1e-2), (hard[0].bias, 1e-2), (hard[1].running_mean, 1e-2), (hard[7].weight, 50.0)):
            w.mul_(factor)
        hard[1].running_var.mul_(1e-4).sub_(1e-5 * (1 - 1e-4))
    rates = [set(learn(module, X, Y, cycles=20).rates.values()) for module in (easy, hard)]
    assert rates[0] == {0.01}
    assert max(rates[1]) < 0.01
    learned = learn(hard, X, Y, cycles=20)
    assert max(learned.losses[10:]) < 2 * learned.losses[0]


@pytest.mark.parametrize(("change", "text"), [
    ({"inputs": X[:0]}, "must have at least one sample"),
    ({"inputs": np.where(X > 2, np.nan, X)}, "input '0' must be finite"),
    ({"inputs": {"x": X, "z": X[:5]}}, "same number of samples"),
    ({"inputs": X.astype(str)}, "must hold numbers"),
    ({"labels": Y[:5]}, "one entry for each of 90 samples"),
    ({"labels": Y + 1}, "labels must be 0 to 2, got 1 to"),
    ({"labels": Y - 1}, "labels must be 0 to 2, got -1 to"),
    ({"labels": Y.astype(float)}, "whole class numbers"),
    ({"labels": np.stack([Y, Y], 1)}, "one class number per output position"),
    ({"cycles": 0}, "cycles must be at least 1"),
    ({"batch": 0}, "batch must be at least 1"),
    ({"momentum": 1.0}, "momentum must be below 1"),
    ({"rate": 0.0}, "rate of '0.weight' must be above 0"),
    ({"rate": {"nothing*": 1.0}}, "rate 'nothing\\*' must match a weight"),
    ({"frozen": ["conv9"]}, "frozen 'conv9' must match a weight"),
    ({"frozen": ["*"], "module": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3, bias=False))}, "free to move"),
    ({"weights": {"w": torch.zeros(3)}}, "weight 'w' must be a parameter of the module"),
    ({"weights": {}}, "at least one weight must be watched"),
    ({"start": "fixed"}, "must be written like"),
    ({"encodings": {"0.weight": None}}, "need a start such as"),
    ({"loss": lambda out, y: out.sum(1)}, "one number that depends on the weights"),
])  # fmt: skip
def test_bad_input_is_one_clear_line(change, text):
    """The thing is named, and what to do about it."""
    with pytest.raises(ValueError, match=text) as caught:
        learn(**{"module": net(), "inputs": X, "labels": Y, "cycles": 1, **change})
    assert "\n" not in str(caught.value)


def test_a_diverging_loss_names_the_cycle(tmp_path):
    """The error says which cycle and to lower the rate; the last good state stays."""
    with pytest.raises(
        ValueError, match=r"learn: cycle [2-9]\d*: the (loss|gradients) must be finite.*lower the rate \(now 1e\+10\)"
    ):
        learn(net(), X, Y, cycles=50, rate=1e10, work=tmp_path)
    broken = net()
    with torch.no_grad():
        broken[7].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"weight '7\.weight' must be finite"):
        learn(broken, X, Y, cycles=1)


SCRIPT = """
    import os, sys, time
    import numpy as np, torch
    import torch.distributed as dist
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from test_learn import X, Y, net
    from bitladder.train.learn import learn
    rank = int(os.environ["RANK"])
    leave = dist.destroy_process_group
    if rank == 0:  # the first process is slow to leave a group that the other one is done with
        dist.destroy_process_group = lambda: (time.sleep(0.3), leave())
    learn(net(rank), X, Y, cycles=2, batch=33, work={work!r})
    learned = learn(net(rank), X, Y, cycles=6, batch=33, work={work!r})  # goes on from the first process's state
    unlabelled = learn(net(), X, cycles=3, batch=32)
    own = [d.value() for d in unlabelled.differences.values()]
    means = {{n: d.mean for n, d in learned.differences.items()}}
    deviations = {{n + "/deviations": d.deviations for n, d in learned.differences.items()}}
    np.savez(f"{out}/rank{{rank}}.npz", losses=learned.losses, own=own, **means, **deviations)
"""


def test_two_processes_learn_the_same(together, tmp_path):
    """All processes end with identical differences, which agree with one process to 1e-5, the first one's weights counting."""
    assert together(SCRIPT, work=str(tmp_path / "work")) == [0, 0]
    ranks = [dict(np.load(tmp_path / f"rank{r}.npz")) for r in (0, 1)]
    for name, held in ranks[0].items():
        np.testing.assert_array_equal(held, ranks[1][name])
    alone, unlabelled = learn(net(0), X, Y, cycles=6, batch=33), learn(net(), X, cycles=3, batch=32)
    assert ranks[0]["losses"] == pytest.approx(alone.losses, rel=1e-5)
    for name, moved in alone.differences.items():
        np.testing.assert_allclose(ranks[0][name], moved.mean, rtol=1e-5, atol=1e-5 * abs(moved.mean).max())
    assert ranks[0]["own"] == pytest.approx([d.value() for d in unlabelled.differences.values()], rel=1e-5)


@pytest.mark.parametrize("name", ["mobilenet", "mlp", "vit", "bert", "recurrent", "decoder"])
def test_graphs_of_every_family_learn(name):
    """A module made from a graph learns by the graph's names, as floats and in 8 bits; every weight moves."""
    to_torch = pytest.importorskip("bitladder.convert.to_torch").to_torch
    from nets import FAMILIES, family

    from bitladder.assign.criteria import weights_of
    from bitladder.convert.from_torch import from_torch
    from bitladder.ir.rewrite import simplify

    torch.manual_seed(0)
    inputs = FAMILIES[name][1]
    graph = simplify(from_torch(family(name), inputs(6)))
    module, data = to_torch(graph), tuple(x.numpy() for x in inputs(16))
    watched = weights_of(graph)
    weights = {n: w for n, w in module.weights().items() if n in watched}
    assert set(weights) == set(watched)
    learned = learn(module, data, weights=weights, cycles=2, batch=8)
    assert all(value > 0 for value in weight_difference(learned).values())
    encodings = {n: fit(parse("fixed8"), w, axis=axis) for n, (w, axis) in watched.items()}
    coded = learn(module, data, weights=weights, cycles=2, batch=8, start="fixed8", encodings=encodings)
    assert all(value > 0 for value in weight_difference(coded).values())
