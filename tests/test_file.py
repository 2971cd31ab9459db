"""The file: what is written comes back, in any order, tiled or not, and every prefix is the network it says it is."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ladders import MAKERS, Counting, apart, assert_same, changed, reach, refused, removing, two_in_one
from networks import coded, convnet

from bitladder import disk, file
from bitladder.errors import Truncated, Unsupported
from bitladder.file.container import Reader
from bitladder.file.gains import gains
from bitladder.file.writing import to_file
from bitladder.formats import QTensor
from bitladder.formats.tensor import SPREAD
from bitladder.ir.graph import Graph, Node, Value

FORMATS = [
    "nested8",
    "nested8:tree",
    "nested6:sign",
    "nested1",
    "int8",
    "int4",
    "int4/3",
    "fixed8",
    "ternary",
    "q6.-3",
    "int16",
    "codebook4",
    "codebook3:5:squares/tensor",
    "log4",
]


def orders(graph):
    """Arguments of `save` for every order."""
    return [{"order": "layer"}, {"order": "plane"}, {"order": "importance", "gains": gains(graph)}]


@pytest.mark.parametrize("coder", ["raw", "fast", "best"])
@pytest.mark.parametrize("make", MAKERS)
def test_what_is_saved_comes_back(make, coder, tmp_path):
    """Every constant, attribute, encoding and word of metadata; saving what was loaded gives the same bytes."""
    graph = make()
    for options in [{**o, "coder": coder} for o in orders(graph)]:
        file.save(graph, tmp_path / "a.ladder", **options)
        data = (tmp_path / "a.ladder").read_bytes()
        for source in (tmp_path / "a.ladder", data, io.BytesIO(data), iter([data[:100], b"", data[100:]])):
            back = file.load(source)
            assert_same(back, graph)
        file.save(back, tmp_path / "b.ladder", **options)
        assert (tmp_path / "b.ladder").read_bytes() == data


@pytest.mark.parametrize("shape", [(3, 6), (7, 1, 5), (1, 9), (0, 3), (3, 0)])
@pytest.mark.parametrize("text", FORMATS)
def test_every_format_comes_back_whole_and_in_tiles(text, shape):
    """Any shape, tiles of any size, any order."""
    if 0 not in shape:
        c = coded(text, shape)
    else:
        whole = coded(text, (3, 3)).encoding
        kept = {k: p[tuple(map(slice, shape[: p.ndim]))] if k in SPREAD else p for k, p in whole.params.items()}
        c = QTensor(replace(whole, params=kept), coded(text, (3, 3)).codes[:0].reshape(shape))
    graph = Graph((Value("x"),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": c})
    for tile in (1, 5, 12, 2**20):
        data = to_file(graph, "raw", tile=tile)
        assert_same(file.load(data), graph)
        for bits in range(1, 9):
            assert_same(file.load(data, bits), graph.at(bits))
            assert_same(file.attach(data, bits).graph, graph.at(bits))
    assert to_file(graph, "raw", tile=2**20) == file.to_bytes(graph)


@pytest.mark.parametrize("shape", [(3, 6), (7, 4, 5), (1, 2, 3, 3)])
@pytest.mark.parametrize("text", ["product2x16", "product2x3/tensor", "product2x300"])
def test_blocks_come_back(text, shape):
    """A product codebook's codes are those of blocks, and so is the shape in the file."""
    c = coded(text, shape)
    graph = Graph((Value("x"),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": c})
    for coder in ("raw", "fast", "best"):
        for tile in (1, 5, 2**20):
            data = to_file(graph, coder, tile=tile)
            assert_same(file.load(data), graph)
    assert Reader(file.source(data)).layers[0]["tensors"][0]["shape"] == [shape[0], shape[1] // 2, *shape[2:]]
    assert file.load(data).constants["w"].shape == shape


def test_tiles_are_as_many_rows_as_fit():
    """The header says how many rows a tile has, and says nothing where there is one tile."""
    graph = Graph((Value("x"),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": coded("int8", (7, 6))})
    for most, rows, sizes in ((1, 1, [6] * 7), (12, 2, [12, 12, 12, 6]), (41, 6, [36, 6]), (42, None, [42])):
        entry = Reader(file.source(to_file(graph, "raw", tile=most))).layers[0]["tensors"][0]
        assert entry.get("tile") == rows
        assert [size for _, _, size in entry["data"]] == sizes


@pytest.mark.parametrize("floors", [{}, {"w1": 4, "w2": 3}])
@pytest.mark.parametrize("schemes", [("nested8", "nested8:tree"), ("nested6:sign", "nested4"), ("nested8", "fixed8")])
def test_loading_at_a_width_is_narrowing_the_whole(schemes, floors):
    """`load(path, bits=b)` equals `load(path).at(b)`, by weight too, and never goes below a layer's minimum."""
    graph = convnet(*schemes, meta={"min_bits": floors})
    data = file.to_bytes(graph)
    for bits in [*range(1, 10), {"w1": 3}, {"w2": 1, "w1": 8}]:
        assert_same(file.load(data, bits), graph.at(bits))


@pytest.mark.parametrize("floors", [{}, {"w": 5, "v": 3}, {"w": 8}])
def test_every_version_is_there_where_it_is_used(floors):
    """A constant with versions comes in the segment that first needs it, for every width and every cut."""
    graph = two_in_one({"min_bits": floors})
    for options in orders(graph):
        data = to_file(graph, "raw", **options)
        assert_same(file.load(data), graph)
        for bits in [*range(1, 10), {"w": 3}, {"v": 2, "w": 7}]:
            assert_same(file.load(data, bits), graph.at(bits))
        for size in range(reach(data, 1), len(data), 7):
            cut = file.load(data[:size])
            there = {n: c.format.bits for n, c in cut.constants.items() if isinstance(c, QTensor)}
            assert_same(cut.at(there), graph.at(there))
            for bits in range(1, 9):
                narrow = {n: min(b, bits) for n, b in there.items()}
                assert_same(cut.at(narrow), graph.at(narrow))


@pytest.mark.parametrize("floors", [{}, {"w1": 5, "w2": 3}])
def test_a_narrow_reader_reads_one_prefix_and_no_more(floors):
    """In order of planes, reads follow each other from the first byte on and stop after the last plane needed."""
    graph = convnet(meta={"min_bits": floors})
    data = file.to_bytes(graph)
    for bits in range(1, 9):
        f = Counting(data)
        file.load_from(f, "it", bits)
        position = 0
        for begin, size in f.ranges:
            assert begin == position
            position = begin + size
        planes = {n: graph.at(bits).constants[n].format.bits for n in ("w1", "w2")}
        assert len(data) - position == sum((8 - b) * n for b, n in zip(planes.values(), (9, 27), strict=True))
        assert_same(file.load(data[:position], bits), graph.at(bits))


def test_one_layer_of_a_file_in_order_of_layers_is_read_alone():
    """What is not asked for is stepped over."""
    graph = convnet()
    data = to_file(graph, "raw", "layer")
    f = Counting(data)
    file.load_from(f, "it", {"w1": 1})
    first = Reader(file.source(data)).segments[0]
    assert not any(begin < s.end and s.begin < begin + size for begin, size in f.ranges for s in first[1:])


def test_sizes_are_known_from_the_headers():
    """The prefix each width needs is where its reader stops, and codes take what they are long."""
    data = file.to_bytes(convnet())
    stored, prefixes = file.sizes(data)
    assert prefixes == {bits: reach(data, bits) for bits in range(1, 9)}
    assert stored == {"w1": 8 * 9, "w2": 8 * 27, "w3": 15}
    assert file.sizes(data[: prefixes[1]]) == (stored, prefixes)


@pytest.mark.parametrize("policy", ["layer", "plane", "importance"])
def test_an_overview_says_what_each_prefix_gives(policy):
    """Planes on average as a reader of that prefix has them; more bytes never give less."""
    graph = convnet()
    data = to_file(graph, "raw", policy, gains(graph) if policy == "importance" else None)
    found = file.overview(data)
    assert (found.policy, found.file_bytes, found.missing) == (policy, len(data), 0)
    assert found.identity == file.identity(data)
    assert found.prefixes[-1].nbytes == len(data)
    for p in found.prefixes:
        there = file.load(data[: p.nbytes])
        tensors = [c for c in there.constants.values() if isinstance(c, QTensor)]
        count = sum(c.codes.size for c in tensors)
        assert p.average == sum(c.codes.size * c.format.bits for c in tensors) / count
        assert (
            p.coded
            == 8
            * sum(
                n * -(-c.codes.size // 8) if "nested" in str(c.format) else c.nbytes for c in tensors for n in [c.format.bits]
            )
            / count
        )
    averages = [p.average for p in found.prefixes]
    assert averages == sorted(averages)
    assert len(averages) > 8 if policy == "importance" else len(averages) <= 8


def test_importance_puts_what_gains_most_for_a_byte_first():
    """Greedy by gain per byte, planes of a weight in order, a plane that unlocks much not held up by a poor one."""
    graph = convnet(second="nested3", third="nested2")
    worth = {("w1", 2): 0.0, ("w1", 3): 90.0, ("w2", 2): 27.0, ("w2", 3): 2.7, ("w3", 2): 40.0}
    reader = Reader(file.source(to_file(graph, "raw", "importance", worth)))
    assert list(reader.network["order"])[:8] == [0, 1, 2, 2, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="gains must be given for order 'importance'"):
        to_file(graph, "raw", "importance")
    with pytest.raises(ValueError, match="order must be one of layer, plane, importance, got 'random'"):
        to_file(graph, "raw", "random")
    with pytest.raises(ValueError, match="coder must be one of"):
        to_file(graph, "zip")


def test_a_cut_file_runs_at_the_widths_it_holds():
    """Cut after the third rung: widths 1 to 3 load; 4 says how many bytes would do; all there is are 3."""
    data = file.to_bytes(convnet())
    size = reach(data, 3)
    for bits in (1, 2, 3):
        assert_same(file.load(data[:size], bits), convnet().at(bits))
    with pytest.raises(Truncated, match=f"ends after {size} bytes, must have at least") as caught:
        file.load(data[:size], 4)
    assert caught.value.needed == reach(data, 4)
    for bits in (None, "auto", {}):
        assert_same(file.load(data[:size], bits).at(3), convnet().at(3))


def test_the_plan_of_a_cut_file_is_followed_as_far_as_it_goes():
    """Widths that a file marks as its default are not asked for, they are what would be taken."""
    graph = convnet(meta={"default_bits": {"w1": 2, "w2": 6}})
    data = file.to_bytes(graph)
    assert_same(file.load(data, "auto"), graph.at({"w1": 2, "w2": 6}))
    assert_same(file.load(data[: reach(data, 3)], "auto"), graph.at({"w1": 2, "w2": 3}))
    with pytest.raises(Truncated):
        file.load(data[: reach(data, 3)], {"w1": 2, "w2": 6})


def test_the_same_network_has_the_same_bytes_and_another_has_another_identity(tmp_path):
    """Whatever the order of its metadata and constants, and the seed of Python's hashes."""
    graph = convnet(meta={"a": 1, "b": {"c": 2, "d": 3}})
    turned = convnet(meta={"b": {"d": 3, "c": 2}, "a": 1})
    turned = turned.with_(constants=dict(reversed(turned.constants.items())))
    assert file.to_bytes(graph) == file.to_bytes(turned)
    assert file.identity(file.to_bytes(graph)) != file.identity(file.to_bytes(convnet(classes=6)))
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom networks import *\nfrom bitladder import file\n"
    code += "print(file.identity(file.to_bytes(odd_graph())), file.identity(file.to_bytes(convnet())))"
    said = set()
    for seed in ("0", "1", "4242"):
        command = [sys.executable, "-c", code, os.path.dirname(__file__)]
        said.add(subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout)
    assert len(said) == 1
    assert said.pop().split()[1].decode() == file.identity(file.to_bytes(convnet()))


@pytest.mark.parametrize("bits", [0, -1, 2.5, True, "4", {"w1": 0}])
def test_a_width_is_a_whole_number_from_one_up(bits):
    """Nothing else is taken for one."""
    with pytest.raises(ValueError, match="bits: must be a whole number"):
        file.load(file.to_bytes(convnet()), bits)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_save_that_fails_leaves_what_was_there(failure, tmp_path, monkeypatch):
    """A full disk or Ctrl-C: the old file is whole, and no scraps lie about."""
    path = tmp_path / "a.ladder"
    file.save(convnet(), path)
    before = path.read_bytes()

    def fail(_):
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        file.save(convnet(first="int8"), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ladder"]


def test_places_that_cannot_be_written_say_why(tmp_path):
    """A folder, a folder that is not there."""
    with pytest.raises(IsADirectoryError, match="is a folder"):
        file.save(convnet(), tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        disk.check_writable(tmp_path / "no" / "a.ladder")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    """A rename would put a file in its place: refused, and it is still there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="is a device or a pipe"):
        file.save(convnet(), pipe)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_saved_link_keeps_pointing(tmp_path):
    """Writing to a symbolic link writes what it points to."""
    (tmp_path / "link.ladder").symlink_to(tmp_path / "real.ladder")
    file.save(convnet(), tmp_path / "link.ladder")
    assert (tmp_path / "link.ladder").is_symlink()
    assert_same(file.load(tmp_path / "real.ladder"), convnet())


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"f": print}, "holds a builtin_function"),
        ({"a": b"bytes"}, "holds a bytes"),
        ({"a": {1: 2}}, "keys must be text"),
        ({"a": 2**70}, "64 bits"),
        ({"a": "\ud800"}, "not Unicode"),
        ({"a": "x" * 70_000}, "70000 bytes, must be at most 65536"),
    ],
)
def test_what_a_tree_cannot_say_is_refused_when_saving(meta, text, tmp_path):
    """A network that would not come back is not written."""
    with pytest.raises(ValueError, match=text):
        file.save(convnet(meta=meta), tmp_path / "a.ladder")
    assert os.listdir(tmp_path) == []


def test_what_could_not_be_read_is_not_written(tmp_path):
    """Parameters of a wrong type, an operator nobody knows: said when saving, and the old file stays."""
    graph = convnet()
    w1 = graph.constants["w1"]
    doubled = QTensor(replace(w1.encoding, params={"range": w1.encoding.params["range"].astype(np.float64)}), w1.codes)
    with pytest.raises(Unsupported, match="save: range of tensor 'w1' must be float32"):
        file.save(graph.with_(constants={**graph.constants, "w1": doubled}), tmp_path / "a.ladder")
    with pytest.raises(Unsupported, match="save: operators frobnicate"):
        file.save(Graph((Value("x"),), ("y",), (Node("frobnicate", ("x",), ("y",)),)), tmp_path / "a.ladder")
    assert os.listdir(tmp_path) == []


def test_encodings_of_values_that_are_gone_are_left_out(tmp_path):
    """A rewrite may leave some behind."""
    graph = convnet()
    file.save(graph.with_(encodings={**graph.encodings, "gone": graph.encodings["h1"]}), tmp_path / "a.ladder")
    assert_same(file.load(tmp_path / "a.ladder"), graph)


def test_what_weights_have_in_common_is_said_once():
    """The global block has the format that most have; an entry says what is its own, and what nobody says is missed."""
    graph = plan_of({"w1": "int4", "w2": "int4", "w3": "int8"})
    data = file.to_bytes(graph)
    tree = apart(data)
    zero = {"dtype": "float32", "shape": [4], "bytes": bytes(16)}
    assert tree["network"]["global"] == {"format": "int4", "axes": [0], "params": {"zero_point": zero}}
    entries = {t["name"]: t for layer in tree["layers"] for t in layer["tensors"]}
    assert [{"format", "axes", "params"} & set(entries[n]) for n in ("w1", "w2", "w3")] == [
        {"params"},
        {"params"},
        {"params", "format"},
    ]
    assert set(entries["w1"]["params"]) == {"scale"}
    assert_same(file.load(data), graph)
    for key, match in (
        ("format", "'format', if not 'global'"),
        ("axes", "'axes', if not 'global'"),
        ("params", "'zero_point'"),
    ):
        refused(changed(data, removing("network", "global", key)), match)
    alone = {"w1": "int4", "w2": "nested8", "w3": "float"}
    assert apart(file.to_bytes(plan_of(alone)))["network"]["global"] == {}


def plan_of(formats):
    """Three linear layers of four outputs with weights in these formats."""
    nodes = tuple(Node("linear", (f"h{i}", f"w{i + 1}"), (f"h{i + 1}",)) for i in range(3))
    weights = {
        name: np.ones((4, 4), np.float32) if text == "float" else coded(text, (4, 4), seed)
        for seed, (name, text) in enumerate(formats.items())
    }
    return Graph((Value("h0", "float32", ("n", 4)),), ("h3",), nodes, weights)
