"""The file: what is written comes back, a narrow reader reads little, and damage is refused in one clear line."""

import copy
import gc
import io
import json
import os
import pickle
import random
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import convnet, odd_graph

from bitladder import disk, file
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.container import PRELUDE, Reader
from bitladder.file.words import dumps
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth, Value

DOC = Path(__file__).parents[1] / "docs" / "file-format.md"


def same_arrays(a, b):
    """Equal shape and native type, and equal bits, NaN included."""
    return (
        a.dtype == b.dtype.newbyteorder("=")
        and a.shape == b.shape
        and np.ascontiguousarray(b.astype(a.dtype)).tobytes() == a.tobytes()
    )


def same_encodings(a, b):
    """Equal formats, axes and parameters."""
    params = set(a.params) == set(b.params) and all(same_arrays(a.params[k], np.asarray(b.params[k])) for k in a.params)
    return a.format == b.format and a.axes == b.axes and params


def same_constants(a, b):
    """Equal kinds holding equal arrays."""
    if isinstance(a, QTensor):
        return same_encodings(a.encoding, b.encoding) and same_arrays(a.codes, b.codes)
    if isinstance(a, PerWidth):
        return a.of == b.of and set(a.arrays) == set(b.arrays) and all(same_arrays(a.arrays[k], b.arrays[k]) for k in a.arrays)
    return same_arrays(a, b)


def assert_same(a, b):
    """Two graphs are equal in everything, types of attributes included."""
    assert (a.inputs, a.outputs) == (b.inputs, b.outputs)
    assert list(a.constants) == list(b.constants)
    assert [k for k in a.constants if not same_constants(a.constants[k], b.constants[k])] == []
    assert set(a.encodings) == set(b.encodings)
    assert all(same_encodings(a.encodings[k], b.encodings[k]) for k in a.encodings)
    assert repr([replace(n, attrs=dict(sorted(n.attrs.items()))) for n in a.nodes]) == repr(
        [
            replace(n, attrs={k: v.item() if isinstance(v, np.generic) else v for k, v in sorted(n.attrs.items())})
            for n in b.nodes
        ]
    )
    assert json.dumps(a.meta, sort_keys=True) == json.dumps(b.meta, sort_keys=True)


class Counting:
    """A binary file that notes every byte range read."""

    def __init__(self, path):
        self.f, self.ranges = io.BytesIO(path.read_bytes()), []

    def read(self, n):
        self.ranges.append((self.f.tell(), n))
        return self.f.read(n)

    def __getattr__(self, name):
        return getattr(self.f, name)


def cut(path, size):
    """A copy of the first `size` bytes."""
    short = path.with_name("short.ladder")
    short.write_bytes(path.read_bytes()[:size])
    return short


def reach(path, bits):
    """Where the last byte that a reader of `bits` touches ends."""
    f = Counting(path)
    file.load_from(f, "it", bits)
    return max(a + n for a, n in f.ranges)


@pytest.mark.parametrize("make", [convnet, odd_graph])
def test_what_is_saved_comes_back(make, tmp_path):
    """Every constant, attribute, encoding and word of metadata; saving what was loaded gives the same bytes."""
    graph = make()
    file.save(graph, tmp_path / "a.ladder")
    back = file.load(tmp_path / "a.ladder")
    assert_same(back, graph)
    file.save(back, tmp_path / "b.ladder")
    assert (tmp_path / "a.ladder").read_bytes() == (tmp_path / "b.ladder").read_bytes()


@pytest.mark.parametrize("floors", [{}, {"w1": 4, "w2": 3}])
@pytest.mark.parametrize("schemes", [("nested8", "nested8:tree"), ("nested6:sign", "nested4"), ("nested8", "fixed8")])
def test_loading_at_a_width_is_narrowing_the_whole(schemes, floors, tmp_path):
    """`load(path, bits=b)` equals `load(path).at(b)`, by weight too, and never goes below a layer's minimum."""
    graph = convnet(*schemes, meta={"min_bits": floors})
    file.save(graph, tmp_path / "a.ladder")
    for bits in [*range(1, 10), {"w1": 3}, {"w2": 1, "w1": 8}]:
        assert_same(file.load(tmp_path / "a.ladder", bits), graph.at(bits))


