"""Sparse students: masks follow the schedule to the count, zeros outlast every step, stage, format, file and restart."""

import copy
import io
import itertools
import math
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import bitladder as bl
from bitladder.file import load, save
from bitladder.formats import QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.train.nested import train_nested
from bitladder.train.noise import Noise
from bitladder.train.sparse import Schedule, Sparse, broken, dead, linear, narrowed, prunable
from bitladder.train.student import distilled, train_student

digits = load_digits()
X = (digits.images / 16)[:, None].astype(np.float32)
Y = digits.target
LEARN, HELD = np.arange(len(Y)) % 5 != 0, np.arange(len(Y)) % 5 == 0
OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9, weight_decay=0.1),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def mlp(seed=0, hidden=24):
    """A small classifier of digits; its head is not pruned by default."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )


def convolutions(seed=0, classes=10):
    torch.manual_seed(seed)
    made = nn.Sequential()
    for inputs, outputs, stride in ((1, 12, 2), (12, 24, 2)):
        made += nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    return made + nn.Sequential(nn.Flatten(), nn.Linear(96, classes))


def rows_of(step, size=32):
    return np.random.default_rng(step).integers(0, len(Y), size)


def run(module, sparse, optimizer, steps):
    """So many steps of a loop of one's own."""
    for step in steps:
        rows = rows_of(step)
        optimizer.zero_grad()
        F.cross_entropy(module(torch.tensor(X[rows])), torch.tensor(Y[rows])).backward()
        optimizer.step()
        sparse.step(optimizer)


def hits(called):
    with torch.no_grad():
        return float((np.asarray(called(torch.tensor(X[HELD]))).argmax(1) == Y[HELD]).mean())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def taught():
    """A dense teacher, and a student of 85 % zeros of it with its masks; what was broken after each epoch."""
    torch.set_num_threads(1)
    teacher = train_student(convolutions(), X[LEARN], Y[LEARN], epochs=3, batch=64, rate=0.05)
    student = copy.deepcopy(teacher)
    sparse = Sparse(student, schedule=Schedule(0.85, until=40, every=5, last=50))
    seen = []

    def each(step, steps, word):
        if step % 22 == 0:
            seen.append((sparse.broken(), {n: m.clone() for n, m in sparse.masks.items()}))

    train_student(student, X[LEARN], Y[LEARN], sparse=sparse, teacher=teacher, epochs=4, batch=64, rate=0.05, progress=each)
    return teacher, student, sparse, seen


# ---------------------------------------------------------------------------------------------------------- schedule


def test_the_cubic_schedule():
    ramp = Schedule(0.9, until=50_000, every=1000, last=80_000)
    assert [ramp(t) for t in (0, 25_000, 50_000, 60_000)] == pytest.approx([0, 0.7875, 0.9, 0.9], abs=1e-12)
    assert ramp(50_000) == 0.9
    late = Schedule(0.8, until=30, begin=10, start=0.2)
    assert [late(t) for t in (0, 10, 20, 30)] == pytest.approx([0.2, 0.2, 0.8 - 0.6 / 8, 0.8])
    assert all(ramp(t) <= ramp(t + 500) for t in range(0, 60_000, 500))
    assert Schedule(0.5, until=0)(0) == 0.5, "at once"


def test_masks_are_chosen_when_due_and_then_no_more():
    assert [t for t in range(100) if Schedule(0.9, until=20, every=6, begin=3, last=31).due(t)] == [3, 9, 15, 21, 27, 31]
    assert [t for t in range(100) if Schedule(0.9, until=0).due(t)] == [0]
    module, changed = mlp(), []
    sparse = Sparse(module, schedule=Schedule(0.7, until=8, every=3, begin=2, last=10))
    for step in range(1, 16):
        before = {n: m.clone() for n, m in sparse.masks.items()}
        with torch.no_grad():
            for w in sparse.weights.values():
                w += 0.01 * torch.randn(w.shape)
        sparse.step()
        changed += [] if same(before, sparse.masks) else [step]
        for name, mask in before.items():
            assert not (sparse.masks[name] & ~mask).any(), "the dead stay dead"
    assert changed == [5, 8]
    assert min(sparse.sparsity().values()) >= 0.7


