"""Deltas: what two files share is not sent again, what comes out is the second file to the byte, or nothing does."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from networks import coded, convnet, odd_graph

import bitladder as bl
from bitladder import file
from bitladder.cli import main
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file import container, delta
from bitladder.file.edits import edit, edited, same
from bitladder.file.taken import Net
from bitladder.file.writing import to_file
from bitladder.formats import QTensor
from bitladder.ir.graph import Node, PerWidth

SMALL = 700  # bytes that a delta between the small networks here takes if little has changed


def made(a, b):
    """The delta between two files in memory, and what became of the tensors."""
    a, b = Net.of(a, "a"), Net.of(b, "b")
    data = delta.delta(a, b)
    return data, delta.summary(a, b, len(data))


def with_(graph, **constants):
    """A graph with other constants."""
    return graph.with_(constants={**graph.constants, **constants})


def nudged(c, seed=0, share=0.2):
    """A tensor some of whose codes are one more or less, as after a few steps of training."""
    draw = np.random.default_rng(seed)
    low, high = c.format.span()
    moved = c.codes.astype(int) + draw.choice([0, -1, 1], c.shape, p=[1 - share, share / 2, share / 2])
    return QTensor(c.encoding, np.clip(moved, low, high).astype(c.codes.dtype))


def cases():
    """Pairs of graphs, and which tensors of the second are changed, new, gone."""
    g = convnet()
    yield "same", g, g, (), (), ()
    yield "bias", g, with_(g, b3=g.constants["b3"] + 1), ("b3",), (), ()
    moved = {n: nudged(g.constants[n]) for n in ("w1", "w2", "w3")}
    yield "weights", g, with_(g, **moved), ("w1", "w2", "w3"), (), ()
    versions = {b: a + np.float32(b == 4) for b, a in g.constants["b1"].arrays.items()}
    yield "a version", g, with_(g, b1=PerWidth("w1", versions)), ("b1",), (), ()
    yield "formats", g, convnet("nested6", "int8", "ternary"), ("w1", "w2", "w3"), (), ()
    yield "classes", g, convnet(classes=7), ("b3", "w3"), (), ()
    yield "meta", g, g.with_(meta={"labels": list("abcde"), "result": {"score": 0.5}}), (), (), ()
    constants = {**g.constants, "b4": np.ones(5, np.float32)}
    nodes = (*g.nodes, Node("add", ("scores", "b4"), ("more",)))
    longer = g.with_(constants=constants, nodes=nodes, outputs=("more",))
    yield "a node", g, longer, (), ("b4",), ()
    yield "a node less", longer, g, (), (), ("b4",)
    yield (
        "odd",
        odd_graph(),
        with_(odd_graph(), inf=np.zeros(40), sign=coded("nested5:sign", (3, 7), 5)),
        ("inf", "sign"),
        (),
        (),
    )
    yield "another network", g, odd_graph(), (), tuple(odd_graph().constants), tuple(g.constants)


@pytest.mark.parametrize("coder", ["raw", "fast", "best"])
@pytest.mark.parametrize(("a", "b", "changed", "new", "gone"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
def test_the_result_is_the_second_file(a, b, changed, new, gone, coder):
    """To the byte, whatever changed and whoever wrote it; every tensor is counted once."""
    one, other = to_file(a, "best"), to_file(b, coder)
    data, told = made(one, other)
    assert delta.patched(one, data) == other
    assert (sorted(told.changed), sorted(told.new), sorted(told.gone)) == tuple(map(sorted, (changed, new, gone)))
    assert len(data) <= len(other) + 1000
    if set(told.same) == set(b.constants):
        assert len(data) < SMALL


@pytest.mark.parametrize("order", ["layer", "plane"])
def test_orders_and_tiles_come_back(order):
    """Segments may lie in any order, tensors may be cut in tiles, one of which changed."""
    a, b = convnet(), with_(convnet(), w2=nudged(convnet().constants["w2"], share=0.02))
    one, other = (to_file(g, "best", order, tile=40) for g in (a, b))
    data, told = made(one, other)
    assert delta.patched(one, data) == other
    assert told.changed == ("w2",)
    assert len(data) < SMALL
    gains = {(n, p): 1 / p for n in ("w1", "w2") for p in range(1, 9)}
    turned = to_file(b, "best", "importance", gains, tile=40)
    assert delta.patched(one, made(one, turned)[0]) == turned
    turned = to_file(b, "best", "plane" if order == "layer" else "layer", tile=40)
    data, _ = made(one, turned)
    assert delta.patched(one, data) == turned
    assert len(data) < SMALL + 100


@pytest.mark.parametrize("coder", ["raw", "fast", "best"])
@pytest.mark.parametrize("scheme", ["", ":sign", ":tree"])
def test_more_planes_cost_what_they_take(scheme, coder):
    """A network that is sent at few bits and then at more gets the planes that it lacks, and sheds those it has too many."""
    wide = convnet(f"nested8{scheme}", "nested8", "int8")
    wide = with_(wide, w1=coded(f"nested8{scheme}", (64, 2, 3, 3), 1))
    narrow = wide.with_(constants={n: c.at(4) if isinstance(c, QTensor) else c for n, c in wide.constants.items()})
    few, all_planes = to_file(narrow, coder), to_file(wide, coder)
    data, told = made(few, all_planes)
    assert delta.patched(few, data) == all_planes
    assert len(data) < len(all_planes) - len(few) + SMALL
    data, _ = made(all_planes, few)
    assert delta.patched(all_planes, data) == few
    assert len(data) < SMALL
    assert told.changed == ("w1", "w2")


def test_small_changes_cost_little():
    """A bias costs its bytes; codes that moved by one cost their entropy, not their planes."""
    g = convnet("nested8", "nested8", "int8")
    g = with_(g, w2=coded("nested8", (64, 4, 3, 3), 2), b3=np.zeros(1000, np.float32))
    one = to_file(g, "raw")
    nothing = len(made(one, one)[0])
    changed = np.zeros(1000, np.float32)
    changed[3] = 1
    assert len(made(one, to_file(with_(g, b3=changed), "raw"))[0]) <= nothing + 4000 + 150
    data, told = made(one, to_file(with_(g, w2=nudged(g.constants["w2"])), "raw"))
    assert told.changed == ("w2",)
    assert len(data) <= nothing + g.constants["w2"].codes.size + 150


def test_a_file_of_another_writer_is_kept_as_it_is():
    """Where its bytes cannot be written again, because its header is spelled otherwise, it is in the delta whole."""
    one = to_file(convnet(), "raw")
    reader = Net.of(one, "a").reader
    texts = container.texts(reader.network, reader.layers)
    segments = [reader.source.span(s.begin, s.size) for s in sorted(s for row in reader.segments for s in row)]
    other = container.seal(*texts, segments, flags=1 << 20)
    assert other != one
    data, told = made(one, other)
    assert delta.patched(one, data) == other
    assert len(data) <= len(other) + 1000
    assert set(told.same) == set(convnet().constants)


@pytest.fixture(scope="module")
def three():
    """Bytes of a base, a result and the delta between them."""
    a = convnet(second="nested3", third="int4")
    b = with_(a, w2=nudged(a.constants["w2"]), b3=a.constants["b3"] + 1)
    one, other = to_file(a, "best"), to_file(b, "best")
    return one, other, made(one, other)[0]


def test_another_base_is_refused(three, tmp_path):
    """One line with the hash that is needed and the one that was given; nothing is written."""
    one, other, data = three
    (tmp_path / "b").write_bytes(other)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Malformed) as refused:
        bl.patch(tmp_path / "b", tmp_path / "d", tmp_path / "out")
    words = str(refused.value)
    assert "\n" not in words
    assert hashlib.sha256(one).hexdigest() in words
    assert hashlib.sha256(other).hexdigest() in words
    assert "give the file that it was made from" in words
    assert sorted(os.listdir(tmp_path)) == ["b", "d"]


def test_every_flipped_bit_is_refused(three):
    """Whatever single bit of a delta is wrong, no file comes out of it."""
    one, _, data = three
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Unsupported)):
            delta.patched(one, bytes(damaged))


def test_every_cut_is_truncated(three):
    """A delta that ends early says how long it must be; one that goes on is refused."""
    one, _, data = three
    for size in range(len(data)):
        with pytest.raises(Malformed) as refused:
            delta.patched(one, data[:size])
        assert size < 8 or (isinstance(refused.value, Truncated) and size < refused.value.needed <= len(data))
    with pytest.raises(Malformed, match="after its end"):
        delta.patched(one, data + b"\0")


def remade(data, **changes):
    """A delta with other words in its network header or, as `layer_...`, in its first layer's; all checksums are right."""
    reader = container.Reader(file.source(data), kind=delta.KIND)
    own = {k.removeprefix("layer_"): v for k, v in changes.items() if k.startswith("layer_")}
    network = {**reader.network, **{k: v for k, v in changes.items() if not k.startswith("layer_")}}
    layers = [{**layer, **(own if k == 0 else {})} for k, layer in enumerate(reader.layers)]
    bodies = [[reader.segment(k, 0)] for k in range(len(layers))]
    return container.pack(network, layers, bodies, range(len(layers)), "raw", container.DELTA)


