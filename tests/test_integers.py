"""Training in integers alone: carries and residuals that conserve totals, a perceptron without floats, gradients of heads."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bitladder.assign.classes import head_of, nonzero_fraction
from bitladder.train import integers
from bitladder.train.accumulate import Accumulated
from bitladder.train.carry import carry, deployed, guard_bits, nearest, settle, toward_zero
from bitladder.train.head import narrow, narrow_head
from bitladder.train.residual import tune
from bitladder.train.words import rounded

rng = np.random.default_rng(3)
digits = load_digits()
HELD_OUT = np.arange(len(digits.target)) % 5 == 0
KINDS = {"numpy": np.asarray, "torch": torch.as_tensor}
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------------------ carries, S4 and S5


@pytest.mark.parametrize("kind", KINDS)
def test_the_trap_of_negative_accumulators(kind):
    """-q moves a code by -1, not by 0: bits that all equal the sign are not the same as being below the threshold."""
    q = 64
    memory = np.array([-2 * q, -q - 1, -q, -q + 1, -1, 0, 1, q - 1, q, q + 1, 2 * q])
    codes, rest, moved, full = settle(KINDS[kind](np.zeros_like(memory)), KINDS[kind](memory), finer=6)
    assert moved.tolist() == [-2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2] == codes.tolist()
    assert rest.tolist() == [0, -1, 0, -q + 1, -1, 0, 1, q - 1, 0, 1, 0]
    assert not full.any()


@pytest.mark.parametrize("kind", KINDS)
def test_accumulators_conserve_the_exact_total(kind):
    """W q + A == W0 q + the sum of all steps, over 5000 of them, and |A| < q after each."""
    finer, count = 9, 64
    codes = KINDS[kind](rng.integers(-100, 100, count))
    memory, total = KINDS[kind](np.zeros(count, np.int64)), None
    total = (codes << finer) + memory
    for _ in range(5000):
        step = KINDS[kind](rng.integers(-700, 701, count))
        codes, memory, _, full = settle(codes, memory + step, finer=finer, bits=20)
        total = total + step
        assert not full.any()
        assert int(abs(memory).max()) < 1 << finer
    assert (((codes << finer) + memory) == total).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_bits_below_the_updated_one_never_change(n):
    """With n_update above the last bit only the bits from n on move, at the ends of the range too."""
    codes = rng.integers(-128, 128, 20_000)
    after, rest, moved, _ = settle(codes, rng.integers(-(2**15), 2**15, 20_000), finer=6, n=n)
    assert ((after ^ codes) & ((1 << n) - 1) == 0).all()
    assert (moved % (1 << n) == 0).all()
    assert (moved != 0).any()
    assert abs(after).max() <= 128
    assert abs(rest).max() < 1 << (6 + n)


def test_full_codes_do_not_wind_up():
    """A code at its end keeps less than one step of what it cannot take, and turns back at once."""
    codes, memory = np.array([127, -128]), np.array([0, 0])
    for _ in range(10):
        codes, memory, _, full = settle(codes, memory + np.array([1000, -1000]), finer=6)
        assert full.all()
        assert abs(memory).max() == 63
    codes, _, _, _ = settle(codes, memory + np.array([-128, 128]), finer=6)
    assert codes.tolist() == [126, -127]


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_vectors(kind):
    """8 bits, 4 and 10 digits after the point: 282 is 4 and 26; -74 is -2 and 54, or -1 and -10 with aligned signs."""

    def one(*values):
        return [KINDS[kind](np.array([v])) for v in values]

    tuned, cut = tune(torch.tensor([0.05, 0.03, -0.002]), 2**-10, top=2**14)
    assert tuned.tolist() == [51, 31, -2]
    assert cut == 0
    assert [int(x[0]) for x in carry(*one(3, 10, 80), finer=6)] == [4, 26, 0]
    assert tune(torch.tensor([-0.01]), 2**-10, top=2**14)[0].tolist() == [-10]
    assert [int(x[0]) for x in carry(*one(-1, 0, -10), finer=6)] == [-2, 54, 0]
    assert [int(x[0]) for x in carry(*one(-1, 0, -10), finer=6, aligned=True)] == [-1, -10, 0]
    assert int(deployed(*one(-2, 54), finer=6)[0]) == int(deployed(*one(-1, -10), finer=6)[0]) == -1


@pytest.mark.parametrize("aligned", [False, True])
def test_a_million_carries_conserve_the_total(aligned):
    """W' 2^k + r' == W 2^k + r + the sum of the gradients, and the residual is in its range, for 1e6 random cases."""
    cases, k = 1_000_000, 6
    codes, rest = rng.integers(-128, 128, cases), rng.integers(0, 64, cases)
    sums = rng.integers(-300, 301, (3, cases)).sum(0)
    made, left, full = carry(codes, rest, sums, finer=k, bits=12, aligned=aligned)
    total = (codes << k) + rest + sums
    assert not full.any()
    assert ((made << k) + left == total).all()
    assert (abs(left) < 64).all()
    assert (left * np.sign(total) >= 0).all() if aligned else (left >= 0).all()
    np.testing.assert_array_equal(deployed(made, left, finer=k, bits=12), np.rint(total / 64))


def test_saturated_carries_stay_in_range():
    """Beyond the codes' range the codes are at its end, the residual is legal, and it is counted."""
    made, left, full = carry(np.array([127, -128, 0]), np.array([60, 3, 0]), np.array([500, -500, 1]), finer=6)
    assert made.tolist() == [127, -128, 0]
    assert left.tolist() == [63, 0, 1]
    assert full.tolist() == [True, True, False]