@pytest.mark.parametrize("floors", [{}, {"w1": 5, "w2": 3}])
def test_a_narrow_reader_reads_one_prefix_and_no_more(floors, tmp_path):
    """Reads follow each other from the first byte on, stop after the last plane needed, and cost a plane per bit."""
    graph, path = convnet(meta={"min_bits": floors}), tmp_path / "a.ladder"
    file.save(graph, path)
    total = path.stat().st_size
    for bits in range(1, 9):
        f = Counting(path)
        file.load_from(f, "it", bits)
        position = 0
        for begin, size in f.ranges:
            assert begin == position
            position = begin + size
        planes = {n: graph.at(bits).constants[n].format.bits for n in ("w1", "w2")}
        missing = sum(8 - b for b in planes.values())
        assert position == total if missing == 0 else position < total
        assert 64 * (missing - 1) <= total - position <= 64 * (missing + 1)  # a plane here is shorter than one alignment
        assert_same(file.load(cut(path, position), bits), graph.at(bits))


def test_sizes_are_known_from_the_header(tmp_path):
    """The prefix each width needs is where its reader stops, and codes take what they are long."""
    path = tmp_path / "a.ladder"
    file.save(convnet(), path)
    stored, prefixes = file.sizes(path)
    assert prefixes == {bits: reach(path, bits) for bits in range(1, 9)}
    assert stored == {"w1": 8 * 9, "w2": 8 * 27, "w3": 15}


def test_a_cut_file_runs_at_the_widths_it_holds(tmp_path):
    """Cut after the third rung: widths 1 to 3 load; 4 and the whole say how many bytes would do; so does every shorter cut."""
    path = tmp_path / "a.ladder"
    file.save(convnet(), path)
    size = reach(path, 3)
    for bits in (1, 2, 3):
        assert_same(file.load(cut(path, size), bits), convnet().at(bits))
    for bits in (4, None):
        with pytest.raises(Truncated, match=f"ends after {size} bytes, must have at least") as caught:
            file.load(cut(path, size), bits)
        assert caught.value.needed == reach(path, bits)
    for size in range(0, reach(path, 1), 61):
        with pytest.raises(Truncated) as caught:
            file.load(cut(path, size), 1)
        assert size < caught.value.needed <= reach(path, 1)


def test_any_flipped_bit_is_noticed(tmp_path):
    """No single damaged byte changes a network in silence."""
    path = tmp_path / "a.ladder"
    file.save(Graph((Value("x"),), ("y",), (Node("relu", ("x",), ("y",)),), {"c": np.arange(9.0), "d": np.ones(8)}), path)
    good = path.read_bytes()
    for position in [*range(32), *range(32, len(good), 3)]:
        bad = bytearray(good)
        bad[position] ^= 0x20
        path.write_bytes(bad)
        if position in (10, 11):  # a newer minor version is read all the same
            continue
        for load in (file.load, file.attach):
            with pytest.raises((Malformed, Unsupported)):
                load(path)


