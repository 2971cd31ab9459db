"""What a network lost, and how surely: exact intervals against brute force, the bootstrap, rules, leaks."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from networks import convnet, images

import bitladder as bl
from bitladder.assign import accept
from bitladder.assign.score import accuracy, likeness
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, PerWidth


def trinomial(n, up, down):
    """(worse, better, probability) of every outcome of n samples."""
    for worse in range(n + 1):
        for better in range(n + 1 - worse):
            ways = math.comb(n, worse) * math.comb(n - worse, better)
            yield worse, better, ways * up**worse * down**better * (1 - up - down) ** (n - worse - better)


def test_mcnemar_is_the_tail_of_a_coin():
    """Whole numbers, as fractions say, and symmetric."""
    for worse, better in itertools.product(range(12), repeat=2):
        n, k = worse + better, max(worse, better)
        tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(k, n + 1))
        assert accept.mcnemar(worse, better) == float(min(Fraction(1), 2 * tail)) == accept.mcnemar(better, worse)
    assert 0 < accept.mcnemar(900, 100) < 1e-150


@pytest.mark.parametrize(("up", "down"), [(0.3, 0.2), (0.9, 0.1), (0.05, 0.0), (0.5, 0.5), (0.0, 0.0)])
def test_tails_are_those_of_all_outcomes(up, down):
    """The sum over every outcome of a few samples."""
    n = 9
    for k in range(-n - 1, n + 2):
        brute = sum(p for worse, better, p in trinomial(n, up, down) if worse - better >= k)
        assert abs(accept.at_least(k, n, up, down) - brute) < 1e-12


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (7, 7), (12, 1000), (850, 10_000)])
def test_shares_have_their_exact_interval(hits, n):
    """Clopper and Pearson's, never narrower than scipy has it."""
    stats = pytest.importorskip("scipy.stats")
    low, high = accept.share_of(hits, n)
    right = stats.binomtest(hits, n).proportion_ci(method="exact")
    assert right.low - 2e-6 <= low <= right.low + 1e-9
    assert right.high - 1e-9 <= high <= right.high + 2e-6


def test_intervals_hold_the_loss_as_often_as_they_say():
    """Over every outcome of a few samples, of networks that differ on few and on many of them: 97.5 in 100 on each side."""
    n = 14
    ends = {(w, b): accept.interval(w, b, n) for w, b, _ in trinomial(n, 0.1, 0.1)}
    for up, down in itertools.product((0.0, 0.02, 0.1, 0.2, 0.3, 0.45, 0.5), repeat=2):
        below = sum(p for w, b, p in trinomial(n, up, down) if up - down < ends[w, b][0])
        above = sum(p for w, b, p in trinomial(n, up, down) if up - down > ends[w, b][1])
        assert below <= 0.025 + 1e-12
        assert above <= 0.025 + 1e-12
    assert all(low <= (w - b) / n <= high for (w, b), (low, high) in ends.items())
    assert all(ends[w, b] == pytest.approx((-ends[b, w][1], -ends[b, w][0]), abs=1e-12) for w, b in ends)


def test_intervals_are_little_wider_than_the_usual_ones():
    """Against the normal approximation, where that is good."""
    for worse, better, n in ((158, 116, 10_000), (400, 300, 10_000)):
        low, high = accept.interval(worse, better, n)
        spread = math.sqrt((worse + better) / n - ((worse - better) / n) ** 2)
        assert 1 < (high - low) / (2 * 1.96 * spread / math.sqrt(n)) < 1.05


