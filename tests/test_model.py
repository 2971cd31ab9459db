"""The model: arrays in, the same kind of arrays out, and every wrong array refused in one line that names it."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import coded, convnet, fixed_points

import bitladder as bl
from bitladder import native
from bitladder.errors import Malformed, Unsupported
from bitladder.ir.graph import Graph, Node, Value
from bitladder.model import packed_bytes

X = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)


def pair():
    """Two inputs that share a free axis, two outputs."""
    return bl.Model(
        Graph(
            (Value("a", "float32", ("n", 2)), Value("ids", "int64", ("n",))),
            ("double", "same"),
            (Node("add", ("a", "a"), ("double",)), Node("identity", ("ids",), ("same",))),
        )
    )


def test_calls_take_arrays_or_a_dict():
    """One output is an array; several are a tuple, or a dict if a dict came in."""
    model = bl.Model(convnet())
    assert model(X).shape == (3, 5)
    assert np.array_equal(model(X), model({"image": X}))
    a, ids = np.ones((4, 2), np.float32), np.arange(4)
    double, same = pair()(a, ids)
    assert np.array_equal(double, 2 * a)
    assert np.array_equal(same, ids)
    assert set(pair()({"a": a, "ids": ids})) == {"double", "same"}


def test_inputs_are_converted_where_nothing_is_lost():
    """Lists, float64, small integers for floats, int32 for int64."""
    model = bl.Model(convnet())
    assert np.array_equal(model(X.astype(np.float64)), model(X))
    assert np.array_equal(model(X.tolist()), model(X))
    bytes_ = np.full((1, 2, 6, 6), 3, np.uint8)
    assert np.array_equal(model(bytes_), model(bytes_.astype(np.float32)))
    assert pair()(np.ones((2, 2), np.float32), np.arange(2, dtype=np.int32))[1].dtype == np.int64


def test_torch_in_torch_out():
    """A tensor in gives a tensor out with the same numbers."""
    torch = pytest.importorskip("torch")
    out = bl.Model(convnet())(torch.from_numpy(X))
    assert isinstance(out, torch.Tensor)
    assert np.array_equal(out.numpy(), bl.Model(convnet())(X))


NAN = np.where(np.arange(72).reshape(1, 2, 6, 6) == 5, np.nan, 0.0)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ((X, X), r"must get 1 arrays \(image\), got 2"),
        (({"x": X},), "input 'image' is missing"),
        (({"image": X, "y": X},), "'y' is no input of this network; its inputs are image"),
        ((X[0],), r"input 'image' must have shape \(batch, 2, 6, 6\), got \(2, 6, 6\); add the batch axis"),
        ((X[..., 0, 0],), "reshape it"),
        ((X[:, :1],), "axis 1 must be 2"),
        ((X[:0],), "input 'image' is empty"),
        ((X.astype(complex),), "must be float32, got complex128"),
        ((X.astype(str),), "must be float32, got <U"),
        ((NAN,), r"input 'image' must be finite, got NaN at \[0, 0, 0, 5\]"),
        ((np.full_like(X, np.inf),), "got infinity at"),
        (([[1.0], [2.0, 3.0]],), "uneven rows"),
    ],
)
def test_wrong_inputs_are_refused_in_one_line(arrays, text):
    """The line names the input, what it must be and what it was."""
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        bl.Model(convnet())(*arrays)
    assert "\n" not in str(caught.value)


def test_axes_of_one_name_have_one_size():
    """Two inputs that share a batch must come with the same one."""
    with pytest.raises(ValueError, match="input 'ids' must have 4 for 'n' on axis 0, as input 'a' has, got 3"):
        pair()(np.ones((4, 2), np.float32), np.arange(3))
    with pytest.raises(ValueError, match="input 'ids' must be int64, got float64"):
        pair()(np.ones((4, 2), np.float32), np.arange(4.0))


def test_narrowing_shares_codes_and_takes_names():
    """`at` equals the graph's own, by number or by weight; a name that is no weight is an error."""
    model = bl.Model(convnet())
    assert np.array_equal(model.at(3)(X), bl.Model(model.graph.at(3))(X))
    assert model.at({"w2": 4}).plan == {"w1": "nested8", "w2": "nested4:tree", "w3": "int4"}
    assert model.at(9).graph.constants["w1"] is model.graph.constants["w1"]
    for bits in (0, 1.5, {"w9": 3}):
        with pytest.raises(ValueError, match=r"bits: must be|must be the name of a weight"):
            model.at(bits)


