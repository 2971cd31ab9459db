"""Bad input, every kind a user can hand us: one line that names the thing, status 1, nothing half-written."""

import os

import numpy as np
import pytest
from networks import convnet, images, onnx_net

import bitladder as bl
from bitladder.cli import main

pytest.importorskip("onnx_ir")
X, Y = images()


def spoilt(a, value):
    """A copy of an array with one bad number."""
    a = np.array(a, np.float32)
    a.flat[7] = value
    return a


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a good network, good data and a good file."""
    monkeypatch.chdir(tmp_path)
    onnx_net("net.onnx")
    np.savez("x.npz", image=X)
    np.savez("xy.npz", image=X, y=Y)
    bl.Model(convnet()).save("net.ladder")
    return tmp_path


def refused(capsys, *words):
    """The one line that a command line ends with; it leaves status 1 and the folder as it was."""
    before = sorted(os.listdir())
    assert main(list(words)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return captured.err


def quantize(*words, net="net.onnx", data="x.npz"):
    return ("quantize", net, "--data", data, "-o", "out.ladder", *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w1", "b1", "w2"])
def test_weights_that_are_no_numbers(name, value, here, capsys):
    """NaN or infinity in a weight or bias, by name."""
    shape = {"w1": (8, 2, 3, 3), "b1": (8,), "w2": (5, 8)}[name]
    onnx_net("bad.onnx", **{name: spoilt(np.ones(shape), value)})
    line = refused(capsys, *quantize(net="bad.onnx"))
    assert f"{name!r} holds {'NaN' if np.isnan(value) else 'infinity'}" in line


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": spoilt(X, np.nan)}, "array 'image' holds 1 NaN or infinite values, the first at (0, 0, 1, 1)"),
        ({"image": spoilt(X, np.inf)}, "array 'image' holds 1 NaN or infinite"),
        ({"image": X[:0]}, "array 'image' is empty"),
        ({"image": X[:, :, :5]}, "array 'image' must have shape (samples, 2, 6, 6), got (40, 2, 5, 6)"),
        ({"image": X[0]}, "array 'image' must have shape"),
        ({"image": X.astype(str)}, "array 'image' must hold numbers"),
        ({"picture": X}, "must be named ['image']"),
        ({}, "holds no array"),
        ({"image": np.array([{}])}, "array 'image' of 'bad.npz' must hold plain numbers"),
        ({"image": X, "y": Y[:-1]}, "labels 'y' must be as many as samples (40), got 39"),
        ({"image": X, "y": Y - 1}, "labels 'y' must be 0 or more, got -1..3"),
        ({"image": X, "y": Y + 0.5}, "labels 'y' must be a flat array of integers"),
        ({"image": X, "y": Y[:, None]}, "labels 'y' must be a flat array of integers"),
    ],
)
@pytest.mark.parametrize("place", ["data", "eval", "run"])
def test_arrays_that_do_not_fit(arrays, says, place, here, capsys):
    """For calibration, for evaluation and for running: the line names the file and the array."""
    np.savez("bad.npz", **arrays)
    words = {
        "data": quantize(data="bad.npz"),
        "eval": quantize("--eval", "bad.npz"),
        "run": ("run", "net.ladder", "bad.npz", "-o", "out.npz"),
    }[place]
    line = refused(capsys, *words)
    assert says.replace("samples,", "n," if place != "run" else "batch,") in line
    assert "bad.npz" in line


def test_labels_that_name_no_class(here, capsys):
    """Five outputs have classes 0 to 4; found before anything long begins."""
    np.savez("bad.npz", image=X, y=Y + 3)
    for words in (quantize("--eval", "bad.npz"), quantize(data="bad.npz")):
        assert "data bad.npz: labels 'y' must be 0..4, got 3..7" in refused(capsys, *words)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_arrays_in_files_that_are_no_archives(content, here, capsys):
    """Not there, empty, something else, cut off, a single array."""
    (here / "bad.npz").write_bytes(content)
    assert "'bad.npz'" in refused(capsys, *quantize(data="bad.npz"))
    (here / "bad.npz").write_bytes((here / "x.npz").read_bytes()[:-40])
    assert "'bad.npz' is damaged or no .npz file" in refused(capsys, "run", "net.ladder", "bad.npz", "-o", "out.npz")
    assert "'gone.npz' does not exist" in refused(capsys, *quantize(data="gone.npz"))
    np.save("one.npy", X)
    assert "got a single array" in refused(capsys, *quantize(data="one.npy"))


@pytest.mark.parametrize(
    "weights",
    [
        {"w1": np.zeros((8, 2, 3, 3))},
        {"w1": np.where(np.arange(8)[:, None, None, None] == 3, 0.0, np.ones((8, 2, 3, 3)))},
        {"w2": np.full((5, 8), 0.25)},
        {"w1": np.full((8, 2, 3, 3), 1e-30), "b1": np.zeros(8)},
    ],
)
@pytest.mark.parametrize("plan", ["nested8", "nested8:tree", "fixed4,a=fixed8", "ternary", "int4"])
def test_channels_that_never_change_are_fine(weights, plan, here, capsys):
    """All-zero and constant channels give a network, and finite outputs at every width."""
    onnx_net("flat.onnx", **weights)
    np.savez("flat.npz", image=np.zeros_like(X))
    assert main(list(quantize("--plan", plan, net="flat.onnx", data="flat.npz"))) == 0
    model = bl.load("out.ladder")
    for bits in model.widths or [8]:
        assert np.isfinite(model.at(bits)(X)).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--plan", "nested9"), "nested"),
        (("--plan", "int4;int8"), "format: must be written like"),
        (("--plan", "int4,b=int8"), "must be written WEIGHTS[,a=ACTIVATIONS]"),
        (("--plan", "plan.yaml"), "pattern 'layer9.*' matches no weight; names are w1, w2"),
        (("--plan", "gone.yaml"), "'gone.yaml' cannot be read"),
        (("--criterion", "luck"), "criterion must be one of"),
        (("--search", "luck"), "search must be one of"),
        (("--budget", "small"), "budget must be written like"),
        (("--max-drop", "0.01"), "give --eval EVAL.npz"),
        (("--max-drop", "3", "--eval", "xy.npz"), "max_drop must be a fraction"),
        (("--effort", "none"), "invalid choice"),
    ],
)
def test_plans_and_goals_that_make_no_sense(words, says, here, capsys):
    """A pattern that matches nothing, words nobody knows."""
    (here / "plan.yaml").write_text("plan: {'layer9.*': int4}\n")
    assert says in refused(capsys, *quantize(*words))


def test_outputs_that_cannot_be_written(here, capsys):
    """Said before any work is done: a folder, a folder that is not there, a place that takes no files."""
    (here / "folder").mkdir()
    for command in (["quantize", "gone.onnx", "--data", "x.npz"], ["run", "gone.ladder", "x.npz"], ["report", "gone.ladder"]):
        assert "'folder' is a folder" in refused(capsys, *command, "-o", "folder")
        assert "does not exist; make it first" in refused(capsys, *command, "-o", "no/out")
        assert "cannot write in folder '/proc'" in refused(capsys, *command, "-o", "/proc/out")
    assert "does not exist; make it first" in refused(capsys, "export", "gone.ladder", "no/out.onnx")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.8])
def test_files_that_end_early(share, here, capsys):
    """Every command says how long the file must be."""
    data = (here / "net.ladder").read_bytes()
    (here / "cut.ladder").write_bytes(data[: int(len(data) * share)])
    for words in (
        ["show", "cut.ladder"],
        ["run", "cut.ladder", "x.npz", "-o", "out.npz"],
        ["export", "cut.ladder", "out.onnx"],
    ):
        line = refused(capsys, *words)
        assert f"'cut.ladder' ends after {int(len(data) * share)} bytes, must have at least" in line


def test_files_that_are_something_else(here, capsys):
    """Not there, a folder, an archive, a file with a flipped bit."""
    assert "'gone.ladder': no such file or directory; check the path" in refused(capsys, "show", "gone.ladder")
    assert "'.': is a directory; check the path" in refused(capsys, "show", ".")
    assert "does not begin like a ladder file" in refused(capsys, "show", "x.npz")
    data = bytearray((here / "net.ladder").read_bytes())
    data[-1] ^= 1
    (here / "bad.ladder").write_bytes(data)
    assert "wrong checksum" in refused(capsys, "show", "bad.ladder")


def test_an_onnx_file_that_is_none(here, capsys):
    """Named, in one line."""
    (here / "bad.onnx").write_bytes(b"not a network")
    assert "bad.onnx" in refused(capsys, *quantize(net="bad.onnx"))
