"""Integer weights that learn: totals are exact, in any order, over any number of processes, and through every restart."""

import io
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bitladder.assign.classes import head_of, nonzero_fraction
from bitladder.train import integers
from bitladder.train.accumulate import PATIENCE, Accumulated
from bitladder.train.carry import carry, deployed, guard_bits, nearest, settle, toward_zero
from bitladder.train.floats import FloatWord, Minifloat, last_bit
from bitladder.train.group import Group
from bitladder.train.head import narrow, narrow_head
from bitladder.train.parts import Parts
from bitladder.train.residual import Residual, tune
from bitladder.train.words import Word, by_shape, rounded

rng = np.random.default_rng(3)
digits = load_digits()
HELD_OUT = np.arange(len(digits.target)) % 5 == 0
X = torch.tensor(digits.data / 16, dtype=torch.float32)
Y = torch.tensor(digits.target)
KINDS = {"numpy": np.asarray, "torch": torch.as_tensor}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(seed=0):
    """A small classifier of digits."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))


def parts_of(step, parts=4, size=16):
    """The rows of each part of a step's batch."""
    rows = np.random.default_rng(step).integers(0, len(X), parts * size)
    return np.array_split(rows, parts)


def backward(module, rows):
    torch.nn.functional.cross_entropy(module(X[rows]), Y[rows]).backward()