def test_a_saved_model_answers_the_same(tmp_path):
    """At every width, through a file."""
    model = bl.Model(convnet(meta={"labels": list("abcde")}))
    model.save(tmp_path / "a.ladder")
    assert bl.load(tmp_path / "a.ladder").labels == list("abcde")
    for bits in (8, 6, 4, 3, 2):
        assert np.array_equal(bl.load(tmp_path / "a.ladder", bits=bits)(X), model.at(bits)(X))


def test_sizes_are_counted_by_hand():
    """Codes packed, parameters, biases of every width and encodings."""
    model = bl.Model(convnet("nested8", "fixed4", "int8"))
    w1, w2, w3 = 4 * 2 * 9, 6 * 4 * 9, 5 * 6
    side = 4 * 4 + 6 * 4 + 2 * 5 * 4 + 3 * 4 * 4 + 5 * 4 + 4 * 4
    assert model.nbytes == w1 + w2 // 2 + w3 + side
    assert model.average_bits == pytest.approx((8 * w1 + 4 * w2 + 8 * w3) / (w1 + w2 + w3))
    assert model.at(2).nbytes == w1 // 4 + w2 // 2 + w3 + side - 2 * 4 * 4
    assert model.widths == list(range(1, 9))
    assert bl.Model(convnet("int8", "int8")).widths == []


def test_printing_shows_a_row_for_every_weight():
    """Name, operator, shape, format, bits, bytes, how it runs; and the totals."""
    lines = str(bl.Model(convnet())).splitlines()
    assert lines[0].split() == ["weight", "operator", "shape", "format", "bits", "bytes", "runs", "in"]
    assert lines[2].split() == ["w1", "conv", "4x2x3x3", "nested8", "8", "88", "integers"]
    assert lines[-1].endswith("3 of 3 in integers")
    assert "nodes" in repr(bl.Model(convnet()))


def test_unknown_operators_are_named_at_once():
    """Not at the first call."""
    with pytest.raises(Unsupported, match="operators frobnicate"):
        bl.Model(Graph((Value("x"),), ("y",), (Node("frobnicate", ("x",), ("y",)),)))


@pytest.mark.parametrize(
    "text", ["nested8", "nested5:tree", "nested6:sign", "int4", "int8/tensor", "int4/4", "fixed6", "ternary"]
)
def test_size_can_be_told_before_encoding(text):
    """`packed_bytes` of a float graph is `nbytes` of the encoded one."""
    coded = convnet(text, text, text)
    floats = {n: coded.constants[n].decode() for n in ("w1", "w2", "w3")}
    plain = coded.with_(constants={**coded.constants, **floats, "b1": np.zeros(4, np.float32)}, encodings={})
    coded = coded.with_(constants={**coded.constants, "b1": np.zeros(4, np.float32)})
    formats = {n: coded.constants[n].format for n in floats}
    assert packed_bytes(plain, formats, coded.encodings) == bl.Model(coded).nbytes


