"""Quantization after training: plans, data, what becomes integer, calibration in bounded memory, bias correction."""

import numpy as np
import pytest

from bitladder.formats import Fixed, Int, Nested, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.ptq import data
from bitladder.ptq.bake import bake
from bitladder.ptq.calibrate import encodings, inherit, observe, placement
from bitladder.ptq.correct import correct, corrected_biases, outputs_wanted, with_biases
from bitladder.ptq.plan import plan_of, resolve
from bitladder.ptq.workbench import Batches, Workbench
from bitladder.runtime.integer import Coded
from bitladder.runtime.reference import run
from bitladder.stats.points import Points

SAME = {"pads": ((1, 1), (1, 1)), "strides": (1, 1), "dilations": (1, 1), "groups": 1}


def residual() -> Graph:
    """conv-relu, conv, add-relu, pool, linear: what placement has to decide about, in six nodes."""
    rng = np.random.default_rng(0)
    weights = {"w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "w3": (4, 6)}
    return Graph(
        inputs=(Value("x", "float32", ("batch", 3, 8, 8)),),
        outputs=("scores",),
        nodes=(
            Node("conv", ("x", "w1", "b1"), ("a",), SAME, (0.0, None)),
            Node("conv", ("a", "w2"), ("b",), SAME),
            Node("add", ("a", "b"), ("c",), {}, (0.0, None)),
            Node("global_avg_pool", ("c",), ("d",)),
            Node("flatten", ("d",), ("e",), {"axis": 1}),
            Node("linear", ("e", "w3"), ("scores",)),
        ),
        constants={n: (rng.normal(size=s) * 0.3).astype(np.float32) for n, s in weights.items()}
        | {"b1": np.ones(6, np.float32)},
    )


def images(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 8, 8)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ plans


def test_the_last_match_wins():
    plan = plan_of({"*": "int8", "layer3.*": "int4", "re:.*conv1": None, "a=*": "fixed8"})
    names = ["layer1.conv1.weight", "layer3.conv1.weight", "layer3.conv2.weight"]
    assert {n: str(f) for n, f in resolve(plan, names).items()} == dict(zip(names, ["None", "None", "int4"], strict=True))
    assert resolve(plan, ["h"], activations=True) == {"h": Fixed(8)}


@pytest.mark.parametrize(
    ("plan", "text"),
    [({"layre3.*": "int4"}, "'layre3.*' matches no weight"), ({"a=zz": "int8"}, "'a=zz' matches no activation")],
)
def test_a_pattern_that_matches_nothing_is_an_error(plan, text):
    with pytest.raises(ValueError, match=r"matches no") as caught:
        resolve(plan_of(plan), ["layer3.conv.weight"], activations="a=zz" in plan)
    assert text in str(caught.value)


def test_specs_are_weights_then_activations():
    assert plan_of("nested8") == {"*": Nested(8)}
    assert plan_of(Int(4)) == {"*": Int(4)}
    with pytest.raises(ValueError, match=r"must be written WEIGHTS"):
        plan_of("int8,fixed8")


# ------------------------------------------------------------------------------------------------------------- data


def test_data_comes_in_many_shapes():
    """An array, a dict of arrays, a list of tuples with labels, a generator of dicts with `y`: the same batches."""
    x, y, inputs = images(5), np.arange(5), residual().inputs
    kinds = [x, {"x": x, "y": y}, [(x[:3], y[:3]), (x[3:], y[3:])], ({"x": x[i : i + 2], "y": y[i : i + 2]} for i in (0, 2, 4))]
    for kind in kinds:
        got = [data.named(b, inputs) for b in data.chunks(kind, 2)]
        assert np.array_equal(np.concatenate([arrays["x"] for arrays, _ in got]), x)
    assert np.array_equal(np.concatenate([labels for _, labels in got]), y)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (np.zeros((2, 3, 8, 9), np.float32), "must have shape (batch, 3, 8, 8), got (2, 3, 8, 9)"),
        (np.zeros((0, 3, 8, 8), np.float32), "is empty"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "192 NaN or infinite values, the first at (0, 0, 0, 0)"),
        (np.full((1, 3, 8, 8), "a"), "must hold numbers"),
    ],
)
def test_bad_arrays_are_named(arrays, text):
    with pytest.raises(ValueError, match="array 'x'") as caught:
        data.checked({"x": arrays}, residual().inputs)
    assert text in str(caught.value)


@pytest.mark.parametrize("labels", [np.zeros(3), np.array([0, -1, 2]), np.array([0, 1]), np.array([0, 1, 9])])
def test_bad_labels_are_named(labels):
    with pytest.raises(ValueError, match="labels 'y'"):
        data.checked_labels(labels, 3, classes=5)


