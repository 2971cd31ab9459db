"""docs/file-format.md is what is written and read: its examples, its vectors, and the words that trees are made of."""

import hashlib
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder import file
from bitladder.codec.parts import Grid
from bitladder.errors import Malformed
from bitladder.file.container import IDENTITY, PRELUDE, Reader
from bitladder.file.grouping import tile_rows, tiles
from bitladder.file.widths import Steps
from bitladder.file.words import Words, plain, read_table, read_tree, strings, table, tree, varint, zigzag
from bitladder.formats import Encoding, Nested, QTensor
from bitladder.ir.graph import Graph, Node, Value

DOC = (Path(__file__).parents[1] / "docs" / "file-format.md").read_text()


def vector(name):
    """The bytes that the document gives for something."""
    rows = re.findall(rf"^\| {re.escape(name)} \| `([0-9a-f ]+)` \|$", DOC, re.M) or re.findall(
        rf"^{name} ((?:[0-9a-f]{{2}} ?)+)$", DOC, re.M
    )
    assert rows, name
    return bytes.fromhex(" ".join(rows))


@pytest.mark.parametrize("n", [0, 127, 128, 2**64 - 1])
def test_varints_are_those_of_the_document(n):
    """Written and read."""
    assert varint(n) == vector(f"varint {n}")
    assert Words(vector(f"varint {n}"), "it").varint() == n


@pytest.mark.parametrize("n", [-1, -300, -(2**63)])
def test_zigzag_numbers_are_those_of_the_document(n):
    """Written and read."""
    assert varint(zigzag(n)) == vector(f"zigzag varint {n}")
    assert Words(vector(f"zigzag varint {n}"), "it").whole() == n


def test_checksums_are_those_of_the_document():
    """The ones everybody has."""
    assert struct.pack("<I", zlib.crc32(b"123456789")) == vector("CRC-32 of `123456789`")
    assert hashlib.sha256(b"abc").digest() == vector("SHA-256 of `abc`")


def test_strings_and_trees_are_those_of_the_document():
    """Written and read."""
    known = ["", "conv1.bias", "conv1.weight", "conv2.weight", "\u00e9"]
    assert table(known) == vector("strings")
    assert read_table(Words(vector("strings"), "it")) == known
    value = {"a": [None, False, True, -1, 300, 0.5, math.inf, math.nan], "b": b"\1\2"}
    assert strings([value]) == ["a", "b"]
    assert tree(value, {"a": 0, "b": 1}) == vector("tree")
    assert repr(read_tree(Words(vector("tree"), "it", ["a", "b"]))) == repr(value)


