"""The command line: what it prints, what it writes, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import convnet, images, onnx_net

import bitladder as bl
from bitladder import dial, native
from bitladder.assign import score
from bitladder.cli import COMMANDS, arrays, commands, main, terminal

EXTRAS = ["torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "scipy", "sklearn", "rich", "jinja2", "yaml"]
EXTRAS += ["pydantic", "safetensors"]

TORCH_NET = """
import torch
from layers import width

def net():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 5))

def number():
    return 3

def broken():
    raise RuntimeError("no such\\nlayer")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a file and arrays for it."""
    monkeypatch.chdir(tmp_path)
    x, labels = images()
    bl.Model(convnet(meta={"labels": list("abcde"), "default_bits": {"w1": 3}})).save("net.ladder")
    np.savez("x.npz", x=x)
    np.savez("xy.npz", image=x, y=labels)
    return tmp_path


def said(capsys):
    """Lines of standard output and of standard error since the last call."""
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_show_prints_a_row_per_weight_and_ends_in_json(here, capsys):
    """Formats, coded bits, widths with the bytes they read."""
    assert main(["show", "net.ladder", "--json"]) == 0
    out, err = said(capsys)
    assert err == []
    facts = json.loads(out[-1])
    assert out[0] == "inputs: image float32 (batch, 2, 6, 6)"
    assert [w["format"] for w in facts["weights"]] == ["nested8", "nested8:tree", "int4"]
    assert [0.9 * b < facts["coded_bits"][n] <= b for n, b in (("w1", 8), ("w2", 8), ("w3", 4))] == [True] * 3
    assert facts["prefix_bytes"]["8"] == facts["file_bytes"] == os.path.getsize("net.ladder")
    assert facts["labels"] == list("abcde")
    assert facts["widths"] == [int(b) for b in facts["prefix_bytes"]]


def test_show_says_who_computes(here, capsys, monkeypatch):
    """How many nodes the core takes, and why the reference has the others; or that there is no core."""
    if native.core is not None:
        monkeypatch.setattr(native.core, "unsupported", lambda data: [("h2", "operator odd has no kernel")])
        assert main(["show", "net.ladder", "--json"]) == 0
        out, _ = said(capsys)
        assert f"the native core ({native.isa()}) runs 4 of 5 nodes" in out
        assert "on the reference: h2: operator odd has no kernel" in out
        assert json.loads(out[-1])["on_the_reference"] == {"h2": "operator odd has no kernel"}
        assert [line.split()[-1] for line in out if line.startswith(("w1", "w2", "w3"))] == ["native", "reference", "native"]
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(native, "why", "it was not built")
    assert main(["show", "net.ladder"]) == 0
    assert "no native core, so all 5 nodes run on the reference: it was not built" in said(capsys)[0]


@pytest.mark.parametrize(("bits", "width"), [("auto", {"w1": 3}), ("8", 8), ("2", 2)])
def test_run_writes_what_the_model_says(bits, width, here, capsys):
    """One array per output under its name, at the width asked for; the table, then the path, come last."""
    assert main(["run", "net.ladder", "xy.npz", "--bits", bits, "--threads", "1", "-o", "out.npz"]) == 0
    out, _ = said(capsys)
    assert out[-1].startswith("wrote out.npz (")
    assert "scores" in out[-2]
    with np.load("out.npz") as written:
        assert written.files == ["scores"]
        assert np.array_equal(written["scores"], bl.load("net.ladder").at(width)(images()[0]))


@pytest.mark.parametrize(
    ("words", "width"),
    [(["--milliseconds", "1.5"], 4), (["--min-accuracy", "0.85"], 2), (["--min-accuracy", "0.85", "--milliseconds", "9"], 2)],
)
def test_run_takes_the_width_that_is_needed(words, width, here):
    """By the table that the file keeps."""
    table = dial.Rungs((dial.Rung(2, 0.86, 1.0), dial.Rung(4, 0.88, 1.4), dial.Rung(8, 0.89, 2.0)))
    table.kept(bl.load("net.ladder")).save("kept.ladder")
    assert main(["run", "kept.ladder", "x.npz", *words, "-o", "out.npz"]) == 0
    with np.load("out.npz") as written:
        assert np.array_equal(written["scores"], bl.load("net.ladder").at(width)(images()[0]))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--milliseconds", "1"], "rungs: this network keeps none; measure them with bitladder.dial.measure_rungs"),
        (["--min-accuracy", "0.5", "--bits", "4"], "run: --bits 4 leaves --milliseconds and --min-accuracy nothing to choose"),
    ],
)
def test_a_width_that_cannot_be_chosen_is_one_line(words, error, here, capsys):
    """A file without a table, or a width that is given already."""
    assert main(["run", "net.ladder", "x.npz", *words, "-o", "out.npz"]) == 1
    (line,) = said(capsys)[1]
    assert line.startswith(f"bitladder: {error}")


def test_run_takes_x_for_the_only_input_and_many_samples(here, capsys):
    """More than a batch gives the same as one."""
    np.savez("many.npz", x=np.concatenate([images()[0]] * 10))
    assert main(["run", "net.ladder", "many.npz", "-o", "out.npz", "--quiet", "--json"]) == 0
    out, _ = said(capsys)
    assert len(out) == 1
    assert json.loads(out[0])["outputs"] == [{"name": "scores", "shape": [400, 5], "dtype": "float32"}]
    with np.load("out.npz") as written:
        assert np.array_equal(written["scores"], bl.load("net.ladder", "auto")(np.concatenate([images()[0]] * 10)))


def test_the_same_run_writes_the_same_bytes(here):
    """No dates in what is written."""
    for name in ("a.npz", "b.npz"):
        assert main(["run", "net.ladder", "x.npz", "-o", name, "--quiet"]) == 0
    assert (here / "a.npz").read_bytes() == (here / "b.npz").read_bytes()


def test_quantize_without_a_goal_is_nested8_and_says_so(here, capsys):
    """An ONNX file and data in, a file out that runs at every width; the state is gone."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    assert main(["quantize", "net.onnx", "--data", "x.npz", "-o", "q.ladder", "--json"]) == 0
    out, err = said(capsys)
    assert err == []
    assert out[0].startswith("neither plan nor budget nor evaluation data")
    assert out[-2].startswith("wrote q.ladder (")
    assert json.loads(out[-1])["widths"] == list(range(1, 9))
    assert set(bl.load("q.ladder").plan.values()) == {"nested8"}
    assert not os.path.exists("q.ladder.work")


