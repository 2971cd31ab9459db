"""Exported models: valid, the same outputs, and in ONNX Runtime the same integers as the reference."""

import functools
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from nets import FAMILIES, Basic, family
from test_torch_ops import CASES
from torch import nn

from bitladder.convert.check_onnx import compare, reference
from bitladder.convert.from_onnx import from_onnx
from bitladder.convert.from_torch import from_torch
from bitladder.convert.to_onnx import to_onnx
from bitladder.errors import Unsupported
from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS
from bitladder.ir.rewrite import simplify
from bitladder.ptq.bake import bake
from bitladder.ptq.calibrate import encodings, observe, placement
from bitladder.runtime.reference import run

PASSED_ON = {"max_pool", "reshape", "slice", "pad", "transpose"}  # what they make is moved, not computed


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        wide = (16, 16, 32, 64)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layers = nn.Sequential(
            *(Basic(wide[s + (i > 0)], wide[s + 1], 2 if i == 0 and s else 1) for s in range(3) for i in range(3))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(y, y.shape[3]).view(y.size(0), -1))


@functools.cache
def resnet() -> tuple[Graph, dict[str, np.ndarray]]:
    """ResNet-20 with seeded weights, and a batch of noise."""
    torch.manual_seed(0)
    net, x = ResNet20().eval(), torch.randn(8, 3, 32, 32)
    for key, tensor in net.state_dict().items():
        if "running_var" in key:
            tensor.copy_(torch.rand_like(tensor) * 0.5 + 0.2)
        elif "running_mean" in key:
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    return simplify(from_torch(net, (x,))), {"x": x.numpy()}


def quantized(graph: Graph, feed: dict[str, np.ndarray], spec: str) -> Graph:
    """The graph with weights and activations as WEIGHTS,ACTIVATIONS say."""
    weights, activations = spec.split(",")
    names = [name for name, _ in graph.weights()]
    return bake(graph, dict.fromkeys(names, parse(weights)), calibrated(graph, feed, names, activations))


def calibrated(graph: Graph, feed: dict[str, np.ndarray], names: list[str], text: str) -> dict[str, Encoding]:
    """Encodings of all activations that integer weights ask for."""
    place, fmt = placement(graph, names), parse(text)
    seen = observe(graph, [feed], place, per_channel=isinstance(fmt, Fixed) and fmt.per == "channel")
    return encodings(graph, seen, dict.fromkeys(place, fmt))


@functools.cache
def resnet_with(spec: str) -> Graph:
    """ResNet-20 quantized; what is shared between tests is calibrated once."""
    graph, _ = resnet()
    weights, activations = spec.split(",")
    names = [name for name, _ in graph.weights()]
    return bake(graph, dict.fromkeys(names, parse(weights)), resnet_encodings(activations))


@functools.cache
def resnet_encodings(text: str) -> dict[str, Encoding]:
    graph, feed = resnet()
    return calibrated(graph, feed, [name for name, _ in graph.weights()], text)