def test_so_many_samples_tell():
    """With as many samples as `needed` says, about 4 in 5 such networks are told from one that loses nothing."""
    draw, drop, differ = np.random.default_rng(0), 0.05, 0.1
    n = accept.Loss(0.0, 0.0, 0.0, 1, math.sqrt(differ - drop**2)).needed(drop)
    assert n == math.ceil(accept.TELLS**2 * (differ - drop**2) / drop**2)
    found = draw.multinomial(n, ((differ + drop) / 2, (differ - drop) / 2, 1 - differ), size=60)
    assert 0.6 < np.mean([accept.least(int(w), int(b), n) > 0 for w, b, _ in found]) < 0.95
    assert accept.Loss(0.0, 0.0, 0.0, n, math.sqrt(differ - drop**2)).resolved == pytest.approx(drop, rel=0.01)


class Rows:
    """A score whose networks are rows, so that tests say what each does."""

    def __new__(cls, whole=np.mean, truth=None, samples=0):
        return accept.Score("rows", samples, lambda net: net, lambda rows: float(whole(rows)), truth)


def test_losses_of_right_and_wrong():
    """Counts, loss and ends; the float network is not run where it is the measure."""
    before, after = np.ones(100, bool), np.arange(100) >= 7
    before[99] = False
    found = accept.lost(Rows(), before, after)
    assert (found.worse, found.better, found.loss) == (7, 1, pytest.approx(0.06))
    assert found.p == accept.mcnemar(7, 1)
    assert (found.low, found.high) == accept.interval(7, 1, 100)
    alone = accept.lost(Rows(truth=np.ones(100, bool)), None, after)
    assert (alone.worse, alone.better) == (7, None)
    assert (alone.low, alone.high) == accept.share_of(7, 100)
    assert alone.high - alone.low < accept.interval(7, 0, 100)[1] - accept.interval(7, 0, 100)[0]


def test_other_scores_are_resampled_in_pairs():
    """Differences of pairs count, not their level; the same seed gives the same ends; they hold the loss."""
    draw = np.random.default_rng(1)
    level = 100 * draw.normal(size=500)
    hits = 0
    for seed in range(10):
        before, after = level, level - 0.5 + np.random.default_rng(seed).normal(size=500)
        found = accept.lost(Rows(), before, after, seed=seed)
        assert found == accept.lost(Rows(), before, after, seed=seed)
        assert found.worse is None
        assert 0.1 < found.high - found.low < 0.25
        hits += found.low <= 0.5 <= found.high
    assert hits >= 8


def test_closeness_is_resampled_too():
    """One minus the relative error of outputs that are no classes."""
    x = np.random.default_rng(0).normal(size=(200, 3, 2)).astype(np.float32)
    score = likeness({"x": x}, lambda a: a)
    found = accept.lost(score, None, lambda a: a * np.float32(1.25))
    assert found.loss == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))
    noisy = accept.lost(score, None, lambda a: a + np.sin(99 * a))
    assert noisy.low < noisy.loss < noisy.high


@pytest.mark.parametrize(
    ("low", "high", "plausible", "proved", "says"),
    [
        (-0.01, 0.005, True, True, "; surely within 0.01"),
        (0.001, 0.03, True, False, "; neither surely within 0.01 nor surely more: it takes about 3,140 samples"),
        (0.011, 0.03, False, False, "; surely more than 0.01"),
    ],
)
def test_rules_and_what_is_said(low, high, plausible, proved, says):
    """By the ends of the interval."""
    assert accept.RULES["plausible"](low, high, 0.01) == plausible
    assert accept.RULES["proved"](low, high, 0.01) == proved
    assert accept.verdict(accept.Loss(0.0, low, high, 100, 0.2), 0.01).startswith(says)
    assert accept.verdict(accept.Loss(0.0, low, high, 100, 0.2), None) == "; so many samples tell 0.056 from no loss"


def plain_of(graph):
    """The float network of a quantized one."""
    made = {np.ndarray: lambda c: c, QTensor: lambda c: np.asarray(c.decode()), PerWidth: lambda c: c.at(8)}
    floats = {name: made[type(c)](c) for name, c in graph.constants.items()}
    return Graph(graph.inputs, graph.outputs, graph.nodes, floats)