NONSENSE = [
    {"network": {"changed": {"nothing": None}}},
    {"network": {"gone": ["graph"]}},
    {"network": {"items": [0, None]}},
    {"network": [3]},
    {"network": [None, None]},
    {"layers": []},
    {"layers": [99]},
    {"layers": [None] * 9},
    {"layers": [0] * 9},
    {"coder": "odd"},
    {"coder": None},
    {"layer_base": 99},
    {"layer_base": None},
    {"layer_tree": [{}]},
    {"layer_tree": [{"tensors": 3}]},
    {"layer_tree": [{"name": "h2", "op": "conv", "tensors": [{"name": "w2", "part": [10**12, 0, 0]}]}]},
    {"layer_units": []},
    {"layer_units": [[[1, 0, 10**9]], None]},
    {"layer_units": [[[0, 0, 0, 5, 0, -5, 0, 5]], None]},
    {"layer_units": [[[0, 99]], None]},
    {"layer_units": [[[0, -1]], None]},
    {"layer_units": [[[1]], None]},
    {"layer_units": [[[0]], None]},
    {"layer_units": [[[7]], None]},
    {"layer_units": [[["a"]], None]},
    {"layer_units": [[[]], None]},
    {"result": [1, b"\0" * 32]},
]


@pytest.mark.parametrize("changes", NONSENSE, ids=[str(n) for n in range(len(NONSENSE))])
def test_nonsense_with_good_checksums_is_refused(changes, three):
    """In one line, and without more memory or time than a good one takes."""
    one, _, data = three
    assert delta.patched(one, remade(data)) == three[1]
    with pytest.raises(Malformed) as refused:
        delta.patched(one, remade(data, **changes))
    assert "\n" not in str(refused.value)


