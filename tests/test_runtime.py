"""The reference: integer nodes against an independent float64 emulation, to the bit (docs/numerics.md)."""

import numpy as np
import pytest
import torch

from bitladder.convert.torch_ops import TORCH_OPS
from bitladder.formats import Encoding, Fixed, Int, Nested, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.ir.ops import OPS
from bitladder.ptq.align import aligned_weights
from bitladder.runtime.integer import Coded, accumulators, aligned
from bitladder.runtime.reference import run

CONV = {"strides": (1, 1), "dilations": (1, 1), "pads": ((1, 1), (1, 1)), "groups": 1}


def layer(x, w, b, x_encoding, y_encoding, *, op="conv", attrs=CONV, clip=None) -> Graph:
    """One weighted node with integer input and output."""
    return Graph(
        (Value("x", "float32", x.shape),),
        ("y",),
        (Node(op, ("x", "w", "b"), ("y",), attrs, clip),),
        {"w": w, "b": b},
        {"x": x_encoding} | ({"y": y_encoding} if y_encoding is not None else {}),
    )


def codes_of(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The integers of the output."""
    seen = {}
    run(graph, {"x": x}, watch=lambda name, value: seen.update({name: value}))
    return seen["y"].codes


def emulated(x, q: QTensor, b, xe: Encoding, ye: Encoding, clip) -> np.ndarray:
    """The same layer by the definition, multiplied out in float64, one output at a time."""
    sx, sw, sy = float(xe.step(())), q.step().astype(np.float64).reshape(-1), np.float32(ye.step(()))
    xi = xe.integers(xe.encode(x)).astype(np.int64)
    wi = q.integers().astype(np.int64)
    n, c, h, width = x.shape
    padded = np.zeros((n, c, h + 2, width + 2), np.int64)
    padded[:, :, 1:-1, 1:-1] = xi
    out = np.zeros((n, len(wi), h, width))
    for o in range(len(wi)):
        unit = np.float32(sx) * np.float32(sw[o % len(sw)])
        bias = int(np.round(np.float64(b[o]) / np.float64(unit)))
        for i in range(h):
            for j in range(width):
                acc = (padded[:, :, i : i + 3, j : j + 3] * wi[o]).sum(axis=(1, 2, 3)) + bias
                y = np.round(acc.astype(np.float32) * (unit / sy)) + ye.params.get("zero_point", np.float32(0))
                out[:, o, i, j] = np.clip(y, *ye.format.span())
    if clip is not None:
        out = np.maximum(out, ye.encode(np.zeros((), np.float32)))
    return out


@pytest.mark.parametrize(
    "weights",
    [
        *("int8", "int4", "int8/tensor", "fixed8", "fixed4", "ternary", "nested8", "nested3", "nested8:tree", "nested4:sign"),
        *("codebook4", "codebook4:11", "codebook2/tensor", "log4", "log5", "product5x16"),
    ],
)
@pytest.mark.parametrize("activations", ["uint8/tensor", "fixed8/tensor"])
def test_integer_convolution(weights, activations):
    """Reference == emulation over thousands of outputs, saturation and negative rounding included."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5, 6, 6)).astype(np.float32)
    w = (rng.normal(size=(7, 5, 3, 3)) * np.exp2(rng.integers(-3, 3, (7, 1, 1, 1)))).astype(np.float32)
    b = rng.normal(size=7).astype(np.float32)
    q = QTensor.of(w, fit(parse(weights), w))
    xe = fit(parse(activations), x)
    y = OPS["conv"](x, w, b, **CONV)
    ye = fit(parse(activations), 0.25 * y)  # narrow, so that outputs saturate at both ends
    for clip in (None, (0.0, None)):
        got = codes_of(layer(x, q, b, xe, ye, clip=clip), x)
        want = emulated(x, q, b, xe, ye, clip)
        assert np.array_equal(got, want)
        assert (got == ye.format.span()[1]).any()


@pytest.mark.parametrize("kind", ["log4", "ulog4", "log4:2", "ulog4:4"])
def test_powers_of_two_as_activations(kind):
    """Integers in and out are powers of two; the code of a sum is that of its value counted in steps of the output."""
    rng = np.random.default_rng(9)
    x = np.abs(rng.normal(size=(4, 5, 6, 6))).astype(np.float32) if kind[0] == "u" else rng.normal(size=(4, 5, 6, 6))
    x = x.astype(np.float32)
    w, b = rng.normal(size=(7, 5, 3, 3)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    q = QTensor.of(w, fit(parse("int8"), w))
    xe = fit(parse(f"{kind}/tensor"), x)
    y = OPS["conv"](x, w, b, **CONV)
    ye = fit(parse(f"{kind}/tensor"), np.maximum(y, 0) if kind[0] == "u" else y)
    X, W = xe.integers(xe.encode(x)).astype(np.int64), q.integers().astype(np.int64)
    size, octave = np.abs(X[X != 0]), xe.format.octave
    mantissas = np.round(128 * 2 ** (np.arange(octave) / octave)) if octave > 1 else [1]
    assert np.isin(size, np.outer(mantissas, 2 ** np.arange(15))).all()
    assert len(np.unique(size)) > 4
    unit = (np.float32(xe.step(())) * q.step().reshape(-1)).astype(np.float32)
    bias = np.round(b.astype(np.float64) / unit)
    sums = OPS["conv"](X.astype(np.float64), W.astype(np.float64), None, **CONV) + bias.reshape(-1, 1, 1)
    steps = sums.astype(np.float32) * (unit / ye.step(())).astype(np.float32).reshape(-1, 1, 1)
    with np.errstate(divide="ignore"):
        power = np.floor(octave * np.log2(np.abs(steps.astype(np.float64)) / mantissas[0]) + 1.5)
    low, high = ye.format.span()
    want = np.clip(np.where(steps < 0, -1, 1) * np.maximum(power, 0), low, high)
    for clip in (None, (0.0, None)):
        got = codes_of(layer(x, q, b, xe, ye, clip=clip), x)
        assert np.array_equal(got, want if clip is None else np.maximum(want, 0))
    assert (got == high).any()
    assert len(np.unique(got)) > 4


def test_power_of_two_scales_equal_float64():
    """With fractional lengths everywhere, integers equal float64 arithmetic on the decoded values, rounded half to even."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 6, 9, 9)).astype(np.float32)
    w, b = rng.normal(size=(8, 6, 3, 3)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    xe = fit(Fixed(8), x, axis=1)  # a fractional length for every input channel
    for mode in ("weights", "sums"):
        we = aligned_weights(Fixed(8), w, xe.params["fl"], mode=mode)
        q = QTensor.of(w, we)
        ye = fit(Fixed(8), OPS["conv"](x, w, b, **CONV), axis=1)
        together = aligned(xe, q, "conv")
        assert together is not None
        unit = together[1].astype(np.float64)
        wide = OPS["conv"](
            xe.decode(xe.encode(x)).astype(np.float64), q.decode().astype(np.float64), np.round(b / unit) * unit, **CONV
        )
        want = np.clip(np.round(wide * np.exp2(ye.params["fl"].astype(np.float64)).reshape(1, -1, 1, 1)), -128, 127)
        assert np.array_equal(codes_of(layer(x, q, b, xe, ye), x), want)
        assert want.size >= 5000


def test_alignment_modes_agree_without_overflow():
    """Modes "weights" and "sums" give the same outputs whenever nothing overflows (S3 acceptance)."""
    rng = np.random.default_rng(2)
    x = (rng.integers(-8, 8, (2, 4, 6, 6)) * np.exp2(np.array([-4, -3, -2, -4])).reshape(1, 4, 1, 1)).astype(np.float32)
    w = (rng.integers(-3, 4, (3, 4, 3, 3)) / 8).astype(np.float32)  # few significant bits: exact in either mode
    b = np.zeros(3, np.float32)
    xe = fit(Fixed(8), x, axis=1)
    ye = fit(Fixed(8), OPS["conv"](x, w, b, **CONV), axis=1)
    outs = [
        codes_of(layer(x, QTensor.of(w, aligned_weights(Fixed(8), w, xe.params["fl"], mode=m)), b, xe, ye), x)
        for m in ("weights", "sums")
    ]
    assert np.array_equal(*outs)


def test_mode_weights_has_one_length_per_output():
    """In mode "weights" all products of one output channel have the same fractional length, groups included."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(6, 4, 3, 3)).astype(np.float32)
    a = rng.integers(2, 9, 8).astype(np.float32)
    e = aligned_weights(Fixed(8), w, a, groups=2)
    products = e.params["fl"] + a.reshape(2, 4).repeat(3, axis=0)
    assert (products == products[:, :1]).all()


@pytest.mark.parametrize("op", ["linear", "conv_transpose"])
def test_other_weighted_nodes(op):
    """Linear layers on any rank and transposed convolutions sum in integers too."""
    rng = np.random.default_rng(4)
    shapes = {
        "linear": ((2, 3, 8), (5, 8), {}),
        "conv_transpose": ((2, 4, 5, 5), (4, 3, 4, 4), {**CONV, "strides": (2, 2), "output_padding": (0, 0)}),
    }
    xs, ws, attrs = shapes[op]
    x, w = rng.normal(size=xs).astype(np.float32), rng.normal(size=ws).astype(np.float32)
    outs = ws[1] if op == "conv_transpose" else ws[0]
    b = rng.normal(size=outs).astype(np.float32)
    xe = fit(Fixed(8, per="tensor"), x)
    q = QTensor.of(w, fit(Fixed(5), w, axis=1 if op == "conv_transpose" else 0))
    y = OPS[op](x, w, b, **attrs)
    ye = fit(Fixed(8, per="tensor"), y)
    unit = aligned(xe, q, op)[1].astype(np.float64)
    wide = OPS[op](
        xe.decode(xe.encode(x)).astype(np.float64), q.decode().astype(np.float64), np.round(b / unit) * unit, **attrs
    )
    want = np.clip(np.round(wide / float(ye.step(()))), -128, 127)
    assert np.array_equal(codes_of(layer(x, q, b, xe, ye, op=op, attrs=attrs), x), want)


def test_groups_of_weights_run_in_float():
    """int4/8 has no one unit per output channel: the node runs on decoded reals, and its accumulator entry says None."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=(4, 16)).astype(np.float32)
    q, xe = QTensor.of(w, fit(Int(4, group=8), w)), fit(Int(8, per="tensor", unsigned=True), x)
    graph = layer(x, q, np.zeros(4, np.float32), xe, None, op="linear", attrs={})
    assert accumulators(graph) == {"y": None}
    want = xe.decode(xe.encode(x)) @ q.decode().T
    np.testing.assert_allclose(run(graph, {"x": x})["y"], want, rtol=1e-5)


def test_accumulators_are_proved():
    """The bound counts every tap at its worst, so an adversarial input reaches it and never passes it."""
    w = np.full((1, 100), 7.0, np.float32)
    q = QTensor.of(w, Encoding(Int(4), {"scale": np.ones(1, np.float32), "zero_point": np.zeros(1, np.float32)}, (0,)))
    xe = Encoding(
        Int(8, per="tensor", unsigned=True), {"scale": np.float32(1).reshape(()), "zero_point": np.float32(0).reshape(())}
    )
    graph = layer(np.zeros((1, 100), np.float32), q, np.zeros(1, np.float32), xe, None, op="linear", attrs={})
    worst = run(graph, {"x": np.full((1, 100), 255, np.float32)})["y"].item()
    assert worst == 7 * 255 * 100
    assert 2 ** (accumulators(graph)["y"] - 1) > worst >= 2 ** (accumulators(graph)["y"] - 2)


def test_halves_round_to_even():
    """0.5, 1.5, 2.5 become 0, 2, 2, below zero as well."""
    xe = Encoding(Fixed(8, per="tensor", fl=1), {"fl": np.float32(1).reshape(())})
    ye = Encoding(Fixed(8, per="tensor", fl=0), {"fl": np.float32(0).reshape(())})
    q = QTensor.of(np.ones((1, 1), np.float32), Encoding(Fixed(8, fl=0), {"fl": np.zeros(1, np.float32)}, (0,)))
    x = np.array([[-2.5], [-1.5], [-0.5], [0.5], [1.5], [2.5]], np.float32)
    assert codes_of(layer(x, q, np.zeros(1, np.float32), xe, ye, op="linear", attrs={}), x).ravel().tolist() == [
        -2,
        -2,
        0,
        0,
        2,
        2,
    ]


def test_global_average_is_one_exact_sum():
    """Average pooling sums codes and multiplies once by float32(sx) / (float32(sy) * n)."""
    x = np.random.default_rng(6).normal(size=(2, 3, 7, 5)).astype(np.float32)
    xe = fit(Int(8, per="tensor", unsigned=True), x)
    ye = fit(Int(8, per="tensor", unsigned=True), x.mean((2, 3), keepdims=True))
    graph = Graph((Value("x", "float32", x.shape),), ("y",), (Node("global_avg_pool", ("x",), ("y",)),), {}, {"x": xe, "y": ye})
    total = xe.integers(xe.encode(x)).astype(np.int64).sum((2, 3), keepdims=True)
    multiplier = xe.step(()) / (ye.step(()) * np.float32(35))
    want = np.clip(np.round(total.astype(np.float32) * multiplier) + ye.params["zero_point"], 0, 255)
    assert np.array_equal(codes_of(graph, x), want)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("activations", ["uint8/tensor", "fixed8"])
def test_average_pools_sum_codes(include, ceil, activations):
    """Windows at the border divide by what they hold, in numpy and torch to the same integers."""
    x = np.random.default_rng(8).normal(size=(2, 3, 7, 6)).astype(np.float32)
    attrs = {
        "kernel_shape": (3, 2),
        "strides": (2, 2),
        "pads": ((1, 1), (0, 1)),
        "ceil_mode": ceil,
        "count_include_pad": include,
    }
    xe = fit(parse(activations), x, axis=1)
    ye = fit(parse(activations), OPS["avg_pool"](x, **attrs), axis=1)
    graph = Graph((Value("x", "float32", x.shape),), ("y",), (Node("avg_pool", ("x",), ("y",), attrs),), {}, {"x": xe, "y": ye})
    wide = OPS["avg_pool"](xe.decode(xe.encode(x)).astype(np.float64), **attrs)
    want = np.clip(np.round(wide / ye.step(wide.shape)) + np.asarray(ye.params.get("zero_point", 0)), *ye.format.span())
    got = codes_of(graph, x)
    assert (got != want).mean() < 0.01  # the float64 quotient may fall on the other side of a half
    seen = {}
    run(graph, {"x": torch.from_numpy(x)}, ops=TORCH_OPS, watch=lambda name, value: seen.update({name: value}))
    assert np.array_equal(seen["y"].codes.numpy(), got)


def test_widths_are_views_of_one_network():
    """graph.at(b) shares nothing but the codes' prefixes: every width equals a network made of those prefixes."""
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(2, 5, 6, 6)).astype(np.float32), rng.normal(size=(4, 5, 3, 3)).astype(np.float32)
    q, xe = QTensor.of(w, fit(Nested(8), w)), fit(Fixed(8, per="tensor"), x)
    graph = layer(x, q, np.zeros(4, np.float32), xe, None)
    for bits in range(1, 9):
        narrow = run(graph.at(bits), {"x": x})["y"]
        np.testing.assert_allclose(narrow, OPS["conv"](xe.decode(xe.encode(x)), q.at(bits).decode(), None, **CONV), atol=1e-4)


def test_missing_input_is_named():
    with pytest.raises(ValueError, match="input 'x' is missing"):
        run(layer(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), None, None, op="linear", attrs={}), {})


def test_coded_values_decode():
    """A coded value knows its reals and its integers."""
    e = Encoding(
        Int(8, per="tensor", unsigned=True), {"scale": np.float32(0.5).reshape(()), "zero_point": np.float32(3).reshape(())}
    )
    coded = Coded(np.array([3.0, 5.0], np.float32), e)
    assert coded.real().tolist() == [0.0, 1.0]
    assert coded.integers().tolist() == [0.0, 2.0]
