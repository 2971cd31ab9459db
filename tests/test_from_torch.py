# ruff: noqa: E501 - one group of expressions reads better in few lines
"""Graphs from torch modules mean what the modules mean, at every batch size, under the names users know."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from nets import FAMILIES, family  # noqa: E402

from bitladder.convert.from_torch import from_torch  # noqa: E402
from bitladder.errors import Unsupported  # noqa: E402
from bitladder.runtime.reference import run  # noqa: E402


def outputs(made):
    """What a module returned as a list of numpy arrays."""
    return [t.detach().numpy() for t in (made if isinstance(made, tuple) else (made,))]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_mean_the_same(name):
    """Each family at the example's batch size, at another, and at one."""
    net, make = family(name), FAMILIES[name][1]
    graph = from_torch(net, make(3))
    for batch in (3, 2, 1):
        x = make(batch)
        want = outputs(net(*x))
        assert batch == 1 or np.ptp(want[0], axis=0).max() > 1e-3  # a network that is alive
        got = run(graph, {v.name: t.numpy() for v, t in zip(graph.inputs, x, strict=True)})
        for a, b in zip(want, (got[o] for o in graph.outputs), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


class Call(torch.nn.Module):
    """A function as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


I = torch.tensor([2, 0, 1])  # noqa: E741
W = torch.randn(4, 3)


def written(x):
    """Writes into views, which need the program made functional."""
    y = x.clone()
    y[:, 0] = 0.5
    y[:, 1:].mul_(2)
    y[y < 0] = -0.5
    return y


def in_place(x):
    """Writes into whole values, read again under the old name."""
    y = x * 2
    y.add_(1)
    y.relu_()
    return y, y + x


# Groups of expressions over x (batch, 3, 4), each exported as one program.
EXPRESSIONS = {
    "numbers": lambda x: (x + 1, 2 - x, x * 3, x / 2, 1 / (x.abs() + 1), -x, x.pow(2), x.abs().pow(1.5), x.abs().sqrt(), (x * x + 1).rsqrt()),
    "order": lambda x: ((x > 0).float(), (x <= 0.5) & (x != 0), ~(x < 0), torch.where(x > 0, x, -x), x.masked_fill(x < 0, -1.0)),
    "pairs": lambda x: (torch.maximum(x, x * 2), torch.minimum(x, x * 2), x.add(x, alpha=3), x.sub(x, alpha=2), torch.lerp(x, x * 2, 0.3)),
    "integers": lambda x: ((x * 9).int() // 2, (x * 9).long() % 4, x.long() + x, x.floor() // 2, torch.div(x, 0.3, rounding_mode="trunc")),
    "curves": lambda x: (x.erf(), x.tanh(), x.exp(), (x * x + 1).log(), x.sin(), x.cos(), x.clamp(-1, 0.5), x.clamp(min=0), x.sign(), x.round()),
    "units": lambda x: (
        F.relu6(x * 5), F.hardtanh(x), F.leaky_relu(x, 0.2), F.elu(x), F.selu(x), F.celu(x, 0.5), F.softplus(x, beta=2), F.softsign(x), F.mish(x),
        F.silu(x), F.gelu(x, approximate="tanh"), F.glu(x, -1), F.hardsigmoid(x * 4), F.hardswish(x * 4), F.logsigmoid(x), F.softmin(x, 1), F.tanhshrink(x),
    ),
    "folds": lambda x: (
        x.sum(), x.sum(1), x.mean((1, 2)), x.amax(-1, keepdim=True), x.amin(1), x.max(2), x.min(1)[0], x.argmax(1), x.var(1), x.std(-1, unbiased=False),
        x.prod(2), x.logsumexp(1), x.norm(dim=1), F.normalize(x, dim=2), x.softmax(1), x.log_softmax(2), x.norm(p=1, dim=-1), x.mean(),
    ),
    "shapes": lambda x: (
        x.reshape(-1, 6), x.view(x.shape[0], -1), x.flatten(), x.flatten(1), x.unflatten(2, (2, 2)), x.transpose(1, 2), x.permute(2, 0, 1), x.unsqueeze(1),
        x[:, None].squeeze(1), x[:, :1].squeeze(), x.unsqueeze(-1).expand(-1, -1, -1, 5), x.repeat(1, 2, 1), x.mT, x.movedim(0, 1), x.swapaxes(0, 2),
    ),
    "slices": lambda x: (
        x[:, 1], x[:, -1:], x[:, ::2], x[..., 1:3], x[:, [2, 0]], x[:, :, I], x.narrow(1, 1, 2), x.select(2, -1), x.index_select(1, I), x.flip(1), x.roll(1, 2),
        *x.chunk(2, 2), *x.split([1, 2], 1), *x.unbind(1), x.gather(2, I.expand(x.shape[0], 3, 3)),
    ),
    "joins": lambda x: (torch.cat([x, x * 2], 1), torch.stack([x, -x], 2), torch.cat([x.long(), x], 2), x.tril(), x.triu(1), torch.einsum("bij,bkj->bik", x, x)),
    "made": lambda x: (
        x + torch.arange(4), torch.zeros_like(x) + x, x.new_ones(x.shape[0], 3, 1) * x, torch.full((x.shape[0], 2), 0.5), torch.ones(4) * x, x * x.shape[0],
    ),
    "products": lambda x: (x @ W, x[:, 0] @ W, torch.bmm(x, x.mT), F.linear(x, W.T), torch.addmm(torch.ones(3), x[:, 0], W), torch.matmul(x, x[0, 0])),
    "pads": lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 0, 1, 1), value=2.0), F.pad(x, (1, 1), mode="reflect"), F.pad(x, (2, 1), mode="replicate"), F.pad(x, (1, 2), mode="circular"), F.pad(x, (-1, 1))),
    "attention": lambda x: (
        F.scaled_dot_product_attention(x, x, x), F.scaled_dot_product_attention(x, x, x, is_causal=True),
        F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(3, 3).tril().bool()), F.scaled_dot_product_attention(x, x, x, scale=0.3),
    ),
    "norms": lambda x: (F.layer_norm(x, (4,)), F.layer_norm(x, (3, 4)), F.rms_norm(x, (4,)), F.group_norm(x, 3), F.instance_norm(x), F.local_response_norm(x, 2)),
    "pools": lambda x: (
        F.max_pool1d(x, 2), F.avg_pool1d(x, 2), F.adaptive_avg_pool1d(x, 2), F.adaptive_max_pool1d(x, 1), F.max_pool1d(x, 3, 2, 1), F.avg_pool1d(x, 3, 1, 1),
        F.avg_pool1d(x, 3, 1, 1, count_include_pad=False), F.max_pool1d(x, 2, return_indices=True)[0], F.adaptive_avg_pool1d(x, 4),
    ),
    "sizes": lambda x: (
        F.interpolate(x, scale_factor=2), F.interpolate(x, size=7, mode="linear"), F.interpolate(x[None, :, :, :], size=(6, 8), mode="bicubic")[0],
        F.interpolate(x[:, None], size=(5, 6), mode="bilinear", align_corners=True), F.interpolate(x[:, None], scale_factor=(1.5, 2), mode="bilinear"),
        F.pixel_shuffle(x.reshape(-1, 4, 1, 3), 2), F.interpolate(x, size=2, mode="linear"), F.interpolate(x, size=6),
    ),
    "masks": lambda x: (torch.full((4, 4), -torch.inf).triu(1) + x.mT @ x).softmax(-1),
    "two": lambda x: (F.max_pool1d(F.relu(written(x)), 2, return_indices=True)),
    "written": written,
    "in place": in_place,
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_mean_the_same(name):
    """Operator by operator, at the example's batch size and another."""
    torch.manual_seed(2)
    net = Call(EXPRESSIONS[name])
    graph = from_torch(net, torch.randn(2, 3, 4))
    for batch in (2, 3):
        if isinstance(graph.inputs[0].shape[0], int) and batch != 2:
            assert name in ("sizes",), graph.meta  # which says why its batch is fixed
            continue
        x = torch.randn(batch, 3, 4)
        want = [np.asarray(t) for t in torch.utils._pytree.tree_leaves(net(x))]
        got = run(graph, {graph.inputs[0].name: x.numpy()})
        assert len(want) == len(graph.outputs)
        for k, (a, o) in enumerate(zip(want, graph.outputs, strict=True)):
            assert (a.dtype, a.shape) == (got[o].dtype, got[o].shape), (k, o)
            np.testing.assert_allclose(got[o], a, rtol=1e-4, atol=1e-5, err_msg=f"{k} {o}")


def same(net, graph, *x):
    """Whether a graph gives what the module gives."""
    got = run(graph, {v.name: t.numpy() for v, t in zip(graph.inputs, x, strict=True)})
    for a, o in zip(outputs(net(*x)), graph.outputs, strict=True):
        np.testing.assert_allclose(got[o], a, rtol=1e-4, atol=1e-5)


def test_names_are_the_modules():
    """Weights are called as in state_dict, values as the modules that make them."""
    net = family("resnet").train()
    graph = from_torch(net, torch.randn(1, 3, 8, 8))
    assert net.training, "the module is left in the mode it was in"
    wanted = {k for k in net.state_dict() if "num_batches" not in k}
    assert wanted == {k for k in graph.constants if not k.startswith("const.")}
    made = {o for n in graph.nodes for o in n.outputs}
    assert {"conv1", "bn1", "layer1.0.conv2", "layer2.0.bn2", "layer2.0.add", "linear"} <= made
    assert graph.inputs[0].name == "x"
    assert graph.inputs[0].shape == ("batch", 3, 8, 8)
    before = graph.constants["conv1.weight"].copy()
    with torch.no_grad():
        net.conv1.weight.zero_()
    assert np.array_equal(graph.constants["conv1.weight"], before), "the graph does not change with the module"


def test_ways_to_give_inputs():
    """A tensor, a tuple, a dict by name, or a program exported before."""
    net, x = family("bert"), FAMILIES["bert"][1](2)
    by_name = from_torch(net, {"ids": x[0], "mask": x[1]})
    assert [v.name for v in by_name.inputs] == ["ids", "mask"]
    same(net, by_name, *FAMILIES["bert"][1](4))
    program = torch.export.export(net, x)
    fixed = from_torch(program)
    assert fixed.inputs[0].shape == (2, 7)
    same(net, fixed, *x)
    several = from_torch(Call(lambda x: {"logits": x * 2, "rest": (None, x + 1)}), torch.randn(2, 3))
    assert several.outputs == ("mul", "add")
    with pytest.raises(TypeError, match="needs example inputs"):
        from_torch(net)


def test_a_fixed_batch_is_noted():
    """A module that insists on its batch size is exported for that size, and says so."""

    class Stubborn(torch.nn.Module):
        def forward(self, x):
            if x.shape[0] != 3:
                raise ValueError("three rows, please")
            return x * 2

    graph = from_torch(Stubborn(), torch.randn(3, 2))
    assert graph.inputs[0].shape == (3, 2)
    assert from_torch(torch.nn.Linear(2, 2), torch.randn(1, 2)).inputs[0].shape == ("batch", 2)

    class Single(Stubborn):
        def forward(self, x):
            if x.shape[0] != 1:
                raise ValueError("one row, please")
            return x * 2

    graph = from_torch(Single(), torch.randn(1, 2))
    assert graph.inputs[0].shape == (1, 2)
    assert "one row, please" in graph.meta["batch"]


def test_unsupported_operators_are_all_named():
    """One error, with every operator, how often, where, and what to do."""
    net = Call(lambda x: torch.fft.fft(x).real + torch.special.bessel_j0(x) + torch.special.bessel_j0(x * 2))
    with pytest.raises(Unsupported) as caught:
        from_torch(net, torch.randn(2, 4))
    text = str(caught.value)
    assert "\n" not in text
    assert all(
        part in text for part in ("special_bessel_j0.default (2x, first at 'special_bessel_j0')", "fft", "rewrite these")
    )
    with pytest.raises(Unsupported, match=r"aten.index.Tensor at 'index' must index one axis by one tensor"):
        from_torch(Call(lambda x: x[x[:, 0] > 0]), torch.randn(4, 3))
    norm = torch.nn.BatchNorm1d(3)
    with pytest.raises(Unsupported, match=r"running statistics, got batch statistics; call module.eval"):
        from_torch(torch.export.export(norm.train(), (torch.randn(4, 3),)))


def test_more_layers():
    """Layers with something special about them: tied weights, gradients switched off, heads in one, weights made of others."""

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 8)
            self.b = torch.nn.Linear(8, 8)
            self.b.weight = self.a.weight
            self.attn = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 4))
            self.embed = torch.nn.Embedding(5, 8, padding_idx=0)
            self.lstm = torch.nn.LSTM(8, 3, bias=False)

        def forward(self, x, ids):
            with torch.no_grad():
                y = self.b(self.a(x)) + self.embed(ids)
            y, weights = self.attn(y, y, y)
            return self.normed(y), weights, self.lstm(y)[0]

    net = Odd().eval()
    x, ids = torch.randn(2, 3, 8), torch.randint(0, 5, (2, 3))
    graph = from_torch(net, (x, ids))
    same(net, graph, x, ids)
    assert len([c for c in graph.constants.values() if c.shape == (8, 8)]) == 2  # a and b are one; attention's way out


def test_recurrent_states():
    """Initial states given as inputs, time first, no batch_first: the layouts of torch."""
    net = torch.nn.GRU(3, 4, 2)
    x, h = torch.randn(5, 2, 3), torch.randn(2, 2, 4)
    graph = from_torch(net, (x, h))
    same(net, graph, x, h)
    assert [n.op for n in graph.nodes].count("gru") == 2
    same(net, graph, torch.randn(4, 2, 3), h)  # axis 0 of x is time here, and free; that of h is layers


def test_torch_stays_outside():
    """Importing the package, its formats, graph and runtime, does not import torch."""
    code = "import sys, bitladder, bitladder.runtime.reference, bitladder.formats, bitladder.ir.ops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
