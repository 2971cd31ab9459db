"""A graph as a torch module: the same function, trainable, and the same integers as the reference."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nets import FAMILIES, family, quantized  # noqa: E402

from bitladder.convert.from_torch import from_torch  # noqa: E402
from bitladder.convert.to_torch import to_torch  # noqa: E402
from bitladder.convert.torch_ops import TORCH_OPS  # noqa: E402
from bitladder.formats import Fixed, Int, Nested, Ternary  # noqa: E402
from bitladder.ir.graph import Graph, Node, Value  # noqa: E402
from bitladder.runtime import integer  # noqa: E402
from bitladder.runtime.integer import Coded  # noqa: E402
from bitladder.runtime.reference import enter, run, step  # noqa: E402


def listed(made):
    return made if isinstance(made, tuple) else (made,)


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(name):
    """module -> graph -> module computes what the first module did, for two batch sizes, under the same weight names."""
    net, make = family(name), FAMILIES[name][1]
    graph = from_torch(net, make(2))
    module = to_torch(graph).eval()
    for batch in (2, 5):
        x = make(batch)
        for a, b in zip(listed(net(*x)), listed(module(*x)), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    if name != "recurrent":  # whose weights are stacked and reordered
        mine = net.state_dict()
        assert set(module.weights()) == set(dict(net.named_parameters()))
        assert all(torch.equal(value, mine[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "vit", "bert", "recurrent"])
def test_training_moves_every_weight(name):
    """One step changes each parameter, and `to_graph` carries the change."""
    graph = from_torch(family(name), FAMILIES[name][1](2))
    module = to_torch(graph).train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    sum((y * torch.randn(y.shape)).sum() for y in listed(module(*FAMILIES[name][1](4)))).backward()
    optimizer.step()
    after = module.to_graph()
    unread = {"k.bias"}  # a constant added to all scores of a query changes nothing
    still = {k for k in module.weights() if np.array_equal(after.constants[k], graph.constants[k])}
    assert still <= unread
    assert all(np.array_equal(after.constants[k], c) for k, c in graph.constants.items() if k not in module.weights())


def test_batch_norm_trains_like_torch():
    """With train_norm, outputs and running statistics in train mode are those of the original in train mode."""
    net = family("resnet").train()
    module = to_torch(from_torch(net, FAMILIES["resnet"][1](2)), train_norm=True).train()
    x = torch.randn(6, 3, 8, 8)
    torch.testing.assert_close(module(x), net(x), rtol=1e-4, atol=1e-5)
    mine, yours = module.state_dict(), net.state_dict()
    for key in mine:
        torch.testing.assert_close(mine[key], yours[key], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(module.to_graph().constants["bn1.running_mean"], module.graph.constants["bn1.running_mean"])


def test_names_that_are_no_attributes():
    """Any value name can be a weight: dots in odd places, a prefix of another, a word that modules use themselves."""
    names = ["a", "a.b", "type", "x..y", "/onnx/w:0", ".", "training.w"]
    w = {n: np.full((2, 2), k + 1.0, np.float32) for k, n in enumerate(names)}
    nodes = [Node("linear", ("x" if k == 0 else f"y{k - 1}", n), (f"y{k}",)) for k, n in enumerate(names)]
    graph = Graph((Value("x"),), (f"y{len(names) - 1}",), tuple(nodes), w)
    module = to_torch(graph)
    assert set(module.weights()) == set(names)
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach(), run(graph, {"x": x})[graph.outputs[0]])
    assert all(np.array_equal(module.to_graph().constants[n], w[n]) for n in names)


FORMATS = {
    "float scales": (Int(8), Int(8, per="tensor", unsigned=True)),
    "powers of two": (Fixed(8), Fixed(8, per="tensor")),
    "nested": (Nested(6), Int(8, per="tensor", unsigned=True)),
    "tree": (Nested(4, "tree"), Fixed(8, per="tensor")),
    "ternary": (Ternary(), Int(4, per="tensor", unsigned=True)),
    "wide": (Int(12), Int(12, per="tensor", unsigned=True)),
}


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "mlp", "decoder"])
def test_integers_equal_the_reference(name, formats):
    """Every integer node gives the codes of the numpy reference, to the bit, given the same integers."""
    make = FAMILIES[name][1]
    graph = quantized(from_torch(family(name), make(2)), [t.numpy() for t in make(8)], *FORMATS[formats])
    x = make(3)
    codes = {}
    named = {v.name: t.numpy() for v, t in zip(graph.inputs, x, strict=True)}
    run(graph, named, watch=lambda key, value: codes.update({key: value}))
    module = to_torch(graph)
    entered = {v.name: enter(graph, v.name, t) for v, t in zip(graph.inputs, x, strict=True)}
    env = {**graph.constants, **entered, **module.known()}
    seen = 0
    for node in graph.nodes:
        made = step(graph, node, env, TORCH_OPS)
        for key, value in zip(node.outputs, made, strict=False):
            want = codes[key]
            if isinstance(want, Coded):
                if node.op in integer.RULES:
                    np.testing.assert_array_equal(value.codes.numpy(), want.codes)
                    seen += 1
                else:
                    np.testing.assert_allclose(value.codes.numpy(), want.codes, atol=1)
                env[key] = Coded(torch.from_numpy(want.codes), want.encoding)
            else:
                env[key] = torch.from_numpy(np.array(want))
    assert seen >= 2