def test_accumulator_and_residual_hold_the_same_value():
    """The same steps from the same start give the same total by S4 and by both conventions of S5."""
    codes, zero = rng.integers(-100, 101, 500), np.zeros(500, np.int64)
    states = [(codes, zero)] * 3
    for _ in range(300):
        step = rng.integers(-50, 51, 500)
        a, b, c = states
        states = [
            settle(a[0], a[1] + step, finer=7, bits=12)[:2],
            carry(*b, step, finer=7, bits=12)[:2],
            carry(*c, step, finer=7, bits=12, aligned=True)[:2],
        ]
    totals = [(w << 7) + r for w, r in states]
    assert (totals[0] == totals[1]).all()
    assert (totals[1] == totals[2]).all()
    assert (states[0][0] != states[1][0]).any()  # parted differently


def test_shifts_against_python():
    """Toward zero and to the nearest, half to even, for both kinds of array and every width of shift."""
    values = np.concatenate([rng.integers(-(2**40), 2**40, 500), np.arange(-200, 200)])
    for bits in range(9):
        zero, even = [int(abs(v) >> bits) * (1 if v >= 0 else -1) for v in values.tolist()], np.rint(values / 2**bits)
        for make in KINDS.values():
            assert toward_zero(make(values), bits).tolist() == zero
            assert nearest(make(values), bits).tolist() == even.tolist()


def test_no_guard_bit_too_few():
    """The largest gradients add up within the bits that `guard_bits` adds, for every count."""
    for n in range(1, 100):
        assert n * (2**15 - 1) < 2 ** (15 + guard_bits(n))
    assert guard_bits(5) == 3


@pytest.mark.parametrize(("rounding", "bias"), [("rne", 0.0), ("stochastic", 0.0), ("trunc", 0.5)])
def test_bias_of_rounding(rounding, bias):
    """Over 1e5 draws rounding to the nearest and by chance have none; truncation loses half a unit toward zero."""
    unit = 2.0**-10
    g = torch.tensor(rng.uniform(0, 40 * unit, 100_000))
    for sign in (1, -1):
        q, _ = tune(sign * g, unit, top=2**14, rounding=rounding, seed=(7,))
        mean = float((sign * g - q.double() * unit).mean()) / unit
        assert abs(mean - sign * bias) < 0.1 * (bias > 0) + 0.01 * (bias == 0)


def test_stochastic_rounding_is_seeded():
    x = torch.tensor(rng.standard_normal(1000))
    assert torch.equal(rounded(x, "stochastic", (1, 2)), rounded(x, "stochastic", (1, 2)))
    assert not torch.equal(rounded(x, "stochastic", (1, 2)), rounded(x, "stochastic", (1, 3)))


# ------------------------------------------------------------------------------------------------ integers alone


PIXELS = (digits.data * 7).astype(np.int64)


@pytest.mark.parametrize("keep", ["accumulator", "residual"])
def test_integers_alone_learn_digits(keep):
    """More than 93 % of held-out digits from random codes, without a float; without finer digits far fewer."""
    right = {}
    for finer in (12, 0):
        layers, rule = integers.network((64, 32, 10)), integers.Rule(keep, finer=finer, rate=8 + 12 - finer)
        integers.train(layers, PIXELS[~HELD_OUT], digits.target[~HELD_OUT], rule, epochs=range(8))
        right[finer] = float((integers.classes(layers, PIXELS[HELD_OUT], rule) == digits.target[HELD_OUT]).mean())
        for name, x in integers.arrays(layers, rule).items():
            assert x.dtype.kind == "i"
            assert x.itemsize == 1 or "codes" not in name
    assert right[12] > 0.93
    assert right[0] < right[12] - 0.05


