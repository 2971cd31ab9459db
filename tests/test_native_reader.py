"""The two readers of files, in Python and in C++: both accept a file and see the same network, or both refuse it alike."""

import io
import json
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
from networks import coded, convnet, fixed_points, odd_graph

from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.container import PRELUDE, Reader, pack
from bitladder.file.header import is_nested, to_header
from bitladder.file.reading import from_header
from bitladder.file.words import dumps
from bitladder.formats import Fixed, Int, Nested, Ternary
from bitladder.ir.graph import Graph, Node, PerWidth, Value
from bitladder.ir.ops import OPS

CSRC = Path(__file__).parents[1] / "csrc"
READER = (*sorted((CSRC / "codec").glob("*.cc")), *sorted((CSRC / "file").glob("*.cc")), *sorted((CSRC / "graph").glob("*.cc")))
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
    return "'" + re.sub(rb"[^!-~]|['\\]", lambda m: b"\\%02x" % m[0][0], utf8(text)).decode() + "'"


def utf8(text):
    return text.encode("utf-8", "surrogatepass")


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
    return "{" + "".join(f"{word(k)}:{tree(x[k])}," for k in sorted(x, key=utf8)) + "}"


def numbers(xs):
    return "[" + "".join(f"{x}," for x in xs) + "]"


def array(a):
    little = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"))
    return f"{a.dtype.name} {numbers(a.shape)} {zlib.crc32(little.tobytes())}"


def encoding(e):
    f = e.format
    kind = f.scheme if isinstance(f, Nested) else {Fixed: "fixed", Int: "integer", Ternary: "ternary"}[type(f)]
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
    what = f"{numbers(c.shape)} {codes.itemsize} {zlib.crc32(codes.tobytes())} {total} least {least}"
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
    for name in sorted(g.constants, key=utf8):
        yield f"constant {word(name)} {constant(g, name, g.constants[name])}"
    for name in sorted(g.encodings, key=utf8):
        yield f"encoding {word(name)} {encoding(g.encodings[name])}"
    yield f"meta {tree(g.meta)}"


def planes_there(reader, bits):
    """The planes of each nested weight that a prefix holds, at most `bits`: what the native reader takes of it."""
    present = sum(reader.needed(n) <= reader.size for n in range(len(reader.sections)))
    widths = {}
    for entry in reader.header["tensors"]:
        if entry["kind"] == "codes" and "planes" in entry:
            planes = entry["planes"]
            there = next((i for i, n in enumerate(planes) if n >= present), len(planes))
            widths[entry["name"]] = max(1, min(there, bits or 64))
    return widths


def python_reads(data, bits):
    """What `dump` should say of a file: status, needed bytes, and the lines of the graph."""
    try:
        reader = Reader(io.BytesIO(data), "it")
        try:
            graph = from_header(reader, bits or None)
        except Truncated:
            graph = from_header(Reader(io.BytesIO(data), "it"), planes_there(reader, bits))
    except (Malformed, Unsupported) as error:
        return STATUS[type(error)], getattr(error, "needed", 0), str(error)
    return 0, 0, "\n".join(lines(graph))


# ------------------------------------------------------------------------------------------------ files to read


def dense():
    """Every format in one network that is never run, with enough codes for all alignments."""
    texts = """int2 uint3 int5/tensor int7/3 int9 uint16 fixed2 ufixed1 fixed17 ufixed8 fixed24 q2.5 uq0.4 ternary
        ternary/tensor nested1:tree nested3:tree/tensor nested2:sign nested8:sign"""
    constants = {t: coded(t, (3, 11), i) for i, t in enumerate(texts.split())}
    constants["versions"] = PerWidth("nested8:sign", {b: np.arange(b, b + 3) for b in (2, 3, 8)})
    node = Node("concat", tuple(constants), ("all",), {"axis": -1, "odd \"'\\\n\u20ac\U0001f600": "\ud800"}, (-0.0, 3))
    meta = {"min_bits": {"nested8:sign": 4, "nobody": 3}, "default_bits": {"nested8:sign": 5}, "real": [1e-320, -1.5e300]}
    return Graph((Value("x", "float16", ()),), ("all", "x"), (node,), constants, {"x": fixed_points(8, -3)}, meta)


def networks():
    """Networks whose files are read whole, cut and damaged."""
    floors = {"min_bits": {"w1": 4, "w2": 3}}
    return [convnet(), convnet("nested6:sign", "nested4", "fixed8", meta=floors), odd_graph(), dense()]


def file_of(header, body, minor=0):
    """A file of `header`, which may be JSON or text, with a good checksum."""
    text = header if isinstance(header, bytes) else dumps(header)
    front = PRELUDE.pack(b"\x89LADDER\n", 1, minor, len(text), zlib.crc32(text)) + text
    return front + (bytes(-len(front) % 64) + body if body else b"")


def parts(data):
    """The header of a file, and its bytes from the first section on."""
    reader = Reader(io.BytesIO(data), "it")
    return reader.header, data[reader.start :]


def places(x, at=()):
    """Every place in a header, as keys."""
    for key, value in x.items() if isinstance(x, dict) else enumerate(x):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


