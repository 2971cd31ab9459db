"""Quantization noise: the drawn part is coded, the rest is exact; products only get nearer; every restart is the same run."""

import io
import itertools

import numpy as np
import pytest
import torch

from bitladder.file import load, save
from bitladder.formats import Int, Nested, Product, QTensor, fit
from bitladder.formats.product import assigned, centroids
from bitladder.ir.graph import Graph, Node, Value
from bitladder.train.group import Group
from bitladder.train.noise import Noise, planned
from bitladder.train.parts import Parts
from bitladder.train.product import Frozen, Products

rng = np.random.default_rng(5)
X = torch.tensor(rng.standard_normal((512, 32)), dtype=torch.float32)
Y = torch.tensor(rng.integers(0, 10, 512))
PLANS = {"int4": {"*": Int(4, group=16)}, "int8": {"*": "int8/tensor"}, "product": {"*": Product(8, 16)}}
pytestmark = pytest.mark.usefixtures("one_thread")


def net(seed=0):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(32, 64), torch.nn.LayerNorm(64), torch.nn.ReLU(), torch.nn.Linear(64, 16)
    return torch.nn.Sequential(*layers)


def one(rows=512, inputs=512, seed=0):
    """A module of one linear layer."""
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, rows)


def loss(module, rows):
    return torch.nn.functional.cross_entropy(module(X[rows]), Y[rows])


