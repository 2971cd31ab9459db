"""Small networks that tests share: made here, from a seed, so that no test needs a download."""

import numpy as np

from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value


def coded(text, shape, seed=0):
    """A tensor of random codes in the format of `text`."""
    w = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return QTensor.of(w, fit(parse(text), w))


def fixed_points(bits, fl):
    """An activation encoding with one fractional length."""
    return Encoding(Fixed(bits, per="tensor"), {"fl": np.float32(fl).reshape(())})


def convnet(first="nested8", second="nested8:tree", third="int4", classes=5, meta=None):
    """A convolution, a pooled convolution and a classifier, weights in the three formats, 8-bit activations."""
    rng = np.random.default_rng(3)
    return Graph(
        inputs=(Value("image", "float32", ("batch", 2, 6, 6)),),
        outputs=("scores",),
        nodes=(
            Node("conv", ("image", "w1", "b1"), ("h1",), {"pads": ((1, 1), (1, 1)), "strides": (1, 1)}, (0.0, None)),
            Node("conv", ("h1", "w2"), ("h2",), {"pads": ((1, 1), (1, 1)), "strides": (2, 2)}, (0.0, 6.0)),
            Node("global_avg_pool", ("h2",), ("h3",)),
            Node("flatten", ("h3",), ("h4",), {"axis": 1}),
            Node("linear", ("h4", "w3", "b3"), ("scores",)),
        ),
        constants={
            "w1": coded(first, (4, 2, 3, 3), 1),
            "b1": PerWidth("w1", {b: rng.normal(size=4).astype(np.float32) for b in (2, 4, 8)}),
            "w2": coded(second, (6, 4, 3, 3), 2),
            "w3": coded(third, (classes, 6), 3),
            "b3": rng.normal(size=classes).astype(np.float32),
        },
        encodings={"image": fixed_points(8, 5), "h1": fixed_points(8, 3), "h2": fixed_points(8, 4), "h4": fixed_points(8, 4)},
        meta=meta or {},
    )


def odd_graph():
    """A graph with everything that is awkward to write: odd attributes, types, shapes and formats. It is not run."""
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    constants = {
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(2.5).reshape(()),
        "shape": np.array([-1, 4], np.int64),
        "mask": np.array([[True, False, True]]),
        "inf": np.array([-np.inf, np.nan, 0.0], np.float16),
        "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "swapped": np.arange(3, dtype=">i4"),
        "columns": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "ternary": coded("ternary", (3, 5)),
        "grouped": coded("int4/2", (3, 5)),
        "fixed": coded("fixed12", (3, 5)),
        "given": coded("q6.-3", (3, 5)),
        "flat": coded("int8/tensor", (3, 5)),
        "sign": coded("nested5:sign", (3, 7)),
        "one": coded("nested1", (3, 7)),
        "slices": QTensor.of(np.ones((2, 3, 1, 1), np.float32), fit(Fixed(8), np.ones((2, 3, 1, 1)), slices=True)),
        "nothing": QTensor(coded("nested8", (1, 4)).encoding, np.zeros((1, 0), np.uint8)),
        "bias": PerWidth("sign", {5: x[:3], 2: -x[:3]}),
    }
    attrs = {
        "pair": ((1, 2), (3,)),
        "none": None,
        "yes": True,
        "text": "a\u00e9",
        "real": 1.0,
        "low": float("-inf"),
        "np": np.int64(3),
    }
    return Graph(
        inputs=(Value("x"), Value("ids", "int64", ("n", 3)), Value("scalar_in", "bool", ())),
        outputs=("y", "z"),
        nodes=(
            Node("clip", ("x", "", "scalar"), ("y",), attrs, (None, 6.0)),
            Node("split", ("x",), ("z", "z2"), {}, (-np.inf, None)),
            Node("concat", tuple(constants), ("all",), {"axis": 0}),
        ),
        constants=constants,
        encodings={"x": Encoding(Int(8, per="channel", unsigned=True), {"scale": x[4:6], "zero_point": x[:2] * 0}, (1,))},
        meta={"labels": ["cat", "dog"], "min_bits": {"sign": 3}, "result": {"trace": [[0, 0.5], [1, float("nan")]]}},
    )


def images(samples=40, seed=0):
    """Inputs for `onnx_net`, with a class that a network could tell."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, samples)
    x = rng.normal(size=(samples, 2, 6, 6)) + labels[:, None, None, None] - 2
    return x.astype(np.float32), labels


def onnx_net(path, batch="n", **changes):
    """An ONNX file with a convolution, a pool and a classifier; `changes` replaces weights by name."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(8, 2, 3, 3)) * 0.3,
        "b1": rng.normal(size=8),
        "w2": rng.normal(size=(5, 8)),
        "b2": rng.normal(size=5),
    } | changes
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["scores"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, 1, [batch, *s]) for n, s in (("image", (2, 6, 6)), ("scores", (5,)))]
    arrays = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)
