"""Sparse students and their teachers: zeros outlast both stages, every format, the file and every restart."""

import copy
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from students import HELD, LEARN, X, Y, convolutions, hits, mlp, rows_of, same
from torch import nn

import bitladder as bl
from bitladder.file import load, save
from bitladder.formats import QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.train.nested import train_nested
from bitladder.train.sparse import Schedule, Sparse, broken
from bitladder.train.student import distilled, train_student

pytestmark = pytest.mark.usefixtures("one_thread")


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


def short(work=None, progress=None, stage=1, **options):
    """A short run of either stage; the network and its masks."""
    net, teacher = mlp(0, 16, norm=True), mlp(1, 16)
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
    from test_student import short
    def stop(step, steps, word):
        if step == 7 and sys.argv[2] == "stop":
            os._exit(3)
    found = short(sys.argv[1] or None, stop)
    torch.save(found, f"{out}/rank{{os.environ['RANK']}}.pt")
"""


def test_processes(together, tmp_path):
    """Masks, weights and running means of one process and of two are the same bits, also after a resumption."""
    alone, found = short(), [tmp_path / f"rank{rank}.pt" for rank in (0, 1)]
    assert together(SCRIPT, "", "go") == [0, 0]
    assert all(same(alone, torch.load(f, weights_only=True)) for f in found)
    for f in found:
        f.unlink()
    assert together(SCRIPT, str(tmp_path / "work"), "stop") != [0, 0]
    assert (tmp_path / "work" / "student.pt").exists()
    assert together(SCRIPT, str(tmp_path / "work"), "go") == [0, 0]
    assert all(same(alone, torch.load(f, weights_only=True)) for f in found)


def test_running_statistics_are_taken_anew():
    """After a step or two, too, they are of the network as it is, on samples as they are, mixed whatever their order."""
    order = np.argsort(Y[LEARN], kind="stable")
    x, y = X[LEARN][order], Y[LEARN][order]
    net = nn.Sequential(*convolutions()[:6], nn.Dropout(0.9), *convolutions()[6:])

    def dark(arrays, random):
        return (arrays[0] * 0,)

    train_student(net, x, y, epochs=0.1, batch=720, rate=0.05, parts=2, augment=dark)
    assert not net.training
    with torch.no_grad():
        out = net[0](torch.tensor(x))
    assert torch.allclose(net[1].running_mean, out.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(net[1].running_var, out.var((0, 2, 3)), rtol=0.01)
    assert net[1].momentum == 0.1
    known = hits(net)
    train_student(net, x, y, epochs=0.1, batch=720, rate=0.0, parts=1)
    assert abs(hits(net) - known) < 0.03, "parts of all classes"