def rewritten(path, change):
    """The file with its header changed by `change` and its checksum made good again."""
    data = path.read_bytes()
    *start, length, _ = PRELUDE.unpack(data[: PRELUDE.size])
    header = json.loads(data[PRELUDE.size : PRELUDE.size + length])
    change(header)
    text = dumps(header)
    body = data[-(-(PRELUDE.size + length) // 64) * 64 :]
    front = PRELUDE.pack(*start, len(text), zlib.crc32(text)) + text
    path.write_bytes(front + bytes(-len(front) % 64) + body)


def setting(*keys, value):
    """A change of one place in a header."""

    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


TENSORS = {"w1": 0, "b1": 1, "w2": 2, "w3": 3, "b3": 4}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (setting("sections", 0, 0, value=2**62), "section 0 is at"),
        (setting("sections", 0, 0, value=-64), "offset of section 0"),
        (setting("sections", 0, 1, value=2**63 - 1), "beyond any file|must be"),
        (setting("sections", 0, 1, value=2**40), "section 1 is at"),
        (setting("sections", 1, 0, value=0), "section 1 is at 0"),
        (setting("sections", 0, 3, value="zip"), "coding 'zip', must be one of raw"),
        (setting("sections", 0, 3, value=None), "coding None"),
        (setting("sections", 0, 2, value=0), "wrong checksum"),
        (setting("sections", value={}), "list of sections"),
        (setting("tensors", 4, "shape", value=[2**40, 2**40]), "at most"),
        (setting("tensors", 0, "shape", value=[0, 2**62]), "shape"),
        (setting("tensors", 0, "shape", value=[4, 2, 3, 4]), "must have 12 bytes, got 9"),
        (setting("tensors", 0, "format", value="nested9"), "format of tensor 'w1'"),
        (setting("tensors", 0, "format", value="__import__('os')"), "format of tensor 'w1'"),
        (setting("tensors", 0, "format", value="float"), "format of tensor 'w1'"),
        (setting("tensors", 0, "format", value="nested4"), "planes of tensor 'w1'"),
        (setting("tensors", 0, "axes", value=[7]), "axes of tensor 'w1'"),
        (setting("tensors", 0, "axes", value=[1]), "range of tensor 'w1'"),
        (setting("tensors", 0, "format", value="int4/4294967296"), "format of tensor 'w1'"),
        (setting("tensors", 3, "format", value="q-1000000.1000003"), "format of tensor 'w3'"),
        (setting("encodings", "h1", "axes", value=[32]), "rising list of axes below 32"),
        (setting("tensors", 0, "params", value={}), "params of tensor 'w1'"),
        (lambda h: h["tensors"][0]["params"].update(levelsx=h["tensors"][0]["params"]["range"]), "an object of range, got"),
        (setting("tensors", 0, "params", "range", "dtype", value="int32"), "float32 of shape"),
        (setting("tensors", 0, "params", "range", "dtype", value="object"), "must be one of bool"),
        (setting("tensors", 2, "params", "levels8", "data", value=0), "free one below"),
        (setting("tensors", 2, "params", "levels8", "data", value=10**9), "free one below"),
        (setting("tensors", 0, "params", "range", "hex", value="00"), "16 bytes long"),
        (setting("tensors", 0, "params", "range", "hex", value="zz"), "lower case text"),
        (setting("tensors", 0, "params", "range", "hex", value="00" * 16), "above zero"),
        (setting("tensors", 0, "params", "range", "data", value=3), "'hex' up to 32 bytes, with 'data' above"),
        (setting("tensors", 0, "name", value="w2"), "different from each other"),
        (setting("tensors", 0, "kind", value="pickle"), "must be one of array"),
        (setting("tensors", 0, "more", value=1), "an object of"),
        (setting("tensors", 1, "of", value="w9"), "name of a tensor of codes"),
        (setting("tensors", 1, "bits", value=[]), "rising list of widths"),
        (setting("tensors", 1, "bits", value=[4, 2, 8]), "rising list of widths"),
        (setting("tensors", 1, "bits", value=[2, 8]), "2 versions long"),
        (setting("encodings", "h1", "params", value={}), "'fl'"),
        (setting("encodings", "h1", "format", value="int4/64"), "without groups"),
        (setting("meta", "min_bits", value={"w1": "x"}), "bits by weight"),
        (setting("meta", "min_bits", value=[]), "bits by weight"),
        (setting("meta", "x", value={"float": "1"}), "inf, -inf or nan"),
        (setting("graph", "nodes", 0, "op", value="os.system"), "operators os.system"),
        (setting("graph", "nodes", 0, "inputs", value=["nobody"]), "reads 'nobody'"),
        (setting("graph", "nodes", 0, "inputs", value="image"), "a list of names"),
        (setting("graph", "nodes", 0, "clip", value=[1]), "two limits"),
        (setting("graph", "nodes", 0, "attrs", value=[]), "an object"),
        (setting("graph", "outputs", value=["nobody"]), "never made"),
        (setting("graph", "inputs", 0, "dtype", value="object"), "must be one of bool"),
        (setting("graph", "inputs", 0, "shape", value=[-1]), "a list of sizes"),
        (lambda h: h["encodings"].__setitem__("nobody", h["encodings"].pop("h1")), "that the graph makes"),
        (lambda h: h["tensors"][0].__setitem__("planes", h["tensors"][0]["planes"][::-1]), "rising"),
        (lambda h: h["tensors"].pop(), "reads 'b3'|all used"),
        (lambda h: h.pop("graph"), "with 'graph'"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(change, text, tmp_path):
    """Checksums do not vouch for sense: every field is checked before it is used."""
    path = tmp_path / "a.ladder"
    file.save(convnet(), path)
    rewritten(path, change)
    with pytest.raises((Malformed, Unsupported), match=text) as caught:
        file.load(path)
    assert "\n" not in str(caught.value)


def places(header, at=()):
    """Every place in a header, as keys."""
    for key, value in header.items() if isinstance(header, dict) else enumerate(header):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


ODDITIES = (
    None,
    True,
    -1,
    0,
    1,
    2**40,
    2**62,
    0.5,
    "",
    "w1",
    "nested8",
    [],
    [[]],
    {},
    {"float": "nan"},
    [0],
    ["w1"],
    {"a": {}},
)


@pytest.mark.parametrize("make", [convnet, odd_graph])
def test_whatever_a_header_says_is_read_or_refused(make, tmp_path):
    """One value anywhere replaced by an oddity, checksum made good: a graph or a clear error, never anything else."""
    path, rng = tmp_path / "a.ladder", random.Random(0)
    file.save(make(), path)
    good = path.read_bytes()
    header = json.loads(good[PRELUDE.size : PRELUDE.size + PRELUDE.unpack(good[: PRELUDE.size])[3]])
    for keys in rng.sample(list(places(header)), 40):
        for oddity in rng.sample(ODDITIES, 5):
            path.write_bytes(good)
            rewritten(path, setting(*keys, value=oddity))
            with suppress(Malformed, Unsupported):
                file.load(path, rng.choice([None, 2, "auto"]))


def with_header(path, text):
    """A file whose whole header is `text`."""
    path.write_bytes(PRELUDE.pack(b"\x89LADDER\n", 1, 0, len(text), zlib.crc32(text)) + text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested more than"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":1e999}', "must be one that a float holds"),
        (b'{"a":NaN}', "NaN, which is not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "64 bits"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "list of sections"),
    ],
)
def test_headers_that_are_no_headers_are_refused(text, says, tmp_path):
    """Depth, duplicates, numbers without bound and bytes that are no JSON."""
    with_header(tmp_path / "a.ladder", text)
    with pytest.raises(Malformed, match=says):
        file.load(tmp_path / "a.ladder")


def test_other_files_and_other_versions_say_so(tmp_path):
    """Not ours, too new, too long a header, or something after the end."""
    path = tmp_path / "a.ladder"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(Malformed, match="does not begin like a ladder file"):
        file.load(path)
    path.write_bytes(struct.pack("<8sHHII", b"\x89LADDER\n", 2, 0, 0, 0))
    with pytest.raises(Unsupported, match=r"format 2\.0, must be 1\.x"):
        file.load(path)
    path.write_bytes(struct.pack("<8sHHII", b"\x89LADDER\n", 1, 0, 2**32 - 1, 0))
    with pytest.raises(Malformed, match="must be at most 16777216"):
        file.load(path)
    file.save(convnet(), path)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(Malformed, match="1 bytes after its end"):
        file.load(path)


def test_a_newer_minor_version_may_say_more(tmp_path):
    """Unknown keys are an error in a file of this version and ignored in one of the next."""
    path = tmp_path / "a.ladder"
    file.save(convnet(), path)
    rewritten(path, setting("graph", "colour", value="blue"))
    with pytest.raises(Malformed, match="colour"):
        file.load(path)
    rewritten(path, setting("tensors", 4, "planes", value="of another kind"))
    data = bytearray(path.read_bytes())
    data[10] = 1
    path.write_bytes(data)
    assert_same(file.load(path), convnet())


@pytest.mark.parametrize("bits", [0, -1, 2.5, True, "4", {"w1": 0}])
def test_a_width_is_a_whole_number_from_one_up(bits, tmp_path):
    """Nothing else is taken for one."""
    file.save(convnet(), tmp_path / "a.ladder")
    with pytest.raises(ValueError, match="bits: must be a whole number"):
        file.load(tmp_path / "a.ladder", bits)


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
        ({"a": {1: 2}}, "keys must be text"),
        ({"a": {"float": 1}}, "only key 'float'"),
        ({"a": 2**70}, "64 bits"),
    ],
)
def test_what_json_cannot_say_is_refused_when_saving(meta, text, tmp_path):
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


