"""Verification finds what is wrong, and says where; it finds nothing on networks that are right."""

import json
from dataclasses import replace

import numpy as np
import pytest
from networks import coded, convnet, fixed_points, images

import bitladder as bl
from bitladder import native, verify
from bitladder.cli import inputs, main
from bitladder.engine import Engine
from bitladder.ir.graph import Graph, Node, Value

needs_core = pytest.mark.skipif(native.core is None, reason=f"there is no native core: {native.why}")
FEEDS = {"image": images(3)[0]}


def checked(graph, **options):
    """The verdict on two of the widths, without ONNX unless asked for."""
    return verify.check(bl.Model(graph), FEEDS, options.pop("bits", 4), **{"onnx": False, **options})


def broken(monkeypatch, output, when=lambda piece: True, by=None):
    """From now on the core is off in one number of `output`, by one code or by as much as is said, where `when` holds."""
    right = Engine._run_piece

    def wrong(self, piece, env, bits, times):
        made = right(self, piece, env, bits, times)
        if output in made and when(piece):
            a = made[output].copy()
            encoding = self.graph.encodings.get(output)
            a.flat[1] += by if by is not None else float(np.max(encoding.step(a.shape)))
            made[output] = a
        return made

    monkeypatch.setattr(Engine, "_run_piece", wrong)


@needs_core
def test_a_network_that_is_right_has_no_first_layer():
    """Every node on every instruction set at every width, the plan's first; then the network in three ways."""
    model = bl.Model(convnet(), {"w1": 3})
    found = verify.check(model, FEEDS, onnx=False)
    assert found.first is None
    assert [r.bits for r in found.rows if r.node == "h1" and r.isa == "scalar"] == ["plan", *"87654321"]
    assert {r.isa for r in found.rows} == set(native.isas())
    assert all(r.differing == 0 for r in (*found.rows, *found.whole))
    kinds = {r.node: r.kind for r in found.rows}
    assert (kinds["h1"], kinds["h2"], kinds["scores"]) == ("integers",) * 3
    assert {r.node for r in found.whole} == {"h1 .. h2", "network", "2 threads, batches", "samples one by one"}
    assert sum(r.count for r in found.rows if (r.node, r.isa, r.bits) == ("h1", "scalar", "8")) == 3 * 4 * 6 * 6


@needs_core
@pytest.mark.parametrize("node", ["h1", "h2"])
def test_one_wrong_code_is_found_in_its_layer(node, monkeypatch):
    """One code off by one in one kernel: that node is wrong, on each instruction set, and no other is."""
    broken(monkeypatch, node)
    found = checked(convnet())
    assert {r.node for r in found.rows if r.wrong} == {node}
    assert [(r.differing, r.largest) for r in found.rows if r.wrong] == [(1, 1.0)] * len(native.isas())
    assert (found.first.node, found.first.bits) == (node, "4")


@needs_core
def test_a_number_between_two_codes_is_wrong(monkeypatch):
    """What rounds to the right code, but is not its real, is found all the same."""
    broken(monkeypatch, "h1", by=1e-4)
    assert checked(convnet()).first.node == "h1"


@needs_core
def test_what_is_wrong_only_together_is_looked_for_from_the_front(monkeypatch):
    """Each node alone is right, the network is not: the first node from the front that goes apart is named."""
    broken(monkeypatch, "h2", when=lambda piece: len(piece.graph.nodes) > 1, by=6.0)
    found = checked(convnet())
    assert not any(r.wrong for r in found.rows)
    assert any(r.wrong for r in found.whole)
    assert found.first.node == "h2"


def float_net():
    """An integer layer, a softmax whose output is codes, and another layer."""
    return Graph(
        inputs=(Value("x", "float32", ("batch", 6)),),
        outputs=("y",),
        nodes=(
            Node("linear", ("x", "w1"), ("h",)),
            Node("softmax", ("h",), ("p",), {"axis": -1}),
            Node("linear", ("p", "w2"), ("y",)),
        ),
        constants={"w1": coded("int8", (6, 6), 1), "w2": coded("int8", (6, 6), 2)},
        encodings={"x": fixed_points(8, 5), "h": fixed_points(8, 4), "p": fixed_points(8, 7)},
    )