def test_rates_go_back_while_masks_change():
    """A saw-tooth of the slope that the rate falls with in the end; the whole is as long as what is not pruning."""
    ramp = Schedule(0.85, until=120, every=30, begin=20)
    rates = [ramp.rate(t, 300) for t in range(301)]
    assert rates[:20] == [linear(t, 200) for t in range(20)]
    assert rates[20] == rates[50] == rates[80] == rates[110] == rates[120] == 0.9
    slopes = [round(b - a, 12) for a, b in itertools.pairwise(rates)]
    assert {s for i, s in enumerate(slopes) if i + 1 not in (50, 80, 110, 120)} == {-0.005}
    assert rates[300] == 0
    assert ramp.rate(2, 300, warm=5) == 0.6
    net = mlp()
    scheduler = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(net.parameters(), 0.5), lambda t: ramp.rate(t, 300))
    assert scheduler.get_last_lr() == [0.5]


@pytest.mark.parametrize("options", [
    {"sparsity": 1.0, "until": 5}, {"sparsity": 0.5, "until": 5, "start": 0.6}, {"sparsity": 0.5, "until": 5, "begin": 6},
    {"sparsity": 0.5, "until": 5, "last": 4}, {"sparsity": 0.5, "until": 5, "every": 0},
])  # fmt: skip
def test_schedules_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"^schedule: .* got "):
        Schedule(**options)


# ------------------------------------------------------------------------------------------------------------- masks


def test_the_count_is_the_least_that_suffices():
    for count in range(1, 60):
        for part in [0.0, 0.1, 0.3, 0.7, 0.85, 0.9, 0.999, *(k / count for k in range(count))]:
            assert dead(part, count) == min(k for k in range(count + 1) if k / count >= part), (part, count)


def by_hand(mask, score, sparsity, block):
    """The slow definition: blocks in order, the dead first, then by score, then by place."""
    rows, inputs = mask.shape
    places = [(r, i) for r in range(rows) for i in range(0, inputs, block)]

    def key(place):
        r, i = place
        alive = bool(mask[r, i : i + block].any())
        return (alive, sum(float(s) for s in score[r, i : i + block].double()) if alive else 0.0)

    out = torch.ones_like(mask)
    gone = sorted(places, key=key)  # which keeps the order of equals
    for r, i in gone[: max(dead(sparsity, len(places)), sum(not key(p)[0] for p in places))]:
        out[r, i : i + block] = False
    return out