def example():
    """The network of the worked example in docs/file-format.md."""
    from bitladder.formats import Encoding, Nested

    weight = QTensor(
        Encoding(Nested(2), {"range": np.array([1.0, 2.0], np.float32)}, (0,)), np.array([[0, 1], [2, 3]], np.uint8)
    )
    return Graph((Value("x", "float32", ("n", 2)),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": weight})


def test_the_worked_example_is_what_is_written(tmp_path):
    """The bytes in the document are those of the file, all of them."""
    file.save(example(), tmp_path / "a.ladder")
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", DOC.read_text(), re.M)
    assert b"".join(bytes.fromhex(h) for _, h in lines) == (tmp_path / "a.ladder").read_bytes()
    with open(tmp_path / "a.ladder", "rb") as f:
        reader = Reader(f, "it")
        assert [reader.read(n) for n in (0, 1)] == [b"\x0c", b"\x0a"]


# ------------------------------------------------------------------------------------- codes that stay in their file


@pytest.fixture
def ladder(tmp_path):
    """A saved network, its graph and its path."""
    graph = convnet()
    file.save(graph, tmp_path / "net.ladder")
    return graph, tmp_path / "net.ladder"


def damaged_at(path, position):
    """One byte of a file changed where it lies."""
    with open(path, "r+b") as f:
        f.seek(position)
        old = f.read(1)
        f.seek(position)
        f.write(bytes([old[0] ^ 0x20]))


@pytest.mark.parametrize("make", [convnet, odd_graph])
def test_codes_that_stay_in_the_file_are_the_same(make, tmp_path):
    """At all planes, at fewer, narrowed twice, and in what is saved again; none of them is kept."""
    file.save(make(), tmp_path / "a.ladder")
    graph, again = file.attach(tmp_path / "a.ladder")
    whole = file.load(tmp_path / "a.ladder")
    assert_same(graph, whole)
    assert again() == file.to_bytes(graph) == (tmp_path / "a.ladder").read_bytes()
    for bits in range(1, 9):
        assert_same(graph.at(bits), whole.at(bits))
        assert_same(graph.at(bits + 1).at(bits), whole.at(bits + 1).at(bits))
        assert_same(file.attach(tmp_path / "a.ladder", bits)[0], whole.at(bits))
    tensors = [c for c in [*graph.constants.values(), *graph.at(2).constants.values()] if isinstance(c, QTensor)]
    assert tensors
    assert not any(isinstance(c.place, np.ndarray) for c in tensors)
    assert [c.nbytes for c in tensors[:3]] == [c.held().nbytes for c in tensors[:3]]


@pytest.mark.parametrize("then", ["deleted", "replaced"])
def test_a_file_that_loses_its_name_is_still_read(then, ladder):
    """What is open stays what it was, whatever has its name now."""
    graph, path = ladder
    attached, again = file.attach(path)
    data = path.read_bytes()
    if then == "deleted":
        path.unlink()
    else:
        file.save(convnet(classes=9), path)
    assert_same(attached, graph)
    assert again() == data


def test_damage_after_loading_is_refused(ladder):
    """Whatever byte of a plane changes: the codes that need it are refused, the others are read."""
    graph, path = ladder
    attached, _ = file.attach(path)
    last = path.stat().st_size - 1
    damaged_at(path, last)
    good = [name for name, c in attached.constants.items() if isinstance(c, QTensor) and readable(c)]
    assert len(good) == 2
    assert_same(attached.at(4), graph.at(4))  # the last plane is not needed
    damaged_at(path, last)
    assert_same(attached, graph)


def readable(c):
    """Whether the codes of a tensor can be had."""
    try:
        return c.codes is not None
    except Malformed:
        return False


def test_a_file_that_is_written_over_is_refused(ladder):
    """Another network in the same place, or less of this one, is not taken for it."""
    graph, path = ladder
    attached, again = file.attach(path)
    data = path.read_bytes()
    file.save(convnet(classes=9), path.with_name("other"))
    for other in (path.with_name("other").read_bytes(), data[:-1], data[:40], b""):
        path.write_bytes(other)
        with pytest.raises(Malformed, match="changed since it was opened"):
            again()
        with pytest.raises(Malformed, match=r"load: .*net\.ladder"):
            file.to_bytes(attached)
    path.write_bytes(data)
    assert_same(attached, graph)


def test_copies_of_tensors_in_a_file_are_whole(ladder):
    """A pickle and a deep copy hold the codes, so that they go where the file does not."""
    graph, path = ladder
    attached, _ = file.attach(path)
    there, copied = pickle.dumps(attached), copy.deepcopy(attached)
    path.write_bytes(b"")
    assert_same(pickle.loads(there), graph)
    assert_same(copied, graph)


def test_two_loads_of_a_file_are_independent(ladder):
    """Each has a descriptor of its own, closed when nothing needs it."""
    graph, path = ladder
    one, two = file.attach(path)[0], file.attach(path)[0]
    reader = one.constants["w1"].place.reader
    assert reader is not two.constants["w1"].place.reader
    opened = reader.f
    del one, reader
    gc.collect()
    assert opened.closed
    assert_same(two, graph)


def test_threads_share_an_open_file(ladder):
    """Reads that overlap do not disturb each other."""
    graph, path = ladder
    attached, _ = file.attach(path)
    with ThreadPoolExecutor(4) as pool:
        for same in pool.map(lambda _: same_constants(attached.constants["w1"], graph.constants["w1"]), range(400)):
            assert same
