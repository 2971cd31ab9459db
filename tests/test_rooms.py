"""Formats of tables, powers and blocks in every room: the recipe, searches, files, reports, ONNX, safetensors, torch."""

import numpy as np
import pytest
from networks import images, onnx_net

import bitladder as bl
from bitladder import file, report
from bitladder.convert.evaluate import Evaluator
from bitladder.convert.to_onnx import to_onnx
from bitladder.file.container import Reader
from bitladder.file.layout import overview
from bitladder.formats import QTensor
from bitladder.recipe import from_safetensors
from bitladder.runtime.reference import run

PLANS = ["codebook4", "codebook3:7/tensor", "log4", "product2x16", "codebook4,a=log4"]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """An ONNX file."""
    return onnx_net(tmp_path_factory.mktemp("rooms") / "net.onnx")


@pytest.fixture(scope="module")
def made(net):
    """A quantized network for each plan."""
    x, _ = images()
    return {plan: bl.quantize(net, x, plan=plan, effort="balanced") for plan in PLANS}


@pytest.mark.parametrize("plan", PLANS)
def test_recipe_and_file(plan, made, tmp_path):
    """What the recipe makes has the formats of the plan, comes back from a file, and computes the same everywhere."""
    x, _ = images()
    model = made[plan]
    weights = [c for c in model.graph.constants.values() if isinstance(c, QTensor)]
    assert {str(c.format) for c in weights} == {plan.partition(",")[0]}
    for coder in ("best", "fast", "raw"):
        model.save(tmp_path / "a.ladder", coder=coder)
        back = bl.load(tmp_path / "a.ladder")
        assert np.array_equal(back(x), model(x))
    want = run(model.graph, {model.graph.inputs[0].name: x})[model.graph.outputs[0]]
    assert np.array_equal(model(x), want)
    assert np.array_equal(Evaluator(model.graph)(x), want)
    assert plan.partition(",")[0] in str(model)


@pytest.mark.parametrize("plan", PLANS)
def test_report(plan, made):
    """Every figure can be drawn, and average bits are those of weights."""
    assert plan.partition(",")[0] in report.page(made[plan].graph)
    rows = made[plan].rows()
    want = {"codebook4": 4, "codebook3": 3, "log4": 4, "product2x16": 2}[plan.partition(",")[0].partition(":")[0]]
    assert {r.bits for r in rows} == {want}
    whole = overview(Reader(file.source(file.to_bytes(made[plan].graph)))).prefixes[-1]
    assert whole.average == want
    assert whole.coded <= want


@pytest.mark.parametrize("plan", PLANS[:4])
def test_onnx(plan, made, tmp_path):
    """Integers of weights are written as int8, and a runtime gives the reference's answers."""
    ort = pytest.importorskip("onnxruntime")
    x, _ = images()
    made[plan].to_onnx(tmp_path / "a.onnx")
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # sums as they are, also without VNNI
    session = ort.InferenceSession(tmp_path / "a.onnx", options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    assert np.allclose(got, made[plan](x), atol=1e-4 * np.abs(got).max() + 0.02)


def test_onnx_has_no_word_for_powers(made, tmp_path):
    """Activations of powers of two are refused by name, or stay real if that is allowed."""
    with pytest.raises(ValueError, match=r"as u?log4") as caught:
        made["codebook4,a=log4"].to_onnx(tmp_path / "a.onnx")
    assert "lossless=False" in str(caught.value)
    to_onnx(made["codebook4,a=log4"].graph, tmp_path / "a.onnx", lossless=False)


@pytest.mark.parametrize("plan", PLANS)
def test_safetensors(plan, made, net, tmp_path):
    """Codes and tables travel with their names."""
    pytest.importorskip("safetensors")
    x, _ = images()
    made[plan].to_safetensors(tmp_path / "a.safetensors")
    assert np.array_equal(from_safetensors(net, tmp_path / "a.safetensors")(x), made[plan](x))


def test_search_lowers_codebooks(net):
    """A search takes books to fewer bits as it does other formats."""
    x, labels = images()
    model = bl.quantize(net, x, plan="codebook6", count=1, criterion="range", low=3, labels=labels)
    assert sorted(str(c.format) for c in model.graph.constants.values() if isinstance(c, QTensor)) == ["codebook3", "codebook6"]


def test_what_is_refused_by_name(net):
    """One line that names the weight, or the activation, and says what to do."""
    x, _ = images()
    for arguments, words in (
        ({"plan": "product4x16"}, r"weight 'w1' has shape \(8, 2, 3, 3\).*blocks of 4; give it another format"),
        ({"plan": "codebook4", "rounding": "rate"}, "'w1' is rounded for rate.*got codebook4; what is chosen is the step"),
        ({"plan": "int8,a=codebook4"}, "activations must be int, fixed or log formats, got codebook4"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            bl.quantize(net, x, **arguments)
        assert "\n" not in str(caught.value)
