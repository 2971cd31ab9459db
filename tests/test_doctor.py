"""Each finding appears where its cause was put, names its place and a fix, and does not appear without the cause."""

import json

import numpy as np
import pytest
from networks import coded, convnet, fixed_points, images, onnx_net

import bitladder as bl
from bitladder import native
from bitladder.cli import main
from bitladder.doctor import Finding, examine, finding, foreseen, size, speed, values
from bitladder.engine import StepTime
from bitladder.formats import Encoding, QTensor
from bitladder.ir.graph import Graph, Node, Value

needs_core = pytest.mark.skipif(native.core is None, reason=f"there is no native core: {native.why}")
X = images(8)[0]


def patient(tmp_path, graph, feeds=None, real=True, bits="auto"):
    """A network under examination, with its findings by the first words of what they say."""
    bl.Model(graph).save(tmp_path / "net.ladder")
    found, under = examine(tmp_path / "net.ladder", feeds or {"image": X}, real=real, bits=bits)
    assert all(f.what and f.fix and isinstance(f, Finding) for f in found)
    assert [f.wrong for f in found] == sorted((f.wrong for f in found), reverse=True)
    return found, under


def one(found, words):
    """The only finding with these words."""
    (same,) = [f for f in found if words in f.what]
    return same


def test_data_beyond_the_range_saturate(tmp_path):
    """Codes at both ends are wrong, with the share and the input's name; random data are not judged; a zero is no end."""
    found, _ = patient(tmp_path, convnet(), {"image": X * 40})
    ends = one(found, "beyond their range")
    assert ends.wrong
    assert "image" in ends.where
    assert ends.share > 0.5
    found, _ = patient(tmp_path, convnet(), {"image": X * 40}, real=False)
    assert not [f for f in found if f.about == "values"]
    small, under = patient(tmp_path, convnet(), {"image": X * 0.1})
    assert not [f for f in small if "beyond their range" in f.what]
    assert "image" in one(small, "half of the range").where
    h1 = under.truth.values["h1"]
    assert (h1.codes == 0).mean() > 0.1


def of_one_node(op, encoding, clip=None, **attrs):
    """One operator on reals, its output in codes."""
    nodes = (Node(op, ("x",), ("y",), attrs, clip),)
    return Graph((Value("x", "float32", ("n", 100)),), ("y",), nodes, {}, {"y": encoding})


@pytest.mark.parametrize(
    ("graph", "share"),
    [
        (of_one_node("identity", fixed_points(8, 5)), 0.2),  # -4 .. 4 holds 80 % of -5 .. 5
        (of_one_node("identity", fixed_points(8, 5), (0.0, None)), 0.1),
        (of_one_node("identity", fixed_points(8, 5), (-4.0, 4.0)), 0.0),  # a limit of the node's own
        (of_one_node("swish", fixed_points(8, 4)), 0.0),
    ],
)
def test_only_what_lies_beyond_the_range_counts(graph, share, tmp_path):
    """Zeros of a ReLU and the limit of a fused clip stand at an end by nature."""
    x = np.linspace(-5, 5, 1000, dtype=np.float32).reshape(10, 100)
    found, under = patient(tmp_path, graph, {"x": x})
    value = under.truth.values["y"]
    assert values.beyond(under, "y", value, graph.nodes[0]) == pytest.approx(share, abs=0.01)
    assert [f.share for f in found if "beyond their range" in f.what] == pytest.approx([share] if share else [], abs=0.01)


def test_long_sums_are_wrong_and_inexact_ones_told(tmp_path):
    """More than 32 bits is wrong; between 25 and 32 is told, with the layer."""
    w = coded("int8", (2, 4000), 1)
    for fmt, bits in (("fixed16", True), ("int8", False)):
        graph = Graph(
            (Value("x", "float32", ("n", 4000)),),
            ("y",),
            (Node("linear", ("x", "w"), ("y",)),),
            {"w": coded("fixed16", (2, 4000), 1) if bits else w},
            {"x": fixed_points(16 if bits else 12, 6)},
        )
        found, _ = patient(tmp_path, graph, {"x": np.ones((2, 4000), np.float32)})
        long = one(found, "sums may need")
        assert (long.where, long.wrong) == (("y",), bits), fmt


def test_float_layers_say_which_line_of_a_plan_they_lack(tmp_path):
    """Float weights, float inputs, scales in groups: three reasons, three fixes."""
    graph = convnet(third="int4/2")
    graph = graph.with_(
        constants={**graph.constants, "w1": coded("int8", (4, 2, 3, 3)).decode()},
        encodings={k: e for k, e in graph.encodings.items() if k != "h1"},
    )
    found, _ = patient(tmp_path, graph.with_(constants={k: c for k, c in graph.constants.items() if k != "b1"}, nodes=(
        Node("conv", ("image", "w1"), ("h1",), graph.nodes[0].attrs, (0.0, None)), *graph.nodes[1:])))  # fmt: skip
    assert one(found, "weights are float").where == ("h1",)
    assert "a=int8" in one(found, "inputs are float").fix
    assert one(found, "which has no unit").where == ("scores",)


@needs_core
def test_nodes_without_a_kernel_are_wrong_and_say_why(tmp_path, monkeypatch):
    """The reason of the core, the node, and what it costs."""
    monkeypatch.setattr(native.core, "unsupported", lambda data: [("h2", "node 'h2' (conv): too odd")])
    found, under = patient(tmp_path, convnet())
    back = one(found, "no kernel")
    assert back.wrong
    assert back.where == ("h2",)
    assert "too odd" in back.what
    assert 0 < back.share < 1
    assert back.milliseconds == pytest.approx(sum(s.milliseconds for s in under.steps if s.kernel == "reference"))


