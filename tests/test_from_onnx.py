"""What the importer promises beyond single operators: names, scales, free axes, old files, and refusals."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnx_ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bitladder.convert.from_onnx import from_onnx, listed, meta_of  # noqa: E402
from bitladder.errors import Malformed, Unsupported  # noqa: E402
from bitladder.formats.tensor import QTensor  # noqa: E402
from bitladder.ir.rewrite import simplify  # noqa: E402
from bitladder.runtime.reference import run  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers():
    """Every test has the same numbers, whichever ran before it."""
    rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def model_of(nodes, inputs, outputs, constants=None, opset=18, **options):
    """A model; inputs are name: shape (float32), nodes (operator, inputs, outputs, attributes)."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    made = [helper.make_node(op, i.split(), o.split(), f"{op}_{k}", **attrs) for k, (op, i, o, attrs) in enumerate(nodes)]
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(made, "g", values, ends, tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=options.pop("ir_version", 8), **options
    )


def ops_of(graph):
    return [node.op for node in graph.nodes]


def reference(model, feed):
    """The outputs of ONNX Runtime, without any optimization."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feed)


# ---------------------------------------------------------------------------------------------------------- sources


def test_every_way_to_name_a_model_gives_the_same_graph(tmp_path):
    """A path, bytes, a protobuf and a loaded model."""
    model = model_of([("MatMul", "x w", "y", {})], {"x": ["n", 4]}, ["y"], {"w": floats(4, 3)})
    onnx.save(model, tmp_path / "m.onnx")
    sources = (tmp_path / "m.onnx", os.fspath(tmp_path / "m.onnx"), model.SerializeToString(), model, onnx_ir.from_proto(model))
    graphs = [from_onnx(source) for source in sources]
    assert all(g.nodes == graphs[0].nodes and g.inputs == graphs[0].inputs for g in graphs)


def test_bad_files_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"from_onnx: no file .*; give the path of an .onnx file"):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(Malformed, match="the bytes are not a readable ONNX model"):
        from_onnx(b"\xff\xff\xff")
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(Malformed, match=r"bad.onnx' is not a readable ONNX model"):
        from_onnx(tmp_path / "bad.onnx")


def test_unknown_operators_are_all_named_at_once():
    """One line with every operator, how often, and where."""
    nodes = [("Foo", "x", "a", {"domain": "my"}), ("Foo", "a", "b", {"domain": "my"}), ("NonMaxSuppression", "b b", "y", {})]
    model = model_of(nodes, {"x": [1, 4, 4]}, ["y"])
    model.opset_import.append(helper.make_opsetid("my", 1))
    with pytest.raises(Unsupported) as caught:
        from_onnx(model)
    assert str(caught.value) == (
        "from_onnx: the model must use supported operators only, but has 2 x my.Foo at 'Foo_0', "
        "1 x NonMaxSuppression at 'NonMaxSuppression_2'; "
        "export it with standard operators (opset 18 or newer, inference mode), or cut those nodes off"
    )


def test_nonsense_is_one_line_with_the_node():
    """A node that contradicts itself is named."""
    model = model_of(
        [("Concat", "a b", "c", {"axis": 0}), ("Add", "x c", "y", {})], {"x": [2]}, ["y"], {"a": floats(2), "b": floats(2, 2)}
    )
    with pytest.raises(
        Malformed, match=r"^from_onnx: node 'Concat_0' \(Concat\) must be valid ONNX, but reading it failed \(.*\)"
    ):
        from_onnx(model)


def test_damaged_models_are_refused_in_one_line():
    """Whatever a few wrong bytes do, the answer is a graph or one of our errors."""
    whole = quantized_conv(True)[0].SerializeToString()
    texts = []
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        try:
            from_onnx(bytes(damaged))
        except (Malformed, Unsupported) as error:
            texts.append(str(error))
    assert len(texts) > 20
    assert all(text.startswith("from_onnx: ") and len(text.splitlines()) == 1 for text in texts)


def test_types_without_a_numpy_twin_are_named():
    model = model_of([("Cast", "x", "y", {"to": TensorProto.FLOAT8E4M3FN})], {"x": [2]}, ["y"], opset=19)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    with pytest.raises(Unsupported, match=r"1 x Cast \(type float8_e4m3fn\) at 'Cast_0'"):
        from_onnx(model)


# ---------------------------------------------------------------------------------------------------- external data


def external_model(folder: Path, location: str) -> Path:
    """A model whose weight is in a file beside it, with another location written over the true one."""
    model = model_of([("MatMul", "x w", "y", {})], {"x": [2, 4]}, ["y"], {"w": floats(4, 300)})
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    text = onnx.load(path, load_external_data=False)
    for entry in text.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(text.SerializeToString())
    return path


def test_external_data_beneath_the_model_is_read(tmp_path):
    graph = from_onnx(external_model(tmp_path, "data.bin"))
    assert graph.constants["w"].shape == (300, 4)


def test_external_data_elsewhere_is_refused(tmp_path):
    """Absolute paths, parents, symbolic and hard links, and bytes that have no folder."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    external_model(home, "data.bin")
    shutil.move(home / "data.bin", away / "data.bin")
    os.symlink(away / "data.bin", home / "link.bin")
    os.link(away / "data.bin", home / "hard.bin")
    for location, why in {
        os.fspath(away / "data.bin"): "points outside",
        "../away/data.bin": "points outside",
        "link.bin": "is a link to outside",
        "hard.bin": "second hard link",
    }.items():
        path = home / "m.onnx"
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        (tmp_path / "scratch").mkdir()
        path.write_bytes(external_model(tmp_path / "scratch", location).read_bytes())
        with pytest.raises(Malformed, match=rf"from_onnx: data of 'w' must lie beneath .*{why}.*; move it there"):
            from_onnx(path)
    with pytest.raises(Malformed, match="a model without a path has no folder"):
        from_onnx(external_model(home, "data.bin").read_bytes())


