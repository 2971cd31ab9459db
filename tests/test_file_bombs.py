"""Small files that ask for much: every bound, and that none of them takes time or memory to refuse."""

import hashlib
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from ladders import apart, assert_same, changed, refused, setting, small
from networks import coded, convnet

from bitladder import file
from bitladder.codec import parts
from bitladder.errors import Malformed, Unsupported
from bitladder.file.container import HEAD, MAGIC, MOST_HEADER, PRELUDE, Reader, seal, texts
from bitladder.file.words import table, tree, varint
from bitladder.ir.graph import Graph, Value


def many_strings():
    """A table whose strings grow from each other."""
    first = b"\0" + varint(65_000) + b"a" * 65_000
    return varint(801) + first + b"".join(varint(65_000) + b"\2" + n.to_bytes(2, "big") for n in range(800))


def network_text(value, known=()):
    """The text of a network header that is any value."""
    return table(sorted(known)) + tree(value, {text: k for k, text in enumerate(sorted(known))})


def with_shape(shape, part, total=0):
    """A file of one tensor that claims a shape and a part."""
    tensor = {"name": "w", "kind": "codes", "format": "int4/tensor", "axes": [], "shape": shape, "data": part}
    params = {"scale": {"dtype": "float32", "shape": [], "bytes": struct.pack("<f", 1)}}
    tensor["params"] = {**params, "zero_point": {"dtype": "float32", "shape": [], "bytes": bytes(4)}}
    size = sum(p[2] for p in part)
    graph = {"inputs": [{"name": "x", "dtype": "float32", "shape": None}], "outputs": ["x"], "nodes": []}
    network = {"graph": graph, "encodings": {}, "meta": {}, "order": b"\0", "policy": "plane", "global": {}}
    layer = {"name": "", "op": "", "tensors": [tensor], "segments": [[size, zlib.crc32(bytes(min(size, 5000)))]]}
    data = seal(*texts(network, [layer]), [bytes(min(size, 5000))])
    if total:
        head = bytearray(data[: HEAD.size])
        struct.pack_into("<Q", head, 36, len(data) - min(size, 5000) + size)
        return resealed(bytes(head), data[PRELUDE:])
    return data


def resealed(head, rest, headers=None):
    """A prelude of new first bytes with the checksums of its file."""
    size = sum(struct.unpack_from("<I", head, at)[0] for at in (16, 28, 32))
    start = head + hashlib.sha256(head + rest[:size]).digest()
    return start + struct.pack("<I", zlib.crc32(start)) + rest


