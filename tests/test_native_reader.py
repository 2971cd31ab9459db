"""The two readers of files, in Python and in C++: both accept a file and see the same network, or both refuse it alike.

`MUTANTS=100000 SEED=1 pytest tests/test_native_reader.py` compares them on as many damaged files.
"""

import copy
import hashlib
import io
import os
import random
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from ladders import apart, together
from networks import coded, convnet, fixed_points, odd_graph

from bitladder import file
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.container import HEAD, PRELUDE, Reader, seal, texts
from bitladder.file.widths import is_nested
from bitladder.file.words import varint
from bitladder.file.writing import to_file
from bitladder.formats import Codebook, Fixed, Int, Log, Nested, Product, QTensor, Ternary
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS

CSRC = Path(__file__).parents[1] / "csrc"
READER = (*sorted((CSRC / "codec").glob("*.cc")), *sorted((CSRC / "file").glob("*.cc")), *sorted((CSRC / "graph").glob("*.cc")))
KINDS = {Fixed: "fixed", Int: "integer", Ternary: "ternary", Codebook: "codebook", Log: "log", Product: "product"}
STATUS = {Malformed: 1, Truncated: 2, Unsupported: 3}


@pytest.fixture(scope="session")
def dump(tmp_path_factory):
    """A program that reads files and prints them: `BITLADDER_DUMP_FILE`, or made here."""
    program = os.environ.get("BITLADDER_DUMP_FILE")
    if not program:
        compiler = shutil.which(os.environ.get("CXX", "c++"))
        if compiler is None or not CSRC.is_dir():
            pytest.skip("no C++ compiler")
        program = tmp_path_factory.mktemp("native") / "dump_file"
        sources = [*READER, CSRC / "tests" / "dump_file.cc"]
        subprocess.run([compiler, "-std=c++20", f"-I{CSRC}", *sources, "-o", program], check=True)

    def read_all(records):
        """For every (file, bits): status, needed bytes, and the lines of the graph or of the error."""
        text = b"".join(struct.pack("<II", bits, len(data)) + data for data, bits in records)
        out = subprocess.run([program], input=text, capture_output=True, check=True, timeout=120).stdout.decode()
        answers = out.split("\n.\n")[:-1]
        assert len(answers) == len(records)
        return [(*map(int, first.split()), rest) for first, _, rest in (a.partition("\n") for a in answers)]

    return read_all


# ------------------------------------------------------------------------ what the Python reader says, in the same text


def word(text):
    """Text as one word: bytes that are no plain character, quotes and backslashes in hexadecimal."""
    return "'" + re.sub(rb"[^!-~]|['\\]", lambda m: b"\\%02x" % m[0][0], text.encode()).decode() + "'"


def real(x):
    return "fnan" if x != x else f"f{struct.unpack('<Q', struct.pack('<d', x))[0]:016x}"


def tree(x):
    """A value of the header, its objects sorted."""
    if x is None or isinstance(x, bool):
        return {None: "null", True: "true", False: "false"}[x]
    if isinstance(x, int):
        return str(x)
    if isinstance(x, float):
        return real(x)
    if isinstance(x, str):
        return word(x)
    if isinstance(x, list | tuple):
        return numbers(map(tree, x))
    return "{" + "".join(f"{word(k)}:{tree(x[k])}," for k in sorted(x, key=str.encode)) + "}"


def numbers(xs):
    return "[" + "".join(f"{x}," for x in xs) + "]"


def array(a):
    little = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"))
    return f"{a.dtype.name} {numbers(a.shape)} {zlib.crc32(little.tobytes())}"


def encoding(e):
    f = e.format
    kind = f.scheme if isinstance(f, Nested) else KINDS[type(f)]
    sign = "unsigned" if getattr(f, "unsigned", False) else "signed"
    low, high = f.span()
    params = "".join(f" {k}={array(e.params[k])}" for k in sorted(e.params))
    return f"{kind} {f.bits} {sign} {f.per} {f.group or 0} {low}..{high} {numbers(e.axes)}{params}"


def constant(graph, name, c):
    if isinstance(c, np.ndarray):
        return f"array {array(c)}"
    if isinstance(c, PerWidth):
        widths = sorted(c.arrays)
        rows = "".join(f"{next(i for i, w in enumerate(widths) if c.arrays[w] is c.at(b))}," for b in range(1, 66))
        return f"widths {word(c.of)} {numbers(widths)} {array(np.stack([c.arrays[w] for w in widths]))} {rows}"
    codes = np.ascontiguousarray(c.codes)
    total = int(codes.astype(np.int64).ravel() @ (np.arange(codes.size) % 251 + 1))
    floor = graph.meta.get("min_bits", {}).get(name, 1)
    least = c.format.at(min(floor, c.format.bits)).bits if is_nested(c.format) else c.format.bits
    what = f"{numbers(codes.shape)} {codes.itemsize} {zlib.crc32(codes.tobytes())} {total} least {least}"
    return f"codes {encoding(c.encoding)} of {what}"