@pytest.mark.parametrize(("data", "metric"), [("xy.npz", score.ACCURACY), ("x.npz", score.AGREEMENT)])
def test_quantize_to_a_goal_says_what_it_measured(data, metric, here, capsys):
    """With labels accuracy, without agreement; the result is in the file."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    words = ["--plan", "fixed8", "--max-drop", "0.5", "--criterion", "range", "--seed", "3"]
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--eval", data, *words, "-o", "q.ladder"]) == 0
    assert any(line.startswith(f"{metric} on 40 samples: float") for line in said(capsys)[0])
    result = bl.load("q.ladder").graph.meta["result"]
    assert (result["metric"], result["samples"], result["goal_met"]) == (metric, 40, True)
    assert main(["show", "q.ladder"]) == 0
    assert any(line.startswith(metric) for line in said(capsys)[0])


def test_quantize_for_rate_meets_a_budget_of_coded_bytes(here, capsys):
    """And says what it comes to."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    words = ["--rounding", "rate", "--budget", "avg_bits=3"]
    assert main(["quantize", "net.onnx", "--data", "x.npz", *words, "-o", "q.ladder"]) == 0
    out, _ = said(capsys)
    assert any("bytes once coded" in line for line in out)
    result = bl.load("q.ladder").graph.meta["result"]
    assert result["goal_met"]
    assert (result["rounding"], result["budget"]) == ("rate", "avg_bits=3")
    assert set(bl.load("q.ladder").plan.values()) == {"int8"}


