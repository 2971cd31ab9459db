"""Sparse weights: masks follow the schedule to the count, and zeros outlast every step of every optimizer."""

import copy
import io
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from students import X, Y, mlp, run, same
from torch import nn

from bitladder.train.noise import Noise
from bitladder.train.sparse import Schedule, Sparse, dead, linear, narrowed, prunable

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9, weight_decay=0.1),
}

pytestmark = pytest.mark.usefixtures("one_thread")


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