def test_kept_samples_cover_the_stream():
    """Of a long sorted stream an even selection stays, at most twice as many as asked for, with their own labels."""
    graph = Graph((Value("x", "float32", ("n", 1)),), ("x",), ())
    stream = (({"x": np.full((7, 1), i, np.float32), "y": np.full(7, i)}) for i in range(100))
    batches = Batches(graph, stream, None, keep=20)
    assert sum(len(b["x"]) for b in batches) == 700
    assert len(batches.kept) <= 40
    arrays, labels = batches.some(10)
    assert len(labels) == 10
    assert np.array_equal(arrays["x"][:, 0], labels)
    assert labels[0] == 0
    assert labels[-1] >= 95
    assert np.diff(labels).max() <= 15


def test_large_samples_do_not_fill_the_memory():
    """What stays of a stream of large images is bounded in bytes, not only in number."""
    graph = Graph((Value("x", "float32", ("n", 1 << 20)),), ("x",), ())  # 4 MB a sample
    batches = Batches(graph, ({"x": np.zeros((2, 1 << 20), np.float32)} for _ in range(80)), None, keep=1000)
    assert sum(len(b["x"]) for b in batches) == 160
    assert len(batches.kept) <= 2 * 64


# --------------------------------------------------------------------------------------------------------- calibrate


def test_placement_follows_the_integers():
    """Inputs of weighted nodes, and what leads there through additions and pools; never the network's output."""
    assert placement(residual(), ["w1", "w2", "w3"]) == ["x", "a", "b", "c", "d", "e"]
    assert placement(residual(), ["w1"]) == ["x"]
    assert placement(residual(), []) == []


def test_calibration_does_not_depend_on_batches():
    """The same histograms from one batch or many: memory holds counts, not activations."""
    graph, x = residual(), images(24)
    names = placement(graph, ["w1", "w2", "w3"])
    whole = observe(graph, [{"x": x}], names, per_channel=True)
    parts = observe(graph, ({"x": x[i : i + 1]} for i in range(24)), names, per_channel=True)
    for name in names:
        assert whole[name].counts.sum() == parts[name].counts.sum()
        np.testing.assert_allclose(whole[name].high, parts[name].high, rtol=1e-5)
        assert np.abs(whole[name].counts - parts[name].counts).sum() <= 1e-3 * whole[name].counts.sum()
    assert len(whole["a"].exponent) == 6  # a feature map: one histogram a channel
    assert len(whole["e"].exponent) == 1  # a linear layer's input: one in all


def test_encodings_of_activations():
    """Integers share one scale and a zero point; fixed point has a length per channel; what only moves values keeps theirs."""
    graph, x = residual(), images(24)
    names = placement(graph, ["w1", "w2", "w3"])
    seen = observe(graph, [{"x": x}], names, per_channel=True)
    ints = encodings(graph, seen, dict.fromkeys(names, Int(8)))
    assert all(e.axes == () and str(e.format) == "uint8/tensor" for e in ints.values())
    assert ints["a"].params["zero_point"] == 0  # never negative
    assert ints["b"].params["zero_point"] > 0
    assert ints["e"] is ints["d"]
    fixed = encodings(graph, seen, dict.fromkeys(names, Fixed(8)))
    assert fixed["a"].axes == (1,)
    assert str(fixed["a"].format) == "ufixed8"
    assert str(fixed["b"].format) == "fixed8"
    assert fixed["e"].axes == ()


def test_silent_channels_inherit():
    """A channel that calibration never saw active takes the coarsest length of its layer (S3)."""
    points = Points(np.zeros((3, 1)), np.ones((3, 1)), np.array([0.0, -1, 0]), np.array([4.0, 0, 0]))
    assert inherit(np.array([5.0, 7.0, 31.0], np.float32), points).tolist() == [5, 7, 5]


def test_nan_inside_a_network_is_named():
    graph = residual()
    broken = graph.with_(constants={**graph.constants, "b1": np.full(6, np.nan, np.float32)})
    with pytest.raises(ValueError, match="value 'a' became NaN"):
        observe(broken, [{"x": images(2)}], ["a"], per_channel=False)
    with pytest.raises(ValueError, match="weight 'w1' holds NaN"):
        bake(graph.with_(constants={**graph.constants, "w1": np.full((6, 3, 3, 3), np.nan, np.float32)}), {"w1": Int(8)}, {})


# -------------------------------------------------------------------------------------------------- bake and correct


def quantized(text: str, activations: str = "int8") -> tuple[Graph, Graph, np.ndarray]:
    """A float graph, the same in a format, and the samples it was calibrated on."""
    graph, x = with_biases(residual()), images(48)
    names = placement(graph, ["w1", "w2", "w3"])
    seen = observe(graph, [{"x": x}], names, per_channel=True)
    acts = encodings(graph, seen, dict.fromkeys(names, parse(activations)))
    return graph, bake(graph, dict.fromkeys(["w1", "w2", "w3"], parse(text)), acts), x


