"""Files taken apart, changed and put together again with checksums that are right: what tests of readers need."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from networks import coded, convnet, odd_graph

from bitladder import file
from bitladder.errors import Malformed, Unsupported
from bitladder.file.container import Reader, seal, texts
from bitladder.file.words import Words
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth, Value


def apart(data):
    """A file as one tree: `network`, `layers`, and `bodies`, its segments in the order of the file."""
    reader = Reader(file.source(data))
    words, left = Words(reader.network["order"], "order"), [iter(rows) for rows in reader.segments]
    rows = []
    while words.left:
        rows.append(next(left[words.varint()]))
    return {"network": reader.network, "layers": reader.layers, "bodies": [data[s.begin : s.end] for s in rows]}


def together(tree, **prelude):
    """The file of such a tree, whatever it says; `prelude`: minor version and flags."""
    return seal(*texts(tree["network"], tree["layers"]), tree["bodies"], **prelude)


def changed(data, change, **prelude):
    """A file with its trees changed by a function."""
    tree = apart(data)
    change(tree)
    return together(tree, **prelude)


def setting(*keys, value):
    """A change of one place in a tree."""

    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


def removing(*keys):
    """A change that takes one place away."""

    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


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


def plain_attrs(node):
    """A node whose attributes rise and are plain."""
    return replace(node, attrs={k: v.item() if isinstance(v, np.generic) else v for k, v in sorted(node.attrs.items())})


def assert_same(a, b):
    """Two graphs are equal in everything, types of attributes included."""
    assert (a.inputs, a.outputs) == (b.inputs, b.outputs)
    assert set(a.constants) == set(b.constants)
    assert [k for k in a.constants if not same_constants(a.constants[k], b.constants[k])] == []
    assert set(a.encodings) == set(b.encodings)
    assert all(same_encodings(a.encodings[k], b.encodings[k]) for k in a.encodings)
    assert repr([plain_attrs(n) for n in a.nodes]) == repr([plain_attrs(n) for n in b.nodes])
    assert json.dumps(a.meta, sort_keys=True) == json.dumps(b.meta, sort_keys=True)


def two_in_one(meta=None):
    """A layer with two nested weights of different depth and a constant for each, in parts of their own; and one apart."""
    rng = np.random.default_rng(4)

    def versions(of, widths):
        return PerWidth(of, {b: rng.normal(size=16).astype(np.float32) for b in widths})

    nodes = (
        Node("rnn", ("x", "w", "v", "b", "c"), ("h",)),
        Node("linear", ("h", "u", "far"), ("y",)),
    )
    constants = {
        "v": coded("nested4:tree", (16, 3), 2),
        "b": versions("w", (2, 4, 8)),
        "w": coded("nested8", (16, 5), 1),
        "c": versions("v", (1, 3, 6)),
        "u": coded("nested6:sign", (2, 16), 3),
        "far": versions("w", (3, 8)),
        "spare": np.arange(30.0),
    }
    return Graph((Value("x"),), ("y",), nodes, constants, {}, meta or {})


MAKERS = [convnet, odd_graph, two_in_one]


class Counting:
    """A binary file that notes every byte range read."""

    def __init__(self, data):
        self.f, self.ranges = io.BytesIO(data), []

    def read(self, n):
        self.ranges.append((self.f.tell(), n))
        return self.f.read(n)

    def seek(self, *where):
        return self.f.seek(*where)


def reach(data, bits):
    """Where the last byte that a reader of `bits` touches ends."""
    f = Counting(data)
    file.load_from(f, "it", bits)
    return max(a + n for a, n in f.ranges)


def small():
    """A network of few bytes: one layer, three planes."""
    return Graph((Value("x"),), ("y",), (Node("linear", ("x", "w"), ("y",)),), {"w": coded("nested3", (2, 3))}, {}, {"a": 0.5})


def refused(data, match=None, kind=(Malformed, Unsupported), **options):
    """The one line with which a file is refused, by both ways to read it."""
    for read in (file.load, file.attach):
        with pytest.raises(kind, match=match) as caught:
            read(data, **options)
        assert "\n" not in str(caught.value)
    return caught.value