def test_no_core_is_wrong(monkeypatch, tmp_path):
    """One finding that says why there is none; nothing else about speed is guessed from the reference."""
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(native, "why", "it was not built")
    found, _ = patient(tmp_path, convnet())
    assert one(found, "no native core").wrong
    assert not [f for f in found if "no kernel" in f.what]


@needs_core
def test_a_lesser_instruction_set_is_told(tmp_path, monkeypatch):
    """BITLADDER_ISA=scalar, where there is a better one."""
    if len(native.isas()) < 2:
        pytest.skip("this machine has one instruction set only")
    monkeypatch.setenv("BITLADDER_ISA", "scalar")
    found, _ = patient(tmp_path, convnet())
    assert one(found, "runs on scalar").fix == "unset BITLADDER_ISA"


def measured(under, *steps):
    """The same patient with these steps, on a machine with round figures."""
    again = finding.Patient(under.path, under.model, under.feeds, under.real, 1, under.truth, steps)
    again.__dict__.update(peak=1000.0, bandwidth=1000.0)
    return again


def test_costs_say_what_holds_a_step_back(tmp_path):
    """Near the peak: products; near the bandwidth with weights beyond the first cache: memory; else overhead, with a reason."""
    _, under = patient(tmp_path, convnet())
    steps = (
        StepTime("h1", "dense conv", 1.0, 900, 10),
        StepTime("h2", "dense conv", 2.0, 20, 10),
        StepTime("scores", "dense", 4000.0, 0, 3_000_000),
        StepTime("image", "encode", 1000.0),
    )
    some = measured(under, *steps)
    assert {c.step.node: c.bound for c in some.costs} == {
        "h1": "products",
        "h2": "overhead",
        "scores": "memory",
        "image": "overhead",
    }
    (slow,) = speed.far_from_peak(measured(under, *steps[:2]))
    assert "fewer than 64 products" in slow.what
    assert "1 % of the machine's peak" in slow.what
    assert (slow.where, slow.milliseconds) == (("h2",), 2.0)
    (moved,) = speed.conversions(some)
    assert (moved.where, moved.milliseconds) == (("image",), 1000.0)
    assert speed.conversions(measured(under, *steps[:3])) == []


def test_bits_that_say_nothing_dead_channels_and_idle_planes_are_bytes(tmp_path):
    """Codes of few values, a channel of zeros, planes that the plan leaves out."""
    graph = convnet("int8", third="int8", meta={"default_bits": {"w2": 3}})
    w = graph.constants["w3"]
    codes = (np.arange(30).reshape(5, 6) % 2 * 127).astype(np.int8)
    codes[3] = 0
    dull = QTensor(Encoding(w.format, w.encoding.params, w.encoding.axes), codes)
    constants = {**graph.constants, "w3": dull}
    constants["b1"] = np.zeros(4, np.float32)
    found, under = patient(tmp_path, graph.with_(constants=constants))
    assert size.entropy(np.array([1, 1, 1, 1])) == 0
    dead = one(found, "no weight but zero")
    assert (dead.where, dead.what[:1]) == (("w3",), "1")
    planes = one(found, "planes are stored")
    assert (planes.where, planes.bytes) == (("w2",), 6 * 4 * 9 * 5 // 8)
    assert {name for name, *_ in size.largest(under, 3)} == {"w1", "w2", "w3"}


def test_a_float_network_is_told_what_to_expect(monkeypatch, tmp_path):
    """What would fall back, and the command that quantizes it."""
    graph = convnet()
    if native.core is not None:
        monkeypatch.setattr(native.core, "unsupported", lambda data: [("h3", "operator odd has no kernel")])
        back = one(foreseen(graph, "net.onnx"), "would run on the reference")
        assert (back.where, back.wrong) == (("h3",), True)
    assert one(foreseen(graph, "net.onnx"), "weights are float").fix.startswith("bitladder quantize net.onnx --data")


@needs_core
def test_the_command_tells_and_ends_in_0_or_2(tmp_path, monkeypatch, capsys):
    """Findings with fixes, where time and bytes are, a last line, JSON; 2 where something is wrong; a network too."""
    monkeypatch.chdir(tmp_path)
    bl.Model(convnet()).save("net.ladder")
    assert main(["doctor", "net.ladder", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    facts = json.loads(out[-1])
    assert out[-2].endswith("findings, nothing is wrong")
    assert any(line.startswith("where the time is") for line in out)
    assert any(line.startswith("where the bytes are") for line in out)
    assert facts["wrong"] == 0
    assert {s["node"] for s in facts["steps"]} >= {"h1", "h2", "scores"}
    np.savez("hot.npz", x=X * 40)
    assert main(["doctor", "net.ladder", "--data", "hot.npz", "--bits", "4"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("1. WRONG, values: values lie beyond")
    assert out[-1].endswith("1 of them wrong")
    assert main(["doctor", "none.ladder"]) == 1


def test_the_command_takes_networks(tmp_path, monkeypatch, capsys):
    """An ONNX file; a function needs data to say what its inputs are."""
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", onnx_net("net.onnx"), "--json"]) == (0 if native.core else 2)
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "bitladder quantize net.onnx" in facts["findings"][-1]["fix"]
    assert main(["doctor", "net.py:net"]) == 1
    assert "--data X.npz" in capsys.readouterr().err