@pytest.mark.parametrize("text", ["int3", "fixed3", "nested3", "ternary"])
def test_corrected_means_equal_the_float_ones(text):
    """After correction every layer's mean output is the float network's, on the samples it was corrected on."""
    plain, rough, x = quantized(text)
    wanted = outputs_wanted(plain, {"x": x})
    fixed = correct(plain, rough, {"x": x}).at(3)
    for name, bias in corrected_biases(fixed, {"x": x}, wanted).items():
        np.testing.assert_allclose(bias, fixed.constants[name], atol=0.02)
    truth = run(plain, {"x": x})["scores"]
    before, after = (np.abs((run(g, {"x": x})["scores"] - truth).mean(0)).max() for g in (rough, fixed))
    assert after < 0.3 * before


def test_biases_per_width():
    """Nested weights get a bias for every width asked for; running at a width takes the one that belongs to it."""
    plain, rough, x = quantized("nested8")
    fixed = correct(plain, rough, {"x": x}, widths=(2, 4, 8))
    bias = fixed.constants["b1"]
    assert isinstance(bias, PerWidth)
    assert sorted(bias.arrays) == [2, 4, 8]
    assert np.array_equal(fixed.at(2).constants["b1"], bias.arrays[2])
    assert np.array_equal(fixed.at(3).constants["b1"], bias.arrays[4])
    assert not np.array_equal(bias.arrays[2], bias.arrays[8])


def test_the_network_is_integers_inside():
    """With a plan for all weights, every value between input and output is codes in range."""
    _, graph, x = quantized("fixed8", "fixed8")
    seen = {}
    run(graph, {"x": x[:4]}, watch=lambda name, value: seen.update({name: value}))
    for name, value in seen.items():
        if name == "scores":
            continue
        assert isinstance(value, Coded)
        codes = value.codes
        low, high = value.encoding.format.span()
        assert np.array_equal(codes, np.round(codes))
        assert codes.min() >= low
        assert codes.max() <= high


def test_workbench_rounds_each_tensor_once():
    """Plans that share a layer's format share its codes."""
    plain, rough, x = quantized("int8")
    bench = Workbench(plain, rough.encodings, {"x": x})
    a = bench.network({"w1": Int(8), "w2": Int(4)})
    b = bench.network({"w1": Int(8), "w2": Int(8)})
    assert a.constants["w1"] is b.constants["w1"]
    assert a.constants["w2"] is not b.constants["w2"]
    assert isinstance(a.constants["w3"], np.ndarray)  # no format: stays float


def test_weights_fit_their_channels():
    """Transposed convolutions have their output channels along axis 1."""
    w = np.random.default_rng(2).normal(size=(4, 3, 2, 2)).astype(np.float32) * np.array([1, 10, 100], np.float32).reshape(
        1, 3, 1, 1
    )
    graph = Graph(
        (Value("x", "float32", ("n", 4, 5, 5)),),
        ("y",),
        (Node("conv_transpose", ("x", "w"), ("y",), {**SAME, "pads": ((0, 0), (0, 0))}),),
        {"w": w},
    )
    q = bake(graph, {"w": Int(8)}, {}).constants["w"]
    assert isinstance(q, QTensor)
    assert q.encoding.axes == (1,)
    assert np.array_equal(q.codes, QTensor.of(w, fit(Int(8), w, axis=1)).codes)


def test_only_feature_maps_have_lengths_by_channel():
    """What a convolution reads and makes has channels on axis 1; a sequence that was transposed has its samples there."""
    rng = np.random.default_rng(0)
    nodes = (
        Node("transpose", ("x",), ("t",), {"perm": (1, 0, 2)}),
        Node("relu", ("t",), ("r",)),
        Node("transpose", ("r",), ("u",), {"perm": (1, 2, 0)}),
        Node("conv", ("u", "w"), ("c",), {"pads": ((1, 1),), "strides": (1,)}),
        Node("relu", ("c",), ("d",)),
        Node("conv", ("d", "v"), ("y",), {"pads": ((1, 1),), "strides": (1,)}),
    )
    shapes = {"w": (3, 6, 3), "v": (2, 3, 3)}
    constants = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    graph = Graph((Value("x", "float32", ("n", 5, 6)),), ("y",), nodes, constants)
    x = rng.normal(size=(7, 5, 6)).astype(np.float32)
    seen = observe(graph, [{"x": x}], ["x", "t", "r", "u", "c", "d"], per_channel=True)
    made = encodings(graph, seen, dict.fromkeys(seen, Fixed(8)))
    assert {k for k, e in made.items() if e.axes} == {"c", "d"}  # u shares what was moved there
    assert made["d"].params["fl"].shape == (3,)
    assert run(graph.with_(encodings=made), {"x": x[:3]})["y"].shape == (3, 2, 5)
