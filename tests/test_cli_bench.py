"""The command that times a network: what it runs, what it says, what it refuses. How long things take is not tested."""

import json

import numpy as np
import pytest
from networks import convnet, images, onnx_net

from bitladder import native, timing
from bitladder.cli import main, speed
from bitladder.model import Model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a file, a network and data in it; rounds are few."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "ROUNDS", 3)
    monkeypatch.setattr(timing, "LEAST", 1e-6)
    Model(convnet()).save("net.ladder")
    onnx_net("net.onnx")
    np.savez("x.npz", x=images(3)[0])
    return tmp_path


def told(capsys):
    """The JSON that a command ended with."""
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


def names(facts):
    """What was timed, in order."""
    return list(facts["times"])


def test_a_file_is_timed_alone(here, capsys):
    """At the width asked for, on so many threads, with random inputs."""
    assert main(["bench", "net.ladder", "--bits", "2", "--threads", "2", "--json"]) == 0
    facts, out = told(capsys)
    assert facts["threads"] == 2
    assert names(facts) == ["bitladder"]
    assert 0 < facts["times"]["bitladder"]["best"] <= facts["times"]["bitladder"]["median"] == facts["rows"][0]["ours"]
    assert facts["rows"][0]["peer"] is None
    assert "2 threads" in out
    assert "2.19 bits on average" in out  # the last layer is int4


def test_a_file_is_timed_at_its_widths(here, capsys):
    """The plan's first, then every width that differs, on one thread."""
    Model(convnet(meta={"default_bits": {"w1": 3}})).save("net.ladder")
    assert main(["bench", "net.ladder", "--json"]) == 0
    facts, out = told(capsys)
    assert names(facts) == ["bitladder", *(f"bitladder, {b} bits" for b in range(8, 1, -1)), "bitladder, 1 bit"]
    assert (facts["threads"], facts["batch"]) == (1, 1)
    assert "1 thread," in out


@pytest.mark.parametrize(("data", "bits"), [([], []), (["--data", "x.npz"], ["--bits", "4"])])
def test_a_network_is_timed_beside_a_peer(data, bits, here, capsys):
    """Quantized to be timed; the peer runs the same integers and the float network. Rows are those of the benchmarks."""
    pytest.importorskip("onnxruntime")
    assert main(["bench", "net.onnx", *data, *bits, "--against", "onnxruntime", "--json"]) == 0
    facts, _ = told(capsys)
    assert names(facts) == ["bitladder", "onnxruntime", "onnxruntime, float"]
    assert [row["peer_name"] for row in facts["rows"]] == ["onnxruntime", "onnxruntime, float"]
    for row in facts["rows"]:
        assert set(row) == {"what", "ours", "peer", "peer_name", "ratio", "spread"}
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["spread"] >= 0


def test_openvino_too(here, capsys):
    """Where it is installed."""
    pytest.importorskip("openvino")
    assert main(["bench", "net.ladder", "--against", "openvino", "--bits", "4", "--json"]) == 0
    assert names(told(capsys)[0]) == ["bitladder", "openvino"]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_layers_that_a_peer_computes_in_float_are_named(name, here, capsys):
    """Mid-rise codes of 8 bits are no int8, so the layer runs in float there; at 4 bits it does not."""
    pytest.importorskip(name)
    assert main(["bench", "net.ladder", "--bits", "8", "--against", name, "--json"]) == 0
    facts, out = told(capsys)
    (note,) = [n for n in facts["notes"] if n.startswith(f"{name} computes in float: ")]
    assert note in out
    if name == "onnxruntime":
        assert "h1" in note
        assert main(["bench", "net.ladder", "--bits", "4", "--against", name, "--json"]) == 0
        assert not [n for n in told(capsys)[0]["notes"] if "h1" in n]


@pytest.mark.skipif(native.core is None, reason=f"there is no native core: {native.why}")
def test_nodes_without_a_kernel_are_named(here, capsys, monkeypatch):
    """Ours that ran on the reference."""
    monkeypatch.setattr(native.core, "unsupported", lambda data: [("h2", "operator odd has no kernel")])
    assert main(["bench", "net.ladder", "--bits", "8", "--json"]) == 0
    facts, _ = told(capsys)
    assert facts["notes"] == ["on the reference, without a kernel (bitladder doctor says why): h2"]


def test_what_is_timed_is_what_was_asked_for(here, monkeypatch):
    """The model of the width, on the threads, with the samples of the file: seen where calls are timed."""
    seen = {}

    def interleaved(calls, rounds, **how):
        seen.update(outputs={name: call() for name, call in calls.items()}, how=how)
        return timing.interleaved(calls, 1)

    monkeypatch.setattr(speed, "interleaved", interleaved)
    data = np.random.default_rng(1).normal(size=(3, 2, 6, 6)).astype(np.float32)
    np.savez("two.npz", x=data)
    assert main(["bench", "net.ladder", "--data", "two.npz", "--bits", "4", "--threads", "2", "--quiet"]) == 0
    assert (seen["outputs"]["bitladder"] == Model(convnet()).at(4)(data[:1])).all()
    assert seen["how"] == {"pause": speed.PAUSE}
    assert main(["bench", "net.ladder", "--data", "two.npz", "--batch", "2", "--quiet"]) == 0
    assert (seen["outputs"]["bitladder, 2 bits"] == Model(convnet()).at(2)(data[:2])).all()
    assert seen["how"] == {"pause": 0.0}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["net.ladder", "--against", "tensorrt"], "--against must name some of onnxruntime, openvino, got 'tensorrt'"),
        (["net.py:make"], "does not say what its inputs are; give some with --data X.npz"),
        (["none.onnx"], "'none.onnx' does not exist"),
        (["net.ladder", "--weights", "w.safetensors"], "--weights goes with file.py:function"),
        (["net.ladder", "--data", "none.npz"], "'none.npz' does not exist"),
    ],
)
def test_mistakes_are_one_line(words, says, here, capsys):
    """With status 1."""
    assert main(["bench", *words]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_peer_that_is_not_installed_is_named(here, capsys, monkeypatch):
    """With the extra that brings it."""
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["bench", "net.ladder", "--against", "openvino"]) == 1
    assert "needs openvino, which is not installed; run: pip install 'bitladder[bench]'" in capsys.readouterr().err