def example():
    """The network of the worked example."""
    weight = QTensor(
        Encoding(Nested(2), {"range": np.array([1.0, 2.0], np.float32)}, (0,)), np.array([[0, 1], [2, 3]], np.uint8)
    )
    return Graph((Value("x", "float32", ("n", 2)),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": weight})


def test_the_worked_example_is_what_is_written():
    """The bytes in the document are those of the file, all of them, and lie where it says."""
    data = file.to_bytes(example())
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", DOC, re.M)
    assert b"".join(bytes.fromhex(h) for _, h in lines) == data
    reader = Reader(file.source(data))
    words = Words(data[0x59:], "it")
    assert len(read_table(words)) == 31
    assert 0x59 + words.at == 0x123
    assert [PRELUDE, PRELUDE + reader.prelude.network] == [0x58, 0x164]
    assert [s.begin for s in reader.segments[0]] == [0x1D8, 0x1D9]
    assert [reader.segment(0, n) for n in (0, 1)] == [b"\x0c", b"\x0a"]
    assert file.load(data[:-1]).constants["w"].codes.tolist() == [[0, 0], [1, 1]]


def test_the_identity_is_the_hash_of_the_headers():
    """As the document says: all of them, without the identity and the checksum after it."""
    data = file.to_bytes(example())
    headers = Reader(file.source(data)).prelude.headers
    assert hashlib.sha256(data[:52] + data[PRELUDE:headers]).digest() == data[52 : 52 + IDENTITY]
    assert file.identity(data) == data[52:84].hex()


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(TREES)
def test_every_tree_comes_back(value):
    """With the types it had, and from one spelling."""
    known = strings([value])
    data = tree(value, {text: place for place, text in enumerate(known)})
    back = read_tree(Words(data, "it", read_table(Words(table(known), "it"))))
    assert repr(sorted_keys(back)) == repr(sorted_keys(value))
    assert tree(back, {text: place for place, text in enumerate(known)}) == data


def sorted_keys(value):
    """A tree whose maps have one order."""
    if isinstance(value, dict):
        return {k: sorted_keys(value[k]) for k in sorted(value)}
    return [sorted_keys(v) for v in value] if isinstance(value, list) else value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_tree_or_refused(data):
    """Never anything else; what is read is written as it was."""
    try:
        value = read_tree(Words(data, "it", ["", "a", "b"]))
    except Malformed:
        return
    assert tree(value, {"": 0, "a": 1, "b": 2}) == data


@given(st.binary(max_size=40))
def test_any_bytes_are_strings_or_refused(data):
    """Never anything else; what is read is written as it was."""
    words = Words(data, "it")
    try:
        known = read_table(words)
    except Malformed:
        return
    assert table(known) == data[: words.at]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "ends after 0 bytes"),
        (b"\x09", "kind 9, must be below 9"),
        (b"\3\x80\0", "shortest form"),
        (b"\3" + b"\xff" * 9 + b"\2", "above 64 bits"),
        (b"\3" + b"\xff" * 10 + b"\1", "more than ten bytes"),
        (b"\4" + bytes(6) + b"\xf8\xff", "NaN of another spelling"),
        (b"\4\0", "ends after 2 bytes, must have 9"),
        (b"\5\2", "names string 2, must be below 2"),
        (b"\6\2\0", "a list of 2, more than the 1 bytes"),
        (b"\7\1\0", "a list of 1, more than the 1 bytes"),
        (b"\7\2\1\0\0\0", "keys that do not rise"),
        (b"\7\2\0\0\0\0", "keys that do not rise, or one twice"),
        (b"\x08\2\0", "a list of 2, more than the 1 bytes"),
        (b"\0\0", "1 bytes after its end"),
        (b"\6\1" * 32 + b"\0", "nested more than 32 deep"),
    ],
)
def test_trees_that_are_none_are_refused(data, match):
    """Each rule of the document, broken once."""
    with pytest.raises(Malformed, match=match):
        read_tree(Words(data, "it", ["a", "b"]))
    assert read_tree(Words(b"\6\1" * 31 + b"\0", "it")) is not None


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\2\0\1b\0\1a", "does not rise"),
        (b"\2\0\1a\1\0", "does not rise"),
        (b"\2\0\2ab\0\2ac", "could share more"),
        (b"\2\0\1a\2\1b", "shares 2 bytes"),
        (b"\1\1\1a", "shares 1 bytes"),
        (b"\1\0\1\xff", "not UTF-8"),
        (b"\1\0\3\xed\xa0\x80", "not UTF-8"),
        (b"\1\0\5a", "ends after"),
        (b"\2\0\1", "a list of 2|ends after"),
        (varint(2**20 + 1) + bytes(2**21 + 2), "must be at most 1048576"),
        (b"\1\0" + varint(2**16 + 1) + b"a" * (2**16 + 1), "too much"),
    ],
)
def test_tables_that_are_none_are_refused(data, match):
    """Each rule of the document, broken once."""
    with pytest.raises(Malformed, match=match):
        read_table(Words(data, "it"))


def test_numpy_values_become_plain():
    """Scalars and small arrays, as numbers and lists."""
    assert plain((np.int64(3), np.float32(0.5), np.array([1, 2]), np.bool_(True)), "it") == [3, 0.5, [1, 2], True]


@given(st.integers(0, 50), st.integers(0, 9), st.integers(1, 60))
def test_tiles_cover_every_row_once(rows, cols, most):
    """In order, none above the limit unless it is one row, all but the last alike."""
    whole = Grid(rows, cols)
    cut = tiles(whole, tile_rows(whole, most))
    assert [at for at, _ in cut] == [sum(g.rows for _, g in cut[:k]) for k in range(len(cut))]
    assert sum(g.rows for _, g in cut) == rows
    assert all(g.size <= most or g.rows <= 1 for _, g in cut)
    assert len({g.rows for _, g in cut[:-1]}) <= 1


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 8), st.integers(0, 7)).map(lambda t: (t[0], sum(t)))),
    st.sets(st.integers(1, 16), min_size=1).map(sorted),
)
def test_what_a_width_uses_is_there_when_its_planes_are(spans, widths):
    """The rule for versions, against its meaning: the one used at n planes never lies behind plane n."""
    steps = Steps(spans)
    for name, (least, stored) in spans.items():
        segments = steps.versions(name, widths)
        assert segments == sorted(segments)
        assert max(segments) < steps.count
        for n in range(least, stored + 1):
            used = next((k for k, b in enumerate(widths) if b >= n), len(widths) - 1)
            assert segments[used] <= steps.plane(name, n)
            assert steps.planes(name, steps.plane(name, n) + 1) == n