# ------------------------------------------------------------------------------------------- weights and their names


def test_products_with_constants_are_linear_layers_under_their_names():
    """MatMul + Add, Gemm both ways round, and a weight that the exporter stored transposed."""
    w, b, v, c = floats(4, 3), floats(3), floats(3, 5), floats(5)
    u = floats(6, 5)
    nodes = [
        ("MatMul", "x w", "a", {}),
        ("Add", "b a", "h", {}),
        ("Gemm", "h v c", "k", {"alpha": 1.0}),
        ("Gemm", "k u", "y", {"transB": 1}),
    ]
    graph = from_onnx(model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": w, "b": b, "v": v, "c": c, "u": u}))
    assert [n.inputs for n in graph.nodes] == [("x", "w", "b"), ("h", "v", "c"), ("k", "u")]
    assert ops_of(graph) == ["linear"] * 3
    x = floats(2, 4)
    np.testing.assert_allclose(run(graph, {"x": x})["y"], ((x @ w + b) @ v + c) @ u.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (2, 1), (2, 3), None])
@pytest.mark.parametrize("turn", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_every_gemm(alpha, beta, shape, turn):
    """With a constant B, scaled or not, and whatever C broadcasts from."""
    w, x, c = floats(4, 3), floats(2, 4), None if shape is None else floats(*shape)
    constants = {"w": w.T if turn[1] else w} | ({} if c is None else {"c": np.asarray(c, np.float32)})
    how = {"alpha": alpha, "beta": beta, "transA": turn[0], "transB": turn[1]}
    model = model_of(
        [("Gemm", "x w" + " c" * (c is not None), "y", how)], {"x": [4, 2] if turn[0] else [2, 4]}, ["y"], constants
    )
    graph = from_onnx(model)
    assert "linear" in ops_of(graph)
    expected = alpha * (x @ w) + (0 if c is None else beta * c)
    np.testing.assert_allclose(run(graph, {"x": x.T if turn[0] else x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_initializer_keeps_its_name_and_its_shape():
    graph = from_onnx(
        model_of([("Transpose", "w", "t", {}), ("MatMul", "x t", "y", {})], {"x": ["n", 4]}, ["y"], {"w": floats(3, 4)})
    )
    assert [(n.op, n.inputs) for n in graph.nodes] == [("linear", ("x", "w"))]
    assert graph.constants["w"].shape == (3, 4)


def test_tied_embedding_stays_one_weight():
    """A table that is looked up and multiplied with is one constant."""
    table = floats(10, 4)
    nodes = [("Gather", "table i", "e", {}), ("Transpose", "table", "t", {"perm": [1, 0]}), ("MatMul", "e t", "y", {})]
    model = model_of(nodes, {"i": ["n"]}, ["y"], {"table": table})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    graph = from_onnx(model)
    assert [(n.op, n.inputs) for n in graph.nodes] == [("embedding", ("table", "i")), ("linear", ("e", "table"))]
    assert list(graph.constants) == ["table"]
    assert [name for name, _ in graph.weights()] == ["table"]


def test_weights_with_equal_values_stay_apart():
    """Nothing is merged: each layer may be quantized by itself."""
    w = floats(4, 4)
    graph = from_onnx(
        model_of([("MatMul", "x a", "h", {}), ("MatMul", "h b", "y", {})], {"x": [1, 4]}, ["y"], {"a": w, "b": w})
    )
    assert [name for name, _ in graph.weights()] == ["a", "b"]


def test_arithmetic_on_known_shapes_disappears():
    nodes = [
        ("Shape", "x", "s", {}),
        ("Gather", "s zero", "n", {}),
        ("Concat", "n rest", "to", {"axis": 0}),
        ("Reshape", "x to", "y", {}),
    ]
    constants = {"zero": np.array([0]), "rest": np.array([-1])}
    assert ops_of(from_onnx(model_of(nodes, {"x": [2, 3, 4]}, ["y"], constants))) == ["reshape"]
    free = from_onnx(model_of(nodes, {"x": ["n", 3, 4]}, ["y"], constants))
    for batch in (1, 5):
        assert run(free, {"x": floats(batch, 3, 4)})["y"].shape == (batch, 12)
    assert free.inputs[0].shape == ("n", 3, 4)


def test_unnamed_axes_get_names_of_their_own():
    graph = from_onnx(model_of([("Relu", "x", "y", {})], {"x": [None, 3, None]}, ["y"]))
    first, _, last = graph.inputs[0].shape
    assert isinstance(first, str)
    assert isinstance(last, str)
    assert first != last


def test_one_graph_for_any_batch():
    """A small convolutional network with a free batch axis equals ONNX Runtime for two batch sizes."""
    constants = {"w": floats(4, 3, 3, 3), "b": floats(4), "v": floats(4, 5), "d": floats(4, 1, 3, 3)}
    nodes = [
        ("Conv", "x w b", "h", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Relu", "h", "r", {}),
        ("Conv", "r d", "k", {"group": 4, "pads": [1, 1, 1, 1]}),
        ("GlobalAveragePool", "k", "p", {}),
        ("Flatten", "p", "f", {}),
        ("Gemm", "f v", "y", {}),
    ]
    model = model_of(nodes, {"x": ["batch", 3, 9, 8]}, ["y"], constants)
    graph = from_onnx(model)
    assert graph.nodes[0].attrs["pads"] == ((1, 1), (0, 1))
    for batch in (1, 3):
        x = floats(batch, 3, 9, 8)
        np.testing.assert_allclose(run(graph, {"x": x})["y"], reference(model, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_auto_pad_of_unknown_sizes_waits_for_the_input():
    model = model_of(
        [("Conv", "x w", "y", {"auto_pad": "SAME_LOWER", "strides": [2]})], {"x": [1, 2, "t"]}, ["y"], {"w": floats(3, 2, 4)}
    )
    graph = from_onnx(model)
    assert graph.nodes[0].attrs["auto_pad"] == "SAME_LOWER"
    for length in (7, 10):
        x = floats(1, 2, length)
        np.testing.assert_allclose(run(graph, {"x": x})["y"], reference(model, {"x": x})[0], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ quantized models


def quantized_conv(per_channel: bool):
    """Input, convolution and activation with explicit quantization, and the constants of it."""
    scale = np.array([0.01, 0.02, 0.03, 0.04], np.float32) if per_channel else np.float32(0.02)
    zero = np.zeros(scale.shape, np.int8)
    constants = {
        "sx": np.float32(0.05), "zx": np.uint8(120), "sy": np.float32(0.1), "zy": np.uint8(3),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), "sw": scale, "zw": zero,
        "b": rng.integers(-500, 500, 4).astype(np.int32), "sb": scale * np.float32(0.05),
    }  # fmt: skip
    nodes = [
        ("QuantizeLinear", "x sx zx", "xq", {}),
        ("DequantizeLinear", "xq sx zx", "xd", {}),
        ("DequantizeLinear", "w sw zw", "wd", {"axis": 0}),
        ("DequantizeLinear", "b sb", "bd", {"axis": 0}),
        ("Conv", "xd wd bd", "c", {"pads": [1, 1, 1, 1]}),
        ("Relu", "c", "r", {}),
        ("QuantizeLinear", "r sy zy", "rq", {}),
        ("DequantizeLinear", "rq sy zy", "y", {}),
    ]
    return model_of(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants), constants


@pytest.mark.parametrize("per_channel", [False, True])
def test_scales_of_quantized_models_are_kept(per_channel):
    """Quantize/dequantize pairs become encodings with the same numbers, and the result equals ONNX Runtime's."""
    torch = pytest.importorskip("torch")
    model, c = quantized_conv(per_channel)
    graph = from_onnx(model)
    assert ops_of(graph) == ["conv", "relu"]
    weight = graph.constants["w"]
    assert isinstance(weight, QTensor)
    np.testing.assert_array_equal(weight.codes, c["w"])
    np.testing.assert_array_equal(weight.encoding.params["scale"], c["sw"])
    assert str(weight.format) == ("int8" if per_channel else "int8/tensor")
    assert weight.encoding.axes == ((0,) if per_channel else ())
    assert {
        k: (str(e.format), float(e.params["scale"]), float(e.params["zero_point"])) for k, e in graph.encodings.items()
    } == {
        "x": ("uint8/tensor", float(c["sx"]), 120.0),
        "y": ("uint8/tensor", float(c["sy"]), 3.0),
    }
    x = floats(2, 3, 6, 6)
    got, expected = run(graph, {"x": x})["y"], reference(model, {"x": x})[0]
    assert np.abs(got - expected).max() <= 0.1 + 1e-6  # a tie may fall the other way by one step
    pixels = np.clip(np.round(x / c["sx"]) + 120, 0, 255) - 120
    scale = np.broadcast_to(c["sw"], 4).reshape(-1, 1, 1, 1).astype(np.float64) * 0.05
    sums = [torch.from_numpy(a.astype(np.float64)) for a in (pixels, c["w"] * scale, c["b"] * scale.ravel())]
    steps = torch.nn.functional.conv2d(*sums, padding=1).numpy() / 0.1
    assert (np.abs(steps % 1 - 0.5)[got != expected] < 1e-3).all()  # sums are multiples of a 200th of a step


def test_a_value_also_read_as_real_keeps_its_precision():
    """Only the readers behind the pair see codes; simplifying the graph does not change that."""
    nodes = [
        ("Relu", "x", "r", {}),
        ("QuantizeLinear", "r s z", "q", {}),
        ("DequantizeLinear", "q s z", "d", {}),
        ("Add", "r d", "y", {}),
    ]
    graph = from_onnx(model_of(nodes, {"x": [8]}, ["y"], {"s": np.float32(0.5), "z": np.int8(0)}))
    x = np.abs(floats(8))
    for g in (graph, simplify(graph)):
        np.testing.assert_allclose(run(g, {"x": x})["y"], x + np.round(x / 0.5) * 0.5, rtol=1e-6)


def test_blocks_of_four_bits_become_groups():
    """MatMul with int4 blocks along its inputs is a linear layer with a group format."""
    codes, scale = rng.integers(-8, 8, (8, 3)).astype(np.int8), np.abs(floats(2, 3))
    nodes = [("DequantizeLinear", "w s", "d", {"axis": 0, "block_size": 4}), ("MatMul", "x d", "y", {})]
    model = model_of(nodes, {"x": ["n", 8]}, ["y"], {"s": scale}, opset=21, ir_version=10)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, codes.shape, codes.reshape(-1)))
    graph = from_onnx(model)
    assert ops_of(graph) == ["linear"]
    weight = graph.constants[graph.nodes[0].inputs[1]]
    assert (str(weight.format), weight.shape) == ("int4/4", (3, 8))
    x = floats(2, 8)
    np.testing.assert_allclose(run(graph, {"x": x})["y"], x @ (codes * np.repeat(scale, 4, 0)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [0, 4])
def test_quantized_matrices_may_be_stored_the_other_way_round(block):
    """Dequantize, transpose, multiply, as exporters write linear layers: still one quantized weight under its name."""
    codes = rng.integers(-127, 128, (3, 8)).astype(np.int8)
    scale = np.abs(floats(3, 2)) if block else np.abs(floats(3))
    how = {"axis": 1, "block_size": 4} if block else {"axis": 0}
    nodes = [("DequantizeLinear", "w s", "d", how), ("Transpose", "d", "t", {}), ("MatMul", "x t", "y", {})]
    graph = from_onnx(model_of(nodes, {"x": ["n", 8]}, ["y"], {"s": scale, "w": codes}, opset=21, ir_version=10))
    assert [(n.op, n.inputs) for n in graph.nodes] == [("linear", ("x", "w"))]
    assert str(graph.constants["w"].format) == ("int8/4" if block else "int8")
    x, spread = floats(2, 8), np.repeat(scale, 4, 1) if block else scale[:, None]
    np.testing.assert_allclose(run(graph, {"x": x})["y"], x @ (codes * spread).T, rtol=1e-4, atol=1e-3)


def test_fake_quantized_weights_become_codes():
    """A float initializer behind a pair is stored as the codes that the pair makes of it."""
    w, scale = floats(4, 3), np.abs(floats(3)) / 50
    nodes = [
        ("QuantizeLinear", "w s z", "q", {"axis": 1}),
        ("DequantizeLinear", "q s z", "d", {"axis": 1}),
        ("MatMul", "x d", "y", {}),
    ]
    graph = from_onnx(model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": w, "s": scale, "z": np.zeros(3, np.int8)}))
    assert [(n.op, n.inputs) for n in graph.nodes] == [("linear", ("x", "w"))]
    weight = graph.constants["w"]
    assert (str(weight.format), weight.encoding.axes) == ("int8", (0,))
    np.testing.assert_array_equal(weight.codes, np.clip(np.rint(w / scale), -128, 127).T)


def test_computed_scales_stay_explicit():
    """No encoding can hold a scale that depends on the input."""
    nodes = [("DynamicQuantizeLinear", "x", "q s z", {}), ("DequantizeLinear", "q s z", "y", {})]
    graph = from_onnx(model_of(nodes, {"x": [16]}, ["y"]))
    assert ops_of(graph) == ["dynamic_quantize_linear", "dequantize_linear"]
    x = floats(16)
    assert np.abs(run(graph, {"x": x})["y"] - x).max() < (x.max() - x.min()) / 255


def test_operators_on_codes_keep_their_scales_too():
    """QLinearConv means the same as the pairs around a Conv, and what moves codes moves the reals behind them."""
    _, c = quantized_conv(True)
    c["w"] = c["w"].clip(-63, 63)  # ONNX Runtime's sums of pairs saturate without VNNI
    nodes = [
        ("QuantizeLinear", "x sx zx", "xq", {}),
        ("QLinearConv", "xq sx zx w sw zw sy zy b", "yq", {"pads": [1, 1, 1, 1]}),
        ("MaxPool", "yq", "pq", {"kernel_shape": [2, 2]}),
        ("DequantizeLinear", "pq sy zy", "y", {}),
    ]
    model = model_of(nodes, {"x": ["n", 3, 6, 6]}, ["y"], {k: v for k, v in c.items() if k != "sb"})
    graph = from_onnx(model)
    assert ops_of(graph) == ["conv", "max_pool"]
    assert len(graph.encodings) == 3
    assert isinstance(graph.constants["w"], QTensor)
    x = floats(2, 3, 6, 6)
    np.testing.assert_allclose(run(graph, {"x": x})["y"], reference(model, {"x": x})[0], atol=0.1 + 1e-6)


# ------------------------------------------------------------------------------------------------------- old models


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 10, 11, 12])
def test_old_opsets_are_converted(opset):
    """Attributes that became inputs, Dropout in inference, and initializers listed as inputs."""
    constants = {"w": floats(4, 3, 3, 3), "v": floats(4, 5), "one": np.ones(4, np.float32), "nil": np.zeros(4, np.float32)}
    nodes = [
        ("Conv", "x w", "h", {}),
        ("BatchNormalization", "h one nil nil one", "n", {}),
        ("Dropout", "n", "dr", {}),
        ("ReduceMean", "dr", "m", {"axes": [2, 3], "keepdims": 0}),
        ("Unsqueeze", "m", "u", {"axes": [1]}),
        ("Squeeze", "u", "q", {"axes": [1]}),
        ("MatMul", "q v", "z", {}),
        ("Softmax", "z", "y", {"axis": 1}),
    ]
    model = model_of(nodes, {"x": [2, 3, 6, 6]}, ["y"], constants, opset=opset, ir_version=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = from_onnx(model)
    assert [v.name for v in graph.inputs] == ["x"]
    assert {"w", "v"} <= set(graph.constants)
    assert "linear" in ops_of(graph)
    x = floats(2, 3, 6, 6)
    h = run(from_onnx(model_of(nodes[:1], {"x": [2, 3, 6, 6]}, ["h"], constants)), {"x": x})["h"] / np.sqrt(1 + 1e-5)
    z = h.mean((2, 3)) @ constants["v"]
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(run(graph, {"x": x})["y"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_light_networks(path):
    """The nine networks that ONNX ships (opset 9, weights made of one number) import and give the recorded outputs."""
    graph = from_onnx(path)
    (value,) = graph.inputs
    expected = numpy_helper.to_array(onnx.load_tensor(os.fspath(path.with_suffix("")) + "_output_0.pb"))
    seen = {}
    made = run(graph, {value.name: np.ones(value.shape, np.float32)}, watch=seen.__setitem__)[graph.outputs[0]]
    assert made.shape == expected.shape
    if "squeezenet" in path.stem:  # a softmax of huge equal numbers: which of them is largest is a matter of rounding
        np.testing.assert_allclose(seen["r65"] / seen["r65"].max(), 1, rtol=1e-5)
    else:
        np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- metadata


def test_metadata_is_kept_and_understood():
    """All properties as they are; labels, normalisation and layout also where deployment looks for them."""
    model = model_of([("Relu", "x", "y", {})], {"x": [2]}, ["y"])
    helper.set_model_props(
        model, {"names": "{0: 'cat', 1: 'dog'}", "mean": "[0.5, 0.25]", "std": "1,2", "layout": "NCHW", "author": "me"}
    )
    meta = from_onnx(model).meta
    assert meta["labels"] == ["cat", "dog"]
    assert meta["normalisation"] == {"mean": [0.5, 0.25], "std": [1.0, 2.0]}
    assert meta["layout"] == "NCHW"
    assert meta["onnx"]["author"] == "me"
    assert meta_of({}) == {}


@pytest.mark.parametrize("text", ['["a", "b"]', "('a', 'b')", "{0: 'a', 1: 'b'}", '{"0": "a", "1": "b"}', "a, b", "a\nb"])
def test_lists_in_metadata(text):
    assert listed(text) == ["a", "b"]
