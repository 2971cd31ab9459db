"""Rounding for rate: errors are fed on both ways, costs are shared out, what is asked for is found."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import bitladder as bl
from bitladder.assign.edge import edge, meet
from bitladder.assign.score import accuracy
from bitladder.convert.from_torch import from_torch
from bitladder.formats import Int, Nested, QTensor
from bitladder.ir.rewrite import simplify
from bitladder.ptq import data
from bitladder.ptq.correct import with_biases
from bitladder.ptq.feedback import damped, grams
from bitladder.ptq.importance import importances
from bitladder.ptq.rate import MIND, Rate, coded, factors, feed, layer, settle, short
from bitladder.ptq.sequence import followed
from bitladder.ptq.trellis import NEXT, Walk, bits, column, levels
from bitladder.ptq.workbench import Workbench


def random(seed):
    return np.random.default_rng(seed)


def moments(seed, size, samples=200):
    """Second moments of values that resemble each other."""
    draw = random(seed)
    x = draw.normal(size=(samples, size)) @ (draw.normal(size=(size, size)) * np.geomspace(1, 0.1, size))
    return x.T @ x / samples


def problem(seed, outputs=12, inputs=20):
    """A weight, and what errors of its outputs and its inputs cost."""
    return random(seed).normal(0, 0.1, (outputs, inputs)), moments(seed + 100, outputs), moments(seed + 200, inputs)


def cost(w, value, minds, gram):
    e = w - value
    return float(np.einsum("op,oi,ij,pj->", minds, e, gram, e))


def nearest(w, step):
    return np.round(w / step[:, None])


@pytest.mark.parametrize("size", [1, 2, 9])
def test_factors_multiply_to_the_matrix(size):
    matrix = damped(moments(3, size))
    upper, c = factors(matrix)
    np.testing.assert_allclose(upper @ np.diag(c) @ upper.T, matrix, rtol=1e-9, atol=1e-12)
    assert (np.tril(upper, -1) == 0).all()
    assert (np.diag(upper) == 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_errors_fed_both_ways_cost_less(seed):
    """Less than the nearest codes, and less than if only inputs made up for each other; settling never costs more."""
    w, minds, gram = problem(seed)
    minds, gram, step = damped(minds), damped(gram), np.full(12, 0.08)
    (rows, _), (columns, _) = factors(minds), factors(gram)
    found = feed(w, step, rows, columns, -127, 127)
    inputs_only = feed(w, step, np.eye(12), columns, -127, 127)
    settled = settle(w, found, step, minds, gram, -127, 127)
    costs = [cost(w, codes * step[:, None], minds, gram) for codes in (settled, found, inputs_only, nearest(w, step))]
    assert costs[0] <= costs[1] < costs[2] < costs[3]


def test_every_code_is_the_best_given_those_before():
    """The cost is a sum of squares, one for each code, that are at most half a step wide."""
    w, minds, gram = problem(9)
    step = np.full(12, 0.05)
    (rows, mind), (columns, energy) = factors(minds), factors(gram)
    residue = rows.T @ (w - feed(w, step, rows, columns, -127, 127) * step[:, None]) @ columns
    assert np.abs(residue).max() <= 0.025 + 1e-9
    value = cost(w, w - np.linalg.solve(rows.T, residue) @ np.linalg.inv(columns), minds, gram)
    assert value == pytest.approx(float((np.outer(mind, energy) * residue**2).sum()))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_allowed_is_about_what_it_costs(seed):
    """Every weight costs its share, whatever the layer's units are."""
    w, minds, gram = problem(seed, 24, 60)
    costs = []
    for units in (1.0, 100.0):
        codes, scale = layer(w * units, minds, gram, 1e-4, Int(16))
        costs.append(cost(w * units, codes * scale[:, None], minds, gram) / (1e-4 * w.size))
    assert max(costs) < 2
    assert min(costs) > 0.3


def test_a_smaller_share_costs_more_bits():
    w, minds, gram = problem(5, 24, 60)
    bits = [entropy(layer(w, minds, gram, share, Int(8))[0]) for share in (1e-6, 1e-5, 1e-4, 1e-3)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1] + w.size