BOMBS = {
    "strings that share all but two bytes": lambda: seal(many_strings()[:6000], [], []),
    "strings of 50 MB in 4 kB": lambda: seal(
        varint(1100) + b"\0" + varint(1) + b"a" + b"".join(varint(k) + b"\1b" for k in range(1, 1100)) + b"\7\0", [], []
    ),
    "a list of 2^60": lambda: seal(b"\0\6" + varint(2**60), [], []),
    "a map of 2^60": lambda: seal(b"\0\7" + varint(2**60), [], []),
    "2^60 bytes": lambda: seal(b"\0\x08" + varint(2**60), [], []),
    "2^60 strings": lambda: seal(varint(2**60), [], []),
    "lists in lists": lambda: seal(b"\0" + b"\6\1" * 3000 + b"\0", [], []),
    "a tensor of 2^40 codes, coded in 5 kB": lambda: with_shape([2**20, 2**20], [[0, 2, 5000]]),
    "a tensor of 2^35 codes, not coded": lambda: with_shape([2**35], [[0, 0, 2**34]], total=1),
    "2^40 tiles": lambda: changed(with_shape([2**40, 1], [[0, 2, 5000]]), setting("layers", 0, "tensors", 0, "tile", value=1)),
    "a segment of 2^62": lambda: with_shape([2**40], [[0, 0, 2**62]]),
    "one text many times": lambda: seal(table(["a" * 65_000])[:65_100] + b"\6" + varint(2000) + b"\5\0" * 2000, [], []),
    "a layer of 16 MiB in 5 bytes": lambda: seal(network_text({}), [b"\0" * 5], []),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_files_that_ask_for_much_are_refused_at_once(bomb):
    """In under 50 ms and 16 MiB, whatever they claim."""
    data = BOMBS[bomb]()
    assert len(data) < 80_000
    with suppress(Malformed, Unsupported):
        file.load(data)  # imports
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        with pytest.raises((Malformed, Unsupported)):
            file.load(data)
        seconds.append(time.perf_counter() - begun)
    tracemalloc.start()
    with suppress(Malformed, Unsupported):
        file.load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(seconds) < 0.05
    assert peak < MOST_HEADER


def with_text(body, decoded):
    """A file whose network header is a coded text of some length."""
    first = b"\1" + body
    head = HEAD.pack(MAGIC, 2, 0, 0, len(first), decoded, 0, 0, 0, PRELUDE + len(first), zlib.crc32(first), zlib.crc32(b""))
    return resealed(head, first)


def test_a_coded_text_stands_for_a_bounded_length():
    """A header that unpacks to far more than its bytes is refused before it is unpacked, and not written."""
    refused(with_text(bytes(10), 10 * 64 + 1025), "a coding and enough bytes", Malformed)
    with pytest.raises(Malformed) as caught:
        file.load(with_text(bytes(10), 10 * 64 + 1024))
    assert "enough bytes" not in str(caught.value)
    data = seal(bytes(10_000), [], [], coder="best")
    size = struct.unpack_from("<I", data, 16)[0] - 1
    assert data[PRELUDE] == parts.RAW or 64 * size + 1024 >= 10_000


def test_a_stream_without_end_is_not_taken():
    """A file that claims to be longer than all it holds is refused once its headers are there."""
    data = with_shape([16], [[0, parts.BEST, 2**40]], total=1)
    taken = []

    def endless():
        yield data
        while True:
            taken.append(2**20)
            yield bytes(2**20)

    with pytest.raises(Malformed, match=f"takes {2**40} bytes decoded, must be at most {2**33}"):
        file.load(endless())
    with pytest.raises(Malformed, match="must be at most"):
        file.attach(endless(), 1)
    assert not taken


def test_a_network_that_takes_more_than_allowed_is_refused():
    """The bound is the caller's, and counts what all tensors take once they are decoded."""
    graph = Graph((Value("x"),), ("x",), (), {"a": np.zeros((40, 10)), "w": coded("int4/tensor", (10, 10))})
    data = file.to_bytes(graph)
    taken = 40 * 10 * 8 + 100 + 8
    assert_same(file.load(data, most=taken), graph)
    refused(data, f"takes {taken} bytes decoded, must be at most {taken - 1}; give a larger most=", most=taken - 1)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (table([]) + b"\6" + varint(2**20) + b"\0" * 2**20, "more than 1048576 values"),
        (table(["a" * 2**16]) + b"\6" + varint(1025) + b"\5\0" * 1025, "more than 67108864 bytes of text"),
        (table(["a" * 2**16]) + b"\6" + varint(1025) + b"\7\1\0\0" * 1025, "more than 67108864 bytes of text"),
    ],
)
def test_trees_have_bounds(text, match):
    """Of values, and of text however often it is named."""
    refused(seal(text, [], []), match, Malformed)


def test_headers_of_layers_are_bounded():
    """Each of 1 MiB at most, all of them of 16, which coded ones could be above."""
    there = apart(file.to_bytes(small()))
    first, rest = texts(there["network"], there["layers"])
    refused(seal(first, [rest[0] + bytes(2**20 + 1 - len(rest[0]))], there["bodies"]), "at most 1048576 bytes long", Malformed)
    refused(seal(first, [rest[0] + bytes(2**20 - len(rest[0]))], there["bodies"]), "bytes after its end", Malformed)
    room = Reader(file.source(file.to_bytes(convnet()))).room
    assert room == MOST_HEADER - sum(map(len, texts(*(apart(file.to_bytes(convnet()))[k] for k in ("network", "layers")))[1]))