def run(noisy, optimizer, steps):
    """So many steps; the parameters at the end."""
    for step in steps:
        optimizer.zero_grad()
        loss(noisy, np.random.default_rng(step).integers(0, len(X), 64)).backward()
        optimizer.step()
        if hasattr(noisy, "step"):
            noisy.step()
    return [p.detach().clone() for p in noisy.module.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------------ the noise


@pytest.mark.parametrize("kind", PLANS)
def test_as_many_blocks_as_asked_for_are_coded(kind):
    """At 0.3 the value of 30 % +- 1 % of the blocks is their code's, and all others are the parameter's bits."""
    module = one()
    noise = Noise(module, PLANS[kind], 0.3, seed=1)
    (weight,) = noise.weights().values()
    coded = torch.from_numpy(noise.stored()["weight"].decode())
    drawn = noise.mask(0, "weight")
    assert torch.equal(weight[drawn], coded[drawn])
    assert torch.equal(weight[~drawn], module.weight[~drawn])
    means = []
    for _ in range(4):
        noise.step()
        means.append(noise.mask(0, "weight").float().mean())
    assert np.mean(means) == pytest.approx(0.3, abs=0.01)
    dim = 8 if kind == "product" else 1
    whole = drawn.reshape(512, -1, dim)
    assert torch.equal(whole.all(-1), whole.any(-1)), "a block is drawn as a whole"
    assert torch.equal(weight != module.weight, drawn & (coded != module.weight))


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_the_gradient_is_that_of_the_weights_computed_with(rate):
    """To the bit: exact on the complement, and straight through on the drawn part."""
    module = net()
    noise = Noise(module, PLANS["int4"], rate, seed=2)
    loss(noise, slice(64)).backward()
    leaves = {n: w.detach().clone().requires_grad_() for n, w in noise.weights().items()}
    loss(lambda x: torch.func.functional_call(module, leaves, (x,)), slice(64)).backward()
    assert set(leaves) == {"0.weight", "3.weight"}
    for name, leaf in leaves.items():
        assert torch.equal(module.get_parameter(name).grad, leaf.grad)


def test_the_gradient_on_the_complement_is_the_unquantized_one():
    """A loss that is separable in the weights has the same gradient there as without noise, to the bit."""
    module = one(64, 64)
    noise = Noise(module, {"*": Int(4)}, 0.3, seed=3)
    (weight,) = noise.weights().values()
    weight.pow(3).sum().backward()
    drawn, exact = noise.mask(0, "weight"), module.weight.detach()
    assert torch.equal(module.weight.grad[~drawn], (3 * exact.pow(2))[~drawn])
    assert not torch.equal(module.weight.grad[drawn], (3 * exact.pow(2))[drawn])


@pytest.mark.parametrize("kind", PLANS)
def test_parameters_stay_as_they_are(kind):
    """A forward and a backward pass change no bit of the module, in training mode and out of it."""
    module = net()
    before = [p.detach().clone() for p in module.parameters()]
    noise = Noise(module, PLANS[kind], 0.5)
    loss(noise, slice(64)).backward()
    module.eval()
    loss(noise, slice(64)).backward()
    assert equal(before, [p.detach() for p in module.parameters()])


def test_without_noise_it_is_plain_training_and_with_all_of_it_everything_is_coded():
    """Rate 0 gives the bits of training the module itself; rate 1 computes with what is stored."""
    plain, noise = net(), Noise(net(), PLANS["int4"], 0.0)
    adams = [torch.optim.Adam(m.parameters(), 1e-2) for m in (plain, noise.module)]
    for step in range(4):
        for module, adam in zip((plain, noise), adams, strict=True):
            adam.zero_grad()
            loss(module, slice(32 * step, 32 * step + 32)).backward()
            adam.step()
    assert equal(plain.parameters(), noise.module.parameters())
    noise = Noise(noise.module, PLANS["int4"], 1.0)
    stored = {n: torch.from_numpy(q.decode()) for n, q in noise.stored().items()}
    assert all(torch.equal(w, stored[n]) for n, w in noise.weights().items())
    noise.module.eval()
    said = torch.func.functional_call(noise.module, stored, (X,))
    assert torch.equal(noise(X), said)


def test_tied_weights_share_a_draw():
    """A weight under two names is drawn once, and both users see the same."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(32, 16), torch.nn.Linear(16, 32, bias=False)
            self.head.weight = self.table.weight

        def forward(self, which):
            return self.table(which), self.head(torch.eye(16)).T

    noise = Noise(Tied(), {"*": Int(4)}, 0.5)
    assert list(noise.formats) == ["table.weight"]
    rows, columns = noise(torch.arange(32))
    assert torch.equal(rows, columns)
    assert not torch.equal(rows, noise.module.table.weight)


def test_dropped_blocks_are_zero_and_a_last_block_may_be_short():
    """The stand-in for products needs no table, so inputs need not come in whole blocks."""
    module = one(64, 21)
    noise = Noise(module, {"*": Product(8, 16)}, 0.4, drop=True)
    (weight,) = noise.weights().values()
    drawn = noise.mask(0, "weight")
    assert drawn.shape == (64, 21)
    assert not weight[drawn].any()
    assert torch.equal(weight[~drawn], module.weight[~drawn])
    assert torch.equal(drawn[:, 16:].all(1), drawn[:, 16:].any(1))


def test_drawn_widths_are_prefixes_of_one_code():
    """Each step's value is that of the leading bits of the nested codes; every width comes up."""
    module = one(16, 16)
    noise = Noise(module, {"*": Nested(8)}, 1.0, widths=(2, 4, 8))
    seen = set()
    for _ in range(12):
        bits = noise.width()
        seen.add(bits)
        (weight,) = noise.weights().values()
        assert torch.equal(weight, torch.from_numpy(noise.stored()["weight"].at(bits).decode()))
        assert torch.equal(noise.quantized(bits)["weight"], weight)
        noise.step()
    assert seen == {2, 4, 8}


def test_scales_follow_the_weights_every_so_many_steps():
    module = one(16, 16)
    noise = Noise(module, {"*": Int(8)}, 1.0, every=3)
    noise.weights()
    with torch.no_grad():
        module.weight *= 2
    scales = []
    for _ in range(4):
        noise.weights()
        scales.append(float(noise.encodings["weight"].params["scale"].max()))
        noise.step()
    assert scales[0] == scales[1] == scales[2]
    assert scales[3] == 2 * scales[0]


def test_the_rate_may_follow_the_steps():
    noise = Noise(one(), {"*": Int(4)}, lambda step: step / 4)
    drawn = []
    for _ in range(5):
        drawn.append(float(noise.mask(0, "weight").float().mean()))
        noise.step()
    assert drawn == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)
    with pytest.raises(ValueError, match=r"rate must be 0 to 1, got 1\.25"):
        noise.weights()


def test_biases_and_norms_are_left_and_the_last_pattern_wins():
    assert planned(net(), {"*": Int(4), "3.*": "int8"}) == {"0.weight": Int(4), "3.weight": Int(8)}
    assert planned(net(), {"*": Int(4), "3.*": None}) == {"0.weight": Int(4)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 1.5}, "rate must be 0 to 1, got 1.5"),
        ({"every": 0}, "every must be at least 1"),
        ({"widths": (2, 4)}, "need nested formats, got int4 for '0.weight'"),
        ({"plan": {"nothing": Int(4)}}, "must name a weight of two axes or more, got nothing"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, words):
    with pytest.raises(ValueError, match=words):
        Noise(net(), **{"plan": {"*": Int(4)}, **options})


