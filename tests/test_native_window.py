"""Depthwise convolutions, pools, resizing and element-wise operators in the native core, against the reference."""

import numpy as np
import pytest

from bitladder import native
from bitladder.engine import Engine
from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.runtime.integer import UNARY, looked_up
from bitladder.runtime.reference import run

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no native core: {native.why}")

FORMATS = ["int8", "int4", "fixed8", "ternary", "int8/tensor", "nested8", "nested4", "nested8:tree", "nested5:sign"]
FORMATS += ["codebook4", "codebook2:3", "log4"]
f32 = np.float32


def codes(rng, low=-4.0, high=4.0, channels=None):
    """An encoding of an activation, of several kinds; with `channels`, one with a length for each channel."""
    if channels is not None:
        return Encoding(Fixed(8), {"fl": rng.integers(3, 7, channels).astype(f32)}, (1,))
    kind = rng.integers(5)
    if kind == 0:
        scale = f32((high - low) / 255 * rng.uniform(0.5, 1.1))
        zero = f32(np.clip(np.round(-low / scale), 0, 255))
        return Encoding(Int(8, per="tensor", unsigned=True), {"scale": scale.reshape(()), "zero_point": zero.reshape(())})
    if kind == 1:
        scale = f32(max(-low, high) / 127 * rng.uniform(0.5, 1.1))
        return Encoding(Int(8, per="tensor"), {"scale": scale.reshape(()), "zero_point": f32(0).reshape(())})
    if kind == 2:
        return Encoding(Int(5, per="tensor", unsigned=True), {"scale": f32(0.3).reshape(()), "zero_point": f32(11).reshape(())})
    fl = f32(rng.integers(3, 7)).reshape(())
    return Encoding(Fixed(8 if kind == 3 else 6, per="tensor", unsigned=bool(rng.integers(2))), {"fl": fl})


def compare(graph, feeds, *, exact=True, bits=None, isa="", threads=1, reference=False):
    """Assert that the core runs all of `graph` and gives what the reference gives."""
    engine = Engine(graph, threads=threads, isa=isa)
    got = engine.run(feeds, bits)
    refused = {p.reason for p in engine.pieces() if p.reason}
    assert reference or not refused, refused
    want = run(graph if bits is None else graph.at(bits), feeds)
    for name, w in want.items():
        g = got[name]
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        if exact or w.dtype != np.float32:
            assert np.array_equal(g, w), f"{np.sum(g != w)} of {w.size} differ, by up to {np.abs(g - w).max()}"
        else:
            assert np.allclose(g, w, rtol=1e-5, atol=1e-5, equal_nan=True), np.nanmax(np.abs(g - w))


def graph_of(nodes, inputs, constants=None, encodings=None, outputs=("y",)):
    values = tuple(Value(k, str(v.dtype), tuple(v.shape)) for k, v in inputs.items())
    return Graph(values, outputs, tuple(nodes), constants or {}, encodings or {})


def first(rng, channels, space):
    """A convolution from 3 channels, so that what follows reads an image of codes with a ring: nodes, constants, encodings."""
    w = rng.normal(size=(channels, 3, *[1] * len(space))).astype(f32)
    node = Node("conv", ("in", "w0"), ("x",))
    return (
        [node],
        {"w0": QTensor.of(w, fit(parse("int8"), w))},
        {"in": codes(rng)},
        rng.normal(size=(2, 3, *space)).astype(f32) * 2,
    )