def test_quantize_keeps_a_time_limit(here, capsys):
    """However little time there is, a file is written; the limit and other roundings are in its recipe."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    words = ["--time-limit", "0.001", "--equalize", "--rounding", "sequence", "--plan", "int4"]
    assert main(["quantize", "net.onnx", "--data", "x.npz", *words, "-o", "q.ladder"]) == 0
    recipe = bl.load("q.ladder").graph.meta["recipe"]
    assert (recipe["time_limit"], recipe["equalize"], recipe["rounding"]) == (0.001, True, "sequence")
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--time-limit", "0", "-o", "q.ladder"]) == 1
    assert "time_limit must be more than 0 seconds" in " ".join(said(capsys)[1])


@pytest.mark.parametrize("order", ["layer", "plane", "importance"])
def test_files_are_ordered_as_told_and_run_when_cut(order, here, capsys):
    """Half of a file runs; what is missing, and what was worked around, is told by each command that reads it."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    words = ["--data", "x.npz", "--plan", "nested8", "--order", order, "--coder", "raw", "-o", "q.ladder"]
    assert main(["quantize", "net.onnx", *words]) == 0
    assert main(["show", "q.ladder", "--json"]) == 0
    facts = json.loads(said(capsys)[0][-1])
    assert (facts["order"], facts["missing_bytes"], facts["recovered"]) == (order, 0, [])
    assert len(facts["identity"]) == 64
    data = (here / "q.ladder").read_bytes()
    assert facts["prefixes"][-1]["nbytes"] == len(data)
    cut = facts["prefixes"][0]["nbytes"] if order != "layer" else len(data) - 1
    (here / "cut.ladder").write_bytes(data[:cut])
    assert main(["run", "cut.ladder", "x.npz", "-o", "out.npz"]) == 0
    assert f"{len(data) - cut:,} bytes of the file are missing; it runs at" in said(capsys)[0][0]
    assert main(["show", "cut.ladder"]) == 0
    assert any(line.startswith(f"{len(data) - cut:,} bytes of the file are missing") for line in said(capsys)[0])
    (here / "bad.ladder").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["run", "bad.ladder", "x.npz", "-o", "out.npz"]) == 1
    assert main(["run", "bad.ladder", "x.npz", "-o", "out.npz", "--recover"]) == 0
    assert "recovered: layer" in said(capsys)[0][0]
    assert main(["show", "bad.ladder", "--recover"]) == 0


def test_a_goal_that_is_missed_leaves_status_2_and_the_best_result(here, capsys, monkeypatch):
    """The file is written all the same."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    best = bl.Model(convnet(meta={"result": {"goal_met": False, "score": 0.5, "float": 0.9, "max_drop": 0.01}}))
    monkeypatch.setattr(commands, "quantize", lambda *_, **__: best)
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--eval", "xy.npz", "-o", "q.ladder"]) == 2
    assert any("allowed loss 0.01, MISSED" in line for line in said(capsys)[0])
    assert bl.load("q.ladder").plan == best.plan


def test_an_interrupted_search_keeps_its_state_and_says_how_to_go_on(here, capsys, monkeypatch):
    """Status 130, one line, the state still there, no output."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")

    def interrupted(*_, work, **__):
        work.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "quantize", interrupted)
    assert main(["quantize", "net.onnx", "--data", "x.npz", "-o", "q.ladder"]) == 130
    out, err = said(capsys)
    assert out == []
    assert err == ["bitladder: interrupted; what was done is kept in q.ladder.work, the same command goes on from there"]
    assert not os.path.exists("q.ladder")
    monkeypatch.setattr(commands, "load", lambda *_, **__: interrupted(work=here / "elsewhere"))
    assert main(["run", "net.ladder", "x.npz", "-o", "out.npz"]) == 130
    assert said(capsys)[1] == ["bitladder: interrupted; nothing was written, run the same command again"]


