"""Milliseconds of layers for budgets of time: what the native core and ONNX Runtime are asked, and what a table keeps of it."""

import json
import sys

import numpy as np
import pytest
import torch
from networks import images, onnx_net
from torch import nn

import bitladder as bl
from bitladder import peers
from bitladder.assign import times
from bitladder.assign.sensitivity import Table
from bitladder.formats import Int, Nested, QTensor, fit, parse
from bitladder.timing import Times

WORDS = {"levels": "8,4", "criterion": "gradient", "effort": "fast"}


@pytest.fixture
def net(tmp_path):
    """An ONNX file of a convolution and a matrix."""
    return onnx_net(tmp_path / "net.onnx")


@pytest.fixture
def asked(monkeypatch):
    """What is timed, by the operators of its models, each of which takes as many milliseconds as its place says."""
    onnx, opened, kept = pytest.importorskip("onnx"), peers.onnxruntime, []

    def noted(model, feeds, threads):
        kept.append([node.op_type for node in onnx.load_from_string(model).graph.node])
        assert threads == 1
        run = opened(model, feeds, threads)
        run()
        return run

    monkeypatch.setattr(peers, "onnxruntime", noted)
    monkeypatch.setattr(
        times, "interleaved", lambda calls, *_, **__: {key: Times(np.array([1e-3 * i])) for i, key in enumerate(calls)}
    )
    return kept


def graphs_of(net, x, *plans):
    return {k: bl.quantize(net, x, plan=plan, effort="fast").whole for k, plan in enumerate(plans)}


def test_native_milliseconds(net, tmp_path):
    """Measured where there is a native core; a budget that no plan meets is missed, and says so."""
    x, _ = images()
    if bl.quantize(net, x, plan="int8", effort="fast").engine.reasons():
        pytest.skip("no native core")
    model = bl.quantize(net, x, budget="1000ms", table=tmp_path / "t", **WORDS)
    assert set(model.plan.values()) == {"nested8"}
    assert model.graph.meta["result"]["goal_met"]
    table = Table.load(tmp_path / "t")
    assert table.milliseconds >= 0
    assert all(way.milliseconds > 0 for layer in table.layers for way in layer.ways)
    model = bl.quantize(net, x, budget="0.000001ms", table=tmp_path / "t", **WORDS)
    assert not model.graph.meta["result"]["goal_met"]


def test_milliseconds_of_onnx_runtime(net, tmp_path, monkeypatch):
    """Measured once, kept in the journal and the table, told apart from native ones."""
    pytest.importorskip("onnxruntime")
    x, _ = images()
    words = {**WORDS, "times": "onnxruntime", "table": tmp_path / "t"}

    def stop(stage, done, total):
        if stage == "gradients" or (stage == "code" and done == 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bl.quantize(net, x, budget="1000ms", work=tmp_path / "work", progress=stop, **words)
    monkeypatch.setitem(times.TIMES, "onnxruntime", None)  # from here on they are known
    model = bl.quantize(net, x, budget="1000ms", work=tmp_path / "work", **words)
    table = Table.load(tmp_path / "t")
    assert table.where["onnxruntime"]
    assert all(way.milliseconds > 0 for layer in table.layers for way in layer.ways)
    assert model.graph.meta["result"]["expected"]["milliseconds"] > 0
    assert model.graph.meta["recipe"]["times"] == "onnxruntime"
    assert not bl.quantize(net, x, budget="0.000001ms", **words).graph.meta["result"]["goal_met"]
    with pytest.raises(ValueError, match="must be of this network, these calibration data, levels and times, and is of others"):
        bl.quantize(net, x, budget="1000ms", table=tmp_path / "t", **WORDS)


def test_what_onnx_runtime_is_asked(net, asked):
    """Layers from codes to codes; those that it runs alike once; matrices of few bits as MatMulNBits too."""
    x, _ = images()
    graphs = graphs_of(net, x, "int8", "int6", "int4", "nested8")
    layers, rest = times.onnx_runtime(graphs, {"image": x[:1]}, 0, lambda *_: None)
    nothing, conv, matrix, packed, *floats = asked
    assert nothing == ["Identity"]
    assert conv[-1] == "QuantizeLinear", "and its input is codes: nothing makes them"
    assert conv.count("QuantizeLinear") == 1
    assert "Gemm" in matrix
    assert "MatMulNBits" in packed
    assert packed.count("DequantizeLinear") == matrix.count("DequantizeLinear") - 2, "of the weight and its bias"
    assert len(floats) == 4, "two layers of nested8, and two spellings of the network"
    assert layers["w1"] == {0: 1.0, 1: 1.0, 2: 1.0, 3: 4.0}
    assert layers["w2"] == {0: 2.0, 1: 2.0, 2: 2.0, 3: 5.0}
    assert rest == 3.0, "what the network takes beyond its layers"


def test_only_even_levels_are_packed():
    """Scales for blocks that MatMulNBits has, or one a row; at most 4 bits; no convolution."""
    w = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    graph = bl.quantize(nn.Sequential(nn.Linear(64, 8)), w, plan="int8", effort="fast").whole
    (name, node), *_ = graph.weights()
    found = {}
    for text in ("int4", "int4/32", "int4/24", "fixed3", "nested2", "nested4:tree", "codebook4", "int5"):
        code = QTensor.of(w, fit(parse(text), w, axis=0))
        found[text] = times.block_of(graph.with_(constants={**graph.constants, name: code}), node)
    assert found == {
        "int4": 128, "int4/32": 32, "int4/24": None, "fixed3": 128, "nested2": 128, "nested4:tree": None, "codebook4": None,
        "int5": None,
    }  # fmt: skip
    assert times.even(Int(4))
    assert not times.even(Nested(4, "tree"))


def test_products_of_three_axes_run(asked):
    """Those of a transformer; with a second input that is no code, and outputs that stay real."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.b(torch.softmax(self.a(x), -1) * x)

    x = np.random.default_rng(0).normal(size=(8, 3, 16)).astype(np.float32)
    layers, _ = times.onnx_runtime(graphs_of(Net().eval(), x, "int8", "int4/16"), {"x": x[:1]}, 0, lambda *_: None)
    assert {len(each) for each in layers.values()} == {2}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"times": "abacus", "table": "t"}, "times must be one of native, onnxruntime, got 'abacus'"),
        ({"times": "onnxruntime", "budget": "9kB"}, "times 'onnxruntime' is for sensitivity tables; name one with table"),
    ],
)
def test_wrong_times_are_refused(net, options, text):
    with pytest.raises(ValueError, match=text):
        bl.quantize(net, images()[0], **options)


def test_without_onnx_runtime_there_is_one_line(net, monkeypatch):
    """Before anything is read."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"quantize: times onnxruntime: needs onnxruntime, .* pip install 'bitladder.onnx.'"):
        bl.quantize(net, None, budget="5ms", times="onnxruntime")


def test_where_milliseconds_are_from(monkeypatch):
    """This machine, and the version of what is timed."""
    ort = pytest.importorskip("onnxruntime")
    assert times.where("onnxruntime")["onnxruntime"] == ort.__version__
    assert "onnxruntime" not in times.where(times.NATIVE)
    json.dumps(times.where("onnxruntime"))