@pytest.mark.parametrize("isa", native.isas())
def test_depthwise_layers_are_equal(isa):
    """Every format and width, with strides, dilations, pads and clips, few channels and many."""
    for seed in range(60):
        rng = np.random.default_rng([seed, 1])
        text = FORMATS[seed % len(FORMATS)]
        channels = int(rng.choice([2, 3, 8, 16, 24, 32, 33, 64, 96, 130]))
        k = (3, 3) if seed % 2 else tuple(int(n) for n in rng.integers(1, 6, 2))
        attrs = {
            "groups": channels,
            "strides": tuple(int(n) for n in rng.integers(1, 3, 2)),
            "dilations": (1, 1) if seed % 3 else tuple(int(n) for n in rng.integers(1, 3, 2)),
            "pads": tuple((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(2)),
        }
        if seed % 7 == 0:
            attrs = {**attrs, "pads": None, "auto_pad": "SAME_UPPER" if seed % 2 else "SAME_LOWER"}
            del attrs["pads"]
        w = rng.normal(size=(channels, 1, *k)).astype(f32)
        w = QTensor.of(w, fit(parse(text), w))
        b = rng.normal(size=channels).astype(f32) if seed % 4 else None
        if b is not None and hasattr(w.format, "at") and seed % 8 == 1:
            b = PerWidth("w", {n: rng.normal(size=channels).astype(f32) for n in (2, 5, 8)})
        encodings = {"x": codes(rng)}
        if seed % 5:
            encodings["y"] = codes(rng)
        clip = [None, (0.0, None), (0.0, 6.0), (-1.0, 2.5)][seed % 4]
        node = Node("conv", ("x", "w", *(("b",) if b is not None else ())), ("y",), attrs, clip)
        x = rng.normal(size=(int(rng.integers(1, 3)), channels, *(int(n) for n in rng.integers(9, 14, 2)))).astype(f32) * 2
        constants = {"w": w, **({"b": b} if b is not None else {})}
        graph = graph_of([node], {"x": x}, constants, encodings)
        for bits in [None, int(rng.integers(1, 9))] if hasattr(w.format, "at") else [None]:
            try:
                compare(graph, {"x": x}, bits=bits, isa=isa, threads=1 + seed % 2)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {text} at {bits}, {node}, x {x.shape}: {error}") from None


def test_depthwise_lines_and_tables():
    """One spatial axis, and a function of the codes behind the layer."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(40, 1, 5)).astype(f32)
    nodes = [Node("conv", ("x", "w"), ("h",), {"groups": 40, "pads": ((2, 2),)}), Node("hard_swish", ("h",), ("y",))]
    x = rng.normal(size=(2, 40, 31)).astype(f32)
    graph = graph_of(
        nodes, {"x": x}, {"w": QTensor.of(w, fit(parse("nested8"), w))}, {"x": codes(rng), "h": codes(rng), "y": codes(rng)}
    )
    for bits in (8, 4, 1):
        compare(graph, {"x": x}, bits=bits)


def pool_node(rng, op, space):
    if op.startswith("global"):
        return Node(op, ("x",), ("y",))
    k = [int(n) for n in rng.integers(1, 4, len(space))]
    attrs = {
        "kernel_shape": tuple(k),
        "strides": tuple(int(n) for n in rng.integers(1, 4, len(space))),
        "dilations": tuple(int(n) for n in rng.integers(1, 3, len(space))),
        "pads": tuple((int(rng.integers(0, n // 2 + 1)), int(rng.integers(0, n // 2 + 1))) for n in k),
        "ceil_mode": int(rng.integers(2)),
    }
    if rng.integers(5) == 0:
        attrs["auto_pad"] = ["SAME_UPPER", "SAME_LOWER", "VALID"][rng.integers(3)]
    if op == "avg_pool":
        attrs["count_include_pad"] = int(rng.integers(2))
    return Node(op, ("x",), ("y",), attrs, [None, None, (0.0, 1.5)][rng.integers(3)])


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "global_avg_pool", "global_max_pool"])
@pytest.mark.parametrize("kind", ["codes", "images", "channels", "to codes", "from codes", "reals"])
def test_pools(op, kind):
    """Codes to codes, also in an image with a ring and with steps per channel; codes to reals and back; reals."""
    for seed in range(25):
        rng = np.random.default_rng([seed, len(op), len(kind)])
        channels = int(rng.integers(1, 80))
        space = [int(n) for n in rng.integers(5, 12, 1 + seed % 3 // 2 if kind != "images" else 2)]
        node = pool_node(rng, op, space)
        encodings = {
            "codes": {"x", "y"},
            "images": {"x", "y"},
            "channels": {"x", "y"},
            "to codes": {"y"},
            "from codes": {"x"},
            "reals": set(),
        }[kind]
        encodings = {k: codes(rng, channels=channels if kind == "channels" else None) for k in sorted(encodings)}
        if seed % 2 and len(encodings) == 2:
            encodings["y"] = encodings["x"]
        if kind == "images":
            before, constants, more, x = first(rng, channels, space)
            graph = graph_of([*before, node], {"in": x}, constants, {**encodings, **more})
            feeds = {"in": x}
        else:
            x = rng.normal(size=(2, channels, *space)).astype(f32) * 2
            graph, feeds = graph_of([node], {"x": x}, {}, encodings), {"x": x}
        exact = {"x", "y"} <= set(encodings) or (op.endswith("max_pool") and kind != "to codes")
        try:
            if not exact and "y" in encodings:  # a code from a float mean may be off by one
                del encodings["y"]
                graph = graph.with_(encodings=encodings)
            compare(graph, feeds, exact=exact, threads=1 + seed % 2)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {node}, x {x.shape}: {error}") from None


@pytest.mark.parametrize("axes", [(2, 3), (-2, -1), (1,), (3,), (0, 1), (0, 2), (1, 3), None])
@pytest.mark.parametrize("keep", [0, 1])
def test_means_over_axes(axes, keep):
    """Integer means, of rows and of images, and float means."""
    for seed in range(6):
        rng = np.random.default_rng([seed, keep])
        before, constants, encodings, x = first(rng, 20, (5, 7))
        slots = ("x",) if axes is None else ("x", "axes")
        if axes is not None:
            constants = {**constants, "axes": np.array(axes, np.int64)}
        node = Node("reduce_mean", slots, ("y",), {"keepdims": keep}, [None, (0.0, None)][seed % 2])
        both = {"x": codes(rng), "y": codes(rng)} if seed % 3 else {"x": codes(rng)}
        graph = graph_of([*before, node], {"in": x}, constants, {**encodings, **both})
        compare(graph, {"in": x}, exact="y" in both)


RESIZES = [
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "nearest"},
    {"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "align_corners"},
    {"mode": "nearest", "nearest_mode": "round_prefer_ceil", "coordinate_transformation_mode": "half_pixel_symmetric"},
    {"mode": "linear"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel", "antialias": 1},
    {"mode": "cubic", "exclude_outside": 1},
    {"mode": "cubic", "coordinate_transformation_mode": "asymmetric", "cubic_coeff_a": -0.5},
]


@pytest.mark.parametrize("attrs", RESIZES, ids=lambda a: "-".join(str(v) for v in a.values()))
def test_resizing(attrs):
    """By scales and by sizes, larger and smaller; the nearest pixel keeps its code."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        before, constants, encodings, x = first(rng, int(rng.integers(1, 20)), (6, 9))
        if seed % 2:
            constants = {
                **constants,
                "sizes": np.array([2, before[0].inputs and constants["w0"].shape[0], *rng.integers(1, 20, 2)], np.int64),
            }
            node = Node("resize", ("x", "", "", "sizes"), ("y",), attrs)
        else:
            constants = {**constants, "scales": np.array([1, 1, *rng.choice([0.5, 0.7, 1, 2, 3], 2)], f32)}
            node = Node("resize", ("x", "", "scales"), ("y",), attrs)
        nearest = attrs["mode"] == "nearest"
        both = {"x": codes(rng)}
        if nearest:
            both["y"] = both["x"] if seed % 4 else codes(rng)
        compare(graph_of([*before, node], {"in": x}, constants, {**encodings, **both}), {"in": x}, exact=nearest)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding(mode):
    """Of images and of rows, also with negative pads, on some axes, with a value that is a code or is none."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before, constants, encodings, x = first(rng, 5, (6, 7))
        if seed % 2:
            constants = {
                **constants,
                "pads": np.array([*rng.integers(-2, 4, 4)], np.int64),
                "axes": np.array([2, -1], np.int64),
            }
        else:
            constants = {
                **constants,
                "pads": np.array([0, int(rng.integers(0, 2)), 1, 2, 0, 0, 3, int(rng.integers(-1, 3))], np.int64),
            }
        constants["value"] = np.array([0.0, 0.5, 0.123][seed % 3], f32)
        slots = ("x", "pads", "value" if mode == "constant" else "", *(("axes",) if seed % 2 else ()))
        both = {"x": codes(rng)}
        both["y"] = both["x"] if seed % 4 < 2 else codes(rng)
        nodes = [*before, Node("pad", slots, ("y",), {"mode": mode})]
        if seed % 3 == 0:  # rows
            x = rng.normal(size=(2, 5, 6, 7)).astype(f32)
            compare(graph_of(nodes[1:], {"x": x}, constants, both), {"x": x})
        else:
            compare(graph_of(nodes, {"in": x}, constants, {**encodings, **both}), {"in": x})


@pytest.mark.parametrize("op", ["depth_to_space", "space_to_depth"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks(op, mode):
    for block in (1, 2, 3):
        rng = np.random.default_rng(block)
        before, constants, encodings, x = first(rng, 2 * block**2, (2 * block, 3 * block))
        same = codes(rng)
        nodes = [*before, Node(op, ("x",), ("y",), {"blocksize": block, "mode": mode})]
        compare(graph_of(nodes, {"in": x}, constants, {**encodings, "x": same, "y": same}), {"in": x})
        compare(graph_of(nodes[1:], {"x": x[:, :1].repeat(2 * block**2, 1)}), {"x": x[:, :1].repeat(2 * block**2, 1)})


ATTRS = {
    "gelu": [{}, {"approximate": "tanh"}],
    "elu": [{}, {"alpha": 0.7}],
    "celu": [{}, {"alpha": 0.7}],
    "selu": [{}, {"alpha": 1.5, "gamma": 1.1}],
    "leaky_relu": [{}, {"alpha": 0.2}],
    "swish": [{}, {"alpha": 1.7}],
    "hard_sigmoid": [{}, {"alpha": 1 / 6, "beta": 0.4}],
    "thresholded_relu": [{}, {"alpha": 0.3}],
    "shrink": [{}, {"bias": 0.1, "lambd": 0.3}],
}


@pytest.mark.parametrize("op", UNARY)
def test_functions(op):
    """Tables of codes are equal, whatever the steps; reals are close."""
    inside = op in ("asin", "acos", "atanh")
    for attrs in ATTRS.get(op, [{}]):
        for seed in range(12):
            rng = np.random.default_rng(seed)
            node = Node(op, ("x",), ("y",), attrs, [None, None, (0.0, None), (-0.5, 0.75)][seed % 4])
            both = {"x": codes(rng, -1, 1) if inside else codes(rng), "y": codes(rng)}
            low, high = both["x"].format.span()
            x = both["x"].decode(np.arange(low, high + 1, dtype=f32)).reshape(1, -1)
            compare(graph_of([node], {"x": x}, {}, both), {"x": x})
        x = rng.uniform(0.01 if op in ("log", "sqrt", "reciprocal") else -1, 1, (3, 50)).astype(f32)
        x = x if inside or op == "tan" else x * 4
        x = np.abs(x) + 1 if op == "acosh" else x
        compare(graph_of([Node(op, ("x",), ("y",), attrs)], {"x": x}), {"x": x}, exact=False)


def test_functions_behind_layers_are_fused():
    """A function of the codes that a convolution makes, as one step."""
    rng = np.random.default_rng(1)
    before, constants, encodings, x = first(rng, 16, (5, 5))
    graph = graph_of(
        [*before, Node("sigmoid", ("x",), ("y",))], {"in": x}, constants, {**encodings, "x": codes(rng), "y": codes(rng, 0, 1)}
    )
    compare(graph, {"in": x})
    steps = {s.node: s.kernel for s in Engine(graph).profile({"in": x})}
    assert not any("table" in k for k in steps.values()), steps


def test_a_table_says_what_the_function_says():
    """The rule itself: double precision, rounded to float32, encoded; the lowest code where there is no value."""
    x = Encoding(Int(8, per="tensor"), {"scale": np.array(0.5, f32), "zero_point": np.array(0, f32)})
    table = looked_up(Node("log", ("x",), ("y",)), x, x)
    assert table[:129].tolist() == [-128.0] * 129
    assert table[130] == 0  # log 1
    assert table[255] == np.round(np.log(63.5) / 0.5)


SHAPES = [
    ((2, 6, 5, 7), (2, 6, 5, 7)), ((2, 6, 5, 7), ()), ((2, 6, 5, 7), (6, 1, 1)), ((2, 6, 5, 7), (1, 6, 1, 1)),
    ((2, 6, 5, 7), (2, 6, 1, 1)), ((2, 6, 5, 7), (2, 1, 5, 7)), ((2, 6, 5, 7), (7,)), ((2, 6, 5, 7), (5, 1)),
    ((2, 6, 5, 7), (2, 1, 1, 1)), ((1, 6, 1, 1), (2, 6, 5, 7)), ((3, 8), (3, 8)), ((3, 8), (8,)), ((3, 8), (3, 1)),
    ((4, 3, 8), (3, 8)), ((4, 3, 8), (4, 1, 8)), ((), (3,)), ((1, 8), (3, 1)), ((2, 6, 9), (2, 6, 9)), ((2, 6, 9), (6, 1)),
]  # fmt: skip


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "max", "min"])
def test_two_inputs(op):
    """Reals of all shapes that go together, rows and images, inputs and constants."""
    for seed, (p, q) in enumerate(SHAPES):
        for constant in (False, True):
            rng = np.random.default_rng(seed)
            a, b = (rng.uniform(0.5, 4, s).astype(f32) * rng.choice([-1, 1], s).astype(f32) for s in (p, q))
            nodes = [Node(op, ("a", "b"), ("y",), {}, [None, (0.0, 1.0)][seed % 2])]
            feeds = {"a": a} if constant else {"a": a, "b": b}
            try:
                compare(graph_of(nodes, feeds, {"b": b} if constant else {}), feeds)
                if len(p) == 4 and p[1] == 6 and p[2] == 5:  # the same in an image
                    before, constants, encodings, x = first(rng, 6, (5, 7))
                    more = {"b": b} if constant else {}
                    feeds = {"in": x} if constant else {"in": x, "b": b}
                    nodes = [*before, Node(op, ("x", "b") if seed % 3 else ("b", "x"), ("y",))]
                    if op == "div" and seed % 3 == 0:
                        continue
                    compare(graph_of(nodes, feeds, {**constants, **more}, encodings), feeds, threads=2)
            except AssertionError as error:
                raise AssertionError(f"{p} {q} constant {constant}: {error}") from None


@pytest.mark.parametrize("op", ["add", "sub", "mul", "max"])
def test_two_coded_inputs(op):
    """Codes added in one pass, images with rings and without; a constant makes a table; other operators go through reals."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        before, constants, encodings, x = first(rng, int(rng.integers(1, 40)), (5, 6))
        c = constants["w0"].shape[0]
        w = rng.normal(size=(4, c, 3, 3)).astype(f32)
        constants = {**constants, "w2": QTensor.of(w, fit(parse("int8"), w)), "k": np.array(rng.uniform(0.2, 2), f32)}
        nodes = [
            *before,
            Node("max_pool", ("x",), ("p",), {"kernel_shape": (3, 3), "strides": (1, 1), "pads": ((1, 1), (1, 1))}),
            Node(op, ("x", "p") if seed % 3 else ("x", "k"), ("s",), {}, [None, (0.0, None)][seed % 2]),
            Node("conv", ("s", "w2"), ("y",), {"pads": ((1, 1), (1, 1))}),  # so that the sum has a ring
        ]
        coded = {"x": codes(rng), "s": codes(rng, -8, 8)}
        coded["p"] = coded["x"] if seed % 4 else codes(rng)
        compare(
            graph_of(nodes, {"in": x}, constants, {**encodings, **coded}, outputs=("y", "s")), {"in": x}, threads=1 + seed % 2
        )


def test_clip_pow_where_and_comparisons():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 5, 7)).astype(f32) * 3
    low, high, e = np.array(-1.5, f32), np.array(2.0, f32), np.array(2, f32)
    for encodings in ({}, {"x": codes(rng), "y": codes(rng)}):
        for slots in (("x", "low", "high"), ("x", "low"), ("x", "", "high")):
            compare(graph_of([Node("clip", slots, ("y",))], {"x": x}, {"low": low, "high": high}, encodings), {"x": x})
        compare(graph_of([Node("pow", ("x", "e"), ("y",))], {"x": x}, {"e": e}, encodings), {"x": x})
    y = rng.normal(size=(5, 1)).astype(f32)
    for op in ("greater", "less", "equal", "greater_or_equal", "less_or_equal"):
        compare(graph_of([Node(op, ("x", "b"), ("y",))], {"x": x, "b": y}), {"x": x, "b": y})
    nodes = [Node("greater", ("x", "b"), ("c",)), Node("where", ("c", "x", "b"), ("y",))]
    compare(graph_of(nodes, {"x": x, "b": y}), {"x": x, "b": y})
    compare(graph_of([Node("max", ("x", "b", "x", "low"), ("y",))], {"x": x, "b": y}, {"low": low}), {"x": x, "b": y})


