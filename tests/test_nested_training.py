"""Training in formats: the module computes what its file holds, all widths learn in one step, and every restart is exact."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import bitladder as bl
import bitladder.training
from bitladder.formats import QTensor
from bitladder.ir.graph import PerWidth
from bitladder.runtime.integer import Coded
from bitladder.runtime.reference import run
from bitladder.train.group import Group
from bitladder.train.nested import RULES, Batch, combine, drawn, nested_backward, train_nested
from bitladder.train.parts import parts_of
from bitladder.training import finish, prepare

digits = load_digits()
X = (digits.images / 16)[:, None].astype(np.float32)
Y = digits.target
LEARN, HELD = np.arange(len(Y)) % 5 != 0, np.arange(len(Y)) % 5 == 0
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net():
    """A trained classifier of digits with batch norm."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = nn.Sequential()
    for inputs, outputs, stride in ((1, 8, 1), (8, 12, 2), (12, 16, 1), (16, 16, 1)):
        made += nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    made += nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    adapt, x, y = torch.optim.Adam(made.parameters(), 3e-3), torch.tensor(X), torch.tensor(Y)
    for epoch in range(10):
        for rows in np.array_split(np.random.default_rng(epoch).permutation(np.flatnonzero(LEARN)), 20):
            adapt.zero_grad()
            F.cross_entropy(made(x[rows]), y[rows]).backward()
            adapt.step()
    return made.eval()


def prepared(net, plan="nested8", **options):
    return prepare(net, plan, X[:256], rounding="feedback", **options)


def hits(called):
    return float((np.asarray(called(X[HELD])).argmax(1) == Y[HELD]).mean())