@pytest.mark.parametrize("keep", ["accumulator", "residual"])
def test_integers_resume_to_the_bit(keep):
    """Two epochs, kept in their narrow types and restored, then two more, are four."""
    rule, few, labels = integers.Rule(keep), PIXELS[:300], digits.target[:300]
    whole, half = integers.network((64, 16, 10)), integers.network((64, 16, 10))
    integers.train(whole, few, labels, rule, epochs=range(4))
    integers.train(half, few, labels, rule, epochs=range(2))
    rest = integers.restored(integers.arrays(half, rule))
    integers.train(rest, few, labels, rule, epochs=range(2, 4))
    for name, x in integers.arrays(whole, rule).items():
        np.testing.assert_array_equal(x, integers.arrays(rest, rule)[name])


def test_bad_rules_of_integers():
    with pytest.raises(ValueError, match="finer 0 to 15"):
        integers.Rule(finer=16)


def test_the_integer_gradient_is_that_of_a_softmax():
    """Against floats: the base-2 softmax of the scores less the truth, to a part in a thousand."""
    scores, labels = rng.integers(-200, 200, (64, 10)), rng.integers(0, 10, 64)
    p = 2.0 ** ((scores - scores.max(1, keepdims=True)) / 16)
    p /= p.sum(1, keepdims=True)
    p[np.arange(64), labels] -= 1
    assert abs(integers.loss_gradient(scores, labels) / integers.ONE - p).max() < 1e-3


def test_every_step_in_integers_is_in_integers(monkeypatch):
    """No array of a float type goes through a forward pass, a backward pass or an update; nor is torch imported."""
    seen = []
    for name in ("nearest", "settle"):
        plain = getattr(integers, name)
        monkeypatch.setattr(integers, name, lambda *a, f=plain, **k: (seen.extend(x.dtype.kind for x in a[:1]), f(*a, **k))[1])
    layers, rule = integers.network((64, 8, 10)), integers.Rule()
    for gradient in integers.gradients(layers, PIXELS[:8], digits.target[:8], rule):
        assert gradient.dtype.kind == "i"
    integers.train(layers, PIXELS[:64], digits.target[:64], rule, epochs=range(1))
    assert set(seen) == {"i"}
    code = "import sys; import bitladder.train.integers; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ heads, S6


@pytest.mark.parametrize("classes", [10, 100, 1000, 10_000])
def test_head_gradients_survive_training_with_the_rule(classes):
    """At initialisation at least 90 % of the gradients of outputs and weights stay; with 8 bits at 1000 classes under 10 %."""
    torch.manual_seed(classes)
    layer = torch.nn.Linear(32, classes)
    x, y = torch.randn(16, 32), torch.randint(0, classes, (16,))
    for bits, enough in ((head_of(classes).gradient, True), (8, False)):
        counts = narrow_head(layer, bits)
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()
        counts.remove()
        if enough:
            assert counts.outputs.kept >= 0.9
            assert counts.weight.kept >= 0.9
        elif classes >= 1000:
            assert counts.outputs.kept < 0.1
        assert counts.outputs.elements == 16 * classes


def test_narrowed_gradients_are_what_is_counted():
    """Count, part and values agree with the plain definition; `remove` gives floats back."""
    g = torch.tensor(rng.standard_normal((50, 40)) ** 5, dtype=torch.float32)
    layer = torch.nn.Linear(40, 50, bias=False)
    counts = narrow_head(layer, 6)
    layer(torch.eye(40)).backward(g.T)
    top = float(g.abs().max()) / 31
    expected = torch.tensor(np.rint(np.asarray(g, np.float64) / top) * top, dtype=torch.float32)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-6, atol=1e-7)
    assert counts.outputs.vanished == int((expected == 0).sum())
    assert counts.outputs.kept == pytest.approx(nonzero_fraction(np.asarray(g, np.float64), 6))
    counts.remove()
    layer.zero_grad()
    layer(torch.eye(40)).backward(g.T)
    assert torch.equal(layer.weight.grad, g)
    assert torch.equal(narrow(torch.zeros(3), 8), torch.zeros(3))
    with pytest.raises(ValueError, match="bits must be at least 2"):
        narrow_head(layer, 1)


def test_a_wide_head_learns_in_integers():
    """The head's weights get the rule's bits too: 14 at 1000 classes, as 16-bit codes under a 32-bit accumulator."""
    layer = torch.nn.Linear(8, 1000)
    bits = head_of(1000).weight
    optimizer = Accumulated([{"params": [layer.weight], "format": f"fixed{bits}", "wide": 32, "finer": 16}], lr=0.1)
    narrow_head(layer, head_of(1000).gradient)
    torch.nn.functional.cross_entropy(layer(torch.randn(4, 8)), torch.randint(0, 1000, (4,))).backward()
    before = optimizer.words[layer.weight].totals()
    optimizer.step()
    held = optimizer.words[layer.weight]
    assert held.codes.dtype == torch.int16
    assert held.bits == 14
    assert int((held.totals() != before).sum()) > 7000
