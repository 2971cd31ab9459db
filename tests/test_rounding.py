"""Rounding in passes: later layers make up for earlier ones, widths are children, ranges err least, and time may run out."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bitladder as bl
from bitladder.convert.from_torch import from_torch
from bitladder.formats import Fixed, Int, Nested, QTensor, Ternary, fit
from bitladder.ir.rewrite import simplify
from bitladder.model import Model
from bitladder.ptq.correct import with_biases
from bitladder.ptq.equalize import equalized, factors, pairs
from bitladder.ptq.feedback import damped, products, rounded
from bitladder.ptq.groups import refitted
from bitladder.ptq.importance import Importance
from bitladder.ptq.moments import settled
from bitladder.ptq.passes import Codes
from bitladder.ptq.ranges import SHRINKS, by_error
from bitladder.ptq.rate import MIND
from bitladder.ptq.workbench import Workbench
from bitladder.runtime.reference import run


class Bottleneck(nn.Module):
    """Convolutions, one of them depthwise and one after max pooling, a residual sum, and two linear layers."""

    def __init__(self, tail: bool = True):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.up = nn.Conv2d(8, 16, 1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 8, 1)
        self.last = nn.Conv2d(8, 12, 3)
        self.hidden, self.out = nn.Linear(12, 24), nn.Linear(24, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        y = self.down(torch.relu(self.deep(nn.functional.relu6(self.up(x)))))
        y = torch.relu(self.last(nn.functional.max_pool2d(torch.relu(x + y), 2))).mean((2, 3))
        return self.out(torch.relu(self.hidden(y)))


def samples(count=64, seed=0):
    """Images whose neighbouring pixels resemble each other."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, 8, 8))
    return np.cumsum(np.cumsum(noise, 2), 3).astype(np.float32) / 4


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    return Bottleneck().eval()


@pytest.fixture(scope="module")
def plain(net):
    return with_biases(simplify(from_torch(net, (torch.from_numpy(samples(8)),))))


def answers(graph, x):
    return run(graph, {graph.inputs[0].name: x})[graph.outputs[0]]


def wrong(graph, plain, x):
    """The squared error of the outputs over their power."""
    got, want = answers(graph, x), answers(plain, x)
    return float(((got - want) ** 2).sum() / (want**2).sum())


def bench(plain, **options):
    return Workbench(plain, {}, {plain.inputs[0].name: samples()}, **options)


def formats(plain, fmt):
    return {name: fmt for name, _ in plain.weights()}


def gram_of(seed, inputs=27, rows=300, groups=1):
    draw = np.random.default_rng(seed)
    x = np.maximum(
        draw.normal(size=(groups, rows, inputs)) @ (draw.normal(size=(inputs, inputs)) * np.geomspace(1, 0.1, inputs)), 0
    )
    return np.matmul(x.swapaxes(1, 2), x)


def error(w, value, gram):
    e = (w.astype(np.float64) - value).reshape(len(gram), -1, gram.shape[-1])
    return np.einsum("goi,gij,goj->go", e, gram, e).ravel()


# ------------------------------------------------------------------------------------------------------------ ranges


@pytest.mark.parametrize(
    "fmt",
    [Int(4), Int(2), Int(3, per="tensor"), Int(4, group=9), Fixed(4), Ternary(), Nested(4), Nested(2, matter={2: 1.0})],
    ids=str,
)
def test_ranges_by_error_err_less_after_feedback(fmt):
    """Than those that cover everything, and than those of least weight error, summed over random layers."""
    ours = covering = fitted = 0.0
    for seed in range(5):
        w, gram = np.random.default_rng(seed).normal(0, 0.1, (16, 27)).astype(np.float32), gram_of(seed)
        ours += error(w, rounded(w, by_error(w, fmt, gram), gram).decode(), gram).sum()
        covering += error(w, rounded(w, fit(fmt, w, cover="max"), gram).decode(), gram).sum()
        fitted += error(w, rounded(w, fit(fmt, w), gram).decode(), gram).sum()
    assert ours <= covering * 1.02
    assert ours <= fitted * 1.02


