"""Evaluating many networks that differ in a few layers: the same bits, less work."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nets import FAMILIES, family, quantized  # noqa: E402

from bitladder.convert.evaluate import Evaluator, cuts, first_change  # noqa: E402
from bitladder.convert.from_torch import from_torch  # noqa: E402
from bitladder.convert.torch_ops import TORCH_OPS  # noqa: E402
from bitladder.formats import Int, Nested, QTensor  # noqa: E402
from bitladder.ir.graph import Graph, PerWidth  # noqa: E402


def network(name: str, activations: bool = True) -> Graph:
    """A small network with nested weights, its activations coded or not."""
    make = FAMILIES[name][1]
    graph = from_torch(family(name), make(2))
    graph = quantized(graph, [t.numpy() for t in make(8)], Nested(6), Int(8, per="tensor", unsigned=True))
    return graph if activations else graph.with_(encodings={})


def variants(graph: Graph):
    """For every weight, the network in which it has three bits."""
    for name, c in graph.constants.items():
        if isinstance(c, QTensor):
            yield name, graph.with_(constants={**graph.constants, name: c.at(3)})


def counting():
    """The torch operators, and a count of how often each is called."""
    calls: Counter = Counter()

    def counted(name, f):
        def call(*args, **attrs):
            calls[name] += 1
            return f(*args, **attrs)

        return call

    return {name: counted(name, f) for name, f in TORCH_OPS.items()}, calls


@pytest.mark.parametrize("memory", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("activations", [True, False])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit"])
def test_same_bits_as_a_whole_run(name, activations, memory):
    """Whatever is kept, and whichever weight changes, results equal those of an evaluator that keeps nothing."""
    torch.manual_seed(1)
    graph, (x,) = network(name, activations), FAMILIES[name][1](23)
    evaluator = Evaluator(graph, x.numpy(), batch=8, memory=memory)
    for weight, variant in variants(graph):
        got = evaluator.outputs(variant)
        np.testing.assert_array_equal(got, Evaluator(variant, batch=8)(x.numpy()), err_msg=weight)
    np.testing.assert_array_equal(evaluator.outputs(), Evaluator(graph, batch=8)(x.numpy()))


def test_a_change_at_the_end_is_cheap():
    """A new last layer runs that layer alone; a new first one runs everything; no change runs nothing."""
    graph, (x,) = network("resnet"), FAMILIES["resnet"][1](16)
    ops, calls = counting()
    evaluator = Evaluator(graph, (x,), batch=8, ops=ops)
    evaluator.outputs()
    counts = {}
    for weight, variant in variants(graph):
        calls.clear()
        evaluator.outputs(variant)
        counts[weight] = calls.total()
    assert counts["linear.weight"] == 2  # one node for each of two batches
    assert counts["conv1.weight"] >= 2 * (len(graph.nodes) - 1)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    calls.clear()
    evaluator.outputs(graph.with_(constants=dict(graph.constants)))
    assert calls.total() == 0


def test_memory_is_bounded_and_codes_are_small():
    """What is kept stays below the limit; codes take a byte each."""
    graph, (x,) = network("resnet"), FAMILIES["resnet"][1](16)
    for memory in (5_000, 40_000):
        evaluator = Evaluator(graph, x, batch=8, memory=memory)
        evaluator.outputs()
        held = [v.codes for part in evaluator.kept for v in part.values()]
        assert 0 < sum(t.nbytes for t in held) <= memory
        assert all(t.dtype == torch.uint8 for t in held)


def test_a_step_of_a_search():
    """After `rebase`, comparisons are with the new base."""
    graph, (x,) = network("resnet"), FAMILIES["resnet"][1](8)
    evaluator = Evaluator(graph, x)
    evaluator.outputs()
    (_, step), *_, (_, last) = variants(graph)
    evaluator.rebase(step)
    both = last.with_(constants={**step.constants, "linear.weight": last.constants["linear.weight"]})
    np.testing.assert_array_equal(evaluator.outputs(both), Evaluator(both)(x.numpy()))


def test_what_counts_as_a_change():
    """Equal arrays are no change; a bias per width is one when its weight is; encodings are; nodes are."""
    graph = network("resnet")
    names = {n.inputs[1]: k for k, n in enumerate(graph.nodes) if n.op in ("conv", "linear")}
    bias = graph.nodes[names["linear.weight"]].inputs[2]
    copy = {k: c.copy() if isinstance(c, np.ndarray) else c for k, c in graph.constants.items()}
    assert first_change(graph, graph.with_(constants=copy)) == len(graph.nodes)
    moved = {**copy, bias: copy[bias] + 1}
    assert first_change(graph, graph.with_(constants=moved)) == names["linear.weight"]
    per = {**copy, bias: PerWidth("linear.weight", {6: copy[bias]})}
    base = graph.with_(constants=per)
    narrow = base.with_(constants={**per, "linear.weight": per["linear.weight"].at(2)})
    assert first_change(base, narrow) == names["linear.weight"]
    assert first_change(graph, graph.with_(encodings={})) == 0
    assert first_change(graph, graph.with_(nodes=graph.nodes[:3], outputs=graph.nodes[2].outputs)) == 3
    assert cuts(graph)[0] == frozenset()
    assert cuts(graph)[-1] == frozenset(graph.outputs)


def test_kinds_and_layouts():
    """Arrays for arrays, tensors for tensors; outputs whose first axis is not the batch are not cut in pieces."""
    net, make = family("recurrent"), FAMILIES["recurrent"][1]
    x = make(9)[0]
    evaluator = Evaluator(from_torch(net, make(2)), batch=4)
    made = evaluator(x.numpy())
    assert [type(y) for y in made] == [np.ndarray] * 3
    assert made[1].shape == (4, 9, 5)
    assert isinstance(evaluator(x)[0], torch.Tensor)
    with pytest.raises(ValueError, match="needs data"):
        evaluator.outputs()
