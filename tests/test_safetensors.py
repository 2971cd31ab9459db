"""Safetensors in and out: every integer comes back, what does not fit is refused in one line."""

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from networks import convnet, images, odd_graph, onnx_net

import bitladder as bl
from bitladder.cli import main
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth
from bitladder.ptq.plan import plan_of

library = pytest.importorskip("safetensors.numpy")
safe_open = pytest.importorskip("safetensors").safe_open


def same(a, b):
    """Whether two constants or encodings are the same to the bit."""
    if isinstance(a, PerWidth):
        return (
            isinstance(b, PerWidth)
            and a.of == b.of
            and set(a.arrays) == set(b.arrays)
            and all(same(a.arrays[w], b.arrays[w]) for w in a.arrays)
        )
    if isinstance(a, QTensor):
        return isinstance(b, QTensor) and same(a.encoding, b.encoding) and same(a.codes, b.codes)
    if hasattr(a, "params"):
        return (a.format, a.axes, set(a.params)) == (b.format, b.axes, set(b.params)) and all(
            same(a.params[p], b.params[p]) for p in a.params
        )
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype.name == b.dtype.name and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def assert_same(a: Graph, b: Graph):
    """Two graphs with the same nodes and, to the bit, the same numbers."""
    assert a.nodes == b.nodes
    for part in ("constants", "encodings"):
        one, other = getattr(a, part), getattr(b, part)
        assert set(one) == set(other)
        assert [n for n in one if not same(one[n], other[n])] == []


def blank(graph):
    """The same graph before anything was quantized: floats of the right shapes."""
    plain = {
        n: c if isinstance(c, np.ndarray) else np.zeros(c.shape if isinstance(c, QTensor) else c.at(1).shape, np.float32)
        for n, c in graph.constants.items()
    }
    return graph.with_(constants=plain, encodings={}, meta={})


def said(path):
    """The bit map of a file."""
    with safe_open(path, "numpy") as f:
        return json.loads(f.metadata()["bitladder"])


def rewritten(path, change=lambda said: None, **tensors):
    """The file again, its bit map changed, some tensors in place of its own, those that are None left out."""
    told, arrays = said(path), library.load_file(path)
    change(told)
    arrays = {n: a for n, a in {**arrays, **tensors}.items() if a is not None}
    library.save_file(arrays, path, {"bitladder": json.dumps(told)})


@pytest.fixture
def there(tmp_path):
    """The path of a small network's tensors."""
    bl.Model(convnet(meta={"labels": list("abcde"), "min_bits": {"w1": 2}})).to_safetensors(tmp_path / "c.safetensors")
    return str(tmp_path / "c.safetensors")