def test_ranges_are_per_channel_and_per_group_of_a_grouped_layer():
    """Each channel of a depthwise layer takes the range of its own inputs; a tensor-wide one is one number."""
    w, gram = np.random.default_rng(1).normal(size=(6, 1, 3, 3)).astype(np.float32), gram_of(1, 9, groups=6)
    each = by_error(w, Int(3), gram)
    apart = [by_error(w[i : i + 1], Int(3), gram[i : i + 1]).params["scale"] for i in range(6)]
    assert np.array_equal(each.params["scale"], np.concatenate(apart))
    assert by_error(w, Int(3, per="tensor"), gram).params["scale"].shape == ()
    given = Fixed(4, fl=3)
    assert (by_error(w, given, gram).params["fl"] == 3).all()
    assert len(SHRINKS) > 1


@pytest.mark.parametrize("fmt", [Int(4, group=9), Int(3, group=16), Int(4, group=8, unsigned=True)], ids=str)
@pytest.mark.parametrize("groups", [1, 4])
def test_scales_of_groups_suit_their_codes(fmt, groups):
    """Fitted again once codes are known, and codes again: no output errs more, most err less."""
    for seed in range(3):
        w = np.random.default_rng(seed).normal(0.05, 0.1, (16, 27)).astype(np.float32)
        gram = gram_of(seed, groups=groups)
        before = rounded(w, by_error(w, fmt, gram), gram)
        codes, encoding = refitted(w, before.codes.astype(np.int64), before.encoding, gram)
        held = np.stack([damped(matrix) for matrix in gram])
        was, now = (error(w, decoded, held) for decoded in (before.decode(), encoding.decode(codes)))
        assert (now <= was * (1 + 1e-6)).all()
        assert now.sum() < 0.98 * was.sum()
        assert encoding.params["scale"].shape == before.encoding.params["scale"].shape
        assert (encoding.params["scale"] > 0).all()


def test_a_group_of_zeros_keeps_its_scale():
    """Nothing can be said of it, and nothing breaks."""
    w, gram = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32), gram_of(0, 16)
    w[:, :8] = 0
    before = rounded(w, by_error(w, Int(4, group=8), gram), gram)
    codes, encoding = refitted(w, np.where(w == 0, 0, before.codes).astype(np.int64), before.encoding, gram)
    assert np.array_equal(encoding.params["scale"][:, 0], before.encoding.params["scale"][:, 0])
    assert np.isfinite(encoding.decode(codes)).all()


def test_formats_with_tables_are_fitted_as_ever():
    w, gram = np.random.default_rng(1).normal(size=(6, 27)).astype(np.float32), gram_of(1)
    for scheme in ("tree", "sign"):
        ours, usual = by_error(w, Nested(4, scheme), gram), fit(Nested(4, scheme), w)
        assert all(np.array_equal(ours.params[k], usual.params[k]) for k in usual.params)


# ------------------------------------------------------------------------------------------------------------ passes


@pytest.mark.parametrize("fmt", [Int(3), Int(4), Fixed(4), Nested(3, matter={3: 1.0})], ids=str)
def test_layers_that_make_up_for_earlier_ones_lose_less(plain, fmt):
    """On images that nothing was rounded for."""
    from bitladder.ptq.feedback import grams

    x, plan = samples(200, seed=5), formats(plain, fmt)
    alone = bench(plain, grams=grams(plain, [{plain.inputs[0].name: samples()}])).network(plan)
    assert wrong(bench(plain, passes=True).finished(plan), plain, x) < wrong(alone, plain, x)


