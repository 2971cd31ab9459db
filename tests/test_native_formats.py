"""Codebooks, powers of two and product codebooks in the native core: the reference's codes, or a reason why not."""

import numpy as np
import pytest

from bitladder import native
from bitladder.engine import Engine
from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.runtime.reference import run

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no native core: {native.why}")

X = Encoding(
    Int(8, per="tensor", unsigned=True), {"scale": np.float32(0.02).reshape(()), "zero_point": np.float32(99).reshape(())}
)
Y = Encoding(Fixed(8, per="tensor"), {"fl": np.float32(3).reshape(())})
TEXTS = ["product2x4", "product4x16", "product4x300/tensor", "codebook4:11", "log4"]


def coded(text, shape, seed=0):
    w = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return QTensor.of(w, fit(parse(text), w))


def layer(op, w, *, x=X, y=Y, attrs=None, rank=2, classes=None) -> Graph:
    """One weighted node with a bias."""
    shape = ("n", w.shape[1] * (attrs or {}).get("groups", 1), *([9, 9] if rank == 4 else []))
    b = np.linspace(-1, 1, w.shape[0]).astype(np.float32)
    encodings = {name: e for name, e in (("x", x), ("y", y)) if e is not None}
    nodes = (Node(op, ("x", "w", "b"), ("y",), attrs or {}, (-1.5, None)),)
    return Graph((Value("x", "float32", shape),), ("y",), nodes, {"w": w, "b": b}, encodings)


def answers(graph, x, isa=""):
    """What the core and the reference make of `x`, and the reasons of what the core leaves to the reference."""
    engine = Engine(graph, isa=isa)
    (got,), (want,) = engine.run({"x": x}).values(), run(graph, {"x": x}).values()
    return got, want, [p.reason for p in engine.pieces() if p.reason]


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("text", TEXTS)
def test_convolutions(text, groups, isa):
    """To the bit, groups and strides included."""
    attrs = {"strides": (2, 1), "dilations": (1, 1), "pads": ((1, 1), (0, 1)), "groups": groups}
    graph = layer("conv", coded(text, (10, 8, 3, 3)), attrs=attrs, rank=4)
    x = np.random.default_rng(1).normal(size=(2, 8 * groups, 9, 9)).astype(np.float32)
    got, want, why = answers(graph, x, isa)
    assert why == []
    assert np.array_equal(got, want)
    assert len(np.unique(want)) > 20


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("text", TEXTS)
def test_products(text, rows):
    """A small one, and one that is held as planes."""
    for shape in ((6, 8), (300, 280)):
        x = np.random.default_rng(2).normal(size=(rows, shape[1])).astype(np.float32)
        got, want, why = answers(layer("linear", coded(text, shape)), x)
        assert why == []
        assert np.array_equal(got, want)


@pytest.mark.parametrize("text", TEXTS)
def test_activations_that_are_real(text):
    """Weights in codes, everything else in floats."""
    x = np.random.default_rng(3).normal(size=(5, 24)).astype(np.float32)
    got, want, why = answers(layer("linear", coded(text, (7, 24)), x=None, y=None), x)
    assert why == []
    assert np.allclose(got, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_embeddings(text):
    """Rows that are looked up are decoded as they are read."""
    graph = Graph(
        (Value("ids", "int64", ("n",)),), ("y",), (Node("embedding", ("w", "ids"), ("y",)),), {"w": coded(text, (30, 8))}, {}
    )
    ids = np.array([0, 29, 3, 3], np.int64)
    engine = Engine(graph)
    assert not [p for p in engine.pieces() if p.reason], engine.foreign
    (got,) = engine.run({"ids": ids}).values()
    assert np.array_equal(got, graph.constants["w"].decode()[ids])


def test_powers_that_int8_does_not_hold():
    """Weights of larger powers run on the reference, with the reason."""
    x = np.random.default_rng(4).normal(size=(3, 8)).astype(np.float32)
    got, want, why = answers(layer("linear", coded("log5", (6, 8))), x)
    assert np.array_equal(got, want)
    assert "its weights count in octaves, whose integers 8 bits do not hold" in " ".join(why)


@pytest.mark.parametrize("where", ["x", "y", "both"])
def test_activations_that_are_powers(where):
    """They run on the reference, with the reason, wherever they are."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 8)).astype(np.float32)
    log = fit(parse("log4/tensor"), x)
    graph = layer("linear", coded("int8", (6, 8)), x=Y if where == "y" else log, y=Y if where == "x" else log)
    after = Node("linear", ("y", "w2"), ("z",))
    graph = graph.with_(
        nodes=(*graph.nodes, after), outputs=("z",), constants={**graph.constants, "w2": coded("int8", (4, 6), 1)}
    )
    got, want, why = answers(graph, x)
    assert np.array_equal(got, want)
    assert "codes count in octaves" in " ".join(why)