@pytest.mark.parametrize("kind", PLANS)
def test_a_run_goes_on_to_the_same_bits(kind):
    """Kept after three steps through a file and taken up again, between two fits of the scales."""

    def begun(seed):
        noise = Noise(net(seed), PLANS[kind], 0.5, seed=4, every=4)
        return noise, torch.optim.Adam(noise.module.parameters(), 1e-2)

    whole = run(*begun(0), range(9))
    noise, adam = begun(0)
    run(noise, adam, range(3))
    file = io.BytesIO()
    torch.save([noise.module.state_dict(), noise.state_dict(), adam.state_dict()], file)
    file.seek(0)
    again, other = begun(1)
    for part, kept in zip((again.module, again, other), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(kept)
    assert equal(whole, run(again, other, range(3, 9)))


# --------------------------------------------------------------------------------------------------- the products


def test_centroids_never_get_worse():
    """One round of k-means after another, the error of all blocks does not grow, and it does fall."""
    x = rng.standard_normal((2000, 4))
    errors = [assigned(x, np.ones_like(x), centroids(x, np.ones_like(x), 16, rounds))[1].sum() for rounds in range(1, 20)]
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.95 * errors[0]


def test_a_frozen_weight_is_what_is_stored_and_learns_by_means():
    """Its value is the stored tensor's; a centroid's gradient is its blocks' mean gradient, in the units of weights."""
    weight = torch.tensor(rng.standard_normal((32, 64)), dtype=torch.float32)
    frozen = Frozen.of(weight, Product(8, 16, "tensor"))
    assert np.array_equal(frozen.value().detach().numpy(), frozen.stored().decode())
    away = torch.tensor(rng.standard_normal((32, 64)), dtype=torch.float32)
    (frozen.value() * away).sum().backward()
    parts = away.reshape(32, 8, 8)
    for k in range(16):
        mine = parts[frozen.codes == k]
        if len(mine):
            np.testing.assert_allclose(frozen.table.grad[k], mine.mean(0), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        frozen.table += 0.1
    assert np.array_equal(frozen.value().detach().numpy(), frozen.stored().decode())


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_learning_tables_lowers_the_error(per):
    """Groups in order; descent on frozen tables brings the outputs nearer to those before."""
    module = net()
    said = module(X).detach()
    products = Products(module)
    adam = torch.optim.Adam(products.freeze("3.*", Product(8, 8, per)), 3e-3)
    errors = []
    for step in range(40):
        if step == 20:
            products.freeze("0.*", Product(4, 8, per))
            adam = torch.optim.Adam(products.tables(), 3e-3)
        adam.zero_grad()
        error = (products(X) - said).pow(2).mean()
        error.backward()
        adam.step()
        errors.append(float(error.detach()))
    assert errors[19] < 0.97 * errors[0]
    assert errors[39] < 0.97 * errors[20]
    assert set(products.stored()) == {"0.weight", "3.weight"}
    assert len(products.rest()) == 4


def as_graph(stored, rows):
    """A network of one linear layer per stored weight, in parallel."""
    nodes = tuple(Node("linear", ("x", name), (f"y{i}",)) for i, name in enumerate(stored))
    return Graph((Value("x", "float32", ("batch", rows)),), tuple(n.name for n in nodes), nodes, dict(stored))


@pytest.mark.parametrize("fmt", [Product(8, 256, "tensor"), Product(8, 256), Product(4, 64, "tensor")])
def test_a_file_is_as_large_as_the_formula_says(tmp_path, fmt):
    """Uncompressed, to 1 %; and what is read is what was learned."""
    products = Products(one(1024, 512))
    products.freeze("weight", fmt)
    save(as_graph(products.stored(), 512), tmp_path / "net.ladder", coder="raw")
    said = products.frozen["weight"].nbytes()
    assert (tmp_path / "net.ladder").stat().st_size == pytest.approx(said, rel=0.01)
    found = load(tmp_path / "net.ladder").constants["weight"]
    assert isinstance(found, QTensor)
    assert np.array_equal(found.decode(), products.weights()["weight"].detach().numpy())


def test_noise_ends_in_a_file(tmp_path):
    noise = Noise(one(256, 512), {"*": Int(4, group=64)}, 0.5)
    save(as_graph(noise.stored(), 512), tmp_path / "net.ladder", coder="raw")
    found = load(tmp_path / "net.ladder").constants["weight"]
    assert np.array_equal(found.decode(), noise.quantized()["weight"].numpy())
    assert (tmp_path / "net.ladder").stat().st_size < 256 * 512 * (4 + 64 / 64) / 8 * 1.1


def test_products_say_what_is_wrong():
    products = Products(net())
    with pytest.raises(ValueError, match="must be productDxK, got int4"):
        products.freeze("*", "int4")
    with pytest.raises(ValueError, match="'nothing' must match a weight"):
        products.freeze("nothing")
    with pytest.raises(ValueError, match="in blocks of 8"):
        Products(one(16, 21)).freeze("*", Product(8, 16))


def test_products_go_on_to_the_same_bits():
    """Kept between two groups and after a few steps; the rest of the module learns along."""

    def learned(products, adam, steps):
        for step in steps:
            adam.zero_grad()
            loss(products, np.random.default_rng(step).integers(0, len(X), 64)).backward()
            adam.step()

    def ends(products):
        return [*products.tables(), *products.rest()]

    whole, half = Products(net()), Products(net())
    for products in (whole, half):
        products.freeze("0.*", Product(8, 16))
    adams = [torch.optim.Adam([*p.tables(), *p.rest()], 1e-2) for p in (whole, half)]
    learned(whole, adams[0], range(8))
    learned(half, adams[1], range(3))
    file = io.BytesIO()
    torch.save([half.module.state_dict(), half.state_dict(), adams[1].state_dict()], file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again = Products(net(1))
    again.module.load_state_dict(kept[0])
    again.load_state_dict(kept[1])
    adam = torch.optim.Adam([*again.tables(), *again.rest()], 1e-2)
    adam.load_state_dict(kept[2])
    learned(again, adam, range(3, 8))
    assert equal(ends(whole), ends(again))
    assert not equal(ends(whole), ends(half))


# --------------------------------------------------------------------------------------------------- two processes

SCRIPT = """
    import os, sys
    import numpy as np, torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from test_noise import trained
    from bitladder.train.group import joined
    with joined() as group:
        np.savez(f"{out}/rank{{group.rank}}.npz", *[p.detach().numpy() for p in trained(group)])
"""


def trained(group):
    """Both methods, each part of a batch where it belongs; the parameters at the end."""
    ends = []
    for kind in ("noise", "products"):
        module = net()
        group.agree(module.parameters())
        net_ = Noise(module, PLANS["int4"], 0.5, every=3) if kind == "noise" else Products(module)
        learning = list(module.parameters()) if kind == "noise" else [*net_.freeze("0.*", Product(8, 16)), *net_.rest()]
        adam, parts = torch.optim.Adam(learning, 1e-2), Parts(learning, group)
        for step in range(5):
            rows = np.array_split(np.random.default_rng(step).integers(0, len(X), 64), 4)
            for part in group.share(4):
                loss(net_, rows[part]).backward()
                parts.take(1 / 4)
            parts.give()
            adam.step()
            adam.zero_grad()
            if kind == "noise":
                net_.step()
        ends += learning
    return ends


def test_two_processes_learn_what_one_does(together, tmp_path):
    """Under torchrun's environment: draws do not depend on the process, so all parameters are the same bits."""
    assert together(SCRIPT) == [0, 0]
    alone = [p.detach().numpy() for p in trained(Group())]
    for rank in (0, 1):
        held = np.load(tmp_path / f"rank{rank}.npz")
        assert all(np.array_equal(held[f"arr_{i}"], a) for i, a in enumerate(alone))


def test_a_fitted_format_is_what_the_noise_shows():
    """`cover` reaches the fit."""
    module = one(16, 64)
    x = module.weight.detach().numpy()
    for cover in ("max", "mse"):
        found = Noise(module, {"*": Int(4)}, 1.0, cover=cover).stored()["weight"]
        assert np.array_equal(found.decode(), QTensor.of(x, fit(Int(4), x, cover=cover)).decode())