def test_export_writes_onnx_at_the_width_asked_for(here, capsys):
    """ONNX Runtime gives the reference's classes."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx_ir")
    assert main(["export", "net.ladder", "net4.onnx", "--bits", "4", "--json"]) == 0
    out, _ = said(capsys)
    assert json.loads(out[-1])["wrote"] == "net4.onnx"
    options = runtime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # sums as they are, also without VNNI
    (scores,) = runtime.InferenceSession("net4.onnx", options).run(None, {"image": images()[0]})
    assert np.allclose(scores, bl.load("net.ladder", 4)(images()[0]), atol=1e-4)


def test_report_writes_one_page(here, capsys):
    """With the path last."""
    pytest.importorskip("jinja2")
    assert main(["report", "net.ladder", "-o", "page.html"]) == 0
    assert said(capsys)[0][-1].startswith("wrote page.html (")
    assert "<html" in (here / "page.html").read_text()


def test_demo_prints_what_it_found(here, capsys, monkeypatch):
    """Table, lines, path and facts come from `bitladder.demo.run`."""

    def run(folder, progress):
        progress("train", 1, 2)
        return {"table": "bits  accuracy", "lines": ["trained"], "wrote": f"{folder}/report.html", "accuracy": {8: 0.97}}

    monkeypatch.setitem(sys.modules, "bitladder.demo", SimpleNamespace(run=run))
    assert main(["demo", "-o", "there", "--json"]) == 0
    out, _ = said(capsys)
    assert out[:-1] == ["trained", "bits  accuracy", "wrote there/report.html"]
    assert json.loads(out[-1])["accuracy"] == {"8": 0.97}


def test_showing_and_running_need_numpy_only(here):
    """With every extra missing; what needs one says which, in one line."""
    block = f"import sys; [sys.modules.__setitem__(m, None) for m in {EXTRAS}]; "
    block += "from bitladder.cli import main; sys.exit(main({}))"
    env = {**os.environ, "PYTHONPATH": str(Path(bl.__file__).parents[1])}
    for words, status in [
        (["show", "net.ladder"], 0),
        (["run", "net.ladder", "x.npz", "-o", "out.npz"], 0),
        (["quantize", "n.onnx", "--data", "x.npz", "-o", "q.ladder"], 1),
        (["export", "net.ladder", "q.onnx"], 1),
        (["report", "net.ladder", "-o", "q.html"], 1),
    ]:
        (here / "n.onnx").write_bytes(b"")
        done = subprocess.run([sys.executable, "-c", block.format(words)], capture_output=True, text=True, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (status, status), done.stderr
        assert "pip install 'bitladder[" in done.stderr or status == 0


def test_a_recipe_file_says_what_the_command_line_does_not(here, capsys):
    """Words on the command line win; formats go by pattern."""
    pytest.importorskip("yaml")
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx")
    (here / "r.yaml").write_text("plan: {'*': int4, 'w1': nested6}\nseed: 5\ncriterion: random\n")
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--plan", "r.yaml", "-o", "q.ladder"]) == 0
    assert bl.load("q.ladder").plan == {"w1": "nested6", "w2": "int4"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("plan: nested8\ncolour: 3\n", "'r.yaml' has no word 'colour'; the nearest is 'cover'"),
        ("- 1\n", "must map words such as plan or max_drop, got list"),
        ("seed: many\n", "'seed' of 'r.yaml' must be a whole number, got 'many'"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_recipe_file_with_a_mistake_is_refused(text, says, here, capsys):
    """The line names the file and the word."""
    pytest.importorskip("yaml")
    (here / "r.yaml").write_text(text)
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--plan", "r.yaml", "-o", "q.ladder"]) == 1
    (line,) = said(capsys)[1]
    assert says in line


def test_a_torch_module_comes_from_a_file_and_a_function(here, capsys):
    """It may import its neighbours; weights come from a safetensors file, all of them."""
    torch = pytest.importorskip("torch")
    saved = pytest.importorskip("safetensors.torch")
    (here / "layers.py").write_text("width = 4\n")
    (here / "make.py").write_text(TORCH_NET)
    net = commands.network("make.py:net", None, {"x": images()[0]})
    assert len(list(net.weights())) == 2
    state = {k: torch.zeros_like(v) for k, v in torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3)).state_dict().items()}
    saved.save_file({**state, "3.weight": torch.zeros(5, 64), "3.bias": torch.arange(5.0)}, "w.safetensors")
    filled = commands.network("make.py:net", "w.safetensors", {"x": images()[0]})
    assert np.array_equal(bl.Model(filled)(images()[0]), np.tile(np.arange(5.0), (40, 1)))
    saved.save_file(state, "w.safetensors")
    for words, says in [
        (["make.py:net", "--weights", "w.safetensors"], "lack 3.bias, 3.weight"),
        (["make.py:net", "--weights", "no.safetensors"], "do not exist"),
        (["make.py:nothing"], "has no function 'nothing'"),
        (["make.py:number"], "must return a torch module, got int"),
        (["make.py:broken"], "failed with RuntimeError: no such layer"),
        (["gone.py:net"], "'gone.py' does not exist"),
        (["net.pt"], "must be an .onnx file or file.py:function"),
        (["gone.onnx"], "'gone.onnx' does not exist"),
        (["net.onnx", "--weights", "w.safetensors"], "--weights goes with file.py:function"),
    ]:
        assert main(["quantize", *words, "--data", "x.npz", "-o", "q.ladder"]) == 1
        (line,) = said(capsys)[1]
        assert says in line


def test_a_network_of_fixed_batch_takes_its_batches_one_by_one(here, capsys):
    """Any multiple of it."""
    pytest.importorskip("onnx_ir")
    onnx_net("net.onnx", batch=4)
    assert main(["quantize", "net.onnx", "--data", "x.npz", "--eval", "xy.npz", "--plan", "int8", "-o", "q.ladder"]) == 0
    assert main(["run", "q.ladder", "x.npz", "-o", "out.npz"]) == 0
    with np.load("out.npz") as written:
        assert written["scores"].shape == (40, 5)
    said(capsys)
    np.savez("odd.npz", x=images(7)[0])
    assert main(["run", "q.ladder", "odd.npz", "-o", "out.npz"]) == 1
    assert "must be a multiple of 4" in said(capsys)[1][0]


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["run", "net.ladder"], ["run", "net.ladder", "x.npz", "-o", "o.npz", "--bits", "0"], ["show", "a", "--fast"]],
)
def test_wrong_words_leave_status_1_and_one_line(words, here, capsys):
    """Status 2 means a missed goal and nothing else."""
    assert main(words) == 1
    out, err = said(capsys)
    assert out == []
    assert len(err) == 1
    assert "see bitladder" in err[0]


def test_help_and_version_leave_status_0(capsys):
    """For every command."""
    for words in [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]:
        assert main(words) == 0
    assert set(commands.RUN) == set(COMMANDS)
    assert said(capsys)[1] == []


def test_our_own_mistakes_are_one_line_too(here, capsys, monkeypatch):
    """Unless debugging is on, which shows where."""

    def wrong(*_):
        raise KeyError("layer\n7")

    monkeypatch.setitem(commands.RUN, "show", wrong)
    monkeypatch.delenv("BITLADDER_DEBUG", raising=False)
    assert main(["show", "net.ladder"]) == 1
    (line,) = said(capsys)[1]
    assert line.startswith("bitladder: internal error, KeyError:")
    monkeypatch.setenv("BITLADDER_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["show", "net.ladder"])


def test_it_runs_as_a_program(here):
    """Through the interpreter, with a reader that stops reading."""
    command = [sys.executable, "-m", "bitladder", "show", "net.ladder"]
    env = {**os.environ, "PYTHONPATH": str(Path(bl.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1].startswith("total")
    assert done.stderr == ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as cut:
        cut.stdout.close()
        assert cut.stderr.read() == b""


class Tty:
    """A terminal that remembers what was written to it."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize("bars", [True, False])