# What is put in place of a value, and where a text is changed.
ODDITIES = json.loads(
    """[null, true, false, -1, 0, 1, 2, 7, 31, 32, 64, 65, 2147483648, 1099511627776, 1099511627777, 4611686018427387904,
    0.5, -0.0, 1.0, "", "w1", "x", "inf", "nested8", "nested1", "nested9:tree", "nested2:sign", "ternary", "int4/2", "int4/0",
    "int8/99999999999", "q-5.13", "q-999.1007", "ufixed1", "fixed08", "int8/tensor", "raw", "bool", "int8", "uint8", "float32",
    "float64", "array", "codes", "widths", "00", "0000c07f", "0000807f", "00000080", "\\u00e9", "\\ud800", [], [[]], {},
    {"float": "nan"}, {"float": 1}, {"float": "1"}, [0], [1, 0], [0, 0], [0, 1], ["w1"], [""], [null, null],
    [0, {"float": "inf"}], {"a": {}}, {"w1": 3}, {"w1": 65}, {"x": {"float": "nan"}}]"""
)
TOKENS = rb"""{ } [ ] , : " \ \u00e9 \ud83d \ude00 \x 0 - . e E+ 1e400 1e-400 -0 null NaN true 9223372036854775808
    -9223372036854775808 "a":1,"""
TOKENS = [b" ", b"\n", b"\x00", b"\xff", *TOKENS.split()]


def at_place(header, keys):
    for key in keys[:-1]:
        header = header[key]
    return header, keys[-1]


def edited(rng, header):
    """A header with one to three changes that keep it JSON: a value replaced, removed, exchanged, repeated or nudged."""
    header = json.loads(json.dumps(header))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        everywhere = list(places(header))
        holder, key = at_place(header, rng.choice(everywhere))
        other, place = at_place(header, rng.choice(everywhere))
        change = rng.randrange(7)
        if change < 2:
            holder[key] = rng.choice(ODDITIES)
        elif change == 2:
            del holder[key]
        elif change == 3:
            holder[key], other[place] = json.loads(json.dumps(other[place])), json.loads(json.dumps(holder[key]))
        elif change == 4 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        elif change == 4:
            holder[rng.choice(("extra", "planes", "data", "hex", "float", "levels9", "levelsx"))] = rng.choice(ODDITIES)
        elif isinstance(holder[key], int):
            holder[key] += rng.choice((-64, -1, 1, 64))
        elif isinstance(holder[key], str) and holder[key]:
            i = rng.randrange(len(holder[key]))
            holder[key] = holder[key][:i] + rng.choice("0127f/:.xa") + holder[key][i + 1 :]
    return header


def retold(rng, header):
    """The text of a header with bytes replaced or tokens put in."""
    text = bytearray(dumps(header))
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(text))
        if rng.random() < 0.5:
            text[i : i + rng.randrange(3)] = rng.choice(TOKENS)
        else:
            text[i] ^= 1 << rng.randrange(8)
    return bytes(text)


def resummed(rng, header, body):
    """A file with damaged sections whose checksums are good again."""
    header, body = json.loads(json.dumps(header)), bytearray(body)
    for row in rng.sample(header["sections"], min(3, len(header["sections"]))):
        if row[1]:
            i = row[0] + rng.choice((0, row[1] - 1, rng.randrange(row[1])))
            body[i] ^= 1 << rng.randrange(8)
            row[2] = zlib.crc32(body[row[0] : row[0] + row[1]])
    return header, bytes(body)


def mutant(rng, data):
    """A damaged file."""
    header, body = parts(data)
    minor, kind = rng.choice((0, 0, 0, 1)), rng.randrange(8)
    if kind == 0:
        bad = bytearray(data)
        bad[rng.choice((rng.randrange(20), rng.randrange(len(data))))] ^= 1 << rng.randrange(8)
        return bytes(bad)
    if kind == 1:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 2:
        return file_of(retold(rng, header), body, minor)
    if kind == 3:
        return file_of(*resummed(rng, header, body), minor)
    whole = file_of(edited(rng, header), body, minor)
    return whole[: rng.randrange(len(data))] if kind == 4 else whole


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
    """Whole files at every width, and prefixes cut where sections end."""
    records = []
    for graph in networks():
        data = pack(*to_header(graph))
        reader = Reader(io.BytesIO(data), "it")
        cuts = {reader.needed(n) + more for n in range(len(reader.sections)) for more in (-1, 0, 1)}
        records += [(data, bits) for bits in range(10)]
        records += [(data[:cut], bits) for cut in sorted(cuts) if cut <= len(data) for bits in (0, 2, 5)]
    answers = dump(records)
    assert_same(records, answers)
    assert sum(status == 0 for status, _, _ in answers) > 100


@pytest.mark.usefixtures("_whole")
def test_both_readers_refuse_the_same_files(dump):
    """Damaged files: the same ones are refused, for the same kind of reason, with the same number of bytes needed."""
    rng = random.Random(int(os.environ.get("SEED", "7")))
    files = [pack(*to_header(graph)) for graph in networks()]
    count = int(os.environ.get("MUTANTS", "2500"))
    records = [(mutant(rng, rng.choice(files)), rng.choice((0, 0, 1, 3, 8))) for _ in range(count)]
    answers = dump(records)
    assert_same(records, answers)
    kinds = [status for status, _, _ in answers]
    assert all(kinds.count(status) > 20 for status in (0, 1, 2, 3))


def test_both_readers_know_the_same_words():
    """The table of operators in C++ is that of this package."""
    assert set(re.findall(r'"(\w+)",', (CSRC / "graph" / "words.cc").read_text())) == set(OPS)