@pytest.mark.parametrize("scheme", ["midrise", "tree", "sign"])
def test_each_width_of_a_nested_network_is_cut_from_the_same_codes(plain, scheme):
    """Every pass keeps the codes of the one before as prefixes, and errors fall from width to width."""
    made = {}
    codes = Codes(plain, formats(plain, Nested(8, scheme)), {})
    assert codes.widths() == [2, 3, 4, 8]
    for bits in codes.widths():
        codes.complete(bits)
        made[bits] = {name: q.codes.astype(int) for name, q in codes.made.items()}
    for low, high in ((2, 3), (3, 4), (4, 8)):
        for name in made[low]:
            assert np.array_equal(made[high][name] >> (high - low), made[low][name])
    graph = bench(plain, passes=True).finished(formats(plain, Nested(8, scheme)), widths=(2, 3, 4, 8))
    found = [wrong(graph.at(bits), plain, samples(100, seed=9)) for bits in (2, 3, 4, 8)]
    assert sorted(found, reverse=True) == found
    assert all(isinstance(graph.constants[name], QTensor) for name, _ in plain.weights())


def test_ends_run_on_six_planes_from_the_first_pass_on(plain):
    names = [name for name, _ in plain.weights()]
    plan = formats(plain, Nested(8)) | {names[0]: Nested(8, matter={6: 8.0, 8: 64.0})}
    codes = Codes(plain, plan, {})
    assert codes.widths() == [2, 3, 4, 8]
    codes.complete(2)
    assert [codes.made[name].format.bits for name in names[:2]] == [6, 2]


def test_networks_of_few_weights_have_their_passes_too(plain):
    """However few weights are nested; without any there is one pass."""
    names = [name for name, _ in plain.weights()]
    assert Codes(plain, {names[0]: Nested(8)}, {}).widths() == [2, 3, 4, 8]
    assert Codes(plain, {names[0]: Nested(4), names[1]: Int(8)}, {}).widths() == [2, 3, 8]
    assert Codes(plain, {names[0]: Int(4), names[1]: Int(8)}, {}).widths() == [8]


def test_weights_that_are_not_in_the_sequence_are_still_codes(plain):
    """Those left in float stay so; all others are codes of their formats."""
    names = [name for name, _ in plain.weights()]
    graph = bench(plain, passes=True).finished(formats(plain, Int(4)) | {names[1]: None})
    assert isinstance(graph.constants[names[1]], np.ndarray)
    assert all(isinstance(graph.constants[name], QTensor) for name in names if name != names[1])


# ----------------------------------------------------------------------------------------------------------- moments


def minds_of(seed, outputs, groups=1):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(groups, 50, outputs)) @ draw.normal(size=(outputs, outputs))
    return Importance(np.matmul(x.swapaxes(1, 2), x) / 50, 1)


def cost(w, value, gram, mind):
    """What errors cost under both matrices, those of outputs with what `settled` adds to them."""
    each = len(w) // len(gram)
    e = (w.astype(np.float64) - value).reshape(len(gram), each, -1)
    return float(sum(np.sum((damped(s, damp=MIND) @ a) * (a @ g)) for a, s, g in zip(e, mind.moments, gram, strict=True)))


