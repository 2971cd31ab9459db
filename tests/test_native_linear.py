"""Convolutions, transposed convolutions and linear layers in the native core: the reference's codes, to the bit."""

import numpy as np
import pytest

from bitladder import native
from bitladder.engine import Engine
from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.runtime.reference import run

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no native core: {native.why}")

FORMATS = ["int8", "int4", "fixed8", "fixed5", "ternary", "int8/tensor", "nested8", "nested4", "nested8:tree", "nested5:sign"]
FORMATS += ["codebook4", "codebook3:7", "codebook8/tensor", "log4", "log3/tensor"]


def activation(rng, low=-3.0, high=3.0):
    """An activation encoding of some kind, for values about from `low` to `high`."""
    kind = rng.integers(4)
    if kind == 0:
        scale, zero = np.float32((high - low) / 255), np.float32(np.round(-low / ((high - low) / 255)))
        return Encoding(Int(8, per="tensor", unsigned=True), {"scale": scale.reshape(()), "zero_point": zero.reshape(())})
    if kind == 1:
        scale = np.float32(max(-low, high) / 127 * rng.uniform(0.5, 1.1))
        return Encoding(Int(8, per="tensor"), {"scale": scale.reshape(()), "zero_point": np.float32(0).reshape(())})
    if kind == 2:
        params = {"scale": np.float32(0.3).reshape(()), "zero_point": np.float32(7).reshape(())}
        return Encoding(Int(4, per="tensor", unsigned=True), params)
    return Encoding(Fixed(8, per="tensor", unsigned=bool(rng.integers(2))), {"fl": np.float32(rng.integers(3, 7)).reshape(())})


def weight(rng, shape, text, axis=0):
    w = rng.normal(size=shape).astype(np.float32)
    return QTensor.of(w, fit(parse(text), w, axis=axis))


def bias(rng, w, columns):
    kind = rng.integers(3)
    if kind == 0:
        return None
    if kind == 1 or not hasattr(w.format, "at"):
        return rng.normal(size=columns).astype(np.float32)
    return PerWidth("w", {b: rng.normal(size=columns).astype(np.float32) for b in (2, 5, 8)})