def run(module, optimizer, steps, parts=1):
    """So many steps of plain training; the parameters at the end."""
    for step in steps:
        for rows in parts_of(step, parts, 64 // parts):
            backward(module, rows)
            if hasattr(optimizer, "take"):
                optimizer.take(1 / parts)
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in module.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------ integers, S4 and S5


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


# ------------------------------------------------------------------------------------------------ optimizers


def totals(optimizer):
    return [held.totals() for held in optimizer.words.values()]


def given(optimizer, params, steps, seed=0):
    """Steps with gradients that are whole units and do not depend on the weights."""
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.tensor(draw.integers(-40, 41, tuple(p.shape)), dtype=torch.float32) * 2**-16
        optimizer.step()


def start():
    return [torch.nn.Parameter(torch.tensor(np.random.default_rng(1).uniform(-0.5, 0.5, (6, 5)), dtype=torch.float32))]


@pytest.mark.parametrize("period", [2, 8])
def test_the_period_does_not_change_the_total(period):
    """T = 8 ends with the same W + A as T = 1, with fewer writes of W; A holds what T steps add."""
    ends = []
    for every in (1, period):
        params = start()
        optimizer = Accumulated(params, lr=1.0, finer=9, period=every, follow=False)
        before = totals(optimizer)
        given(optimizer, params, 64)
        ends.append(totals(optimizer)[0])
        assert optimizer.counters()["clipped"] == optimizer.counters()["lost"] == 0
        assert not equal(before, totals(optimizer))
    assert equal(ends[:1], ends[1:])


@pytest.mark.parametrize("form", ["fixed8", "fixed8/tensor", "fixed4", "fixed14"])
def test_the_optimizer_conserves_the_sum_of_its_steps(form):
    """Totals move by exactly the sum of the steps, in units, for any width; the parameter is the code times its step."""
    params = start()
    optimizer = Accumulated(params, lr=1.0, format=form, wide=32, finer=18 - int(form[5:].split("/")[0]), follow=False)
    held = next(iter(optimizer.words.values()))
    first, unit = held.totals(), held.unit()
    seen = torch.zeros(6, 5, dtype=torch.float64)
    draw = np.random.default_rng(0)
    for _ in range(50):
        params[0].grad = torch.tensor(draw.integers(-4, 5, (6, 5)), dtype=torch.float32) * 2**-14
        seen -= params[0].grad.double()
        optimizer.step()
    assert optimizer.counters()["clipped"] == 0
    assert torch.equal((held.totals() - first).double() * unit, seen)
    assert torch.equal(params[0].detach(), held.codes * held.step)


@pytest.mark.parametrize("make", [
    lambda m: Accumulated(by_shape(m), lr=0.05, momentum=0.9, weight_decay=1e-3),
    lambda m: Accumulated(by_shape(m, "int8"), torch.optim.Adam, lr=2e-3, period=3, rounding="stochastic"),
    lambda m: Accumulated(by_shape(m, Minifloat(), None), lr=0.05, momentum=0.9),
    lambda m: Accumulated(by_shape(m), lr=0.05, momentum=0.9, nearest=True),
    lambda m: Residual(by_shape(m), 0.05, momentum=0.9, weight_decay=1e-3),
    lambda m: Residual(by_shape(m), 0.05, rounding="stochastic", aligned=True),
])  # fmt: skip
def test_resumed_training_is_the_same_to_the_bit(make):
    """A state kept in a file in the middle, loaded into a new network and optimizer, goes on as if nothing had happened."""
    whole = net()
    optimizer = make(whole)
    run(whole, optimizer, range(9))
    file = io.BytesIO()
    torch.save({"net": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    ends = run(whole, optimizer, range(9, 20))
    file.seek(0)
    kept, again = torch.load(file, weights_only=True), net(1)
    resumed = make(again)
    again.load_state_dict(kept["net"])
    resumed.load_state_dict(kept["optimizer"])
    assert equal(ends, run(again, resumed, range(9, 20)))
    assert resumed.counters() == optimizer.counters()
    assert not equal(ends, run(net(), make(net()), ()))


@pytest.mark.parametrize("make", [
    lambda m: Accumulated(by_shape(m), lr=0.005, momentum=0.9),
    lambda m: Accumulated(by_shape(m), torch.optim.AdamW, lr=2e-3),
    lambda m: Accumulated(by_shape(m, rest=None), lr=0.005, momentum=0.9, n_update=1, period=2),
    lambda m: Accumulated(by_shape(m, Minifloat(), None), lr=0.005, momentum=0.9),
    lambda m: Residual(by_shape(m), 0.005, momentum=0.9),
])  # fmt: skip
def test_narrow_weights_learn(make):
    """Within three points of float SGD on digits; at the same rate without a memory at least five points behind."""
    module, plain, bare = net(), net(), net()
    run(module, make(module), range(300))
    run(plain, torch.optim.SGD(plain.parameters(), lr=0.005, momentum=0.9), range(300))
    run(bare, Accumulated(by_shape(bare, rest=None), lr=0.005, momentum=0.9, finer=0, follow=False), range(300))
    right = [float((m(X).argmax(1) == Y).float().mean()) for m in (module, plain, bare)]
    assert right[0] > right[1] - 0.03
    assert right[2] < right[1] - 0.05


def test_any_order_of_gradients_gives_the_same_residuals():
    """Integer sums commute: the parts of a batch in any order, by `take`, end in the same bits. Floats would not."""
    ends = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        module = net()
        optimizer = Residual(by_shape(module), 0.1, momentum=0.9)
        for step in range(6):
            parts = parts_of(step)
            for i in order:
                backward(module, parts[i])
                optimizer.take(0.25)
            optimizer.step()
        ends.append([*totals(optimizer), *optimizer.speed])
        assert {held.written for held in optimizer.runs} == {6}  # one write a step for four gradients
    assert equal(*ends)
    assert Residual(by_shape(net(), rest="fixed8"), 0.1).adder_bits(4) == 15 + 8 + 1 + 2


def test_the_residual_optimizer_is_its_integers():
    """One step moves totals by the tuned gradients and nothing else; the network sees the nearest code."""
    module = net()
    optimizer = Residual(by_shape(module), 0.1)
    before, sums = totals(optimizer), []
    backward(module, parts_of(0)[0])
    for p, held in optimizer.words.items():
        sums.append((-0.1 * p.grad.double() / held.unit()).round().long())
    optimizer.step()
    assert equal(totals(optimizer), [a + b for a, b in zip(before, sums, strict=True)])
    for p, held in optimizer.words.items():
        codes = np.rint(held.totals().numpy() / 2.0**held.finer).clip(-(2 ** (held.bits - 1)), 2 ** (held.bits - 1) - 1)
        np.testing.assert_array_equal((p / held.step).detach(), codes)


@pytest.mark.parametrize("form", ["fixed8", "fixed8/tensor", "int8", "int4", "fixed16/tensor"])
def test_what_a_file_holds_is_what_was_trained(form):
    """The stored tensor decodes to the parameter, to the bit, for weights and for the nearest codes of residuals."""
    params = [torch.nn.Parameter(torch.tensor(rng.uniform(-0.5, 0.5, (6, 5, 3)), dtype=torch.float32))]
    for optimizer, nearby in ((Accumulated(params, lr=0.1, format=form), False), (Residual(params, 0.1, format=form), True)):
        given(optimizer, params, 5)
        held = optimizer.words[params[0]].stored(nearest=nearby)
        assert str(held.format) == form
        np.testing.assert_array_equal(held.decode(), params[0].detach().numpy())


def test_binary_points_follow():
    """Small accumulators gain a digit after enough checks, overflowing ones give one back, full codes double their step."""
    held = Word.of(torch.tensor([[0.5, -0.25, 0.1]]), "fixed8", finer=8, wide=16)
    value = held.totals().double() * held.unit()
    held.point(1)
    assert held.finer == 9
    assert torch.equal(held.totals().double() * held.unit(), value)
    held.coarser()
    assert held.finer == 10
    assert torch.equal(held.totals().double() * held.unit(), value)
    assert int(held.rest.abs().max()) < 1 << held.finer
    params = start()
    optimizer = Accumulated(params, lr=1.0, finer=8)
    word, step = optimizer.words[params[0]], optimizer.words[params[0]].step.clone()
    for _ in range(PATIENCE):
        params[0].grad = torch.zeros(6, 5)
        optimizer.step()
    assert word.finer == 9
    params[0].grad = torch.full((6, 5), -1.0)
    optimizer.step()
    assert torch.equal(word.step, 2 * step)
    assert word.finer == 10
    assert optimizer.counters()["clipped"] > 0
    late = Accumulated(start(), lr=1.0, finer=13, period=100)
    p = late.param_groups[0]["params"][0]
    for _ in range(3):
        p.grad = torch.full((6, 5), -0.01)
        late.step()
    assert late.counters()["lost"] > 0
    assert late.words[p].finer < 13


def test_float_words():
    """Weights move by whole last bits, totals stay near, biases follow small and large accumulators."""
    x = torch.tensor(rng.uniform(-1, 1, 200), dtype=torch.float32)
    held = FloatWord.of(x, Minifloat(patience=5))
    bit = last_bit(held.codes.double()) * 2.0**-held.bias
    held.gather(bit * 0.75, True)
    assert held.updates == 0
    before, total = held.value().clone(), held.totals()
    held.gather(bit * 0.5, True)
    assert held.updates > 150
    assert not torch.equal(held.value(), before)
    assert float((held.totals() - total - bit * 0.5).abs().max()) < 2.0**-10 * float(bit.max())
    bias = held.fine_bias
    held.rest.zero_()
    for _ in range(6):
        held.gather(torch.full_like(bit, 1e-9), True)
    assert held.fine_bias > bias
    held.gather(torch.full_like(bit, 1e4), False)
    assert held.lost > 0
    assert held.fine_bias < bias


def test_schedules_of_the_rate_reach_the_rule():
    """A scheduler of torch sees the optimizer's groups, which are the rule's."""
    optimizer = Accumulated(by_shape(net()), lr=0.1)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    assert optimizer.inner.param_groups is optimizer.param_groups
    assert optimizer.param_groups[0]["lr"] == 0.1
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.inner.param_groups is optimizer.param_groups


@pytest.mark.parametrize(("change", "text"), [
    ({"format": "ternary"}, "fixedB or intB"),
    ({"finer": 16}, "finer 0 to wide - 1"),
    ({"wide": 12}, "wide must be 8, 16 or 32"),
    ({"n_update": 7}, "n_update must be 0 to 6"),
    ({"finer": 14, "n_update": 3}, "finer \\+ n_update below 16"),
    ({"rounding": "up"}, "rounding must be one of"),
    ({"period": 0}, "period must be at least 1"),
])  # fmt: skip
def test_bad_settings_are_one_clear_line(change, text):
    with pytest.raises(ValueError, match=text) as caught:
        Accumulated(start(), lr=0.1, **change)
    assert "\n" not in str(caught.value)
    small, large = Residual(start(), 0.1), Residual([*start(), *start()], 0.1)
    with pytest.raises(ValueError, match="state must be of 2 tensors, got 1"):
        large.load_state_dict(small.state_dict())


# ------------------------------------------------------------------------------------------------ processes


def learned(group, form):
    """Everything that three steps over four parts end in, the parts shared out among the processes."""
    module = net()
    if form == "residual":
        optimizer = Residual(by_shape(module), 0.1, momentum=0.9, rounding="stochastic", group=group)
    else:
        optimizer = Accumulated(by_shape(module, rest=None), lr=0.1, momentum=0.9)
    sums = Parts(module.parameters(), group)
    for step in range(3):
        for i in group.share(4):
            backward(module, parts_of(step)[i])
            if form == "residual":
                optimizer.take(0.25, int(i))
            else:
                sums.take(0.25)
        if form != "residual":
            sums.give()
        optimizer.step()
        optimizer.zero_grad()
    return [*totals(optimizer), *(p.detach() for p in module.parameters())]


def in_integers(add, rank, size):
    layers = integers.network((64, 16, 10))
    rule = integers.Rule("residual")
    pixels = (digits.data * 7).astype(np.int64)
    integers.train(layers, pixels[:200], digits.target[:200], rule, epochs=range(2), rank=rank, size=size, add=add)
    return integers.arrays(layers, rule)


SCRIPT = """
    import os, sys
    import numpy as np, torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from test_updates import in_integers, learned
    from bitladder.train.group import joined
    with joined() as group:
        found = {{f"{{f}}{{i}}": x.numpy() for f in ("accumulator", "residual") for i, x in enumerate(learned(group, f))}}
        found |= in_integers(lambda x: group.add(torch.from_numpy(x)).numpy(), group.rank, group.size)
        np.savez(f"{out}/rank{{group.rank}}.npz", **found)
"""


def test_two_processes_end_in_the_same_integers(tmp_path):
    """Accumulators, residuals and the network of integers are identical to the bit for one process and for two."""
    script = tmp_path / "user.py"
    script.write_text(textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([sys.executable, str(script)], env={**shared, "RANK": str(r)}) for r in (0, 1)]
    assert [one.wait(timeout=120) for one in runs] == [0, 0]
    alone = {f"{form}{i}": x.numpy() for form in ("accumulator", "residual") for i, x in enumerate(learned(Group(), form))}
    alone |= in_integers(lambda x: x, 0, 1)
    for r in (0, 1):
        held = dict(np.load(tmp_path / f"rank{r}.npz"))
        assert held.keys() == alone.keys()
        for name, x in alone.items():
            np.testing.assert_array_equal(held[name], x, err_msg=name)


def test_parts_add_up_in_any_order():
    """The sums of gradients are the same to the bit whichever part comes first."""
    ends = []
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        module = net()
        sums = Parts(module.parameters())
        for i in order:
            backward(module, parts_of(0)[i])
            sums.take(0.25)
        sums.give()
        ends.append([p.grad for p in module.parameters()])
    assert equal(*ends)
    assert all(float(g.abs().max()) > 0 for g in ends[0])


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