def places(tree, path=()):
    """Where in a tree a value stands."""
    yield path
    if isinstance(tree, list | dict):
        for k, v in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(v, (*path, k))


def changed(tree, path, value):
    """The tree with another value at a place."""
    if not path:
        return value
    tree = dict(tree) if isinstance(tree, dict) else list(tree)
    tree[path[0]] = changed(tree[path[0]], path[1:], value)
    return tree


def test_any_value_in_the_place_of_any_other_is_refused(three):
    """Every value of the two kinds of headers is replaced by others, all checksums are right; or the result is."""
    one, other, data = three
    reader = container.Reader(file.source(data), kind=delta.KIND)
    draw = np.random.default_rng(0)
    odd = [None, True, -1, 0, 1, 2, 3, 10**12, 2**62, 0.5, "", "w2", b"", [], [[]], {}, [None], [0, 0, 0], {"changed": {}}]
    for prefix, header in (("", reader.network), ("layer_", reader.layers[0])):
        every = [p for p in places(header) if p and p[0] not in ("order", "segments")]
        for _ in range(250):
            path = every[draw.integers(len(every))]
            key, rest = path[0], path[1:]
            value = changed(header[key], rest, odd[draw.integers(len(odd))])
            try:
                found = delta.patched(one, remade(data, **{prefix + key: value}))
            except (Malformed, Unsupported):
                continue
            assert found == other