FLAT = {"x": np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)}


def test_a_float_node_may_be_off_by_one_code_near_a_tie_and_nowhere_else():
    """Given values just beside a tie, the code on the other side passes; the same code fails far from a tie."""
    graph = float_net()
    truth = verify.Truth.of(graph, FLAT)
    node = graph.nodes[1]
    assert truth.kinds == {"h": "integers", "p": "float", "y": "integers"}
    want = truth.values["p"]
    assert verify.within({"p": want.real()}, truth, node)
    off = want.real().copy()
    off.flat[3] += 2.0**-7
    assert not verify.within({"p": off}, truth, node)
    tie = np.float32(10.5) * np.float32(2.0**-7)
    exact = np.array([tie - np.float32(1e-6), 0.5], np.float32)
    beside = replace(want, codes=want.encoding.encode(exact))
    assert beside.codes.tolist() == [10, 64]
    assert verify.near(np.array([11, 64], np.float32) / 128, exact, beside)
    assert not verify.near(np.array([12, 64], np.float32) / 128, exact, beside)
    assert not verify.near(np.array([10, 65], np.float32) / 128, exact, beside)


def test_floats_are_held_to_a_tolerance():
    """Near in the largest of the numbers; NaN only where NaN belongs; infinity only where it belongs."""
    a = np.array([0.0, 100.0, -np.inf, np.nan], np.float32)
    assert verify.near(a + np.float32(5e-4), a, a)
    assert not verify.near(a + np.float32(5e-3), a, a)
    assert not verify.near(np.nan_to_num(a), a, a)
    assert not verify.near(a[:3], a, a)
    assert verify.apart(a, a) == (0, 0.0)
    assert verify.apart(a + 1, a) == (2, 1.0)


@needs_core
def test_a_kernel_that_sums_floats_wrongly_is_found(monkeypatch):
    """A softmax far off is the first layer that diverges; the layers behind it, fed with the right values, are not."""
    graph = float_net()
    broken(monkeypatch, "p", when=lambda piece: not piece.reason)
    engine = Engine(graph)
    engine.run(FLAT)
    if "p" in engine.foreign:
        pytest.skip("this core has no softmax")
    found = verify.check(bl.Model(graph), FLAT, onnx=False)
    assert {r.node for r in found.rows if r.wrong} == {"p"}


def test_without_a_core_it_says_so(monkeypatch):
    """Nothing is compared, and that is told."""
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(native, "why", "it was not built")
    found = checked(convnet(), isas=[])
    assert found.rows == []
    assert "no native core: it was not built" in found.notes[0]


