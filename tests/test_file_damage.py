"""Files that are not what they say, damaged, cut or made to deceive: refused in one clear line, or worked around openly."""

import random
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from ladders import MAKERS, apart, assert_same, changed, refused, removing, setting, small, together, two_in_one
from networks import convnet

from bitladder import file
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.container import HEAD, MAGIC, PRELUDE
from bitladder.formats import QTensor


@pytest.mark.parametrize(("make", "step"), [(small, 1), (convnet, 17), (two_in_one, 13)])
def test_a_file_cut_anywhere_runs_or_says_how_long_it_must_be(make, step):
    """At every byte of a small one: a network of the planes that are whole, or the bytes that the shortest network takes."""
    graph = make()
    data = file.to_bytes(graph)
    shortest, headers = file.sizes(data)[1][1], file.overview(data).header_bytes
    for size in range(0, len(data), step):
        if size < shortest:
            error = refused(data[:size], f"ends after {size} bytes, must have at least", Truncated)
            assert error.needed == (PRELUDE if size < PRELUDE else headers if size < headers else shortest)
        else:
            cut = file.attach(data[:size])
            assert cut.missing == len(data) - size
            bits = {n: c.format.bits for n, c in cut.graph.constants.items() if isinstance(c, QTensor)}
            assert_same(cut.graph.at(bits), graph.at(bits))


def test_any_flipped_bit_is_noticed():
    """No single damaged bit changes a network in silence, and none brings anything but the two errors for files."""
    data = file.to_bytes(small())
    for position in range(len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[position] ^= 1 << bit
            with pytest.raises(Unsupported if position in (8, 9) else Malformed):
                file.load(bytes(bad))


def test_bytes_after_the_end_are_refused():
    """A file is as long as it says."""
    refused(file.to_bytes(small()) + b"!", "1 bytes after its end", Malformed)


def prelude(**fields):
    """The start of a file with some fields set, its checksum right."""
    names = (
        "magic",
        "major",
        "minor",
        "flags",
        "network",
        "decoded",
        "layers",
        "table",
        "records",
        "total",
        "crc",
        "table_crc",
    )
    usual = {**dict.fromkeys(names, 0), "magic": MAGIC, "major": 2, "total": PRELUDE}
    start = HEAD.pack(*(usual | fields).values()) + bytes(32)
    return start + struct.pack("<I", zlib.crc32(start))


MIB16 = 16 * 2**20


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"magic": b"\x89LAD\n\x1a\n\0"}, "does not begin like a ladder file"),
        ({"magic": b"\x89LADDER\n"}, "does not begin like a ladder file"),
        ({"major": 1}, r"format 1\.0, must be 2\.x"),
        ({"major": 3, "minor": 7}, r"format 3\.7, must be 2\.x"),
        ({"flags": 2}, "flags 0x2, unknown"),
        ({"flags": 0x8000}, "flags 0x8000, unknown"),
        ({"flags": 1}, "only what differs from another file"),
        ({"network": MIB16 + 1}, "network header of at most 16777216"),
        ({"network": 2**32 - 1}, "network header of at most 16777216"),
        ({"decoded": MIB16 + 1}, "decoded network header of at most 16777216"),
        ({"records": MIB16 + 1, "layers": 1, "table": 3}, "headers of layers of at most 16777216"),
        ({"layers": 65_536, "table": 70_000}, "layers of at most 65535"),
        ({"layers": 3, "table": 2}, "layers of at most 2"),
        ({"layers": 1, "table": 11}, "table of at most 10"),
        ({"total": 2**62 + 1}, "bytes in all of at most"),
        ({"total": PRELUDE - 1}, "1 bytes after its end"),
        ({}, "network header of .* has a wrong checksum|identity"),
    ],
)
def test_fields_of_the_prelude_have_bounds(fields, match):
    """One beyond each is refused before anything else is looked at."""
    refused(prelude(**fields), match)


@pytest.mark.parametrize(
    "fields", [{"network": MIB16, "decoded": MIB16}, {"layers": 65_535, "table": 65_535}, {"total": 2**62, "network": 1}]
)
def test_fields_of_the_prelude_may_reach_their_bounds(fields):
    """What is wrong then is that the rest is not there."""
    assert refused(prelude(**fields), "must have at least", Truncated).needed > PRELUDE


def test_a_newer_minor_version_and_flags_of_no_consequence_may_say_more():
    """Unknown keys are an error in a file of this version and ignored in one of the next; unknown flags may be ignorable."""
    graph = convnet()
    data = file.to_bytes(graph)

    def more(tree):
        tree["network"]["graph"]["colour"] = tree["network"]["colour"] = tree["layers"][0]["colour"] = "blue"
        tree["layers"][0]["tensors"][0]["params"]["extra"] = {"dtype": "int8", "shape": [1], "bytes": b"\1"}
        tree["network"]["policy"] = "by colour"

    refused(changed(data, more), "colour", Malformed)
    assert_same(file.load(changed(data, more, minor=1)), graph)
    assert_same(file.load(changed(data, lambda tree: None, flags=0xFFFF0000)), graph)
    with_part = setting("layers", 0, "tensors", 0, "planes", 7, value=[[1, 0, 9]])
    refused(changed(data, with_part, minor=9), "in segment 7", Malformed)