def test_channels_that_count_less_have_coarser_steps():
    """Three times the step where errors cost a ninth."""
    w, _, gram = problem(6, 2, 40)
    costs = np.diag([1.0, 1 / 9])
    _, scale = layer(w, costs - MIND / (1 + MIND) * np.diag(costs).mean() * np.eye(2), gram, 1e-6, Int(16))
    assert scale[1] / scale[0] == pytest.approx(3, rel=0.25)


def test_codes_stay_in_their_format():
    """However little an error may cost."""
    w, minds, gram = problem(7)
    codes, scale = layer(w, minds, gram, 1e-15, Int(4))
    assert codes.min() >= -8
    assert codes.max() <= 7
    assert np.isfinite(scale).all()


def test_scales_are_short():
    fraction, _ = np.frexp(short(np.geomspace(1e-6, 1e3, 50)))
    assert (fraction * 8 == np.round(fraction * 8)).all()


def small(seed=0, groups=1):
    """A network of two convolutions and a classifier, and samples."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, groups=groups), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    ).eval()  # fmt: skip
    x = random(seed).normal(size=(48, 3, 10, 10)).astype(np.float32)
    return net, x, with_biases(simplify(from_torch(net, (torch.from_numpy(x[:2]),))))


@pytest.mark.parametrize("groups", [1, 4])
def test_importance_foretells_the_divergence(groups):
    """Of a small change of a linear layer; of a convolution roughly: positions are taken not to know each other."""
    _, x, graph = small(groups=groups)
    batches = list(data.chunks({graph.inputs[0].name: x}))
    found, gram = importances(graph, batches), grams(graph, batches)
    logits = bl.Model(graph)
    before = torch.log_softmax(torch.from_numpy(logits(x)).double(), 1)
    for name, (minds, rows) in found.items():
        w = graph.constants[name]
        told = measured = 0.0
        for seed in range(6):
            change = random(seed).normal(0, 0.01, w.shape)
            after = bl.Model(graph.with_(constants={**graph.constants, name: (w + change).astype(np.float32)}))(x)
            after = torch.log_softmax(torch.from_numpy(after).double(), 1)
            measured += float((before.exp() * (before - after)).sum(1).mean())
            e = change.reshape(len(minds), -1, gram[name].shape[-1])
            told += sum(cost(0 * e[g], e[g], minds[g], gram[name][g] / rows) for g in range(len(minds)))
        factor = 1.4 if graph.constants[name].ndim == 2 else 10
        assert 1 / factor < measured / told < factor, name


def test_importance_is_a_fold_and_has_a_seed():
    _, x, graph = small()
    whole, again = (importances(graph, [{"input": x}], seed=1) for _ in range(2))
    halves = importances(graph, [{"input": x[:32]}, {"input": x[32:]}], seed=1)
    other = importances(graph, [{"input": x}], seed=2)
    for name in whole:
        assert (whole[name].moments == again[name].moments).all()
        assert halves[name].rows == whole[name].rows
        np.testing.assert_allclose(halves[name].moments, whole[name].moments, rtol=1e-4, atol=1e-9)
        assert (other[name].moments != whole[name].moments).any()


def test_outputs_that_are_not_classes_have_an_importance():
    """What an error costs is its share of the outputs' power, in whatever units they are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)).eval()
    x = random(0).normal(size=(40, 5, 6)).astype(np.float32)
    graph = from_torch(net, (torch.from_numpy(x),))
    name = next(reversed(dict(graph.weights())))
    found = importances(graph, [{graph.inputs[0].name: x}])[name]
    out = bl.Model(graph)(x)
    expected = 1 / (np.mean(out**2) * out[0].size)
    np.testing.assert_allclose(np.diag(found.moments[0]) / 5, expected, rtol=0.35)


def entropy(values):
    """Bits if every number costs what its frequency says."""
    _, counts = np.unique(values, return_counts=True)
    return float((counts * np.log2(counts.sum() / counts)).sum())