def test_progress_is_drawn_for_those_who_watch(bars, monkeypatch):
    """With rich or without; nothing if quiet or not a terminal."""
    if bars:
        pytest.importorskip("rich")
    else:
        monkeypatch.setattr(terminal, "rich_bars", lambda: None)
    for quiet in (False, True):
        tty = Tty()
        monkeypatch.setattr(sys, "stderr", tty)
        with terminal.Terminal(quiet) as t:
            t.progress("learn", 1, 2)
            t.progress("learn", 2, 2)
            t.progress("search", 0, 0)
        assert ("learn" in tty.text) == (not quiet)


def test_scores_by_hand():
    """Accuracy, agreement of the argmax, closeness; tensors and tuples as outputs."""
    feeds = {"x": np.arange(6.0).reshape(3, 2)}
    flip = lambda x: x[:, ::-1]
    same = lambda x: (x, None)
    assert score.accuracy(feeds, np.array([1, 1, 0]))(same) == pytest.approx(2 / 3)
    agreement = score.likeness(feeds, same, 2)
    assert (agreement.metric, agreement(same), agreement(flip)) == (score.AGREEMENT, 1.0, 0.0)
    closeness = score.likeness(feeds, lambda x: x[:, 0])
    assert (closeness.metric, closeness(lambda x: x[:, 0] * 1.5)) == (score.CLOSENESS, 0.5)
    torch = pytest.importorskip("torch")
    assert agreement(lambda x: {"y": torch.from_numpy(x)}) == 1.0


def test_a_graph_runs_on_whatever_is_there(monkeypatch):
    """The same classes with torch and without."""
    graph, x = convnet(), images()[0]
    fast = score.runner(graph)(x)
    monkeypatch.setitem(sys.modules, "bitladder.convert.evaluate", None)
    assert isinstance(score.runner(graph), bl.Model)
    assert np.allclose(fast, score.runner(graph)(x), atol=1e-5)


def test_arrays_are_batched_by_sample():
    """All inputs together."""
    s = arrays.Samples({"a": np.zeros((5, 2)), "b": np.zeros(5)}, None, 2)
    assert [(len(b["a"]), len(b["b"])) for b in s.batches()] == [(2, 2), (2, 2), (1, 1)]