def lines(g):
    """The lines of a graph."""
    for v in g.inputs:
        shape = "any" if v.shape is None else "[" + "".join(f"{n if isinstance(n, int) else word(n)}," for n in v.shape)
        yield f"input {word(v.name)} {v.dtype} {shape}"
    for name in g.outputs:
        yield f"output {word(name)}"
    for n in g.nodes:
        clip = "" if n.clip is None else " clip " + " ".join("none" if v is None else real(float(v)) for v in n.clip)
        ins, outs = ("".join(f" {word(name)}" for name in names) for names in (n.inputs, n.outputs))
        yield f"node {word(n.op)}{ins} ->{outs} {tree(n.attrs)}{clip}"
    for name in sorted(g.constants, key=str.encode):
        yield f"constant {word(name)} {constant(g, name, g.constants[name])}"
    for name in sorted(g.encodings, key=str.encode):
        yield f"encoding {word(name)} {encoding(g.encodings[name])}"
    yield f"meta {tree(g.meta)}"


def python_reads(data, bits):
    """What `dump` should say of a file: status, needed bytes, and the lines of the graph."""
    try:
        graph = file.load_from(io.BytesIO(data), "it", bits or None)
    except (Malformed, Unsupported) as error:
        return STATUS[type(error)], getattr(error, "needed", 0), str(error)
    return 0, 0, "\n".join(lines(graph))


# ------------------------------------------------------------------------------------------------ files to read


def dense():
    """Every format in one layer that is never run, with enough codes for all alignments, and widths of many kinds."""
    texts = """int2 uint3 int5/tensor int7/3 int9 uint16 fixed2 ufixed1 fixed17 ufixed8 fixed24 q2.5 uq0.4 ternary
        ternary/tensor nested1:tree nested3:tree/tensor nested2:sign nested8:sign nested5
        codebook4 codebook1/tensor codebook3:5 codebook8:squares log4 ulog3:2/tensor product11x3 product11x300/tensor"""
    constants = {t: coded(t, (3, 11), i) for i, t in enumerate(texts.split())}
    constants["versions"] = PerWidth("nested8:sign", {b: np.arange(b, b + 3) for b in (2, 3, 8)})
    constants["long"] = PerWidth("nested8:sign", {b: np.arange(b, b + 9.0) for b in (1, 5, 6, 64)})
    constants["flat"] = PerWidth("int2", {b: np.arange(9) % b == 0 for b in (1, 5)})
    constants["bools"] = np.arange(40) % 3 == 0
    constants["halves"] = np.arange(40, dtype=np.float16)
    node = Node("concat", tuple(constants), ("all",), {"axis": -1, "odd \"'\\\n\u20ac\U0001f600": "\u00e9"}, (-0.0, 3))
    meta = {"min_bits": {"nested8:sign": 4, "nobody": 3}, "default_bits": {"nested8:sign": 5}, "real": [1e-320, -1.5e300]}
    return Graph((Value("x", "float16", ()),), ("all", "x"), (node,), constants, {"x": fixed_points(8, -3)}, meta)


def skewed():
    """Codes of which most are alike, so that every coding is worth its bytes."""
    rng, constants = np.random.default_rng(5), {}
    for text in ("int4", "int12", "ternary", "nested4", "nested6:sign", "ufixed8"):
        whole = coded(text, (8, 40))
        low, high = whole.format.span()
        few = np.clip(rng.normal((low + high) / 2, (high - low) / 20 + 0.3, whole.shape).round(), low, high)
        constants[text] = QTensor(whole.encoding, few.astype(whole.codes.dtype))
    constants["steps"] = np.arange(200, dtype=np.float32)
    constants["versions"] = PerWidth("nested4", {b: np.arange(40, dtype=np.float32) + b for b in (1, 2, 3)})
    node = Node("concat", tuple(constants), ("all",), {"axis": 0})
    return Graph((Value("x", "float32", ()),), ("all",), (node,), constants, {}, {"labels": [f"label {i}" for i in range(40)]})


def networks():
    """Networks whose files are read whole, cut and damaged."""
    floors = {"min_bits": {"w1": 4, "w2": 3}}
    return [convnet(), convnet("nested6:sign", "nested4", "fixed8", meta=floors), odd_graph(), dense()]