def test_nested_codes_are_refused():
    _, x, graph = small()
    rate = Rate.of(graph, importances(graph, [{"input": x}]))
    name, _ = next(graph.weights())
    with pytest.raises(ValueError, match="must have one scale a channel, such as int8, got nested8"):
        rate.rounded(name, graph.constants[name], Nested(8), np.eye(27)[None])


def test_an_edge_is_found():
    asked = []
    below, above = edge(lambda x: asked.append(x) or x <= 0.2, 0.001)
    assert below <= 0.2 < above < below * 1.1
    assert len(asked) == 9
    assert edge(lambda x: False, 1.0)[0] is None


def test_a_size_is_met():
    """Within a hundredth, in a few tries, though the slope is not what was said."""
    asked = []
    found = meet(lambda x: asked.append(x) or 50 * x**-0.3, 20.0, 100.0, 1.0)
    assert 19.8 <= 50 * found**-0.3 <= 20
    assert len(asked) <= 6
    assert meet(lambda x: 5.0, 1.0, 1.0, 1.0) is None


@pytest.fixture(scope="module")
def learned():
    """A small convolutional network that tells four kinds of pattern apart."""
    draw = random(3)
    y = draw.integers(0, 4, 700)
    shapes = draw.normal(size=(4, 3, 10, 10))
    x = (shapes[y] * 0.1 + draw.normal(size=(700, 3, 10, 10))).astype(np.float32)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x[:400])), torch.from_numpy(y[:400])).backward()
        optimizer.step()
    return net.eval(), x, y


def test_a_budget_of_coded_bytes_is_met(learned):
    """And not by wasting a tenth of it."""
    net, x, _ = learned
    model = bl.quantize(net, x[:256], rounding="rate", budget="2.5kB")
    result = model.graph.meta["result"]
    assert result["goal_met"]
    assert 2250 < coded(model.graph, "bytes") <= 2500
    assert set(model.plan.values()) == {"int8"}


def test_an_allowed_drop_takes_few_bytes(learned):
    net, x, y = learned
    score = accuracy({"x": x[400:]}, y[400:])
    sizes = []
    for drop in (0.02, 0.1):
        model = bl.quantize(net, x[:256], rounding="rate", score=score, max_drop=drop)
        result = model.graph.meta["result"]
        assert result["float"] - result["score"] <= drop + 1e-9
        sizes.append(result["coded"])
    assert sizes[1] <= sizes[0] < 0.6 * sum(p.numel() for p in net.parameters())


def test_rate_needs_fewer_bits_than_feedback_for_the_same_error(learned):
    """A quarter bit a weight less than int3 with error feedback, and answers nearer to the float network's."""
    net, x, _ = learned

    def divergence(model):
        plain, ours = (torch.log_softmax(f(torch.from_numpy(x[400:])).detach().double(), 1) for f in (net, model))
        return float((plain.exp() * (plain - ours)).sum(1).mean())

    feedback = bl.quantize(net, x[:256], plan="int3", rounding="feedback")
    spent = coded(feedback.graph, "avg_bits")
    rate = bl.quantize(net, x[:256], rounding="rate", budget=f"avg_bits={spent - 0.25}")
    assert coded(rate.graph, "avg_bits") <= spent - 0.25
    assert divergence(rate) < divergence(feedback)


def decoded(c):
    return c.decode() if isinstance(c, QTensor) else c


def weights_of(graph):
    return {name: c for name, c in graph.constants.items() if isinstance(c, QTensor)}


def test_the_same_call_gives_the_same_network(learned):
    net, x, _ = learned
    a, b = (bl.quantize(net, x[:128], rounding="rate", seed=5).graph for _ in range(2))
    for name, q in weights_of(a).items():
        assert (q.codes == b.constants[name].codes).all()


def test_weights_that_are_no_numbers_are_named():
    net, x, _ = small()
    net[6].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"weight '6\.weight' holds NaN"):
        bl.quantize(net, x, rounding="rate")