@pytest.mark.parametrize("block", [1, 4])
def test_masks_are_those_of_the_slow_definition(block):
    """With many ties and many zeros, the count is exact and the dead stay dead."""
    draw = np.random.default_rng(block)
    for part in (0.0, 0.25, 0.5, 0.85, 0.97):
        score = torch.tensor(draw.integers(0, 4, (6, 20)), dtype=torch.float32)
        mask = torch.tensor(draw.random((6, 20 // block)) < 0.7).repeat_interleave(block, 1)
        found = narrowed(mask, score * mask, part, block)
        assert torch.equal(found, by_hand(mask, score * mask, part, block))
        assert not (found & ~mask).any()
        gone = int((~found).sum())
        assert gone == max(dead(part, 120 // block) * block, int((~mask).sum()))


def test_ties_go_in_order_and_a_living_zero_lives_on():
    assert narrowed(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2), 0.5).tolist() == [[False, False], [True, True]]
    mask = torch.tensor([[True, True, False, True]])
    assert narrowed(mask, torch.tensor([[0.0, 1.0, 0.0, 2.0]]), 0.25).tolist() == mask.tolist()
    taps = narrowed(torch.ones(2, 4, 3, 3, dtype=torch.bool), torch.rand(2, 4, 3, 3), 0.5, 2)
    assert torch.equal(taps[:, ::2], taps[:, 1::2])


class Tied(nn.Module):
    """Embedding, norm, two layers that share a weight, another pair that shares the embedding's, a head."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(16, 8), nn.LayerNorm(8)
        self.place = nn.Parameter(torch.zeros(1, 8))
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.out = nn.Linear(8, 16, bias=False)
        self.out.weight = self.table.weight
        self.c, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, which):
        return self.head(self.c(self.b(self.a(self.norm(self.table(which) + self.place)))))


def test_what_is_pruned():
    """By default no embedding, norm, bias or head; tied weights once, with one mask."""
    module = Tied()
    assert list(prunable(module)) == ["a.weight", "c.weight"]
    assert list(prunable(module, "*")) == ["place", "table.weight", "a.weight", "c.weight", "head.weight"]
    assert list(prunable(module, ["head*", "c.*"])) == ["c.weight", "head.weight"]
    sparse = Sparse(module, schedule=Schedule(0.5, until=0))
    assert torch.equal(module.b.weight != 0, sparse.masks["a.weight"])
    module(torch.arange(16)).sum().backward()
    assert not module.a.weight.grad[~sparse.masks["a.weight"]].any()
    assert module.table.weight.grad.all()


@pytest.mark.parametrize("block", [2, 4])
def test_blocks(block):
    sparse = Sparse(mlp(), schedule=Schedule(0.8, until=0), block=block)
    for mask in sparse.masks.values():
        parts = mask.reshape(mask.shape[0], -1, block)
        assert torch.equal(parts.all(2), parts.any(2))
    assert all(s >= 0.8 for s in sparse.sparsity().values())


def test_another_score():
    """Weights may be pruned by what one likes, such as their gradients."""
    module = mlp()
    sparse = Sparse(module, "1.*", Schedule(0.5, until=0), score=lambda name, w: -w.abs())
    w = module[1].weight
    assert w[sparse.masks["1.weight"]].abs().max() < mlp()[1].weight[~sparse.masks["1.weight"]].abs().min()


# --------------------------------------------------------------------------------------------------- zeros stay zero


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_dead_weights_stay_zero_under_any_optimizer(kind):
    """Neither momentum nor weight decay acts through a mask, also when it is new; what lives moves."""
    module = mlp()
    sparse = Sparse(module, schedule=Schedule(0.85, until=6, every=2))
    optimizer = OPTIMIZERS[kind](module.parameters())
    for step in range(10):
        run(module, sparse, optimizer, [step])
        for name, w in sparse.weights.items():
            gone = ~sparse.masks[name]
            assert torch.equal(w[gone], torch.zeros(int(gone.sum())))
            moments = [x for x in optimizer.state[w].values() if torch.is_tensor(x) and x.shape == w.shape]
            assert moments
            assert all(not m[gone].any() and bool(m.any()) for m in moments)
            assert sparse.sparsity()[name] >= sparse.schedule(step + 1 if step % 2 else step)
    assert min(sparse.sparsity().values()) >= 0.85
    assert sparse.broken() == []


def test_gradients_of_dead_weights_are_zero_and_others_exact():
    """Also for clipping by norm, for `autograd.grad`, and under quantization noise."""
    module, free = mlp(), mlp()
    sparse = Sparse(module, schedule=Schedule(0.6, until=0))
    free.load_state_dict(module.state_dict())
    x, y = torch.tensor(X[:64]), torch.tensor(Y[:64])
    for net in (module, free):
        F.cross_entropy(net(x), y).backward()
    for name, mask in sparse.masks.items():
        dense = free.get_parameter(name).grad
        assert dense[~mask].any()
        assert torch.equal(module.get_parameter(name).grad, dense.masked_fill(~mask, 0))
    (found,) = torch.autograd.grad(F.cross_entropy(module(x), y), [module[1].weight])
    assert torch.equal(found, module[1].weight.grad)
    module.zero_grad()
    F.cross_entropy(Noise(module, {"*": "int4"}, 0.5)(x), y).backward()
    assert not module[1].weight.grad[~sparse.masks["1.weight"]].any()
    sparse.remove()
    F.cross_entropy(module(x), y).backward()
    assert module[1].weight.grad[~sparse.masks["1.weight"]].any()


def test_a_living_weight_that_is_zero_still_learns():
    """The mask is what is stored, not what happens to be zero."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3))
    sparse = Sparse(module, schedule=Schedule(0.5, until=0))
    mask = sparse.masks["0.weight"].clone()
    with torch.no_grad():
        module[0].weight.zero_()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    F.cross_entropy(module(torch.randn(16, 8)), torch.arange(16) % 3).backward()
    optimizer.step()
    sparse.step(optimizer)
    assert torch.equal(sparse.masks["0.weight"], mask)
    assert torch.equal(module[0].weight != 0, mask)
    again = Sparse(copy.deepcopy(module), masks=sparse.masks)
    assert same(again.masks, sparse.masks)


def test_your_own_loop_goes_on_to_the_same_bits():
    """Kept in a file while masks still change, and after they are fixed."""

    def begun(seed):
        module = mlp(seed)
        return (
            module,
            Sparse(module, schedule=Schedule(0.85, until=8, every=3, last=10)),
            OPTIMIZERS["adam"](module.parameters()),
        )

    whole = begun(0)
    run(*whole, range(14))
    for cut in (4, 12):
        half, again = begun(0), begun(1)
        run(*half, range(cut))
        file = io.BytesIO()
        torch.save([part.state_dict() for part in half], file)
        file.seek(0)
        for part, kept in zip(again, torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(kept)
        run(*again, range(cut, 14))
        assert same(again[0].state_dict(), whole[0].state_dict())
        assert same(again[1].masks, whole[1].masks)


# ---------------------------------------------------------------------------------------------------- both stages


def test_stage_one(taught):
    """Sparse enough in every layer, equal masks at every epoch once they are fixed, and nearly as good as the teacher."""
    teacher, student, sparse, seen = taught
    assert set(sparse.masks) == {"0.weight", "3.weight"}
    assert min(sparse.sparsity().values()) >= 0.85
    assert [bad for bad, _ in seen] == [[], [], [], []]
    assert same(seen[2][1], sparse.masks)
    assert not same(seen[0][1], sparse.masks)
    for name, mask in sparse.masks.items():
        assert torch.equal(student.get_parameter(name) != 0, mask), "no living weight is zero by chance here"
    assert hits(student) > max(0.85, hits(teacher) - 0.08)


def test_stage_two_and_all_that_follows(taught, tmp_path):
    """A task, two formats, a file: the zeros are those of stage 1 after each epoch of each."""
    _, student, first, _ = taught
    task, odd = copy.deepcopy(student), Y % 2
    task[7] = nn.Linear(96, 2)
    teacher = train_student(copy.deepcopy(task), X[LEARN], odd[LEARN], epochs=2, batch=64, rate=0.05)
    sparse, seen = Sparse(task, masks=first.masks), []

    def each(step, steps, word):
        if step % 22 == 0:
            seen.append((sparse.broken(), same(sparse.masks, first.masks)))

    before = task[0].weight.detach().clone()
    train_student(task, X[LEARN], odd[LEARN], sparse=sparse, teacher=teacher, epochs=2, batch=64, rate=0.05, progress=each)
    assert seen == [([], True)] * 2
    assert not torch.equal(before, task[0].weight)
    for fmt in ("int8", "int4", "nested8:sign"):
        held = bl.prepare(task, fmt, X[:256], start="float", rounding="nearest")
        sparse = Sparse(held, masks=first.masks)
        train_student(held, X[LEARN], odd[LEARN], sparse=sparse, teacher=teacher, epochs=2, batch=64, rate=2e-3,
                      optimizer=torch.optim.Adam, progress=each)  # fmt: skip
        model = bl.finish(held)
        model.save(tmp_path / "a.ladder")
        read = bl.load(tmp_path / "a.ladder")
        assert all(sparse.broken(m) == [] for m in (held, model, read))
        for bits in held.widths:
            assert sparse.broken(read.at(bits).graph) == []
        for name, mask in first.masks.items():
            assert torch.equal(torch.from_numpy(read.whole.constants[name].decode())[~mask], torch.zeros(int((~mask).sum())))
            assert read.whole.constants[name].decode().any()
        said = read(X[HELD]).argmax(1)
        assert (said == odd[HELD]).mean() > 0.85
    assert seen == [([], True)] * 8


@pytest.mark.parametrize("fmt", ["fixed8", "codebook4:15", "ternary", "nested8:sign", "log4"])
def test_formats_with_a_zero_keep_it(taught, fmt):
    """Whatever quantization after training made of dead weights, they are zero again, and stay it."""
    _, student, first, _ = taught
    held = bl.prepare(student, fmt, X[:256], rounding="feedback")
    sparse = Sparse(held, masks=first.masks)
    assert sparse.broken() == []
    adam = torch.optim.Adam(held.groups(3e-3))
    for step in range(2):
        rows = rows_of(step)
        adam.zero_grad()
        F.cross_entropy(held.train()(torch.tensor(X[rows])), torch.tensor(Y[rows])).backward()
        adam.step()
        sparse.step(adam)
        held.refit()
        assert sparse.broken() == sparse.broken(bl.finish(held)) == []


@pytest.mark.parametrize("fmt", ["nested8", "nested4"])
def test_formats_without_a_zero_are_refused(taught, fmt):
    _, student, first, _ = taught
    with pytest.raises(ValueError, match=f"zeros of '0.weight' must stay zero, got {fmt}.*take intB.*nestedB:sign") as caught:
        Sparse(bl.prepare(student, fmt, X[:64], rounding="nearest"), masks=first.masks)
    assert "\n" not in str(caught.value)


def test_loops_of_others_keep_zeros_too(taught):
    """`on` makes the optimizer of nested training clear what is dead."""
    teacher, student, first, _ = taught
    held = bl.prepare(student, "nested8:sign", X[:256], start="float", rounding="nearest", widths=(8, 3))
    sparse = Sparse(held, masks=first.masks)
    train_nested(
        held, X[LEARN], Y[LEARN], epochs=0.5, batch=64, teacher=teacher, optimizer=lambda g: sparse.on(torch.optim.Adam(g))
    )
    assert sparse.steps == 12
    model = bl.finish(held)
    assert sparse.broken() == sparse.broken(model) == []
    assert hits(model.at(3)) > 0.8


def test_what_broke_is_named(taught):
    """The check can fail: a weight that came alive, in floats and in codes."""
    _, student, first, _ = taught
    other = copy.deepcopy(student)
    with torch.no_grad():
        other[3].weight[0, 0, 0, 0] += 1
        other[3].weight[1] += 1
    assert first.broken(other) == ["3.weight"]
    assert first.broken(bl.quantize(other, X[:64], plan="int8", rounding="nearest")) == ["3.weight"]
    assert broken(first.masks, dict(other.named_parameters())) == ["3.weight"]


# ---------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_by_hand():
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher / T || student / T), against plain sums."""
    draw = np.random.default_rng(0)
    said, taught, labels = draw.normal(size=(8, 5)), draw.normal(size=(8, 5)), draw.integers(0, 5, 8)
    total = 0.0
    for a, b in zip(said, taught, strict=True):
        q, p = (np.exp(x / 3) / np.exp(x / 3).sum() for x in (a, b))
        total += 9 * sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True)) / 8
    assert float(distilled(torch.tensor(said), torch.tensor(taught), 3.0)) == pytest.approx(total, rel=1e-12)
    places = torch.tensor(said).T.reshape(1, 5, 8), torch.tensor(taught).T.reshape(1, 5, 8)
    assert float(distilled(*places, 3.0)) == pytest.approx(total, rel=1e-12)
    net, teacher = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(5))
        teacher.weight.copy_(2 * torch.eye(5))
    hard = float(F.cross_entropy(torch.tensor(said), torch.tensor(labels)))
    soft = float(distilled(torch.tensor(said), 2 * torch.tensor(said), 2.0))
    for alpha in (0.0, 0.3, 1.0):
        words = []
        train_student(copy.deepcopy(net), said.astype(np.float32), labels, teacher=teacher, alpha=alpha, epochs=1, batch=8,
                      progress=lambda step, steps, word, seen=words: seen.append(float(word.split()[1])))  # fmt: skip
        assert words[0] == pytest.approx(alpha * hard + (1 - alpha) * soft, rel=2e-2)


def test_teachers_do_not_learn():
    """In evaluation mode, without gradients, and unchanged to the bit, running statistics included."""
    teacher = convolutions(1).train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    train_student(convolutions(), X[:128], Y[:128], teacher=teacher, epochs=1, batch=64)
    assert not teacher.training
    assert same(before, teacher.state_dict())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(("call", "words"), [
    (lambda: Sparse(mlp()), "a schedule is needed, or masks"),
    (lambda: Sparse(mlp(), "conv*", Schedule(0.5, 0)), "'conv.' must name a weight of two axes or more, there are 1.weight"),
    (lambda: Sparse(nn.Linear(4, 4), schedule=Schedule(0.5, 0)), "must be a weight to prune"),
    (lambda: Sparse(mlp(), schedule=Schedule(0.5, 0), block=5), "block must divide the 64 inputs of '1.weight', got 5"),
    (lambda: Sparse(mlp(), masks={"1.weight": torch.ones(2, 2)}), r"mask of '1.weight' must have shape \(24, 64\), got shape"),
    (lambda: Sparse(mlp(), masks={}), "must be a weight to prune"),
    (lambda: train_student(mlp(), X[:8], Y[:8], alpha=1.5), "alpha must be 0 to 1"),
    (lambda: train_student(mlp(), X[:8], Y[:8], sparse=Sparse(mlp(), schedule=Schedule(0.5, 0))), "another's"),
    (lambda: train_student(mlp(), X[:8], Y[:8], rate=float("inf"), batch=4, epochs=3), "loss must be finite.*lower the rate"),
])  # fmt: skip
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("bits", [8, 4])
def test_a_coded_file_pays_for_its_index_and_no_more(tmp_path, bits):
    """85 % zeros: within 10 % of codes of what lives and an entropy-coded index, far below a bitmap and below dense."""
    size = {}
    for kind in ("sparse", "dense"):
        torch.manual_seed(0)
        module = nn.Linear(512, 256)
        if kind == "sparse":
            masks = Sparse(module, "weight", Schedule(0.85, until=0)).masks["weight"]
        x = module.weight.detach().numpy()
        held = QTensor.of(x, fit(parse(f"int{bits}"), x))
        graph = Graph((Value("x", "float32", ("batch", 512)),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": held})
        save(graph, tmp_path / "a.ladder", coder="best")
        size[kind] = (tmp_path / "a.ladder").stat().st_size
        if kind == "sparse":
            assert not load(tmp_path / "a.ladder").constants["w"].decode()[~masks.numpy()].any()
    index = -(0.15 * math.log2(0.15) + 0.85 * math.log2(0.85))
    assert size["sparse"] * 8 / x.size < 1.1 * (0.15 * bits + index)
    assert size["sparse"] < 0.45 * size["dense"]


# ------------------------------------------------------------------------------------------- restarts and processes


def short(work=None, progress=None, dtype=torch.float32, stage=1, **options):
    """A short run of either stage; the network and its masks."""
    net, teacher = mlp(0, 16).to(dtype), mlp(1, 16).to(dtype)
    sparse = Sparse(net, schedule=Schedule(0.85, until=10, every=3, last=12))
    if stage == 2:
        locked = Sparse(net, schedule=Schedule(0.6, until=0))
        sparse = Sparse(net, masks=locked.masks)
    how = {"epochs": 2, "batch": 64, "rate": 0.05, "every": 1, **options}
    train_student(net, X[:512], Y[:512], sparse=sparse, teacher=teacher, work=work, progress=progress, augment=noisy, **how)
    return {**net.state_dict(), **{f"mask/{n}": m for n, m in sparse.masks.items()}}


def noisy(arrays, random):
    return tuple((a + 0.05 * random.standard_normal(a.shape)).astype(a.dtype) for a in arrays)


@pytest.mark.parametrize("stage", [1, 2])
def test_an_interruption_leaves_no_trace(tmp_path, stage):
    """Interrupted while masks change, and resumed: masks and weights of one go; other settings are refused."""
    whole = short(stage=stage)

    def stop(step, steps, word):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(tmp_path, stop, stage=stage)
    steps = []
    assert same(whole, short(tmp_path, lambda step, *_: steps.append(step), stage=stage))
    assert steps[0] == 8
    with pytest.raises(ValueError, match="of another network, data or settings"):
        short(tmp_path, stage=stage, alpha=0.25)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_leave_no_trace(killed, tmp_path):
    """Killed at any moment, ten times over, and resumed: the same masks and weights to the bit."""
    trials = int(os.environ.get("BITLADDER_KILLS", "10"))
    want, random = short(), np.random.default_rng(0)
    for trial in range(trials):
        killed(lambda trial=trial: short(tmp_path / str(trial)), 0.02 + random.random() * 0.3)
        assert same(short(tmp_path / str(trial)), want)


SCRIPT = """
    import os, sys
    import torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from test_sparse import short
    def stop(step, steps, word):
        if step == 7 and sys.argv[2] == "stop":
            os._exit(3)
    found = short(sys.argv[1] or None, stop, torch.float64)
    torch.save(found, f"{out}/rank{{os.environ['RANK']}}.pt")
"""


def together(tmp_path, work="", how="go"):
    """What two processes end in; None if they were stopped. Doubles, and no norm over batches: see docs/training.md."""
    script = tmp_path / "user.py"
    script.write_text(textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([sys.executable, str(script), work, how], env={**shared, "RANK": str(r)}) for r in (0, 1)]
    for one in runs:
        try:
            one.wait(timeout=15 if how == "stop" and runs[0].poll() is not None else 120)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
    found = [tmp_path / f"rank{r}.pt" for r in (0, 1)]
    return [torch.load(f, weights_only=True) for f in found] if all(f.exists() for f in found) else None


def test_processes(tmp_path):
    """Masks of one process and of two are identical, weights to 1e-5; of two, all bits are, also after a resumption."""
    alone = short(dtype=torch.float64)
    one, two = together(tmp_path)
    assert same(one, two)
    for name, x in alone.items():
        assert torch.equal(x, one[name]) if name.startswith("mask/") else torch.allclose(x, one[name], rtol=1e-5, atol=1e-5)
    for rank in (0, 1):
        (tmp_path / f"rank{rank}.pt").unlink()
    assert together(tmp_path, str(tmp_path / "work"), "stop") is None
    assert (tmp_path / "work" / "student.pt").exists()
    again = together(tmp_path, str(tmp_path / "work"))
    assert same(again[0], one)
    assert same(again[1], one)