def executed(model: onnx.ModelProto, feed: dict[str, np.ndarray], *, sums: bool = False) -> list[np.ndarray]:
    """The outputs of a valid model in ONNX Runtime; sums: it has sums that saturate without VNNI."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if sums:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def agrees(graph: Graph, feed: dict[str, np.ndarray], model: onnx.ModelProto, **tolerance: float) -> None:
    """Reference and model give the same outputs within a tolerance."""
    want = run(graph, feed)
    for name, got in zip(graph.outputs, executed(model, feed, sums=True), strict=True):
        np.testing.assert_allclose(got, want[name], **tolerance)


def layer(x, w, b, xe, ye, *, op="linear", attrs=None, clip=None) -> Graph:
    """One weighted node between integers, as a graph that accepts any batch."""
    value = Value("x", "float32", ("batch", *x.shape[1:]))
    nodes = (Node(op, ("x", "w", "b"), ("y",), attrs or {}, clip), Node("identity", ("y",), ("z",)))
    return Graph((value,), ("z",), nodes, {"w": w, "b": b}, {"x": xe} | ({"y": ye} if ye else {}))


def uint8(scale: float, zero: float = 0.0) -> Encoding:
    return Encoding(Int(8, per="tensor", unsigned=True), {"scale": np.float32(scale), "zero_point": np.float32(zero)})


# ------------------------------------------------------------------------------------------------ integers of ResNet-20


@pytest.mark.parametrize(
    "spec",
    [
        "fixed8,fixed8/tensor", "int8,int8/tensor", "nested7,int8/tensor", "nested4:tree,int8/tensor",
        "nested5:sign,fixed8/tensor", "ternary,int8/tensor", "fixed6,fixed5/tensor",
    ],
)  # fmt: skip
def test_integers_are_the_same(spec):
    """Layer by layer no integer differs, additions of float scales excepted, and convolutions run in integers."""
    images = 8 if spec.startswith(("fixed8", "int8")) else 3
    rows = compare(resnet_with(spec), {"x": resnet()[1]["x"][:images]}, int4=False)
    assert len(rows) == 37
    for row in rows:
        if row.op == "conv":
            assert row.by == "QLinearConv", row
        if row.op == "add" and "int8/" in spec:
            assert row.differing <= 1e-3 * row.count, row
            assert row.largest <= 1, row
        else:
            assert row.differing == 0, row


def test_layers_are_alive():
    """What is compared says something: the codes of every layer take many values, few of them at the ends."""
    for name, codes in reference(resnet_with("int8,int8/tensor"), resnet()[1]).items():
        values = np.unique(codes)
        assert len(values) > 50, name
        assert np.isin(codes, (0, 255)).mean() < 0.9, name


def test_integers_are_the_same_from_end_to_end():
    """With power-of-two scales a whole network keeps its integers, and so do both batch sizes."""
    q, feed = resnet_with("fixed8,fixed8/tensor"), resnet()[1]
    assert not [row for row in compare(q, {"x": feed["x"][:4]}, layered=False) if row.differing]
    model = to_onnx(q)
    for batch in (2, 3):
        part = {"x": feed["x"][:batch]}
        np.testing.assert_array_equal(executed(model, part, sums=True)[0], run(q, part)["linear"])


@pytest.mark.parametrize("spec", ["fixed8,fixed8", "fixed4,fixed8/tensor", "fixed8,fixed12/tensor"])
def test_float_nodes_with_power_of_two_scales(spec):
    """Fractional lengths per channel, int4 and 16-bit codes run in float there: exact, as sums stay below 2^24."""
    rows = compare(resnet_with(spec), {"x": resnet()[1]["x"][:3]})
    convolutions = [row for row in rows if row.op == "conv"]
    assert not any(row.integer for row in convolutions)
    assert not [row for row in rows if row.differing]


@pytest.mark.parametrize("spec", ["nested8,int8/tensor", "nested8,fixed8/tensor", "int4,int8/tensor"])
def test_float_nodes_with_float_scales(spec):
    """Codes that ONNX Runtime multiplies in float may round the other way near a tie: rarely, and by one."""
    rows = compare(resnet_with(spec), {"x": resnet()[1]["x"][:4]})
    for row in rows:
        assert row.largest <= 1, row
        assert row.differing <= 1e-4 * row.count or row.op == "add", row


@pytest.mark.parametrize("spec", ["nested8,int8/tensor", "int4,int8/tensor", "fixed8,fixed8"])
def test_whole_numbers_in_float(spec):
    """Asked to be exact, layers without an integer kernel give the reference's integers too, whatever the scales."""
    q, few = resnet_with(spec), {"x": resnet()[1]["x"][:3]}
    rows = compare(q, few, exact=True)
    assert not [row for row in rows if row.differing and row.op != "add"]
    assert not any(row.integer for row in rows if row.op == "conv")
    agrees(q, few, to_onnx(q, exact=True), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("activations", ["int8/tensor", "fixed8/tensor"])
def test_every_width_of_a_nested_network(activations):
    """From 7 bits down, odd numbers of half steps fit int8 and the integers are the same; 8 bits run in float."""
    q, few = resnet_with(f"nested8,{activations}"), {"x": resnet()[1]["x"][:2]}
    for bits in range(1, 8):
        rows = compare(q.at(bits), few)
        convolutions = [row for row in rows if row.op == "conv"]
        assert all(row.by == "QLinearConv" and row.differing == 0 for row in convolutions), (bits, convolutions)


def test_a_width_for_every_layer():
    """One nested file with a width per layer: exported, every layer below 8 bits keeps its integers."""
    q = resnet_with("nested8,int8/tensor")
    widths = {name: 2 + k % 7 for k, (name, _) in enumerate(q.weights())}
    mixed = q.at(widths)
    rows = {row.name: row for row in compare(mixed, {"x": resnet()[1]["x"][:2]})}
    for node in mixed.nodes:
        if node.op == "conv" and widths[node.inputs[1]] < 8:
            assert rows[node.name].by == "QLinearConv"
            assert rows[node.name].differing == 0
    props = {p.key: p.value for p in to_onnx(mixed).metadata_props}
    assert json.loads(props["bitladder.weights"]) == {name: f"nested{bits}" for name, bits in widths.items()}


# ----------------------------------------------------------------------------------------------------- other networks


@pytest.mark.parametrize("name", FAMILIES)
def test_real_networks(name):
    """Every family of networks, as reals: valid, and equal at two batch sizes."""
    graph = simplify(from_torch(family(name), FAMILIES[name][1](3)))
    model = to_onnx(graph)
    for batch in (3, 2):
        feed = {v.name: x.numpy() for v, x in zip(graph.inputs, FAMILIES[name][1](batch), strict=True)}
        agrees(graph, feed, model, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet", "vit", "encoder", "recurrent", "decoder", "vgg"])
def test_quantized_networks(name):
    """Depthwise and transposed convolutions, attention and LSTM with integers: outputs within a few steps of the reference."""
    torch.manual_seed(1)
    example = FAMILIES[name][1](4)
    graph = simplify(from_torch(family(name), example))
    feed = {v.name: x.numpy() for v, x in zip(graph.inputs, example, strict=True)}
    q = quantized(graph, feed, "int8,int8/tensor")
    assert q.encodings or name == "recurrent"
    agrees(q, feed, to_onnx(q), atol=0.02, rtol=0.02)
    for row in compare(q, feed):
        assert row.largest <= 1, row


# --------------------------------------------------------------------------------------------------- one node at a time

ELSEWHERE = {  # what ONNX has, but ONNX Runtime 1.31 does not run
    "bit_shift": "signed integers", "lrn": "an even size", "lstm": "batch first", "cast": "2 bits",
    "linear_attention": "opset 27", "causal_conv_with_state": "opset 27", "quantize_linear": "int4 as an array",
    "space_to_depth": "opset 28",
}  # fmt: skip


def alone(case) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of one operator, its first input an input and all others constants."""
    op, args, attrs = case
    made = OPS[op](*args, **attrs)
    names = ["" if a is None else f"i{k}" for k, a in enumerate(args)]
    outs = tuple(f"o{k}" for k in range(len(made) if isinstance(made, tuple) else 1))
    feed = {names[0]: np.asarray(args[0])}
    constants = {name: a for name, a in zip(names[1:], args[1:], strict=True) if name}
    value = Value(names[0], str(feed[names[0]].dtype), feed[names[0]].shape)
    return Graph((value,), outs, (Node(op, tuple(names), outs, attrs),), constants), feed


def at_first_opset(graph: Graph) -> onnx.ModelProto:
    """The model in opset 21, or in the first after it that has everything."""
    for opset in range(21, onnx.defs.onnx_opset_version() + 1):
        try:
            return to_onnx(graph, opset=opset)
        except Unsupported:
            continue
    raise AssertionError(graph.nodes)


def test_every_word():
    """Every case of every operator, exported on its own, gives the reference's outputs in ONNX Runtime."""
    ran, refused = set(), set()
    for case in CASES:
        graph, feed = alone(case)
        model = at_first_opset(graph)
        try:
            got = executed(model, feed, sums=True)
        except Exception as error:
            if case[0] not in ELSEWHERE:
                raise AssertionError(case[0]) from error
            refused.add(case[0])
            continue
        for name, y in zip(graph.outputs, got, strict=True):
            want = run(graph, feed)[name]
            np.testing.assert_allclose(np.asarray(y, want.dtype), want, rtol=1e-4, atol=2e-5, err_msg=f"{case[0]} {case[2]}")
        ran.add(case[0])
    assert refused == set(ELSEWHERE)
    assert set(OPS) - ran == {"bit_shift", "lrn", "linear_attention", "causal_conv_with_state"}


RNG = np.random.default_rng(0)
X, W, B = (RNG.normal(size=s).astype(np.float32) for s in ((6, 64), (5, 64), (5,)))


@pytest.mark.parametrize(
    "text",
    [
        "int8", "int4", "int2", "int4/16", "int3/24", "int8/tensor", "int12", "fixed3", "fixed20", "ternary",
        "nested8", "nested4", "nested3", "nested8:tree",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("opset", "compact"), [(21, False), (21, True), (25, False)])
def test_weights_are_lossless(text, opset, compact):
    """Whatever the format, the initializers decode to the very reals of the codes."""
    q = QTensor.of(W, fit(parse(text), W))
    graph = layer(X, q, B, uint8(0.02, 128), None)
    model = to_onnx(graph.with_(outputs=("z",)), opset=opset, compact=compact)
    w = next(n for n in model.graph.node if n.op_type == "Gemm").input[1]
    model.graph.output.append(onnx.helper.make_tensor_value_info(w, onnx.TensorProto.FLOAT, W.shape))
    np.testing.assert_array_equal(executed(model, {"x": X})[1], q.decode())
    assert json.loads({p.key: p.value for p in model.metadata_props}["bitladder.weights"]) == {"w": text}


@pytest.mark.parametrize("text", ["int8", "int4/16", "nested8", "nested4", "int12"])
def test_products_of_higher_rank(text):
    """A linear node on three axes is MatMul and Add, with the weight transposed in whatever form."""
    x = X.reshape(2, 3, 64)
    q = QTensor.of(W, fit(parse(text), W))
    graph = layer(x, q, B, uint8(0.02, 128), uint8(0.1, 128))
    model = to_onnx(graph, compact=True)
    assert "MatMul" in {n.op_type for n in model.graph.node}
    agrees(graph, {"x": x}, model, atol=0.11, rtol=0)


def test_types_of_initializers():
    """int4 where it is asked for and the opset has it; one byte else."""
    held = {}
    wishes = [("int4", {}), ("int4", {"int4": False}), ("int4", {"opset": 19}), ("nested4", {}), ("nested4", {"compact": True})]
    for text, options in wishes:
        graph = layer(X, QTensor.of(W, fit(parse(text), W)), B, uint8(0.02), None)
        kinds = {i.name: i.data_type for i in to_onnx(graph, **options).graph.initializer}
        held[text, *options] = onnx.TensorProto.DataType.Name(kinds["w"])
    assert list(held.values()) == ["INT4", "INT8", "INT8", "INT8", "INT4"]


@pytest.mark.parametrize("clip", [(0.0, None), (0.0, 1.0), (-1.0, 1.0), (None, 0.5)])
@pytest.mark.parametrize("text", [f"{t}/tensor" for t in ("uint8", "int8", "fixed8", "ufixed8", "fixed6", "uint4")])
def test_clips_and_narrow_codes(clip, text):
    """A fused clip and a format narrower than its type give the reference's codes, and leave the node in integers."""
    ye = fit(parse(text), np.linspace(-2, 3, 100, dtype=np.float32))
    graph = layer(X, QTensor.of(W, fit(parse("int8"), W)), B, uint8(0.02, 128), ye, clip=clip)
    for signed in (False, True):
        _, row = compare(graph, {"x": X})
        assert row.differing == 0, row
        assert row.by == "QGemm", row
        executed(to_onnx(graph, signed=signed), {"x": X})


def test_bias_of_the_weight_width():
    """A bias in versions is resolved for the width that is exported."""
    q = QTensor.of(W, fit(parse("nested8"), W))
    graph = layer(X, q, PerWidth("w", {8: B, 3: B + 1}), uint8(0.02, 128), None)
    for bits in (8, 3):
        narrow = graph.at(bits)
        agrees(narrow, {"x": X}, to_onnx(narrow), atol=1e-4, rtol=1e-4)
    agrees(graph, {"x": X}, to_onnx(graph), atol=1e-4, rtol=1e-4)


def test_integers_at_the_edges():
    """Outputs of the network may be integers, and each of several outputs of one node."""
    nodes = (Node("split", ("x", "sizes"), ("a", "b"), {"axis": 1}, (0.0, None)), Node("relu", ("a",), ("r",)))
    coded = {"x": uint8(0.02, 128), "a": uint8(0.02), "b": fit(parse("fixed5/tensor"), X), "r": uint8(0.01)}
    sizes = {"sizes": np.array([16, 48])}
    graph = Graph((Value("x", "float32", ("n", 64)),), ("a", "b", "r"), nodes, sizes, coded)
    agrees(graph, {"x": X}, to_onnx(graph), atol=0, rtol=0)
    assert [row.differing for row in compare(graph, {"x": X})] == [0, 0, 0, 0]


def test_a_mean_is_a_global_pool():
    """A mean over all spatial axes between integers is summed in integers, whether or not its axes stay."""
    x = RNG.random((2, 4, 7, 7)).astype(np.float32)
    for keep in (0, 1):
        nodes = (Node("reduce_mean", ("x", "axes"), ("y",), {"keepdims": keep}), Node("identity", ("y",), ("z",)))
        axes = {"axes": np.array([-1, -2])}
        coded = {"x": uint8(1 / 255), "y": uint8(0.9 / 255)}
        graph = Graph((Value("x", "float32", ("n", 4, 7, 7)),), ("z",), nodes, axes, coded)
        row = compare(graph, {"x": x})[1]
        assert (row.differing, row.by) == (0, "QLinearGlobalAveragePool")


# -------------------------------------------------------------------------------------------------- there and back again


@pytest.mark.parametrize("spec", ["int8,int8/tensor", "fixed8,fixed8/tensor", "nested8,int8/tensor", "nested4,fixed8/tensor"])
def test_round_trip(spec):
    """A model that comes back has the same names, scales and integers."""
    torch.manual_seed(2)
    example = FAMILIES["resnet"][1](4)
    graph = simplify(from_torch(family("resnet"), example))
    feed = {graph.inputs[0].name: example[0].numpy()}
    q = quantized(graph, feed, spec)
    back = simplify(from_onnx(to_onnx(q)))
    assert set(q.encodings) <= set(back.encodings)
    for name, e in q.encodings.items():
        assert back.encodings[name].step(()) == e.step(())
    ours, theirs = ({}, {})
    for g, seen in ((q, ours), (back, theirs)):
        run(g, feed, watch=lambda name, value, seen=seen: seen.update({name: value}))
    for name in set(q.encodings) & set(ours):
        difference = np.abs(theirs[name].integers() - ours[name].integers())
        assert difference.max() <= (spec == "nested8,int8/tensor"), name  # which comes back as two terms, hence in float


def test_metadata_survives():
    """Labels, normalisation and layout go out and come in."""
    graph = layer(X, W, B, uint8(0.02), None)
    meta = {"labels": ["cat", "dog"], "normalisation": {"mean": [0.5], "std": [0.25]}, "layout": "NCHW"}
    back = from_onnx(to_onnx(graph.with_(meta=meta)))
    assert {k: back.meta[k] for k in meta} == meta


# ------------------------------------------------------------------------------------------------------- files and errors


def test_written_whole(tmp_path):
    """The file is the model, and nothing else is left in the folder."""
    graph = layer(X, W, B, uint8(0.02), None)
    model = to_onnx(graph, tmp_path / "net.onnx")
    assert onnx.load(tmp_path / "net.onnx") == model
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    with pytest.raises(FileNotFoundError, match=r"write: folder .*nowhere.* does not exist; make it first"):
        to_onnx(graph, tmp_path / "nowhere" / "net.onnx")


def test_everything_missing_is_named():
    """One error names all operators that the opset lacks, and the opset that has them."""
    nodes = (Node("attention", ("x", "x", "x"), ("a",)), Node("mish", ("a",), ("m",)), Node("wobble", ("m",), ("y",)))
    graph = Graph((Value("x", "float32", ("n", 2, 4, 8)),), ("y",), nodes)
    with pytest.raises(Unsupported) as error:
        to_onnx(graph, opset=17)
    assert str(error.value) == (
        "to_onnx: everything in the graph must exist in opset 17, got Attention (1x, first at 'a'; opset 23 has it), "
        "Mish (1x, first at 'm'; opset 18 has it), operator 'wobble' (1x, first at 'y'; no opset has it); "
        "replace these, or leave them unquantized"
    )


def test_what_cannot_be_exact():
    """Groups before opset 21 and wide activations are refused, or written as reals where that is allowed."""
    q = QTensor.of(W, fit(parse("int4/16"), W))
    graph = layer(X, q, B, fit(parse("fixed18/tensor"), X), None)
    with pytest.raises(Unsupported, match=r"activation 'x' as fixed18.*leaves it real.*weight 'w' as int4/16.*opset 21"):
        to_onnx(graph, opset=19)
    agrees(graph, {"x": X}, to_onnx(graph, opset=19, lossless=False), atol=1e-3, rtol=1e-3)


def test_opset_out_of_reach():
    with pytest.raises(ValueError, match=r"to_onnx: opset must be 13\.\.\d+, got 12; opset 21 suits most runtimes"):
        to_onnx(layer(X, W, B, uint8(0.02), None), opset=12)


@pytest.mark.parametrize("opset", [13, 17, 28])
def test_other_opsets(opset):
    """Convolutional networks reach back to opset 13 and forward to the newest."""
    example = FAMILIES["resnet"][1](4)
    graph = simplify(from_torch(family("resnet"), example))
    feed = {graph.inputs[0].name: example[0].numpy()}
    q = quantized(graph, feed, "int8,int8/tensor")
    model = to_onnx(q, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    if opset < 27:  # as far as the installed ONNX Runtime reads
        agrees(q, feed, model, atol=0.05, rtol=0.05)