def test_deltas_and_networks_are_not_mistaken(three, tmp_path):
    """`load` says that a delta needs its base; `patch` that a network is no delta; `diff` reads networks alone."""
    one, _, data = three
    with pytest.raises(Unsupported, match="holds only what differs from another file"):
        file.load(data)
    with pytest.raises(Malformed, match="is a network of its own; give a file that diff wrote"):
        delta.patched(one, one)
    (tmp_path / "a").write_bytes(one)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Unsupported, match="holds only what differs"):
        bl.diff(tmp_path / "a", tmp_path / "d", tmp_path / "out")
    (tmp_path / "bad").write_bytes(one[:-1] + bytes([one[-1] ^ 1]))
    for pair in (("bad", "a"), ("a", "bad")):
        with pytest.raises(Malformed, match="has a wrong checksum"):
            bl.diff(tmp_path / pair[0], tmp_path / pair[1], tmp_path / "out")
    (tmp_path / "cut").write_bytes(one[:-1])
    with pytest.raises(Truncated):
        bl.diff(tmp_path / "cut", tmp_path / "a", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        bl.diff(tmp_path / "a", tmp_path / "gone", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_files_give_the_same_delta(three):
    """Nothing of the day or the machine is in it."""
    one, other, data = three
    assert made(one, other)[0] == data


def test_commands(tmp_path, monkeypatch, capsys):
    """`diff` and `patch` print one table and what they wrote; a wrong base is status 1 and one line."""
    monkeypatch.chdir(tmp_path)
    a = convnet()
    bl.Model(a).save("a.ladder")
    bl.Model(with_(a, b3=a.constants["b3"] + 1)).save("b.ladder")
    assert main(["diff", "a.ladder", "b.ladder", "-o", "d.delta", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    facts = json.loads(out[-1])
    assert (facts["changed"], facts["new"], facts["gone"]) == (["b3"], [], [])
    assert facts["delta"] == os.path.getsize("d.delta")
    assert "4 the same, 1 changed, 0 new" in "\n".join(out)
    assert "changed: b3" in out
    assert main(["patch", "a.ladder", "d.delta", "-o", "c.ladder", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == facts | {"wrote": "c.ladder"}
    assert (tmp_path / "c.ladder").read_bytes() == (tmp_path / "b.ladder").read_bytes()
    assert main(["patch", "a.ladder", "d.delta", "-o", "a.ladder", "--quiet"]) == 0
    assert (tmp_path / "a.ladder").read_bytes() == (tmp_path / "b.ladder").read_bytes()
    capsys.readouterr()
    assert main(["patch", "b.ladder", "d.delta", "-o", "e.ladder"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "'d.delta' needs a base of" in line
    assert not (tmp_path / "e.ladder").exists()


TREES = [
    None, True, 1, 1.0, -0.0, float("nan"), "a", b"a", [], [1], [1, 2, 3], [1, 5, 3], [1, 3], {}, {"a": 1}, {"a": 1.0},
    {"a": [1, {"b": 2}], "c": None}, {"a": [1, {"b": 3}], "d": [None]}, [None], [[1]], {"gone": ["a"], "items": [0, None]},
]  # fmt: skip


def test_edits_lead_from_any_tree_to_any():
    """Types and signs of zero count; equal trees have no edit."""
    for a in TREES:
        for b in TREES:
            e = edit(a, b)
            assert same(edited(a, e), b)
            assert (e is None) == same(a, b)


def test_edits_that_do_not_fit_are_refused():
    """What is not there cannot go or change, and what stays must be there."""
    for a, e in [
        ({"a": 1}, {"gone": ["b"]}),
        ({"a": 1}, {"changed": {"b": [1]}}),
        ({"a": 1}, {"new": {"a": 1}}),
        ([1], {"head": 1, "tail": 1, "between": []}),
        ([1], {"head": -1, "tail": 0, "between": []}),
        ([1], {"changed": {}}),
        (1, {"items": []}),
        (1, []),
        (1, [1, 2]),
        (1, 7),
    ]:
        with pytest.raises(Malformed, match="does not fit"):
            edited(a, e)


def test_differences_wrap_around():
    """Codes at either end of their format are one step apart, in both directions, for every format."""
    for text in ("nested8", "nested1", "nested5:sign", "int4", "int16", "ternary", "fixed8", "nested8:tree"):
        c = coded(text, (6, 50))
        low, high = c.format.span()
        for before, after in ((low, high), (high, low), (low, low), (high, high)):
            filled = [QTensor(c.encoding, np.full(c.shape, code, c.codes.dtype)) for code in (before, after)]
            g = convnet().with_(nodes=(Node("identity", ("image",), ("scores",)),))
            one, other = (to_file(g.with_(constants={"w": w}), "raw") for w in filled)
            data, _ = made(one, other)
            assert delta.patched(one, data) == other
            assert replace(filled[1]).codes.dtype == c.codes.dtype