def test_auto_is_what_the_file_marks_as_its_default(tmp_path):
    """A file that keeps more planes than its plan needs says which widths run by default; without a mark, all of them."""
    marked = bl.Model(convnet(meta={"default_bits": {"w1": 3}}))
    marked.save(tmp_path / "a.ladder")
    assert bl.load(tmp_path / "a.ladder", "auto").plan["w1"] == "nested3"
    assert bl.load(tmp_path / "a.ladder").plan["w1"] == "nested3"
    assert bl.load(tmp_path / "a.ladder").at(8).plan["w1"] == "nested8"
    assert bl.load(tmp_path / "a.ladder", 8).plan["w1"] == "nested8"
    bl.Model(convnet()).save(tmp_path / "a.ladder")
    assert bl.load(tmp_path / "a.ladder", "auto").plan["w1"] == "nested8"


# ------------------------------------------------------------------------------------------------- loaded from a file


@pytest.fixture
def ladder(tmp_path):
    """A path where a small network is saved."""
    bl.Model(convnet()).save(tmp_path / "net.ladder")
    return tmp_path / "net.ladder"


@pytest.mark.parametrize("bits", [None, 5])
def test_a_loaded_model_does_not_need_its_name(bits, ladder):
    """Deleted or replaced before the first call: answers stay, at every width and in every engine."""
    whole, model, other = bl.Model(convnet()), bl.load(ladder, bits), bl.load(ladder, bits)
    bl.Model(convnet(classes=9)).save(ladder)
    assert np.array_equal(model(X), whole.at(bits or 8)(X))
    ladder.unlink()
    assert np.array_equal(other(X), whole.at(bits or 8)(X))
    assert bits or np.array_equal(model.at(3)(X), whole.at(3)(X))
    assert np.array_equal(other.with_(threads=1, batch=4)(X), model(X))


def test_a_file_that_changes_below_a_model_is_refused(ladder):
    """Before the first call in one line; after it the engine has what it needs."""
    late, early = bl.load(ladder), bl.load(ladder)
    right = early(X)
    data = bytearray(ladder.read_bytes())
    for position in (20, len(data) - 1)[native.core is None :]:  # the header, which only the core reads again; the last plane
        bad = bytearray(data)
        bad[position] ^= 0x20
        with open(ladder, "r+b") as f:
            f.write(bad)
        with pytest.raises(Malformed) as caught:
            late(X)
        assert "\n" not in str(caught.value)
        assert np.array_equal(early(X), right)
    with open(ladder, "r+b") as f:
        f.write(data)
    assert np.array_equal(late(X), right)


RESIDENT = """
import sys
import numpy as np
import bitladder as bl

def resident():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

small, large = sys.argv[1:]
bl.load(small, threads=1)(np.zeros((1, 2, 6, 6), np.float32))
before = resident()
model = bl.load(large, threads=1)
loaded = resident()
model(np.zeros((1, 1024), np.float32))
print(loaded - before, resident() - before, model.engine.arena_bytes)
"""


@pytest.mark.skipif(native.core is None, reason="the reference holds codes in memory")
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
@pytest.mark.skipif(not platform.libc_ver()[0].startswith("glibc"), reason="other C libraries keep what is freed")
@pytest.mark.parametrize("text", ["int8", "nested8"])
def test_a_loaded_model_costs_little_more_than_its_codes(text, ladder, tmp_path):
    """Resident after the first answer: codes once, the arena, and a fifth of both."""
    names = [f"w{i}" for i in range(6)]
    x = fixed_points(8, 5)
    weights = dict.fromkeys(names, coded(text, (1024, 1024)))
    nodes = [Node("linear", (f"h{i}", name), (f"h{i + 1}",)) for i, name in enumerate(names)]
    graph = Graph((Value("h0", "float32", ("n", 1024)),), ("h6",), tuple(nodes), weights, {f"h{i}": x for i in range(6)})
    bl.Model(graph).save(tmp_path / "large.ladder")
    command = [sys.executable, "-c", RESIDENT, str(ladder), str(tmp_path / "large.ladder")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded, resident, arena = map(int, done.stdout.split())
    codes = sum(w.nbytes for w in weights.values())
    assert loaded < 0.2 * codes
    assert 0.9 * codes < resident <= 1.2 * (codes + arena)