def files():
    """Their files: by every coder, in every order, and cut into tiles of few rows."""
    gains = {("w1", p): 1.0 / p for p in range(1, 9)} | {("w2", 3): 9.0}
    for graph in networks():
        yield to_file(graph, "raw")
        yield to_file(graph, "raw", "layer", tile=20)
    yield to_file(convnet(), "raw", "importance", gains, tile=7)
    for coder in ("best", "fast"):  # parts alone: headers take the definition of their coding half a second
        yield together(apart(to_file(skewed(), coder, tile=300)))


def places(x, at=()):
    """Every place in a tree, as keys."""
    for key, value in x.items() if isinstance(x, dict) else enumerate(x):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


# What is put in place of a value.
ODD_TEXTS = """w1 x nested8 nested1 nested9:tree nested2:sign ternary int4/2 int4/0 int8/99999999999 q-5.13 q-999.1007 ufixed1
    codebook3:5 codebook3:6 codebook4 log3 ulog3:2 product11x3 product11x4 product2x4
    fixed08 int8/tensor bool int8 uint8 float32 float64 array codes widths layer \u00e9"""
ODDITIES = [
    *(None, True, False, -1, 0, 1, 2, 7, 31, 32, 64, 65, 2**31, 2**40, 2**40 + 1, 2**62, 2**62 + 1, 2**63 - 1, -(2**63)),
    *(0.5, -0.0, 1.0, float("inf"), float("nan"), "", *ODD_TEXTS.split()),
    *([], [[]], {}, [0], [1, 0], [0, 0], [0, 1], ["w1"], [""], [None, None], [0, float("inf")]),
    *({"a": {}}, {"w1": 3}, {"w1": 65}, [0, 0, 0], [1, 0, 9], [0, 1, 40], b"", b"\0", b"\0\1\2"),
    *(bytes(4), bytes(32), bytes(33), b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\1\0\0\0", b"\0\0\x80\0"),
]
KEYS = ("extra", "planes", "data", "bytes", "part", "tile", "levels9", "levelsx", "versions", "clip", "attrs")


def at_place(tree, keys):
    for key in keys[:-1]:
        tree = tree[key]
    return tree, keys[-1]


def edited(rng, tree):
    """One to three changes of trees: a value replaced, removed, exchanged, repeated, nudged or put under another key."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        everywhere = [at for at in places({k: tree[k] for k in ("network", "layers")}) if len(at) > 1]
        holder, key = at_place(tree, rng.choice(everywhere))
        other, place = at_place(tree, rng.choice(everywhere))
        change, value = rng.randrange(8), holder[key]
        if change < 2:
            holder[key] = copy.deepcopy(rng.choice(ODDITIES))
        elif change == 2:
            del holder[key]
        elif change == 3:
            holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
        elif change == 4 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        elif change == 4:
            holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODDITIES))
        elif type(value) is int:
            holder[key] = min(value + rng.choice((-64, -1, 1, 2, 8, 64)), 2**63 - 1)
        elif isinstance(value, str) and value:
            i = rng.randrange(len(value))
            holder[key] = value[:i] + rng.choice("0127f/:.xa") + value[i + 1 :]
        elif isinstance(value, bytes) and value:
            holder[key] = flipped(rng, value)


def flipped(rng, data):
    """Bytes with one to three of them changed, taken away or put in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.randrange(len(data) + 1)
        if rng.random() < 0.3:
            data[i : i + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        elif i < len(data):
            data[i] = rng.choice((data[i] ^ 1 << rng.randrange(8), data[i] + 1 & 255, data[i] - 1 & 255, 0, 127, 128, 255))
    return bytes(data)


def resummed(rng, tree):
    """Other bytes in some segments, their lengths and checksums right again."""
    rows = [iter(layer["segments"]) for layer in tree["layers"]]
    for number, layer in enumerate(tree["network"]["order"]):
        row = next(rows[layer])
        if rng.random() < 0.3:
            tree["bodies"][number] = body = flipped(rng, tree["bodies"][number])
            row[:] = [len(body), zlib.crc32(body)]


def moved(rng, tree):
    """Segments in another order, or the order alone changed."""
    order = list(tree["network"]["order"])
    i, j = rng.randrange(len(order)), rng.randrange(len(order))
    order[i], order[j] = order[j], order[i]
    tree["network"]["order"] = (
        bytes(order) if rng.random() < 0.7 else b"".join(map(varint, order[: rng.randrange(len(order) + 1)]))
    )
    if max(i, j) < len(order) and rng.random() < 0.7:
        tree["bodies"][i], tree["bodies"][j] = tree["bodies"][j], tree["bodies"][i]


def retold(rng, tree, **prelude):
    """A file whose headers' texts have other bytes."""
    network, layers = texts(tree["network"], tree["layers"])
    which = rng.randrange(-1, len(layers))
    if which < 0:
        network = flipped(rng, network)
    else:
        layers[which] = flipped(rng, layers[which])
    return seal(network, layers, tree["bodies"], **prelude)


def renumbered(rng, data):
    """Another number in the prelude or other bytes of the table or the records, and all sums right again."""
    fields = list(HEAD.unpack(data[: HEAD.size]))
    headers = bytearray(data[PRELUDE : PRELUDE + fields[4] + fields[7] + fields[8]])
    if rng.random() < 0.6:
        which = rng.randrange(1, 10)
        limit = {1: 2**16, 2: 2**16, 9: 2**64}.get(which, 2**32)
        fields[which] = (fields[which] + rng.choice((-64, -1, 1, 2, 64, 2**15, 2**20, 2**24, 2**31, 2**62))) % limit
    else:
        begin = rng.choice((fields[4], fields[4] + fields[7], 0))
        at = min(begin + rng.randrange(8), len(headers) - 1)
        headers[at] = rng.choice((headers[at] ^ 1 << rng.randrange(8), 0, 127, 128, 255))
    network, table = headers[: fields[4]], headers[fields[4] : fields[4] + fields[7]]
    fields[10:] = [zlib.crc32(network), zlib.crc32(table)]
    head = HEAD.pack(*fields)
    start = head + hashlib.sha256(head + headers[: sum(fields[4:9]) - fields[5] - fields[6]]).digest()
    return start + struct.pack("<I", zlib.crc32(start)) + headers + data[PRELUDE + len(headers) :]


def mutant(rng, data):
    """A damaged file."""
    kind, prelude = (
        rng.randrange(12),
        {"minor": rng.choice((0, 0, 0, 1)), "flags": rng.choice((0,) * 12 + (1, 2, 2**15, 2**16))},
    )
    if kind == 0:
        bad = bytearray(data)
        bad[rng.choice((rng.randrange(PRELUDE), rng.randrange(len(data))))] ^= 1 << rng.randrange(8)
        return bytes(bad)
    if kind == 1:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 2:
        return renumbered(rng, data)
    tree = copy.deepcopy(apart(data))
    if kind == 3:
        return retold(rng, tree, **prelude)
    if kind == 4:
        moved(rng, tree)
    elif kind < 7:
        resummed(rng, tree)
    else:
        edited(rng, tree)
    whole = together(tree, **prelude)
    return whole[: rng.randrange(len(data))] if kind > 9 else whole


def assert_same(records, answers):
    """Every answer is what the Python reader says."""
    for (data, bits), (status, needed, text) in zip(records, answers, strict=True):
        expected = python_reads(data, bits)
        assert (status, needed) == expected[:2], f"bits {bits}: {text!r} against {expected[2]!r}"
        if status == 0:
            assert text == expected[2]
        else:
            assert text.startswith("load: ")
            assert "\n" not in text


@pytest.fixture
def _whole(monkeypatch):
    """Graphs as files have them: constants of many widths stay what they are."""
    monkeypatch.setattr(Graph, "at", lambda graph, bits: graph)


@pytest.mark.usefixtures("_whole")
def test_both_readers_see_the_same_network(dump):
    """Whole files at every width, and prefixes cut where segments end."""
    records = []
    for data in files():
        reader = Reader(file.source(data))
        cuts = {s.end + more for rows in reader.segments for s in rows for more in (-1, 0, 1)}
        records += [(data, bits) for bits in range(10)]
        records += [(data[:cut], bits) for cut in sorted(cuts) if cut <= len(data) for bits in (0, 2, 5)]
    coded_headers = to_file(convnet(), "best")
    records += [(coded_headers, 0), (coded_headers[:1200], 0)]
    answers = dump(records)
    assert_same(records, answers)
    assert sum(status == 0 for status, _, _ in answers) > 100


@pytest.mark.usefixtures("_whole")
def test_both_readers_refuse_the_same_files(dump):
    """Damaged files: the same ones are refused, for the same kind of reason, with the same number of bytes needed."""
    seed, count = int(os.environ.get("SEED", "7")), int(os.environ.get("MUTANTS", "2500"))
    rng, whole, kinds = random.Random(seed), list(files()), dict.fromkeys((0, 1, 2, 3), 0)
    for begin in range(0, count, 2500):
        some = range(min(2500, count - begin))
        records = [(mutant(rng, rng.choice(whole)), rng.choice((0, 0, 1, 3, 8))) for _ in some]
        answers = dump(records)
        assert_same(records, answers)
        for status, _, _ in answers:
            kinds[status] += 1
    print(f"{count} damaged files, by status: {kinds}")
    assert min(kinds.values()) > count // 125


def test_both_readers_know_the_same_words():
    """The table of operators in C++ is that of this package."""
    assert set(re.findall(r'"(\w+)",', (CSRC / "graph" / "words.cc").read_text())) == set(OPS)
