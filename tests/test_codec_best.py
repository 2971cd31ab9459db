"""The adaptive coder: exact both ways, the same bytes from the definition and from the core, and as short as promised."""

import math
from itertools import pairwise

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder.codec import best_codes, best_numbers, parts, twins
from bitladder.codec.bins import Bin, Decoder, Encoder
from bitladder.codec.magnitude import Magnitudes, even
from bitladder.codec.parts import BEST, TRELLIS, Grid, Kind, Part

CORES = [None] + [twins.core] * bool(twins.core)
DTYPES = ["bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)), "float16", "float32", "float64"]
few = settings(max_examples=40, deadline=None)


@pytest.fixture(params=CORES, ids=lambda core: "core" if core else "definition")
def core(request, monkeypatch):
    """Everything once by the definition and once by the core."""
    monkeypatch.setattr(twins, "core", request.param)


def order0(codes):
    """Bytes at the entropy of the histogram."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum()) / 8


def normal(seed, deviation, shape, kind):
    """Codes of a kind around its middle, rounded from a normal distribution."""
    drawn = np.random.default_rng(seed).normal((kind.low + kind.high + 1) // 2, deviation, shape)
    return np.rint(drawn).clip(kind.low, kind.high).astype(np.int64)


def both(monkeypatch, encode):
    """What the definition and the core give, which is the same."""
    found = []
    for each in CORES:
        monkeypatch.setattr(twins, "core", each)
        found.append(encode())
    assert all(a == b for a, b in pairwise(found))
    return found[0]


# ------------------------------------------------------------------------------------------------------------- bins


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=300))
@few
def test_bins_come_back_and_no_other_bytes_do(answers):
    """Four bins, any answers: the same answers, from those bytes alone."""
    coin, bins = Encoder(), [Bin() for _ in range(3)]
    ask = [bin_coder(bins, n) for n, _ in answers]
    for one, (_, told) in zip(ask, answers, strict=True):
        one(coin, told)
    body = coin.end()
    assert decoded(body, [n for n, _ in answers]) == [told for _, told in answers]
    for other in (body[:-1], body + b"\0", body[:-1] + bytes([body[-1] ^ 1])):
        assert decoded(other, [n for n, _ in answers]) != [told for _, told in answers]


def bin_coder(bins, number):
    return lambda coin, told=0: coin.bit(bins[number], int(told)) if number < len(bins) else coin.even(1, int(told))


def decoded(body, numbers):
    """The answers in some bytes, None if no encoder gives such."""
    bins = [Bin() for _ in range(3)]
    try:
        coin = Decoder(body)
        found = [bool(bin_coder(bins, n)(coin)) for n in numbers]
        coin.end()
    except ValueError:
        return None
    return found


def test_a_carry_runs_through_all_bytes():
    """Zeros fill the body with 255, a last half bin makes all of them overflow."""
    coin = Encoder()
    coin.low, coin.range, coin.bytes = 2**64 - 2, 2**33, bytearray(b"\x01\xff\xff\xff")
    coin.even(1, 1)
    assert coin.end()[:4] == b"\x02\0\0\0"


def test_even_numbers_cost_their_bits_and_come_back():
    """Of 0 to 64 bits, between answers that are nearly sure: the same numbers, at a byte more than they have."""
    draw, coin, bin = np.random.default_rng(17), Encoder(), Bin()
    widths = [*range(65)] * 3
    numbers = [int.from_bytes(draw.bytes(8)) >> 64 - bits for bits in widths]
    for bits, number in zip(widths, numbers, strict=True):
        coin.bit(bin, 1)
        even(coin, bits, number)
    body = coin.end()
    assert sum(widths) / 8 <= len(body) <= sum(widths) / 8 + 3
    again, bin = Decoder(body), Bin()
    assert [again.bit(bin) and even(again, bits) for bits in widths] == numbers
    again.end()


def test_what_an_even_number_leaves_over_is_refused(core):
    """The range is no multiple of 2^16 or 4; no encoder gives what is above the last number, even if all else fits."""
    decode = parts.of(parts.NUMBERS, twins.numbers, BEST)[1]
    for zeros in range(20):
        with pytest.raises(ValueError, match="damaged"):
            decode(bytes.fromhex("fffffffffffffffc") + bytes(zeros), np.dtype("uint64"), 1, None)
    assert Decoder(bytes.fromhex("fffffffffffe0000")).even(16) == 2**16 - 1
    with pytest.raises(ValueError, match="damaged"):
        Decoder(bytes.fromhex("fffffffffffffffe")).even(16)


@pytest.mark.parametrize("longest", [0, 1, 3, 4, 7, 8, 16, 31])
def test_magnitudes_come_back(longest):
    """With no tree, with deep ones and with deeper ones than there are lengths: shortest, longest and all between."""
    numbers = sorted({(1 << length >> 1) + more for length in range(longest + 1) for more in (0, (1 << length >> 1) - 1, 5)})
    numbers = [n for n in numbers if 0 <= n < 1 << longest]
    depths, coin = (0, 1, 2, 3, 9), Encoder()
    sizes = Magnitudes(longest, depths)
    asked = [(which, number) for number in numbers for which in range(len(depths))]
    assert [sizes.code(coin, which, number) for which, number in asked] == [number for _, number in asked]
    again, sizes = Decoder(coin.end()), Magnitudes(longest, depths)
    assert [sizes.code(again, which) for which, _ in asked] == [number for _, number in asked]
    again.end()


# ------------------------------------------------------------------------------------------------------------- codes


@st.composite
def grids(draw, kinds):
    kind = draw(kinds)
    rows, cols = draw(st.integers(0, 6)), draw(st.integers(0, 9))
    near = st.integers(max(kind.low, -2), min(kind.high, 3)) if kind.low <= 3 else st.just(kind.low)
    values = st.one_of(near, st.integers(kind.low, kind.high))
    codes = draw(st.lists(values, min_size=rows * cols, max_size=rows * cols))
    return kind, np.array(codes, np.int64).reshape(rows, cols)


KINDS = st.sampled_from(
    [
        *(Kind(4, -8, 7), Kind(3, -3, 3), Kind(2, -1, 1), Kind(8, -128, 127), Kind(4, 0, 15), Kind(1, 0, 1)),
        *(Kind(16, -(2**15), 2**15 - 1), Kind(32, -(2**31), 2**31 - 1), Kind(31, 0, 2**31 - 1)),
    ]
)


@given(grids(KINDS))
@few
def test_codes_come_back(case):
    """Any codes of any kind, and both coders give the same bytes."""
    kind, codes = case
    bodies = []
    with pytest.MonkeyPatch.context() as patch:
        for each in CORES:
            patch.setattr(twins, "core", each)
            body = parts.of(parts.CODES, twins.codes, BEST)[0](codes, kind)
            assert (body is None) == (codes.size == 0)
            if body is not None:
                back = parts.of(parts.CODES, twins.codes, BEST)[1](body, Grid(*codes.shape), kind)
                assert np.array_equal(back, codes)
            bodies.append(body)
    assert all(body == bodies[0] for body in bodies)


def walk(seed, shape, most):
    """Codes that a trellis gives, column by column."""
    draw, codes, state = np.random.default_rng(seed), np.zeros(shape, np.int64), 0
    for col in range(shape[1]):
        for row in range(shape[0]):
            level = int(np.rint(draw.normal(0, most / 5)).clip(-most, most))
            codes[row, col] = 2 * level - np.sign(level) * (state & 1)
            state = best_codes.NEXT[state][level & 1]
    return codes


@pytest.mark.parametrize(("seed", "shape", "most"), [(1, (16, 27), 4), (2, (1, 40), 1), (3, (40, 1), 60), (4, (5, 7), 0)])
def test_codes_of_a_trellis(monkeypatch, seed, shape, most):
    """They come back, cost a bit less each than the same codes without the trellis, and other codes have no such part."""
    codes, kind = walk(seed, shape, most), Kind(8, -128, 127)
    body = both(monkeypatch, lambda: parts.of(parts.CODES, twins.codes, TRELLIS)[0](codes, kind))
    for each in CORES:
        monkeypatch.setattr(twins, "core", each)
        assert np.array_equal(parts.decode_codes(Part(TRELLIS, body), Grid(*shape), kind), codes)
    if codes[-1, -1]:
        codes[-1, -1] += np.sign(codes[-1, -1])
        other = both(monkeypatch, lambda: parts.of(parts.CODES, twins.codes, TRELLIS)[0](codes, kind))
        assert other is None


def test_a_trellis_saves_its_parity(monkeypatch):
    """Half of what a code may be is known from those before it: nearly a bit a code."""
    codes, kind = walk(5, (64, 64), 20), Kind(8, -128, 127)
    plain, folded = (len(parts.of(parts.CODES, twins.codes, c)[0](codes, kind)) for c in (BEST, TRELLIS))
    assert folded < plain - 0.8 * codes.size / 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (37, 91)])
@pytest.mark.parametrize("kind", [Kind(4, -8, 7), Kind(8, -128, 127), Kind(8, 0, 255), Kind(2, -1, 1)])
def test_the_core_equals_the_definition(monkeypatch, kind, shape):
    """Extremes, all equal, narrow and wide: the same part from both, and it comes back."""
    draw = np.random.default_rng(7)
    made = [normal(8, s, shape, kind) for s in (0.01, 0.4, 3)]
    made += [np.full(shape, v) for v in (kind.low, kind.high)] + [draw.choice([kind.low, kind.high], shape)]
    for codes in made:
        part = both(monkeypatch, lambda codes=codes: parts.encode_codes(codes, kind, "best"))
        assert np.array_equal(parts.decode_codes(part, Grid(*shape), kind), codes)


@pytest.mark.parametrize("deviation", [0.3, 0.6, 1.2, 2.5, 20])
def test_independent_codes_cost_their_entropy(core, deviation):
    """At most 2 % and 200 bytes more than the entropy of the histogram."""
    codes = normal(9, deviation, (64, 288), Kind(8, -128, 127))
    size = len(parts.encode_codes(codes, Kind(8, -128, 127), "best").body)
    assert size <= 1.02 * order0(codes) + 200


@pytest.mark.skipif(not twins.core, reason="slow without the core")
def test_near_the_coder_that_knows_the_distribution():
    """constriction with the true distribution, which no file has to hold: at most 0.5 % and the cost of learning less."""
    kind = Kind(8, -128, 127)
    codes = normal(10, 3, (1024, 576), kind)
    coder = constriction.stream.queue.RangeEncoder()
    gaussian = constriction.stream.model.QuantizedGaussian(kind.low, kind.high, 0.0, 3.0)
    coder.encode(codes.ravel().astype(np.int32), gaussian)
    ideal = 4 * len(coder.get_compressed())
    assert 0.995 * ideal < len(parts.encode_codes(codes, kind, "best").body) < 1.005 * ideal


@pytest.mark.skipif(not twins.core, reason="slow without the core")
def test_neighbours_help():
    """Columns of different size and smooth kernels cost clearly less than the entropy of their histogram."""
    draw = np.random.default_rng(11)
    kernels = draw.normal(size=(64, 32, 1)) + 0.5 * draw.normal(size=(64, 32, 9))
    codes = np.rint(kernels * draw.uniform(0.5, 3, (1, 32, 1))).clip(-8, 7).astype(np.int64).reshape(64, -1)
    assert len(parts.encode_codes(codes, Kind(4, -8, 7), "best").body) < 0.93 * order0(codes)


# ------------------------------------------------------------------------------------------------------------ planes


@given(st.integers(1, 8), st.booleans(), st.integers(0, 5), st.integers(0, 9), st.integers(0, 2**32 - 1))
@few
def test_planes_come_back(bits, sign, rows, cols, seed):
    """Any codes, whole or the first planes of them; both coders give the same bytes."""
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, cols)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for number in range(bits):
            bodies = []
            for each in CORES:
                patch.setattr(twins, "core", each)
                encode, decode = parts.of(parts.PLANES, twins.planes, BEST)
                bodies.append(encode(codes, bits, number, sign))
                back = decode(bodies[-1], codes >> (bits - number) if number else np.zeros_like(codes), number, sign)
                assert np.array_equal(back, codes >> (bits - 1 - number))
            assert all(body == bodies[0] for body in bodies)


@pytest.mark.skipif(not twins.core, reason="slow without the core")
@pytest.mark.parametrize("deviation", [10, 40])
def test_planes_cost_what_codes_cost(deviation):
    """All planes together at most 2 % more than whole codes, and they go on from any number of planes."""
    kind = Kind(8, -128, 127)
    codes = normal(12, deviation, (64, 576), kind)
    planes = parts.encode_planes(codes + 128, 8, False, "best")
    whole = len(parts.encode_codes(codes, kind, "best").body)
    assert sum(len(part.body) for part in planes) <= 1.02 * whole
    some = parts.decode_planes(planes[:3], Grid(64, 576), False)
    assert np.array_equal(some, codes + 128 >> 5)
    assert np.array_equal(parts.decode_planes(planes[3:], Grid(64, 576), False, some, 3), codes + 128)


# ----------------------------------------------------------------------------------------------------------- numbers


def arrays_of(dtype):
    """Arrays that have tried to be difficult: any bits, few bits, near zero, all the same."""
    size = np.dtype(dtype).itemsize
    anything = st.integers(0, 2 ** (8 * size) - 1)
    bits = st.one_of(st.just(0), st.integers(0, 3), anything, anything.map(lambda x: x & -256 & 2 ** (8 * size) - 1))
    made = st.lists(bits, max_size=20).map(lambda xs: np.array(xs, f"u{size}"))
    return made.map(lambda xs: xs % 2 == 1 if dtype == "bool" else xs.view(dtype))


@given(st.sampled_from(DTYPES).flatmap(lambda d: st.tuples(arrays_of(d), arrays_of(d))))
@few
def test_numbers_come_back_bit_for_bit(case):
    """Not-a-numbers with what they carry, minus zero, subnormals; with and without an array before."""
    values, other = case
    before = np.resize(other, values.shape) if other.size else None
    with pytest.MonkeyPatch.context() as patch:
        bodies = []
        for each in CORES:
            patch.setattr(twins, "core", each)
            encode, decode = parts.of(parts.NUMBERS, twins.numbers, BEST)
            bodies.append(body := encode(values, before))
            assert (body is None) == (values.size == 0)
            if body is not None:
                back = decode(body, values.dtype, values.size, before)
                assert (back.dtype, back.tobytes()) == (values.dtype, values.tobytes())
        assert all(body == bodies[0] for body in bodies)


def test_small_arrays_are_small(core):
    """Biases cost about their entropy, what is constant next to nothing, what was there before as little."""
    draw = np.random.default_rng(13)
    biases = np.rint(draw.normal(0, 300, 16)).astype(np.int32)
    entropy = 16 * math.log2(300 * math.sqrt(2 * math.pi * math.e)) / 8

    def size(values, before=None):
        return len(parts.encode_numbers(values, "best", before).body)

    assert size(biases) <= entropy + 5
    assert size((biases / 2**12).astype(np.float32)) <= entropy + 7  # the same numbers and what they count
    assert size(np.full(64, 3, np.int32)) <= 4
    assert size(np.full(64, 0.1, np.float32)) <= 8
    assert size(biases, biases) <= 3
    assert size(biases + 1, biases) <= 4


# -------------------------------------------------------------------------------------------------------------- text


@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from(["best", "fast", "raw"]))
@few
def test_texts_come_back(texts, coder):
    """One after the other, whatever coder wrote them; both give the same bytes."""
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for each in CORES:
            patch.setattr(twins, "core", each)
            writer, reader = parts.Texts(), parts.Texts()
            found.append([writer.encode(text, coder) for text in texts])
            assert [reader.decode(p, len(t)) for p, t in zip(found[-1], texts, strict=True)] == texts
        assert all(each == found[0] for each in found)


def test_texts_that_resemble_each_other_are_short(core):
    """A record of a known shape costs little more than what is new in it."""
    draw = np.random.default_rng(14)
    end = bytes.fromhex("050c060403200320030303")
    records = [b"\x07\x04conv%d.weight\x06\x03" % k + draw.bytes(4) + end for k in range(30)]
    texts = parts.Texts()
    sizes = [len(texts.encode(record, "best").body) for record in records]
    assert max(sizes[15:]) <= 11


# ------------------------------------------------------------------------------------------------------------ damage


def test_damage_is_an_error_or_other_values(core):
    """Cut, longer or flipped bytes: never a crash, never codes outside their kind, never the same codes."""
    kind, draw = Kind(4, -8, 7), np.random.default_rng(15)
    codes = normal(16, 2, (12, 27), kind)
    nested = (codes + 8).astype(np.uint8)
    values = np.rint(draw.normal(0, 300, 40)).astype(np.float32)
    text = b"".join(b"conv%d " % k for k in range(40))
    cases = [
        (parts.encode_codes(codes, kind, "best"), lambda p: parts.decode_codes(p, Grid(12, 27), kind), codes.astype(np.int8)),
        (parts.encode_planes(nested, 4, False, "best")[1],
         lambda p: parts.decode_planes([p], Grid(12, 27), False, nested >> 3, 1), nested >> 2),
        (parts.encode_numbers(values, "best"), lambda p: parts.decode_numbers(p, values.dtype, 40), values),
        (parts.Texts().encode(text, "best"), lambda p: np.frombuffer(parts.Texts().decode(p, len(text)), np.uint8),
         np.frombuffer(text, np.uint8)),
    ]  # fmt: skip
    for part, decode, right in cases:
        assert part.coding == BEST
        assert decode(part).tobytes() == right.tobytes()
        bodies = [part.body[:n] for n in (0, 1, len(part.body) // 2, len(part.body) - 1)]
        bodies += [part.body + tail for tail in (b"\0", b"\1", b"\xff" * 9)]
        bodies += [draw.bytes(len(part.body)), b"\xff" * len(part.body)]
        for _ in range(20):
            flipped = bytearray(part.body)
            flipped[draw.integers(len(flipped))] ^= 1 << draw.integers(8)
            bodies.append(bytes(flipped))
        for body in bodies:
            try:
                found = decode(Part(BEST, body))
            except ValueError:
                continue
            assert found.tobytes() != right.tobytes()


def test_a_byte_stands_for_so_many_numbers_at_most(core):
    """Coded zeros are as short as the rule allows and no shorter; a few bytes for many codes are refused."""
    kind, codes = Kind(4, -8, 7), np.zeros((1, 30000), np.int64)
    part = parts.encode_codes(codes, kind, "best")
    assert part.coding == BEST
    assert len(part.body) < 60
    parts.bounded(part, codes.size)
    with pytest.raises(ValueError, match="2048 numbers each"):
        parts.decode_codes(Part(BEST, b"\0"), Grid(1, 30000), kind)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: parts.decode_codes(Part(9, b"\0"), Grid(1, 1), Kind(4, -8, 7)), "one of 0, 1"),
        (lambda: parts.decode_codes(Part(BEST, b"\0"), Grid(1, 1), Kind(32, 0, 2**32 - 1)), "32 bits at most"),
        (lambda: parts.Texts().decode(Part(0, b"abc"), 2), "must have 2 bytes, got 3"),
        (lambda: best_numbers.decode(b"\xc0", np.dtype("int8"), 1), "damaged"),  # a base array that is not there
    ],
)
def test_refusals_say_what_was_wrong(call, text):
    with pytest.raises(ValueError, match=text):
        call()