def geometry(rng, op):
    """Attributes of a convolution and the sizes it is tried on."""
    k = [int(rng.choice([1, 2, 3, 4, 5, 7])) for _ in range(2)]
    attrs = {
        "strides": tuple(int(n) for n in rng.integers(1, 4, 2)),
        "dilations": tuple(int(n) for n in rng.choice([1, 1, 2, 3], 2)),
        "pads": tuple((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(2)),
        "groups": int(rng.choice([1, 1, 1, 2, 3])),
    }
    if op == "conv_transpose":
        attrs["output_padding"] = tuple(int(rng.integers(0, s)) for s in attrs["strides"])
    return k, attrs


def network(rng, op, text):
    """One weighted node with random everything, and an input for it."""
    if op == "linear":
        inputs, columns = int(rng.integers(1, 70)), int(rng.integers(1, 150))
        attrs, shape, axis = {}, (columns, inputs), 0
        x_shape = (int(rng.integers(1, 9)), *([int(rng.integers(1, 5))] if rng.integers(2) else []), inputs)
    else:
        k, attrs = geometry(rng, op)
        groups = attrs["groups"]
        inner, outer = int(rng.integers(1, 9)), int(rng.integers(1, 40))
        shape = (outer * groups, inner, *k) if op == "conv" else (inner * groups, outer, *k)
        columns, axis = outer * groups, 0 if op == "conv" else 1
        reach = [d * (n - 1) + 1 for n, d in zip(k, attrs["dilations"], strict=True)]
        space = [int(rng.integers(r if op == "conv" else 1, 16 + r)) for r in reach]
        x_shape = (int(rng.integers(1, 4)), inner * groups, *space)
    w = weight(rng, shape, text, axis)
    b = bias(rng, w, columns)
    encodings = {"x": activation(rng)}
    if rng.integers(4):
        encodings["y"] = activation(rng, -float(np.sqrt(np.prod(shape[1:]))), float(np.sqrt(np.prod(shape[1:]))))
    clip = [None, (0.0, None), (0.0, 6.0), (-1.0, 2.5)][rng.integers(4)]
    graph = Graph(
        inputs=(Value("x", "float32", ("n", *x_shape[1:])),),
        outputs=("y",),
        nodes=(Node(op, ("x", "w", *(("b",) if b is not None else ())), ("y",), attrs, clip),),
        constants={"w": w, **({"b": b} if b is not None else {})},
        encodings=encodings,
    )
    return graph, rng.normal(size=x_shape).astype(np.float32) * 2


def same(graph, x, bits=None, isa="", threads=1):
    """Assert that the core gives what the reference gives: reals are codes times steps, so equal codes are equal reals."""
    engine = Engine(graph, threads=threads, isa=isa)
    (got,) = engine.run({"x": x}, bits).values()
    assert not [p for p in engine.pieces() if p.reason], engine.foreign
    (want,) = run(graph if bits is None else graph.at(bits), {"x": x}).values()
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert np.array_equal(got, want), f"{np.sum(got != want)} of {want.size} differ, by up to {np.abs(got - want).max()}"


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("op", ["conv", "conv_transpose", "linear"])
def test_random_layers_are_equal(op, isa):
    """Every format, width, stride, dilation, pad, group and clip, on every instruction set."""
    for seed in range(60):
        rng = np.random.default_rng([seed, len(op)])
        text = FORMATS[seed % len(FORMATS)]
        graph, x = network(rng, op, text)
        nested = hasattr(graph.constants["w"].format, "at")
        for bits in [None, int(rng.integers(1, 9))] if nested else [None]:
            try:
                same(graph, x, bits, isa, threads=1 + seed % 2)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {text} at {bits}, {graph.nodes[0]}, x {x.shape}: {error}") from None


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("text", FORMATS)
def test_a_few_rows_run_on_planes(text, isa):
    """A layer that is bound by memory is held as planes, whether few rows come or many, at every width."""
    rng = np.random.default_rng(5)
    graph, _ = network(rng, "linear", text)
    w = weight(rng, (321, 275), text)
    graph = graph.with_(
        inputs=(Value("x", "float32", ("n", 275)),),
        constants={"w": w, "b": rng.normal(size=321).astype(np.float32)},
        nodes=(Node("linear", ("x", "w", "b"), ("y",), {}, (0.0, None)),),
    )
    for rows in (1, 3, 8, 30):
        x = rng.normal(size=(rows, 275)).astype(np.float32)
        for bits in [None, 1, 2, 3, 7] if hasattr(w.format, "at") else [None]:
            same(graph, x, bits, isa, threads=1 + rows % 2)


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("op", ["conv", "conv_transpose", "linear"])
@pytest.mark.parametrize("text", ["float", "int4", "nested8", "nested6:tree", "int4/5", "fixed8"])
def test_float_layers_are_close(text, op, isa):
    """Weights, whatever their format, times activations that are no integers."""
    for seed in range(4):
        rng = np.random.default_rng([seed, 9])
        graph, x = network(rng, op, "int8" if text in ("float", "int4/5") else text)
        w = graph.constants["w"]
        if text == "float":
            w = w.decode()
        if text == "int4/5":
            if op != "linear":
                return
            w = weight(rng, w.shape, text)
        b = graph.constants.get("b")
        graph = graph.with_(
            encodings={}, constants={"w": w, **({"b": b.at(8) if isinstance(b, PerWidth) else b} if b is not None else {})}
        )
        for bits in [None, 3] if hasattr(getattr(w, "format", None), "at") else [None]:
            engine = Engine(graph, threads=1 + seed % 2, isa=isa)
            (got,) = engine.run({"x": x}, bits).values()
            assert not [p for p in engine.pieces() if p.reason], engine.foreign
            (want,) = run(graph if bits is None else graph.at(bits), {"x": x}).values()
            assert np.allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max()), np.abs(got - want).max()


@pytest.mark.parametrize("count", [3, 5, 40])
@pytest.mark.parametrize("where", [("x",), ("y",), ("x", "y")])
@pytest.mark.parametrize("op", ["conv", "relu", "global_avg_pool", "max_pool"])
def test_an_encoding_with_the_wrong_number_of_steps_is_refused(op, where, count):
    """A file may say so; what comes is one line, never memory that is not ours."""
    encoding = Encoding(Fixed(8), {"fl": np.arange(count).astype(np.float32) % 5}, (1,))
    attrs = {"kernel_shape": (1, 1)} if op == "max_pool" else {}
    inputs = ("x", "w") if op == "conv" else ("x",)
    w = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    constants = {"w": QTensor.of(w, fit(parse("fixed8"), w))} if op == "conv" else {}
    graph = Graph(
        (Value("x", "float32", ("n", 4, 3, 3)),),
        ("y",),
        (Node(op, inputs, ("y",), attrs),),
        constants,
        dict.fromkeys(where, encoding),
    )
    x = np.random.default_rng(1).normal(size=(2, 4, 3, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="mend the encoding"):
        Engine(graph).run({"x": x})


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("clip", [None, (0.0, None)])
def test_what_is_no_number_stays_none(clip, isa):
    """A NaN among float weights comes out as NaN, as on the reference, and is not held at a limit."""
    w = np.ones((20, 4), np.float32)
    w[[0, 17], 1] = np.nan
    node = Node("linear", ("x", "w"), ("y",), {}, clip)
    graph = Graph((Value("x", "float32", ("n", 4)),), ("y",), (node,), {"w": w})
    x = np.ones((7, 4), np.float32)
    (got,) = Engine(graph, threads=1, isa=isa).run({"x": x}).values()
    assert np.array_equal(got, run(graph, {"x": x})["y"], equal_nan=True)
    assert np.isnan(got[:, [0, 17]]).all()
