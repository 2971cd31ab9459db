"""Writes the seeds of csrc/fuzz/file.cc to a folder: files of a few hundred bytes, with weights in every format and with every
operator that has a kernel, of reals and of codes.

PYTHONPATH=src:tests python csrc/fuzz/seeds.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from networks import coded, convnet, fixed_points, odd_graph

from bitladder.file.writing import to_file
from bitladder.ir.graph import Graph, Node, PerWidth, Value

# Words by spaces.
FORMATS = """int2 uint3 int5/tensor int4/2 int9 uint16 fixed2 ufixed1 fixed17 ufixed8 fixed24 q2.5 uq0.4 ternary ternary/tensor
    nested1:tree nested3:tree/tensor nested2:sign nested8:sign nested5 nested8 nested4:tree
    codebook4 codebook2:3/tensor codebook3:7:squares log3 log4/tensor log5:2 product5x3 product5x300/tensor"""
UNARY = """abs acos acosh asin asinh atan atanh ceil celu cos cosh elu erf exp floor gelu global_avg_pool global_max_pool
    hard_sigmoid hard_swish identity leaky_relu log mish neg reciprocal reduce_max reduce_mean relu round selu shrink sigmoid
    sign sin sinh softmax softplus softsign sqrt swish tan tanh thresholded_relu transpose squeeze flatten shape size"""
BINARY = "add sub mul div max min equal greater less greater_or_equal less_or_equal pow matmul"
REDUCED = "reduce_sum reduce_mean reduce_prod reduce_max reduce_min reduce_l2 reduce_log_sum_exp"


def ints(*values):
    return np.array(values, np.int64)


def reals(*shape):
    return (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 5 - 1) / 2


IMAGE, PADS = (1, 2, 3, 4), ((1, 1), (1, 1))
# Nodes of more than one input or with attributes: operator, constants behind the first input, attributes, shape of the input.
OTHERS = [
    ("max_pool", [], {"kernel_shape": (2, 3), "strides": (1, 2), "pads": PADS, "ceil_mode": 1}, IMAGE),
    ("avg_pool", [], {"kernel_shape": (2, 2), "auto_pad": "SAME_UPPER", "count_include_pad": 1}, IMAGE),
    ("resize", [None, reals(4) * 0 + 2], {"mode": "nearest"}, (1, 1, 2, 2)),
    ("resize", [None, None, ints(1, 2, 2, 6)], {"mode": "linear", "antialias": 1}, IMAGE),
    ("resize", [None, None, ints(1, 2, 5, 5)], {"mode": "cubic", "exclude_outside": 1}, IMAGE),
    ("pad", [ints(0, 0, 1, 2, 0, 0, -1, 0), np.float32(0.5).reshape(())], {"mode": "constant"}, IMAGE),
    ("pad", [ints(1, 0, 2, 1), None, ints(2, -1)], {"mode": "reflect"}, IMAGE),
    ("depth_to_space", [], {"blocksize": 2, "mode": "CRD"}, (1, 4, 2, 2)),
    ("space_to_depth", [], {"blocksize": 2}, (1, 1, 4, 2)),
    ("batch_norm", [reals(2), reals(2), reals(2), abs(reals(2)) + 1], {}, IMAGE),
    ("prelu", [reals(2, 1, 1)], {}, IMAGE),
    ("clip", [reals(), reals() + 2], {}, IMAGE),
    ("cast", [], {"to": "int64"}, (2, 3)),
    ("instance_norm", [reals(2), reals(2)], {}, IMAGE),
    ("group_norm", [reals(2), reals(2)], {"num_groups": 2}, IMAGE),
    ("layer_norm", [reals(4), reals(4)], {"epsilon": 1e-3}, IMAGE),
    ("rms_norm", [reals(4)], {}, IMAGE),
    ("reshape", [ints(0, -1, 2)], {}, IMAGE),
    ("unsqueeze", [ints(0, -1)], {}, (2, 3)),
    ("expand", [ints(2, 1, 3)], {}, (2, 1)),
    ("tile", [ints(2, 3)], {}, (2, 3)),
    ("slice", [ints(1, -2), ints(9, 99), ints(1, -1), ints(1, 2)], {}, IMAGE),
    ("concat", [reals(1, 1, 3, 4)], {"axis": 1}, IMAGE),
    ("split", [ints(1, 2)], {"axis": 2}, IMAGE),
    ("gather", [ints(1, -1, 0)], {"axis": -1}, (2, 3)),
    ("transpose", [], {"perm": (0, 2, 1)}, (2, 3, 2)),
    ("arg_max", [], {"axis": 1, "keepdims": 0}, (2, 3)),
    ("arg_min", [], {"axis": 0, "select_last_index": 1}, (2, 3)),
    ("cum_sum", [np.array(1)], {"exclusive": 1}, (2, 3)),
    ("cum_prod", [np.array(0)], {"reverse": 1}, (2, 3)),
    ("conv", [reals(2, 1, 2, 2), reals(2)], {"groups": 2, "pads": PADS}, IMAGE),
    ("conv", [reals(2, 2, 2), reals(2)], {"strides": (2,), "dilations": (2,)}, (1, 2, 5)),
    ("conv_transpose", [reals(2, 1, 2, 2), reals(1)], {"strides": (2, 2), "output_padding": (1, 0)}, IMAGE),
    ("lstm", [reals(1, 8, 2), reals(1, 8, 2), reals(1, 16)], {"hidden_size": 2}, (2, 1, 2)),
    ("gru", [reals(2, 6, 2), reals(2, 6, 2)], {"hidden_size": 2, "direction": "bidirectional"}, (1, 2, 2)),
    ("rnn", [reals(1, 2, 2), reals(1, 2, 2)], {"hidden_size": 2, "direction": "reverse", "activations": ("Relu",)}, (2, 1, 2)),
    *((op, [ints(-1)], {"keepdims": 0}, (2, 3)) for op in REDUCED.split()),
]


def linear(text):
    """A linear layer of a few weights in one format, with biases for two widths where there are widths."""
    w = coded(text, (3, 5))
    b = np.arange(3, dtype=np.float32)
    constants = {"w": w, "b": PerWidth("w", {1: b, 2: -b}) if text.startswith("nested") else b}
    nodes = (Node("linear", ("x", "w", "b"), ("y",), {}, (0.0, None)), Node("softmax", ("y",), ("z",), {"axis": -1}))
    return Graph((Value("x", "float32", ("n", 5)),), ("z",), nodes, constants, {}, {"min_bits": {"w": 1}})


def graph(nodes, shapes, constants=None, coded=""):
    """A graph with these inputs and the outputs of its last node; the values that `coded` names have an encoding."""
    inputs = tuple(Value(name, "float32", shape) for name, shape in shapes.items())
    return Graph(inputs, nodes[-1].outputs, tuple(nodes), constants or {}, {name: fixed_points(8, 4) for name in coded}, {})


def one_node(op, rest, attrs, shape, coded=""):
    """One node whose other inputs are constants; None is an input left out."""
    constants = {f"c{i}": c for i, c in enumerate(rest) if c is not None}
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(rest)]
    outputs = ("y", "z") if op in ("split", "lstm", "gru") else ("y",)
    return graph([Node(op, ("x", *names), outputs, attrs)], {"x": shape}, constants, coded)


def fused():
    """Networks whose nodes become one step, and shapes that are computed beforehand."""
    w = {"w": coded("int4", (2, 1, 3, 3)), "v": coded("nested3", (2, 2, 1, 1))}
    conv, depth = Node("conv", ("x", "v"), ("h",)), Node("conv", ("h", "w"), ("y",), {"groups": 2, "pads": PADS})
    yield "depthwise", graph([conv, depth, Node("hard_swish", ("y",), ("z",))], {"x": IMAGE}, w, "xhyz")
    yield "residual", graph([conv, Node("add", ("x", "h"), ("y",), {}, (0.0, 6.0))], {"x": IMAGE}, w, "xhy")
    turn, product = Node("transpose", ("k",), ("t",), {"perm": (0, 2, 1)}), Node("matmul", ("q", "t"), ("s",))
    scale, mask = Node("mul", ("s", "c"), ("r",)), Node("add", ("r", "m"), ("p",))
    attention = [turn, product, scale, mask, Node("softmax", ("p",), ("y",), {"axis": -1})]
    for name, which in (("attention", ""), ("attention_codes", "qkt")):
        yield name, graph(attention, {"q": (1, 2, 3), "k": (1, 4, 3), "m": (2, 4)}, {"c": reals()}, which)
    norm = [Node("add", ("a", "b"), ("c",)), Node("layer_norm", ("c", "s"), ("y",))]
    yield "add_norm", graph(norm, {"a": (2, 4), "b": (2, 4)}, {"s": reals(4)}, "a")
    one, join = Node("gather", ("s", "i"), ("n",)), Node("concat", ("n", "r"), ("t",), {"axis": 0})
    start, end = Node("shape", ("x",), ("s",)), Node("reshape", ("x", "t"), ("y",))
    yield "shapes", graph([start, one, join, end], {"x": (2, 3)}, {"i": ints(1), "r": ints(-1)})
    table = {"w": coded("int8", (3, 2)), "i": ints(0, -1)}
    yield "embedding", graph([Node("embedding", ("w", "i"), ("e",)), Node("add", ("e", "x"), ("y",))], {"x": (2, 2)}, table)
    where = [Node("greater", ("a", "b"), ("c",)), Node("where", ("c", "a", "b"), ("y",))]
    yield "where", graph(where, {"a": (2, 3), "b": (3,)})


def graphs():
    """All graphs by name."""
    for text in FORMATS.split():
        yield f"linear_{text}".replace("/", "-").replace(":", "-"), linear(text)
    yield from (("conv", convnet()), ("sign", convnet("nested6:sign", "nested4", "fixed8")), ("odd", odd_graph()))
    yield from fused()
    for which in ("", "xy"):
        for op in UNARY.split():
            yield f"{op}_{which}", one_node(op, [], {}, (1, 2, 2, 3), which)
        for op in BINARY.split():
            yield f"{op}_{which}", one_node(op, [reals(3, 3)], {}, (1, 3, 3), which)
            yield f"{op}_two_{which}", graph([Node(op, ("x", "b"), ("y",))], {"x": (2, 2), "b": (2, 2)}, {}, which and "xby")
        for i, (op, rest, attrs, shape) in enumerate(OTHERS):
            yield f"{op}_{i}_{which}", one_node(op, rest, attrs, shape, which)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in graphs():
        (folder / f"{name}.ladder").write_bytes(to_file(made, "raw"))
        if name.startswith(("linear", "conv", "sign", "odd")):
            (folder / f"{name}_tiles.ladder").write_bytes(to_file(made, "raw", "layer", tile=6))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
