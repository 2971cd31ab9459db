"""Optimizers of integer weights: totals are exact, in any order, over any number of processes, and through every restart."""

import io

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bitladder.train import integers
from bitladder.train.accumulate import PATIENCE, Accumulated
from bitladder.train.floats import FloatWord, Minifloat, last_bit
from bitladder.train.group import Group
from bitladder.train.parts import Parts
from bitladder.train.residual import Residual
from bitladder.train.words import Word, by_shape

rng = np.random.default_rng(3)
digits = load_digits()
X = torch.tensor(digits.data / 16, dtype=torch.float32)
Y = torch.tensor(digits.target)
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_two_processes_end_in_the_same_integers(together, tmp_path):
    """Accumulators, residuals and the network of integers are identical to the bit for one process and for two."""
    assert together(SCRIPT) == [0, 0]
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