def test_a_result_says_what_was_found():
    """In the meta of the network, with the goal; a line tells it, and a mangled one tells nothing."""
    x, labels = images(60)
    model = bl.Model(convnet())
    plain = plain_of(model.graph)
    done = accept.accepted(model, plain, accuracy({"image": x}, labels), allowed=0.9, rule="proved", held_out=True)
    result = done.graph.meta["result"]
    said = result["accepted"]
    assert result["goal_met"]
    assert (said["samples"], said["allowed"], said["rule"], said["met"], said["held_out"]) == (60, 0.9, "proved", True, True)
    (text,) = accept.line(result)
    assert text.startswith("loss against float on 60 samples that nothing was chosen by: ")
    assert text.endswith("; surely within 0.9")
    strict = accept.accepted(model, plain, likeness({"image": x}, bl.Model(plain)), allowed=0.0, rule="proved")
    assert strict.graph.meta["result"]["goal_met"] is False
    assert accept.accepted(model, plain, lambda net: 1.0, allowed=0.1) is model
    mangled = ({"loss": 1}, 3, said | {"low": "x"}, said | {"samples": None}, said | {"allowed": "lots"}, said | {"p": []})
    assert [accept.line(r) for r in ({}, *({"accepted": m} for m in mangled))] == [[]] * 7
    hostile = {k: v for k, v in said.items() if k != "allowed"} | {"samples": 0}
    assert accept.line({"accepted": hostile}) == []


def test_a_missed_goal_stays_missed():
    """What a search did not reach is not made good by a wide interval."""
    x, labels = images(8)
    model = bl.Model(convnet(meta={"result": {"goal_met": False}}))
    done = accept.accepted(model, plain_of(model.graph), accuracy({"image": x}, labels), allowed=0.5)
    assert done.graph.meta["result"]["accepted"]["met"]
    assert done.graph.meta["result"]["goal_met"] is False


def test_rules_need_something_to_hold():
    """A loss that is allowed, and single samples."""
    x, labels = images(4)
    score = accuracy({"image": x}, labels)
    accept.check_rule("plausible", None, None)
    accept.check_rule("proved", 0.1, score)
    for rule, allowed, given, says in (
        ("maybe", 0.1, score, "accept must be one of plausible, proved, got 'maybe'"),
        ("proved", None, score, "accept 'proved' needs a max_drop"),
        ("proved", 0.1, lambda net: 1.0, "needs a score of single samples"),
    ):
        with pytest.raises(ValueError, match=says):
            accept.check_rule(rule, allowed, given)


def test_leaks_are_counted():
    """Samples of all inputs that are equal to the byte, in whatever order; one that differs in a bit is another."""
    draw = np.random.default_rng(0)
    a = {"x": draw.normal(size=(50, 3)).astype(np.float32), "ids": draw.integers(0, 9, (50, 2))}
    b = {name: array[::-1][:20].copy() for name, array in a.items()}
    assert accept.leaked(b, accept.prints(a)) == 20
    b["ids"][4] += 1
    b["x"][7, 1] = np.nextafter(b["x"][7, 1], np.float32(9))
    counts, lines = accept.leaks({"calibration": a, "evaluation": b, "test": {k: v[:1] for k, v in b.items()}})
    assert counts == {"evaluation in calibration": 18, "test in calibration": 1, "test in evaluation": 1}
    assert lines[0].startswith("18 of 20 samples of the evaluation data are in the calibration data")
    scaled = {name: arrays | {"scale": np.float32(2.0)} for name, arrays in (("calibration", a), ("test", b))}
    scaled = {name: {k: np.asarray(v) for k, v in arrays.items()} for name, arrays in scaled.items()}
    assert accept.leaks(scaled)[0] == {"test in calibration": 18}
    assert accept.leaks({"calibration": a, "test": {k: v + 1 for k, v in a.items()}}) == ({}, [])