W1, W2, W3, B1 = (("layers", layer, "tensors", entry) for layer, entry in ((0, 0), (1, 0), (2, 0), (0, 1)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (setting("layers", 0, "segments", 0, 0, value=2**62), "must end at"),
        (setting("layers", 0, "segments", 0, 0, value=-1), "lengths and checksums"),
        (setting("layers", 0, "segments", 0, 1, value=0), "segment 0 of layer 0 .* wrong checksum"),
        (setting("layers", 0, "segments", value=[]), "names layer 0 too often"),
        (setting("layers", 0, "segments", value={}), "lengths and checksums"),
        (lambda t: t["layers"][0]["segments"].append([0, 0]), "all be named"),
        (lambda t: t["layers"].append({"name": "", "op": "", "tensors": [], "segments": []}), "1 of them"),
        (setting("network", "order", value=b""), "must end at"),
        (setting("network", "order", value=b"\x07"), "names layer 7 too often"),
        (setting("network", "order", value=b"\x80"), "ends after"),
        (setting("network", "order", value=[0, 1]), "a string of bytes"),
        (setting("network", "policy", value="random"), "one of layer, plane, importance"),
        (setting(*W1, "planes", 0, 0, value=[1, 0, 9]), "in segment 0"),
        (setting(*W1, "planes", 1, 0, value=[0, 0, 9]), "in segment 1"),
        (setting(*W1, "planes", 0, 0, value=[0, 0, 8]), "9 bytes long"),
        (setting(*W1, "planes", 0, 0, value=[0, 9, 9]), "of a known coding and long enough"),
        (setting(*W1, "planes", 0, 0, value=[0, 0]), "list of lists of parts"),
        (setting(*W1, "planes", 0, 0, value=[0, 0, -9]), "list of lists of parts"),
        (setting(*W1, "planes", value=[]), "parts of tensor 'w1'"),
        (setting(*W1, "data", value=[[0, 0, 9]]), "and not both"),
        (removing(*W1, "planes"), "with 'planes'"),
        (setting(*W1, "tile", value=4), "fewer than 4 rows"),
        (setting(*W1, "tile", value=0), "a number of rows"),
        (setting(*W1, "tile", value=2), "8 times 2"),
        (setting(*W1, "shape", value=[2**40, 2**40]), "at most"),
        (setting(*W1, "shape", value=[0, 2**62]), "shape"),
        (setting(*W1, "shape", value=[1] * 33), "at most 32 axes"),
        (setting(*W1, "shape", value=[4, 2, 3, 4]), "12 bytes long"),
        (setting(*W1, "format", value="nested9"), "format of tensor 'w1'"),
        (setting(*W1, "format", value="__import__('os')"), "format of tensor 'w1'"),
        (setting(*W1, "format", value="float"), "format of tensor 'w1'"),
        (setting(*W1, "format", value="nested4"), "4 of them"),
        (setting(*W1, "format", value="int8"), "1 of them"),
        (setting(*W1, "axes", value=[7]), "axes of tensor 'w1'"),
        (setting(*W1, "axes", value=[1]), "range of tensor 'w1'"),
        (setting(*W1, "params", value={}), "params of tensor 'w1'"),
        (
            lambda t: t["layers"][0]["tensors"][0]["params"].update(r=t["layers"][0]["tensors"][0]["params"]["range"]),
            "a map of range",
        ),
        (setting(*W1, "params", "range", "dtype", value="int32"), "float32 of shape"),
        (setting(*W1, "params", "range", "dtype", value="object"), "must be one of bool"),
        (setting(*W1, "params", "range", "bytes", value=b""), "16 of them"),
        (setting(*W1, "params", "range", "bytes", value=bytes(16)), "normal numbers above zero"),
        (setting(*W1, "params", "range", "bytes", value=struct.pack("<4f", 1, 1, 1, 1e-38)), "normal numbers above zero"),
        (setting(*W1, "params", "range", "bytes", value=struct.pack("<4f", 1, 1, 1, np.inf)), "normal numbers above zero"),
        (setting(*W1, "params", "range", "part", value=[0, 0, 16]), "'bytes' up to 32 bytes, with 'part' above"),
        (setting(*W1, "name", value="w2"), "different from each other"),
        (setting(*W1, "name", value=""), "different from each other"),
        (setting(*W1, "kind", value="pickle"), "must be one of array"),
        (setting(*W1, "more", value=1), "a map of"),
        (setting(*W2, "params", "levels8", "part", value=[0, 0, 255]), "256 bytes long"),
        (setting(*W2, "params", "levels8", "part", value=[1, 0, 256]), "in segment 0"),
        (setting(*W3, "format", value="int4/4294967296"), "format of tensor 'w3'"),
        (setting(*W3, "format", value="q-1000000.1000003"), "format of tensor 'w3'"),
        (setting(*W3, "data", value=[]), "1 times 1"),
        (setting(*B1, "of", value="w9"), "name of a tensor of codes"),
        (setting(*B1, "bits", value=[]), "rising list of widths"),
        (setting(*B1, "bits", value=[4, 2, 8]), "rising list of widths"),
        (setting(*B1, "bits", value=[2, 8]), "2 of them"),
        (setting(*B1, "versions", 0, "colour", value=1), "a map of bytes, part"),
        (setting("network", "encodings", "h1", "axes", value=[32]), "rising list of axes below 32"),
        (setting("network", "encodings", "h1", "params", value={}), "'fl'"),
        (setting("network", "encodings", "h1", "params", "fl", "bytes", value=struct.pack("<f", 0.5)), "whole numbers between"),
        (setting("network", "encodings", "h1", "format", value="int4/64"), "without groups"),
        (removing("network", "encodings", "h1", "params", "fl", "bytes"), "with 'bytes'"),
        (
            lambda t: t["network"]["encodings"].__setitem__("nobody", t["network"]["encodings"].pop("h1")),
            "that the graph makes",
        ),
        (setting("network", "meta", "min_bits", value={"w1": "x"}), "bits by weight"),
        (setting("network", "meta", "min_bits", value=[]), "bits by weight"),
        (setting("network", "meta", "min_bits", value={"w1": 2}), "7 of them"),
        (setting("network", "meta", "x", value=[{"y": b""}]), "without strings of bytes"),
        (setting("network", "graph", "nodes", 0, "op", value="os.system"), "operators os.system"),
        (setting("network", "graph", "nodes", 0, "inputs", value=["nobody"]), "reads 'nobody'"),
        (setting("network", "graph", "nodes", 0, "inputs", value="image"), "a list of names"),
        (setting("network", "graph", "nodes", 0, "clip", value=[1]), "two limits"),
        (setting("network", "graph", "nodes", 0, "attrs", value=[]), "a map without strings of bytes"),
        (setting("network", "graph", "outputs", value=["nobody"]), "never made"),
        (setting("network", "graph", "inputs", 0, "dtype", value="object"), "must be one of bool"),
        (setting("network", "graph", "inputs", 0, "shape", value=[-1]), "a list of sizes"),
        (removing("layers", 2, "tensors", 1), "reads 'b3'"),
        (removing("network", "graph"), "with 'graph'"),
        (setting("network", value=[]), "must be a map"),
        (setting("layers", 0, value=None), "must be a map"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(change, match):
    """Checksums do not vouch for sense: every field is checked before it is used."""
    refused(changed(file.to_bytes(convnet()), change), match)


def places(tree, at=()):
    """Every place in a tree, as keys."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
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
    float("nan"),
    [0],
    ["w1"],
    {"a": {}},
    b"\0",
)


@pytest.mark.parametrize("make", MAKERS)
def test_whatever_headers_say_is_read_or_refused(make):
    """One value anywhere replaced by an oddity, checksums made good: a graph or a clear error, never anything else."""
    rng = random.Random(0)
    data = file.to_bytes(make())
    there = apart(data)
    keys = [k for k in places({"network": there["network"], "layers": there["layers"]}) if len(k) > 1]
    for place in rng.sample(keys, 60):
        for oddity in rng.sample(ODDITIES, 5):
            with suppress(Malformed, Unsupported):
                file.load(
                    changed(data, setting(*place, value=oddity)), rng.choice([None, 2, "auto"]), recover=rng.random() < 0.3
                )


@pytest.mark.parametrize("coder", ["raw", "best"])
def test_damage_in_coded_parts_is_refused(coder):
    """Bytes that no coder made, their checksums right: one clear line, or a network."""
    rng = random.Random(1)
    graph = two_in_one()
    there = apart(file.to_bytes(graph, coder))
    for _ in range(150):
        bodies = [bytearray(b) for b in there["bodies"]]
        body = rng.choice([b for b in bodies if b])
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        words, counts = list(there["network"]["order"]), {}
        layers = [{**layer, "segments": [list(row) for row in layer["segments"]]} for layer in there["layers"]]
        for layer, b in zip(words, bodies, strict=True):
            row = counts[layer] = counts.get(layer, -1) + 1
            layers[layer]["segments"][row][1] = zlib.crc32(b)
        data = together({"network": there["network"], "layers": layers, "bodies": bodies})
        with suppress(Malformed):
            file.load(data)
