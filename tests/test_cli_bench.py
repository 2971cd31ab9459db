"""The command that times a network: what it runs, what it says, what it refuses. How long things take is not tested."""

import json

import numpy as np
import pytest
from networks import convnet, images, onnx_net

from bitladder import timing
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


def test_a_file_is_timed_alone(here, capsys):
    """At the width asked for, on so many threads, with random inputs."""
    assert main(["bench", "net.ladder", "--bits", "2", "--threads", "1", "--json"]) == 0
    facts, out = told(capsys)
    assert facts["threads"] == 1
    assert [row["runtime"] for row in facts["rows"]] == ["bitladder"]
    assert 0 < facts["rows"][0]["best"] <= facts["rows"][0]["milliseconds"]
    assert "1 threads" not in out
    assert "2.19 bits on average" in out  # the last layer is int4


@pytest.mark.parametrize(("data", "bits"), [([], []), (["--data", "x.npz"], ["--bits", "4"])])
def test_a_network_is_timed_beside_a_peer(data, bits, here, capsys):
    """Quantized to be timed; the peer runs the same integers and the float network."""
    pytest.importorskip("onnxruntime")
    assert main(["bench", "net.onnx", *data, *bits, "--against", "onnxruntime", "--threads", "1", "--json"]) == 0
    facts, _ = told(capsys)
    assert [row["runtime"] for row in facts["rows"]] == ["bitladder", "onnxruntime", "onnxruntime, float"]
    for row in facts["rows"][1:]:
        low, high = row["interval"]
        assert 0 < low <= row["ratio"] <= high


def test_openvino_too(here, capsys):
    """Where it is installed."""
    pytest.importorskip("openvino")
    assert main(["bench", "net.ladder", "--against", "openvino", "--threads", "1", "--json"]) == 0
    assert [row["runtime"] for row in told(capsys)[0]["rows"]] == ["bitladder", "openvino"]


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


def test_inputs_of_unknown_size_are_asked_for():
    """One line that names the input; integers are zeros, the batch is one."""
    from bitladder.ir.graph import Value

    made = speed.random([Value("x", "float32", ("n", 3)), Value("ids", "int64", (2, 4))], 1)
    assert made["x"].shape == (1, 3)
    assert (made["ids"] == 0).all()
    for shape in (None, ("n", "tokens")):
        with pytest.raises(ValueError, match=r"input 'x' has shape .* give an array with --data"):
            speed.random([Value("x", "float32", shape)], 1)