def test_the_file_says_what_it_holds(there):
    """Codes in the smallest integers under their names, parameters beside them, one line of formats for every weight."""
    arrays = library.load_file(there)
    assert {n: str(a.dtype) for n, a in arrays.items() if n.startswith(("w1", "w3", "b1", "image"))} == {
        "w1": "uint8", "w1.range": "float32", "w3": "int8", "w3.scale": "float32", "w3.zero_point": "float32",
        "b1.bits2": "float32", "b1.bits4": "float32", "b1.bits8": "float32", "image.fl": "float32",
    }  # fmt: skip
    told = said(there)
    assert told["weights"]["w1"] == {"format": "nested8", "axes": [0], "params": ["range"], "bits": 8, "min_bits": 2}
    assert told["plan"] == {"w1": "nested8", "w2": "nested8:tree", "w3": "int4"}
    assert told["versions"] == {"b1": {"of": "w1", "bits": [2, 4, 8]}}
    assert told["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["batch", 2, 6, 6]}]


def test_every_integer_comes_back(there):
    """Onto the graph before quantization, and onto its own; the same network writes the same bytes."""
    graph = convnet(meta={"labels": list("abcde"), "min_bits": {"w1": 2}})
    for net in (blank(graph), graph):
        model = bl.from_safetensors(net, there)
        assert_same(model.whole, graph)
        assert model.whole.meta == graph.meta
    data = Path(there).read_bytes()
    model.to_safetensors(there)
    assert Path(there).read_bytes() == data


def test_awkward_tensors_come_back(tmp_path):
    """Empty and scalar ones, odd types and byte orders, all formats; what JSON has no word for becomes null."""
    graph = odd_graph()
    graph = graph.with_(
        nodes=tuple(Node("identity", ("x",), (n.outputs[0],)) if n.op in ("clip", "split") else n for n in graph.nodes)
    )
    graph = graph.with_(outputs=("y",), nodes=tuple(n for n in graph.nodes if n.op != "concat"))
    bl.Model(graph).to_safetensors(tmp_path / "o.safetensors")
    back = bl.from_safetensors(graph, tmp_path / "o.safetensors").whole
    assert_same(back, graph)
    assert back.meta["result"] == {"trace": [[0, 0.5], [1, None]]}


def test_a_ladder_goes_back_onto_the_float_network(tmp_path, monkeypatch, capsys):
    """Quantized, exported, and put onto the same ONNX file again: the same graph, by the library and by the commands."""
    pytest.importorskip("onnx_ir")
    monkeypatch.chdir(tmp_path)
    onnx_net("net.onnx")
    x, _ = images()
    np.savez("x.npz", x=x)
    model = bl.quantize("net.onnx", x, keep=8, plan={"w1": "nested5"}, effort="fast")
    model.save("q.ladder")
    assert main(["export", "q.ladder", "q.safetensors"]) == 0
    loaded = bl.load("q.ladder")
    assert_same(bl.from_safetensors("net.onnx", "q.safetensors").whole, loaded.whole)
    assert main(["quantize", "net.onnx", "--weights", "q.safetensors", "-o", "back.ladder"]) == 0
    assert Path("back.ladder").read_bytes() == Path("q.ladder").read_bytes()
    for order in ("importance", "plane"):
        assert main(["quantize", "q.ladder", "--weights", "q.safetensors", "--order", order, "-o", "back.ladder"]) == 0
        assert_same(bl.load("back.ladder").whole, loaded.whole)
    assert Path("back.ladder").read_bytes() == Path("q.ladder").read_bytes()
    capsys.readouterr()
    assert main(["quantize", "net.onnx", "--weights", "q.safetensors", "--plan", "int8", "-o", "back.ladder"]) == 1
    assert "holds codes, so there is nothing to choose; leave out --plan" in capsys.readouterr().err
    assert main(["quantize", "net.onnx", "-o", "back.ladder"]) == 1
    assert "needs calibration data; give --data CALIB.npz" in capsys.readouterr().err


def test_a_torch_module_takes_codes(tmp_path):
    """The module is exported on inputs of the shapes that the file names; batch norm is folded as quantization does."""
    torch = pytest.importorskip("torch")
    nets = pytest.importorskip("nets")
    torch.manual_seed(0)
    net = nets.ResNet().eval()
    x = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    model = bl.quantize(net, x, plan="nested4,a=fixed8", effort="fast")
    model.to_safetensors(tmp_path / "t.safetensors")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    back = bl.from_safetensors(net, tmp_path / "t.safetensors")
    assert_same(back.whole, model.whole)
    assert np.array_equal(back(x), model(x))


def test_floats_are_what_the_codes_stand_for(tmp_path, monkeypatch):
    """--float writes every constant under its own name, at the width asked for."""
    monkeypatch.chdir(tmp_path)
    graph = convnet(meta={"default_bits": {"w1": 3}})
    bl.Model(graph).save("net.ladder")
    for bits, words in ((None, ()), (4, ("--bits", "4"))):
        assert main(["export", "net.ladder", "f.safetensors", "--float", *words]) == 0
        arrays = library.load_file("f.safetensors")
        want = graph.at({"w1": 3} if bits is None else bits)
        assert set(arrays) == set(graph.constants)
        for name, c in want.constants.items():
            assert same(arrays[name], c.decode() if isinstance(c, QTensor) else c), name
    with pytest.raises(ValueError, match="must say that tensors are codes, got 'float'; export without --float"):
        bl.from_safetensors(graph, "f.safetensors")


def test_codes_are_exported_whole_unless_fewer_bits_are_asked_for(tmp_path, monkeypatch, capsys):
    """A file's default plan does not narrow what is exported; ONNX has no --float."""
    monkeypatch.chdir(tmp_path)
    bl.Model(convnet(meta={"default_bits": {"w1": 3}})).save("net.ladder")
    for words, text in (((), "nested8"), (("--bits", "3"), "nested3")):
        assert main(["export", "net.ladder", "c.safetensors", *words]) == 0
        assert said("c.safetensors")["weights"]["w1"]["format"] == text
    capsys.readouterr()
    assert main(["export", "net.ladder", "c.onnx", "--float"]) == 1
    assert "--float goes with a .safetensors file" in capsys.readouterr().err


def test_a_bit_map_is_a_plan(tmp_path):
    """Ours, and one by hand with no codes; names that look like patterns mean themselves."""
    x, _ = images()
    pytest.importorskip("onnx_ir")
    net = onnx_net(tmp_path / "net.onnx")
    model = bl.quantize(net, x, plan={"w1": "int4", "w2": None}, effort="fast")
    path = str(tmp_path / "p.safetensors")
    model.to_safetensors(path, decoded=True)
    again = bl.quantize(net, x, plan=path, effort="fast")
    assert again.plan == model.plan == {"w1": "int4", "w2": "float"}
    assert {n: str(e.format) for n, e in again.graph.encodings.items()} == {
        n: str(e.format) for n, e in model.graph.encodings.items()
    }
    floats = {"w1": np.ones(3, np.float32)}
    library.save_file(floats, path, {"bitladder": json.dumps({"plan": {"*": "int8", "w2": "nested4"}})})
    assert bl.quantize(net, x, plan=path, effort="fast").plan == {"w1": "int8", "w2": "nested4"}
    library.save_file(floats, path, {"bitladder": json.dumps({"weights": {"w[0]": {"format": "int8"}}})})
    assert list(plan_of(path)) == ["w[[]0]"]
    for bit_map in ({}, {"plan": 3}, {"plan": {"w1": 4}}, {"weights": {"w1": {}}}, {"weights": {"w1": 4}}):
        library.save_file(floats, path, {"bitladder": json.dumps(bit_map)})
        with pytest.raises(ValueError, match=r"'plan' in the bit map of .* must give formats by name"):
            plan_of(path)


def change(*keys, to):
    """A change of the bit map: what `keys` lead to becomes `to`."""

    def changed(told):
        for key in keys[:-1]:
            told = told[key]
        told[keys[-1]] = to

    return changed


REFUSED = [
    (change("weights", "w1", "format", to="nested99"), {}, "have a format that this version knows, got 'nested99'"),
    (change("weights", "w1", "format", to="float"), {}, "have a format that this version knows, got 'float'"),
    (change("weights", "w1", "format", to="nested7"), {}, "hold codes from 0 to 127"),
    (change("weights", "w1", to={"format": "nested8"}), {}, "'w1' in the bit map .* must give format, axes, params"),
    (change("weights", "w1", "axes", to=["0"]), {}, "axes and bits that are small whole numbers"),
    (change("weights", "w1", "axes", to=[3, 3]), {}, "rising list of axes"),
    (change("weights", "w1", "axes", to=[1]), {}, "range of tensor 'w1'|must be"),
    (change("weights", "w1", "params", to=[]), {}, "tensor 'w1.range' .* must be a constant of the network"),
    (change("weights", to=[]), {}, "'weights' in the bit map .* must be rows by name"),
    (change("versions", "b1", "of", to="b3"), {}, "'of' of tensor 'b1'"),
    (change("versions", "b1", "bits", to=[]), {}, "have one width or more"),
    (change("versions", "b1", "bits", to=[2, 3]), {}, "tensor 'b1.bits3' .* must be there"),
    (
        change("activations", "h9", to={"format": "int8", "axes": [], "params": []}),
        {},
        "'h9' .* must be a value of the network",
    ),
    (change("version", to=2), {}, "must be a JSON object of version 1"),
    (change("tensors", to="float"), {}, "must say that tensors are codes"),
    (change("meta", to=[]), {}, "'meta' in the bit map"),
    (change("meta", "min_bits", to={"w1": "all"}), {}, "'min_bits' in the bit map"),
    (None, {"w1": None}, "tensor 'w1' .* must be there"),
    (None, {"b3": None}, "tensor 'b3' .* must be there, as the network has it"),
    (None, {"w1.range": None}, "tensor 'w1.range' .* must be there"),
    (None, {"b4": np.zeros(3)}, "tensor 'b4' .* must be a constant of the network"),
    (
        None,
        {"w1": np.zeros((2, 4, 3, 3), np.uint8)},
        r"'w1' .* must have shape \(4, 2, 3, 3\) as in the network, got \(2, 4, 3, 3\)",
    ),
    (None, {"w1": np.zeros((4, 2, 3, 3), np.float32)}, "'w1' .* must hold integers, got float32"),
    (None, {"w3": np.full((5, 6), -9, np.int8)}, "'w3' .* must hold codes from -8 to 7"),
    (None, {"w1.range": -np.ones(4, np.float32)}, r"range of tensor 'w1' must be .*above zero"),
    (None, {"w1.range": np.ones(4)}, "range of tensor 'w1' must be float32"),
    (None, {"w1.range": np.ones(5, np.float32)}, "range of tensor 'w1' must be float32 of shape"),
    (None, {"b1.bits4": np.ones(5, np.float32)}, "must have versions of one shape"),
]


@pytest.mark.parametrize(("told", "tensors", "says"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_does_not_fit_is_refused(told, tensors, says, there):
    """One line that names the file, what is wrong, and what to do."""
    rewritten(there, told or (lambda said: None), **tensors)
    with pytest.raises(ValueError, match=says) as refused:
        bl.from_safetensors(blank(convnet()), there)
    words = str(refused.value)
    assert "\n" not in words
    assert words.startswith("safetensors: ")
    assert there in words
    assert "; " in words


def test_other_files_are_refused(there, tmp_path):
    """No file, no safetensors, no bit map, one that is no JSON or too deep, and every file cut short."""
    net, path = blank(convnet()), str(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        bl.from_safetensors(net, path)
    for data in (b"", b"\xff" * 40, bytes(8) + b"{}", (2).to_bytes(8, "little") + b"[]"):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match="must be a safetensors file"):
            bl.from_safetensors(net, path)
    library.save_file({}, path)
    with pytest.raises(ValueError, match="must have 'bitladder' in its metadata"):
        bl.from_safetensors(net, path)
    for text in ("", "[]", "[" * 100_000, "{", "\x00"):
        library.save_file({}, path, {"bitladder": text})
        with pytest.raises(ValueError, match="must be a JSON object"):
            bl.from_safetensors(net, path)
    whole = Path(there).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "x.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="must be a safetensors file"):
            bl.from_safetensors(net, path)


def test_damage_is_refused_or_harmless(there, tmp_path):
    """With any byte of the header changed the file is refused as such, or gives a network all the same."""
    net, path = blank(convnet()), tmp_path / "x.safetensors"
    whole = Path(there).read_bytes()
    draw = np.random.default_rng(0)
    for at in draw.integers(0, 8 + int.from_bytes(whole[:8], "little"), 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.integers(8)]) + whole[at + 1 :])
        with suppress(ValueError):
            bl.from_safetensors(net, path)


def test_names_must_not_collide(tmp_path):
    """A constant that is called like a parameter of another is refused, and nothing is written."""
    graph = convnet()
    nodes = (*graph.nodes, Node("add", ("scores", "w3.scale"), ("sum",)))
    graph = graph.with_(nodes=nodes, outputs=("sum",), constants={**graph.constants, "w3.scale": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=r"two tensors would be called 'w3\.scale'; rename that constant"):
        bl.Model(graph).to_safetensors(tmp_path / "c.safetensors")
    assert os.listdir(tmp_path) == []