def test_onnx_runtime_is_compared_layer_by_layer(monkeypatch):
    """Integer layers of the exported file are equal; a network whose codes were changed in between is not."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    found = checked(convnet(), onnx=True, isas=[])
    assert {"h1", "h2"} <= {r.node for r in found.onnx if r.kind == "integers"}
    assert found.first is None
    from bitladder.convert import check_onnx

    real = check_onnx.reference
    monkeypatch.setattr(check_onnx, "reference", lambda g, i: {k: v + (k == "h2") for k, v in real(g, i).items()})
    first = checked(convnet(), onnx=True, isas=[]).first
    assert (first.node, first.isa) == ("h2", "ONNX Runtime")


def test_onnx_is_skipped_where_it_is_missing(monkeypatch):
    """One note that names the extra."""
    monkeypatch.setattr(verify, "absent", lambda: "verify: needs onnx, run: pip install 'bitladder[onnx]'")
    found = checked(convnet(), onnx=True, isas=[])
    assert found.onnx == []
    assert "bitladder[onnx]" in found.notes[-1]


def test_random_inputs_fill_the_range_of_their_codes():
    """Reals over the range of the encoding, places within the table, flags; sizes that are open are an error that says so."""
    graph = convnet()
    x = inputs.samples(None, graph, 64)["image"]
    assert x.shape == (64, 2, 6, 6)
    assert -4 <= x.min() < -3.5
    assert 3.5 < x.max() <= 127 / 32
    words = Graph(
        (Value("ids", "int64", ("batch", 9)), Value("mask", "int64", ("batch", 9))),
        ("y",),
        (Node("embedding", ("table", "ids"), ("e",)), Node("cast", ("mask",), ("y",), {"to": "float32"})),
        {"table": np.zeros((7, 3), np.float32)},
    )
    found = inputs.samples(None, words, 50)
    assert (found["ids"].min(), found["ids"].max()) == (0, 6)
    assert set(np.unique(found["mask"])) == {0, 1}
    assert np.array_equal(inputs.samples(None, words, 50)["ids"], found["ids"])
    with pytest.raises(ValueError, match=r"'x' has shape \(batch, n\).*--data X.npz"):
        inputs.samples(None, Graph((Value("x", "float32", ("batch", "n")),), ("x",), ()), 2)


@needs_core
def test_the_command_ends_in_0_or_2(tmp_path, monkeypatch, capsys):
    """A table with a last line, JSON, and the status; on data of a file."""
    monkeypatch.chdir(tmp_path)
    bl.Model(convnet()).save("net.ladder")
    np.savez("x.npz", x=FEEDS["image"])
    assert main(["verify", "net.ladder", "--data", "x.npz", "--bits", "3", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    facts = json.loads(out[-1])
    assert out[-2].startswith("equal: ")
    assert facts["equal"] is facts["goal_met"] is True
    assert (facts["first"], facts["samples"]) == (None, 3)
    assert {r["bits"] for r in facts["rows"]} == {"3"}
    broken(monkeypatch, "h2")
    assert main(["verify", "net.ladder", "--bits", "3", "--json"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert "NOT EQUAL: the first layer that diverges is h2 (conv, dense conv" in out[-2]
    assert json.loads(out[-1])["first"]["node"] == "h2"
    assert main(["verify", "none.ladder"]) == 1


@needs_core
@pytest.mark.parametrize("shape", [(4, 3), ("n", 3), None])
def test_what_is_known_when_a_network_is_loaded_is_an_output_too(shape):
    """The shape of an input outlives the loading that found it out."""
    graph = Graph((Value("x", "float32", shape),), ("y",), (Node("shape", ("x",), ("y",)),))
    engine = Engine(graph)
    assert [engine.run({"x": np.zeros((4, 3), np.float32)})["y"].tolist() for _ in range(3)] == [[4, 3]] * 3


@needs_core
def test_codes_that_no_kernel_makes_are_left_to_the_reference():
    """A normalization whose output has 16 bits: codes, not the reals that the kernel would make."""
    graph = Graph(
        inputs=(Value("x", "float32", ("n", 6)),),
        outputs=("y",),
        nodes=(Node("layer_norm", ("x", "s", "b"), ("y",), {"axis": -1}),),
        constants={"s": np.full(6, 1.5, np.float32), "b": np.linspace(-1, 1, 6, dtype=np.float32)},
        encodings={"y": fixed_points(16, 12)},
    )
    engine = Engine(graph)
    made = engine.run(FLAT)["y"]
    truth = verify.Truth.of(graph, FLAT)
    assert verify.apart(made, truth.values["y"]) == (0, 0.0)
    assert "do not fit in a byte" in engine.foreign["y"]


def test_what_onnx_runtime_does_not_take_is_a_note(monkeypatch):
    """A session that cannot be made is told in one line, and nothing is wrong."""
    ort = pytest.importorskip("onnxruntime")
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)

    def refuse(*args, **options):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    found = checked(convnet(), onnx=True, isas=[])
    assert (found.onnx, found.first) == ([], None)
    assert found.notes[-1].endswith("does not take the exported network (no such kernel)")