def codes(graph):
    return {name: c.codes for name, c in graph.constants.items() if isinstance(c, QTensor)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --------------------------------------------------------------------------------------------------- prepare, finish


def test_it_starts_as_it_was_quantized(net):
    """Before any step, every width holds the codes that quantization after training found, and the biases of that width."""
    model = bl.quantize(net, X[:256], plan="nested8", rounding="feedback")
    made = prepare(model, widths=(8, 4, 2))
    assert {n: c.tolist() for n, c in codes(finish(made).whole).items()} == {
        n: c.tolist() for n, c in codes(model.whole).items()
    }
    made.eval()
    for bits in made.widths:
        with made.at(bits), torch.no_grad():
            assert np.abs(made(torch.tensor(X[HELD])).numpy() - model.at(bits)(X[HELD])).max() < 0.1
    assert made.bits == 8
    assert hits(finish(prepared(net))) > 0.9


def test_means_are_of_all_samples_whatever_their_order(net, monkeypatch):
    """Calibration data in the order of their classes give the means of all classes, also where only some are looked at."""
    ordered = X[:320][np.argsort(Y[:320], kind="stable")]
    wanted = prepare(net, "nested8", ordered, rounding="nearest").biases
    first = prepare(net, "nested8", ordered[:160], rounding="nearest").biases
    monkeypatch.setattr(bitladder.training, "MEANS", 160)
    found = prepare(net, "nested8", ordered, rounding="nearest").biases

    def far(biases):
        return sum(float((biases[name] - wanted[name]).detach().abs().sum()) for name in wanted.names())

    assert 0 < far(found) < 0.5 * far(first)


def test_the_file_computes_what_the_module_did(net, tmp_path):
    """With steps that are powers of two every value is exact in float32: the same codes everywhere, at every width."""
    made = prepared(net, "nested8,a=fixed8", widths=(8, 4, 3, 2))
    with torch.no_grad():
        for name in made.ranges.names():
            if name.endswith("/range"):
                made.ranges[name].copy_(made.ranges[name].log2().round().exp2())
    made.eval()
    seen = {}
    original = made.activation
    made.activation = lambda name, value: seen.setdefault(name, original(name, value))
    model = finish(made)
    model.save(tmp_path / "a.ladder")
    for bits in made.widths:
        seen.clear()
        with made.at(bits), torch.no_grad():
            said = made(torch.tensor(X[HELD])).numpy()
        found = {}
        run(model.at(bits).graph, {model.graph.inputs[0].name: X[HELD]}, watch=found.__setitem__)
        integers = {name: v for name, v in found.items() if isinstance(v, Coded)}
        assert len(integers) >= 4
        for name, value in integers.items():
            assert np.array_equal(value.real(), seen[name].numpy()), (bits, name)
        assert np.array_equal(bl.load(tmp_path / "a.ladder").at(bits)(X[HELD]), said)


def test_fixed_point_is_exact_too(net):
    made = prepared(net, "fixed8/tensor,a=fixed8").eval()
    with torch.no_grad():
        said = made(torch.tensor(X[HELD])).numpy()
    assert np.array_equal(finish(made)(X[HELD]), said)


def test_nested_after_training(net, tmp_path):
    """Each trained width is a prefix of the stored codes, which are the masters' own codes at that width."""
    made = train_nested(prepared(net), X[LEARN], Y[LEARN], epochs=1, batch=64)
    model = finish(made)
    model.save(tmp_path / "a.ladder")
    whole = codes(model.whole)
    moved = 0
    for name, w in made.weights().items():
        encoding = model.whole.constants[name].encoding
        for bits in range(1, 9):
            direct = encoding.at(bits).encode(w.detach().numpy())
            assert np.array_equal(direct, whole[name] >> (8 - bits))
        moved += int((whole[name] != codes(made.graph)[name]).sum())
    assert moved > 100
    for bits in made.widths:
        assert np.array_equal(bl.load(tmp_path / "a.ladder", bits)(X[HELD]), model.at(bits)(X[HELD]))
    biases = [c for c in model.whole.constants.values() if isinstance(c, PerWidth)]
    assert any(len(c.arrays) == 4 and not np.array_equal(c.arrays[2], c.arrays[8]) for c in biases)


def test_one_bit_learns(net):
    """One bit, hopeless when only rounded, is a network after training, and 8 bits stay good."""
    made = prepared(net, widths=(8, 4, 2, 1))
    before = finish(made)
    after = finish(train_nested(made, X[LEARN], Y[LEARN], epochs=4, batch=64))
    assert hits(after.at(1)) > max(0.7, hits(before.at(1)) + 0.3)
    assert hits(after.at(2)) > 0.92
    assert hits(after.at(8)) > 0.94


def test_activations_that_follow(net):
    """Activations have the width of the weights, 2 bits at least; each width is finished into a file that computes the same."""
    made = prepared(net, widths=(8, 4, 2), follow=True)
    train_nested(made, X[LEARN], Y[LEARN], epochs=2, batch=64)
    for bits, least in ((8, 0.9), (4, 0.9), (2, 0.5)):
        model = finish(made, bits)
        spans = {e.format.bits for e in model.whole.encodings.values()}
        assert bits in spans
        assert spans <= {bits, 6, 8}
        with made.at(bits), torch.no_grad():
            said = made(torch.tensor(X[HELD])).numpy()
        assert (said.argmax(1) == model(X[HELD]).argmax(1)).mean() > 0.98
        assert hits(model) > least
    with pytest.raises(ValueError, match=r"give one of \[8, 4, 2\]"):
        finish(made)


def test_your_own_loop(net):
    """Any optimizer, one width or several; float starts, tables and other formats too."""
    x, y = torch.tensor(X[LEARN][:64]), torch.tensor(Y[LEARN][:64])
    for plan in ("int4", "nested8:tree", "codebook3", "ternary,a=fixed8"):
        made = prepared(net, plan, start="float", widths=(8, 3) if "nested" in plan else None)
        adapt, losses = torch.optim.Adam(made.groups(5e-3)), []
        for _ in range(6):
            adapt.zero_grad()
            loss = sum(F.cross_entropy(made(x), y) for b in made.widths if made.at(b))
            loss.backward()
            adapt.step()
            losses.append(loss.item())
        assert min(losses[3:]) < losses[0]
        assert np.isfinite(finish(made)(X[:8])).all()


def test_fractional_lengths_are_held(net):
    """Retraining in fixed point per channel: every length stays what statistics chose, codes move, accuracy comes back (S3)."""

    def lengths(graph):
        coded = {n: c.encoding for n, c in graph.constants.items() if isinstance(c, QTensor)}
        return {n: e.params["fl"].tolist() for n, e in {**coded, **graph.encodings}.items()}

    made = prepared(net, "fixed2,a=fixed8", start="float")
    before = finish(made.eval())
    train_nested(made, X[LEARN], Y[LEARN], epochs=2, batch=64, rate=1e-2)
    after = finish(made)
    assert lengths(after.graph) == lengths(before.graph)
    assert any(not np.array_equal(a, b) for a, b in zip(codes(after.graph).values(), codes(before.graph).values(), strict=True))
    assert hits(after) > hits(before) + 0.1


def test_state_dict_and_refit(net):
    """A state dict brings everything that training changed to another copy; ranges can be chosen anew by rule."""
    made = train_nested(prepared(net), X[LEARN], Y[LEARN], epochs=0.3, batch=64)
    other = prepared(net)
    assert not same(made.state_dict(), other.state_dict())
    other.load_state_dict(made.state_dict())
    assert np.array_equal(finish(other)(X[HELD]), finish(made)(X[HELD]))
    before = {n: made.ranges[n].clone() for n in made.ranges.names() if n.endswith("range")}
    made.refit()
    assert any(not torch.equal(before[n], made.ranges[n]) for n in before)
    assert hits(finish(made)) > 0.9


def test_what_the_network_sees_can_be_said(net):
    """A mask given as `see` acts in training alone."""
    made = prepared(net, "int4")
    made.see = lambda name, master, held: torch.zeros_like(held)
    x = torch.tensor(X[:4])
    assert torch.equal(made.train()(x)[0], made(x)[1])
    made.eval()
    assert not torch.equal(made(x)[0], made(x)[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: prepare(net, "nested8"), "needs `calib`"),
        (lambda net: prepared(net, widths=(9,)), "widths must be from 1 to the 8 bits"),
        (lambda net: prepared(net, start="zero"), "start must be one of codes, float, got 'zero'"),
        (lambda net: prepared(net).at(5), r"must be one of those prepared, \[8, 4, 3, 2\], got 5"),
        (lambda net: prepare(finish(prepared(net)), "int4"), "brings its plan"),
        (lambda net: combine({8: [], 4: []}, "sum"), "rule must be one of"),
        (lambda net: nested_backward(prepared(net), torch.tensor(X[:2]), None, {2: None}), "widest width .8. has nobody"),
    ],
)
def test_what_is_refused(net, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(net)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- gradients and steps


def test_rules_of_gradients():
    """Each rule by hand; a gradient that one width alone has stays as it is."""
    g = {
        8: [torch.tensor([1.0, 1.0]), None],
        4: [torch.tensor([2.0, -3.0]), torch.ones(1)],
        2: [torch.tensor([6.0, -1.0]), None],
    }
    want = {
        "mean": [3.0, -1.0],
        "weighted": [(1 + 4 + 18) / 6, (1 - 6 - 3) / 6],
        "median": [2.0, -1.0],
        "majority": [(1 + 4 + 18) / 6, (-6 - 3) / 6],
    }
    for rule in RULES:
        made, alone = combine(g, rule, {8: 1, 4: 2, 2: 3})
        assert made.tolist() == pytest.approx(want[rule])
        assert alone.tolist() == [1.0]
    assert combine({8: [torch.tensor([1.0])], 4: [torch.tensor([-1.0])]}, "majority")[0].tolist() == [0.0]


def test_one_step_by_hand(net):
    """The gradient of a step is that of the losses written out: labels for the widest, its answers for the next, and so on."""
    made = prepared(net, widths=(8, 4, 2), centre=False)
    x, y = torch.tensor(X[:32]), torch.tensor(Y[:32])
    losses = nested_backward(made, x, y, lambda said, labels: F.cross_entropy(said, labels), rule="mean")
    found = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    teacher, total = F.one_hot(y, 10).float(), 0
    for bits in (8, 4, 2):
        with made.at(bits):
            said = made(x)
        loss = F.cross_entropy(said, teacher)
        assert loss.item() == pytest.approx(losses[bits], rel=1e-5)
        total, teacher = total + loss, said.detach().softmax(1)
    total.backward()
    for name, w in made.weights().items():
        key = next(n for n, p in made.named_parameters() if p is w)
        assert torch.allclose(found[key], w.grad / 3, rtol=1e-4, atol=1e-7), name


def test_a_teacher(net):
    """Half of what the widest learns from may be the answers of another module, or all that all learn from."""
    made, x, y = prepared(net, widths=(8, 2), centre=False), torch.tensor(X[:32]), torch.tensor(Y[:32])
    losses = nested_backward(made, x, y, F.cross_entropy, teacher=net(x))
    said = made(x)
    want = (F.cross_entropy(said, y) + F.cross_entropy(said, net(x).softmax(1))) / 2
    assert losses[8] == pytest.approx(want.item(), rel=1e-5)
    losses = nested_backward(made, x, y, F.cross_entropy, teacher=net(x), taught=1, distill=False)
    for bits in (8, 2):
        with made.at(bits):
            assert losses[bits] == pytest.approx(F.cross_entropy(made(x), net(x).softmax(1)).item(), rel=1e-5)
    with pytest.raises(ValueError, match="taught must be from 0"):
        nested_backward(made, x, y, F.cross_entropy, teacher=net(x), taught=2)
    with pytest.raises(ValueError, match="learn from the teacher alone, got none"):
        nested_backward(made, x, y, F.cross_entropy, taught=1)
    with pytest.raises(ValueError, match="batches must be 1 or more, got -1"):
        prepared(net, batches=-1)
    with pytest.raises(TypeError, match="must be an array, a dict of arrays or an iterable of batches, got str"):
        bl.prepare(net, "nested8", "calib.npz")
    train_nested(made, X[LEARN], Y[LEARN], epochs=1, batch=64, teacher=net)
    assert hits(finish(made)) > 0.9


def test_another_task_at_the_low_width(net):
    """A width with a loss of its own learns that: odd or even at 2 bits, digits at 8."""
    made = prepared(net, widths=(8, 2))
    adapt = torch.optim.Adam(made.groups(1e-2))
    x, y = torch.tensor(X[LEARN]), torch.tensor(Y[LEARN])
    tasks = {
        8: lambda said, labels: F.cross_entropy(said, labels),
        2: lambda said, labels: F.cross_entropy(said[:, :2], labels % 2),
    }
    for step in range(60):
        rows = np.random.default_rng(step).integers(0, len(x), 64)
        adapt.zero_grad()
        nested_backward(made, x[rows], y[rows], tasks, weights={8: 1, 2: 2})
        adapt.step()
    model = finish(made.eval())
    assert hits(model.at(8)) > 0.9
    odd = np.asarray(model.at(2)(X[HELD]))[:, :2].argmax(1)
    assert (odd == Y[HELD] % 2).mean() > 0.8


def test_random_widths(net):
    """The cheap variant draws by step and seed alone, every width comes, and it learns."""
    widths = (8, 4, 3, 2)
    all_drawn = [drawn(widths, step, count=2, seed=3) for step in range(40)]
    assert all_drawn == [drawn(widths, step, count=2, seed=3) for step in range(40)]
    assert {b for pair in all_drawn for b in pair} == set(widths)
    assert all(a > b for a, b in all_drawn)
    made = train_nested(prepared(net), X[LEARN], Y[LEARN], epochs=1, batch=64, at_once=1)
    assert hits(finish(made).at(2)) > 0.85


# ------------------------------------------------------------------------------------------- restarts and processes


def test_running_means_are_those_of_samples_as_they_are(net):
    """However images are changed while training, means end as if they had not been, and so the network does."""

    def brighter(arrays, random):
        return (arrays[0] + 1.0,)

    learners = [prepared(net, widths=(8, 2)) for _ in range(2)]
    for learner, augment in zip(learners, (None, brighter), strict=True):
        train_nested(learner, X[LEARN], Y[LEARN], epochs=0.2, rate=1e-30, augment=augment)
    plain, changed = (learner.means for learner in learners)
    assert len(plain.names()) == 8  # four layers, at two widths
    assert all(torch.equal(plain[name], changed[name]) for name in plain.names())
    before = prepared(net, widths=(8, 2)).means
    assert not any(torch.equal(plain[name], before[name]) for name in plain.names())
    assert hits(finish(learners[1])) > 0.9


def test_an_interruption_leaves_no_trace(net, tmp_path):
    """Interrupted and resumed, the end is that of one go, to the bit."""
    options = {"epochs": 1, "batch": 128, "augment": noisy, "at_once": 2}
    whole = train_nested(prepared(net), X[LEARN], Y[LEARN], **options)

    def stop(step, steps, word):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_nested(prepared(net), X[LEARN], Y[LEARN], work=tmp_path, progress=stop, **options)
    steps = []
    again = train_nested(
        prepared(net), X[LEARN], Y[LEARN], work=tmp_path, progress=lambda step, *_: steps.append(step), **options
    )
    assert steps[0] == 6
    assert same(whole.state_dict(), again.state_dict())
    with pytest.raises(ValueError, match="of another network, data or settings"):
        train_nested(prepared(net), X[LEARN], Y[LEARN], work=tmp_path, **{**options, "batch": 64})


def noisy(arrays, random):
    return tuple((a + 0.05 * random.standard_normal(a.shape)).astype(a.dtype) for a in arrays)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_leave_no_trace(killed, net, tmp_path):
    """Killed at any moment, ten times over, and resumed: the same end to the bit."""
    trials = int(os.environ.get("BITLADDER_KILLS", "10"))
    start = prepared(net, widths=(8, 2)).state_dict()
    made = prepared(net, widths=(8, 2))

    def go(work, seconds=None):
        made.load_state_dict(start)
        return train_nested(made, X[LEARN][:512], Y[LEARN][:512], epochs=4, batch=64, every=1, work=work)

    want = {k: v.clone() for k, v in go(None).state_dict().items()}
    random = np.random.default_rng(0)
    for trial in range(trials):
        killed(lambda trial=trial: go(tmp_path / str(trial)), 0.05 + random.random() * 0.8)
        assert same(go(tmp_path / str(trial)).state_dict(), want)


SCRIPT = """
    import os, sys
    import torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    import bitladder as bl
    from test_nested_training import short
    def stop(step, steps, word):
        if step == 3 and sys.argv[2] == "stop":
            os._exit(3)
    made = short(bl.prepare(bl.load("{out}/net.ladder"), widths=(8, 2)), sys.argv[1] or None, stop)
    torch.save(made.state_dict(), f"{out}/rank{{os.environ['RANK']}}.pt")
"""


def short(made, work=None, progress=None):
    return train_nested(made, X[LEARN][:256], Y[LEARN][:256], epochs=1.5, batch=64, work=work, progress=progress, every=2)


def test_processes(net, together, tmp_path):
    """One process and two give the same bits, in one go or resumed."""
    finish(prepared(net, widths=(8, 2))).save(tmp_path / "net.ladder")
    alone = short(prepare(bl.load(tmp_path / "net.ladder"), widths=(8, 2))).state_dict()
    found = [tmp_path / f"rank{rank}.pt" for rank in (0, 1)]
    assert together(SCRIPT, "", "go") == [0, 0]
    assert all(same(alone, torch.load(f, weights_only=True)) for f in found)
    for f in found:
        f.unlink()
    assert together(SCRIPT, str(tmp_path / "work"), "stop") != [0, 0]
    assert (tmp_path / "work" / "nested.pt").exists()
    assert together(SCRIPT, str(tmp_path / "work"), "go") == [0, 0]
    assert all(same(alone, torch.load(f, weights_only=True)) for f in found)


def test_a_batch_that_is_not_finite_leaves_nothing_behind(net):
    """The next batch's gradients and running means are those of a fresh start."""
    x, y = torch.tensor(X[:16]), torch.tensor(Y[:16])
    ends = []
    for broken in (False, True):
        made = prepared(net, widths=(8, 2)).train()
        whole = Batch(made)
        if broken:
            whole.take(x * float("nan"), y, F.cross_entropy)
            with pytest.raises(ValueError, match=r"the loss must be finite, got .*nan.*; lower the rate"):
                whole.give()
        whole.take(x, y, F.cross_entropy)
        whole.give()
        ends.append([*(p.grad for p in made.parameters()), *made.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True) if a is not None)
    assert any(float(g.abs().max()) > 0 for g in ends[0] if g is not None)


def test_more_processes_than_parts_are_refused():
    with pytest.raises(ValueError, match="2 parts of a batch cannot be shared by 3 processes; pass more `parts`"):
        parts_of("nested", 4, 2, Group(0, 3))
    with pytest.raises(ValueError, match="parts must be at least 1, got 0"):
        parts_of("nested", 0, 2, Group())