def test_wrong_words(learned):
    net, x, _ = learned
    with pytest.raises(ValueError, match=r"rounding must be one of nearest, feedback, .*trellis, got 'up'"):
        bl.quantize(net, x[:32], rounding="up")
    with pytest.raises(ValueError, match="takes a budget or a max_drop, got a count"):
        bl.quantize(net, x[:32], rounding="rate", count=1)
    with pytest.raises(ValueError, match="takes a budget or a max_drop, got a keep"):
        bl.quantize(net, x[:32], rounding="rate", keep=4)
    with pytest.raises(ValueError, match=r"weight '0\.weight' is rounded for rate"):
        bl.quantize(net, x[:32], rounding="rate", plan="nested8")


# ------------------------------------------------------------------------------------------------------------- trellis


def slow_path(target, before, weight, cost, start):
    """The least that a path through one column can cost, by trying them all; codes from -4 to 4."""
    best = np.inf
    for codes in itertools.product(range(-4, 5), repeat=len(target)):
        state, total, errors = start, 0.0, []
        for i, v in enumerate(codes):
            odd = state & 1
            if v and (v & 1) != odd:
                break
            t = target[i] + sum(before[i, r] * e for r, e in enumerate(errors))
            total += weight[i] * (t - v) ** 2 + cost[i, odd, abs(v)]
            errors.append(target[i] - v)
            state = NEXT[state, (abs(v) + odd) // 2 & 1]
        else:
            best = min(best, total)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_path_is_the_cheapest(seed):
    """Of all paths, where errors are not fed on; with feeding, survivors are a choice and it is near."""
    draw = random(seed)
    target, weight = draw.normal(0, 1.5, 4), draw.uniform(0.5, 2, 4)
    rare = draw.uniform(0.3, 1.5, 4)
    for mix, most in ((0.0, 1 + 1e-9), (0.3, 1.2)):
        before = np.tril(draw.normal(0, mix, (4, 4)), -1)
        for price in (0.0, 0.2):
            cost = price * bits(rare)
            codes, states = column(target, before, weight, cost, price * rare / np.log(2), 0, None, 127)
            assert levels(codes[:, None].astype(np.int64)) is not None
            spent, errors = 0.0, np.zeros(4)
            for i, v in enumerate(codes):
                spent += weight[i] * (target[i] + before[i] @ errors - v) ** 2 + cost[i, states[i] & 1, int(abs(v))]
                errors[i] = target[i] - v
            assert spent <= most * slow_path(target, before, weight, cost, 0)


def test_levels_give_the_codes_back():
    """A random walk of the machine; and codes that no walk has are known as such."""
    draw, state = random(0), 0
    level = np.round(draw.laplace(0, 2, (7, 9))).astype(int)
    codes = np.empty_like(level)
    for k in range(9):
        for i in range(7):
            codes[i, k] = 2 * level[i, k] - np.sign(level[i, k]) * (state & 1)
            state = NEXT[state, level[i, k] & 1]
    found, odd = levels(codes)
    assert (found == level).all()
    assert (codes == 2 * found - np.sign(found) * odd).all()
    codes[3, 4] += 1
    assert levels(codes) is None


def test_bits_belong_to_a_distribution():
    """Shares of all codes of a set add up to one."""
    share = 2.0 ** -bits(np.array([0.2, 1.0]))
    for odd, codes in enumerate((range(2, 64, 2), range(1, 64, 2))):
        total = share[:, odd, 0] + 2 * sum(share[:, odd, v] for v in codes)
        np.testing.assert_allclose(total, 1, atol=1e-4)


def test_a_trellis_errs_less_at_equal_bits():
    """At least 0.6 dB, which is a tenth of a bit, on a Laplacian source."""
    w = random(0).laplace(size=(40, 60))
    curve = [(entropy(q := np.round(w / step)) / w.size, 10 * np.log10(np.mean((w - q * step) ** 2))) for step in (1.4, 0.7)]
    walk = Walk(w, np.full(40, 0.6), np.eye(40), np.ones(40), 0.4 * (0.6 / 0.55) ** 2 / 12, 127)
    walk.feed(np.eye(60), np.ones(60))
    level, odd = levels(walk.codes.astype(np.int64))
    spent = (entropy(level[odd == 0]) + entropy(level[odd == 1])) / w.size
    error = 10 * np.log10(np.mean((w - walk.codes * 0.6) ** 2))
    assert np.interp(spent, *zip(*curve, strict=True)) - error > 0.6


def test_settling_a_trellis_never_costs_more():
    """Errors and bits together; and what it leaves is still a path."""
    w, minds, gram = problem(2, 8, 12)
    minds, gram, step = damped(minds), damped(gram), np.full(8, 0.05)
    (rows, mind), (columns, energy) = factors(minds), factors(gram)
    walk, costs = Walk(w, step, rows, mind, 1e-3, 127), []
    for again in (lambda: walk.feed(columns, energy), lambda: walk.settle(gram), lambda: walk.settle(gram)):
        again()
        _, odd = levels(walk.codes.astype(np.int64))
        table = np.stack([bits(walk.rare[:, k]) for k in range(12)], 1)
        spent = np.take_along_axis(table, odd[:, :, None, None], 2)[:, :, 0]
        spent = np.take_along_axis(spent, np.abs(walk.codes).astype(int)[:, :, None], 2).sum()
        costs.append(cost(w, walk.codes * step[:, None], minds, gram) + 1e-3 * spent)
    assert costs[2] <= costs[1] * 1.001
    assert costs[1] <= costs[0] * 1.001


def test_a_network_on_a_trellis(learned, tmp_path):
    """The codes of every layer are a path, also in the file; the network still answers as the float one does."""
    net, x, _ = learned
    model = bl.quantize(net, x[:128], rounding="trellis")
    assert model.graph.meta["result"]["rounding"] == "trellis"
    model.save(tmp_path / "net.ladder")
    for name, q in weights_of(bl.load(tmp_path / "net.ladder").graph).items():
        codes = q.codes.reshape(len(q.codes), -1)
        assert levels(codes) is not None, name
        assert np.abs(codes).max() > 1
    agree = model(x[400:]).argmax(1) == net(torch.from_numpy(x[400:])).argmax(1).numpy()
    assert agree.mean() > 0.75


# ------------------------------------------------------------------------------------------------------------ sequence


def test_weights_follow_their_inputs():
    """Half of the way, so that outputs are nearer to the true ones; not at all where inputs are the true ones."""
    draw = random(0)
    w = draw.normal(size=(6, 9)).astype(np.float32)
    true = draw.normal(size=(1, 300, 9)).astype(np.float32)
    got = (true @ (np.eye(9) + 0.1 * draw.normal(size=(9, 9)))).astype(np.float32)
    moved, gram = followed(w, true, got)
    exact = got[0].astype(np.float64).T @ got[0]
    np.testing.assert_allclose(gram[0], exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())  # inputs count in 16 bits
    errors = [float(np.square(true[0] @ w.T - got[0] @ v.T).sum()) for v in (w, moved)]
    assert errors[1] < 0.35 * errors[0]
    assert (followed(w, true, true)[0] == w).all()


def test_each_layer_sees_its_inputs_as_they_will_be():
    """What a layer was rounded for are the inputs that the finished network gives it."""
    _, x, graph = small()
    samples, seen = {"input": x}, {}
    rate = Rate.of(graph, importances(graph, [samples]))
    formats = {name: Int(8) for name, _ in graph.weights()}

    class Spy(Rate):
        def rounded(self, name, w, fmt, gram):
            seen[name] = gram
            return super().rounded(name, w, fmt, gram)

    made = Workbench(graph, {}, samples, rate=Spy(rate.minds, rate.weights, 1e-7)).network(formats)
    found = grams(dataclasses.replace(made, constants={n: decoded(c) for n, c in made.constants.items()}), [samples])
    assert list(seen) == list(formats)
    for name, gram in seen.items():
        np.testing.assert_allclose(found[name], gram, rtol=0.05, atol=0.01 * gram.max())  # biases were rounded since