@pytest.mark.parametrize("fmt", [Int(3), Int(4, per="tensor"), Fixed(4), Nested(2), Nested(4)], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_codes_that_know_of_each_other_cost_less(fmt, groups):
    """Never more than those with feedback, less on the whole, and all in range."""
    before = after = 0.0
    for seed in range(4):
        w = np.random.default_rng(seed).normal(0, 0.1, (12, 27)).astype(np.float32)
        gram, mind = gram_of(seed, groups=groups), minds_of(seed, 12 // groups, groups)
        q = rounded(w, fit(fmt, w), gram)
        found = settled(w, q.codes, q.encoding, gram, mind, None)
        costs = [cost(w, q.encoding.decode(codes), gram, mind) for codes in (q.codes, found)]
        assert costs[1] <= costs[0] * (1 + 1e-6)
        before, after = before + costs[0], after + costs[1]
        assert fmt.span()[0] <= found.min() <= found.max() <= fmt.span()[1]
    assert after < before


def test_children_stay_children_when_codes_know_of_each_other():
    w = np.random.default_rng(0).normal(0, 0.1, (12, 27)).astype(np.float32)
    gram, mind = gram_of(0), minds_of(0, 12)
    q = rounded(w, fit(Nested(4), w), gram)
    found = settled(w, q.codes, q.encoding, gram, mind, q.at(2)).astype(int)
    assert np.array_equal(found >> 2, q.at(2).codes)
    assert (found != q.codes).any()


@pytest.mark.parametrize("fmt", [Int(4, group=9), Nested(4, "tree"), Nested(4, "sign")], ids=str)
def test_uneven_steps_stay(fmt):
    w = np.random.default_rng(0).normal(0, 0.1, (12, 27)).astype(np.float32)
    q = rounded(w, fit(fmt, w), gram_of(0))
    assert np.array_equal(settled(w, q.codes, q.encoding, gram_of(0), minds_of(0, 12), None), q.codes)


# -------------------------------------------------------------------------------------------------------- equalising


def test_equalised_networks_answer_the_same(net, plain):
    """To the bit: factors are powers of two."""
    even, x = equalized(plain), samples(50, seed=4)
    assert np.abs(answers(even, x) - answers(plain, x)).max() <= 1e-5
    changed = [n for n in plain.constants if not np.array_equal(plain.constants[n], even.constants[n])]
    assert changed


def test_pairs_are_those_that_a_factor_passes(plain):
    """relu6 does not let a factor pass, a residual sum is read twice, a mean over positions flattens."""
    found = [(a.inputs[1].partition(".")[0], b.inputs[1].partition(".")[0]) for a, b in pairs(plain)]
    assert found == [("deep", "down"), ("hidden", "out")]


def test_equalising_brings_channels_to_one_size():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    with torch.no_grad():
        net[0].weight *= torch.tensor([1.0, 64, 1, 0.02, 8, 0]).reshape(6, 1, 1, 1)
    graph = simplify(from_torch(net, (torch.from_numpy(samples(4)),)))
    even = equalized(graph)
    x = samples(20)
    assert np.array_equal(answers(even, x), answers(graph, x))
    first = [np.abs(np.asarray(g.constants["0.weight"])).reshape(6, -1).max(1) for g in (graph, even)]
    assert (lambda r: r[r > 0].max() / r[r > 0].min())(first[1]) < (lambda r: r[r > 0].max() / r[r > 0].min())(first[0]) / 8
    assert np.array_equal(factors(np.ones(3), np.ones(3)), np.ones(3, np.float32))


def test_equalize_is_an_option_of_quantize(net):
    x = samples(64)
    even, usual = (bl.quantize(net, x, plan="int8", equalize=e) for e in (True, False))
    np.testing.assert_allclose(even(x), usual(x), atol=0.1 * np.abs(usual(x)).max())
    assert even.graph.meta["recipe"]["equalize"] is True


# ------------------------------------------------------------------------------------------------------ time and effort


@pytest.mark.parametrize("limit", [1e-6, 0.02, 0.5])
@pytest.mark.parametrize("plan", ["nested8", "int4", "fixed4,a=fixed8"])
def test_a_network_comes_out_however_little_time_there_is(net, plan, limit):
    """A complete one, every weight in its format, that runs and is near the float network at eight bits."""
    x = samples(96)
    model = bl.quantize(net, x, plan=plan, effort="best", time_limit=limit)
    assert all(isinstance(model.graph.constants[name], QTensor) for name, _ in model.graph.weights())
    want = net(torch.from_numpy(x)).detach().numpy()
    assert np.abs(np.asarray(model(x)) - want).max() < (0.2 if plan == "nested8" else 1.0) * np.abs(want).max()


def test_a_time_limit_is_kept(net):
    """Best effort takes longer than two seconds by far; a generous factor, as machines are busy."""
    x = samples(128)
    began = time.process_time()
    bl.quantize(net, x, plan="nested8", effort="best", time_limit=0.2)
    short = time.process_time() - began
    began = time.process_time()
    bl.quantize(net, x, plan="nested8", effort="best")
    assert short < time.process_time() - began


@pytest.mark.parametrize(
    "options", [{"max_drop": 0.01}, {"max_drop": 0.01, "criterion": "accuracy"}, {"budget": "avg_bits=5"}], ids=str
)
def test_searches_return_their_best_when_time_is_over(net, options):
    x = samples(96)
    y = net(torch.from_numpy(x)).argmax(1).numpy()
    calls = []

    def score(network):
        calls.append(1)
        return float((np.asarray(network(x)).argmax(1) == y).mean())

    model = bl.quantize(net, x, score=score, time_limit=1e-6, **options)
    assert len(calls) <= 3
    assert isinstance(model, Model)
    notes = " ".join(model.graph.meta["result"]["notes"])
    assert "no time" in notes


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_limits_must_be_positive(net, limit):
    with pytest.raises(ValueError, match="time_limit must be more than 0 seconds"):
        bl.quantize(net, samples(8), time_limit=limit)


@pytest.mark.parametrize(("rows", "columns"), [(384, 72), (1000, 9), (333, 577), (4096, 27)])
def test_products_are_exact(rows, columns):
    """Equal to the bit in any order of the rows, and within a share of 2^-15 of the largest entry of the true ones."""
    x = np.random.default_rng(0).normal(size=(2, rows, columns)).astype(np.float32)
    found = products(x, x)
    assert np.array_equal(found, products(x[:, ::-1], x[:, ::-1]))
    assert np.array_equal(found, found.swapaxes(1, 2))
    true = np.matmul(x.astype(np.float64).swapaxes(1, 2), x.astype(np.float64))
    assert np.abs(found - true).max() < 2.0**-13 * true.max()
    assert (products(np.zeros((1, 3, 2)), np.zeros((1, 3, 2))) == 0).all()


@pytest.mark.parametrize("made", [
    "Bottleneck().eval(), samples(96), plan='nested3', effort='best', seed=1",
    "wide(), wide_samples(), plan={'*': 'int4/32', 'a=*': 'float'}, rounding='sequence'",
])  # fmt: skip
def test_the_same_network_whatever_threads_and_hash_seeds(tmp_path, made):
    """Files are equal byte for byte, with one thread and two, and under two hash seeds; wide layers are shared by threads."""
    script = tmp_path / "make.py"
    script.write_text(
        "import sys, torch, numpy as np\n"
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_rounding import Bottleneck, samples, wide, wide_samples\n"
        "import bitladder as bl\n"
        "torch.manual_seed(3)\n"
        f"bl.quantize({made}).save(sys.argv[2])\n"
    )
    here = Path(__file__).parent
    files = []
    for threads, seed in ((1, 0), (2, 7)):
        path = tmp_path / f"{threads}.ladder"
        env = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, script, str(threads), path, str(here)], check=True, env=env)
        files.append(path.read_bytes())
    assert files[0] == files[1]


def wide():
    return nn.Sequential(nn.Linear(384, 256), nn.GELU(), nn.Linear(256, 64)).eval()


def wide_samples():
    """Rows whose inputs go together, without a product of matrices: its last digits depend on threads."""
    return np.cumsum(np.random.default_rng(0).normal(size=(300, 384)) / 10, 1).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ the bench


def test_plans_of_the_bench(plain):
    """Ends at eight bits, for which the last of the largest layers pays in mid-rise codes; the mean counts elements."""
    from bench.plans import average, one_width

    sizes = {name: np.asarray(plain.constants[name]).size for name, _ in plain.weights()}
    first, *middle, last = sizes
    ends = sizes[first] + sizes[last]
    made = one_width(sizes, "int", 2)
    assert [made[name].bits for name in sizes] == [8, *(2,) * len(middle), 8]
    assert np.isclose(average(sizes, made), 2 + 6 * ends / sum(sizes.values()))
    payer = [name for name in sizes if sizes[name] == max(sizes.values())][-1]
    paid = one_width(sizes, "mid-rise", 2)
    assert {name for name in sizes if paid[name].bits != made[name].bits} == {payer}
    assert paid[payer].bits == 1