@pytest.mark.parametrize("to", ["float32", "int32", "int64", "bool", "float64"])
def test_casts(to):
    rng = np.random.default_rng(0)
    for dtype in ("float32", "int64", "int32", "bool"):
        x = (rng.normal(size=(3, 4)) * 3).astype(dtype)
        compare(graph_of([Node("cast", ("x",), ("y",), {"to": to})], {"x": x}), {"x": x})


@pytest.mark.parametrize("image", [False, True])
def test_parameters_of_channels(image):
    """batch_norm and prelu, on images of codes and on rows."""
    rng = np.random.default_rng(2)
    p = {n: rng.uniform(0.5, 2, 12).astype(f32) for n in ("s", "b", "m", "v")}
    p["slope"] = rng.uniform(0.1, 0.5, (12, 1, 1)).astype(f32)
    before, constants, encodings, x = first(rng, 12, (4, 6))
    for node in (Node("batch_norm", ("x", "s", "b", "m", "v"), ("y",)), Node("prelu", ("x", "slope"), ("y",))):
        if image:
            compare(graph_of([*before, node], {"in": x}, {**constants, **p}, encodings), {"in": x}, exact=False)
        else:
            given = rng.normal(size=(2, 12, 3, 5)).astype(f32)
            compare(graph_of([node], {"x": given}, p), {"x": given}, exact=False)


def test_what_has_no_kernel_runs_on_the_reference():
    """Refusals name the node, and the result is there all the same."""
    x = np.arange(24, dtype=f32).reshape(1, 1, 4, 6)
    node = Node(
        "resize", ("x", "roi", "scales"), ("y",), {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    )
    constants = {"roi": np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], f32), "scales": np.array([1, 1, 1, 0.5], f32)}
    graph = graph_of([node], {"x": x}, constants)
    compare(graph, {"x": x}, exact=False, reference=True)
    engine = Engine(graph)
    engine.run({"x": x})
    assert "crop" in engine.foreign["y"]
