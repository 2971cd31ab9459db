"""Coder `fast` and ternary packing: exact both ways, near the entropy, the core equal byte for byte, and no bytes get by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder import formats
from bitladder.codec import bits, dense, fast, rans, ternary, twins
from bitladder.codec.parts import (
    FAST,
    MOST_PER_BYTE,
    RAW,
    TERNARY,
    Grid,
    Kind,
    Part,
    decode_codes,
    decode_planes,
    encode_codes,
    encode_planes,
)

TWO = Kind(2, -1, 1)
needs_core = pytest.mark.skipif(not twins.core, reason="there is no core")
DEFINITION = {FAST: fast, TERNARY: ternary}


def core_encode(coding, codes, kind):
    return twins.codes(coding)[0](codes, kind)


def core_decode(coding, body, grid, kind):
    """The codes, or ValueError like the definition's."""
    codes = twins.codes(coding)[1](body, grid, kind)
    if codes.size and (codes.min() < kind.low or codes.max() > kind.high):
        raise AssertionError("the core let a code out of its range")
    return codes


def whole(coding, body, grid, kind):
    """What the definition makes of a body, codes out of range refused, as `parts` does it."""
    codes = DEFINITION[coding].decode_codes(body, grid, kind)
    if codes.min() < kind.low or codes.max() > kind.high:
        raise ValueError("range")
    return codes.reshape(grid)


def answer(call):
    """What a call gives back, as a list, or that it refuses."""
    try:
        return call().tolist()
    except ValueError:
        return "refused"


def entropy(codes):
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())


def gaussian(count, reach, width, seed=0):
    """Codes of a mid-rise grid, low..high in two's complement."""
    half = 1 << width - 1
    values = np.random.default_rng(seed).normal(size=count) / reach * half
    return np.clip(np.floor(values), -half, half - 1).astype(np.int64)


@st.composite
def some_codes(draw, most=70):
    """A kind and codes (rows, cols) of it, often few of them different."""
    width = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 11, 16, 31]))
    low = draw(st.sampled_from([0, -(1 << width - 1), 1 - (1 << width - 1)])) if width > 1 else 0
    kind = Kind(width, low, low + (1 << width) - 1 - (low % 2))
    rows, cols = draw(st.integers(1, 5)), draw(st.integers(0, most // 5))
    least = draw(st.integers(kind.low, kind.high))
    most_value = min(kind.high, least + draw(st.sampled_from([0, 1, 3, 300, 1 << 20])))
    values = st.lists(st.integers(least, most_value), min_size=rows * cols, max_size=rows * cols)
    return kind, np.array(draw(values), np.int64).reshape(rows, cols)


# ------------------------------------------------------------------------------------------------------------- exact


@given(some_codes())
def test_codes_come_back_and_the_core_makes_the_same_bytes(case):
    """Any kind, any shape, empty ones too."""
    kind, codes = case
    body = fast.encode_codes(codes, kind)
    assert (body is None) == (codes.size == 0 or kind.low == kind.high)
    if body is not None:
        assert np.array_equal(fast.decode_codes(body, Grid(*codes.shape), kind).reshape(codes.shape), codes)
    if twins.core:
        assert core_encode(FAST, codes, kind) == body
        if body is not None:
            assert np.array_equal(core_decode(FAST, body, Grid(*codes.shape), kind), codes)


@given(st.sampled_from([1, 2, 3, 4, 8]), st.booleans(), st.lists(st.integers(0, 255), max_size=70), st.integers(0, 3))
def test_planes_come_back_and_the_core_makes_the_same_bytes(width, sign, values, peaked):
    """Plane by plane on top of those before; peaked: the codes are near the middle."""
    half = 1 << width - 1
    codes = np.array([(half + (v % (2 * half) - half) // (1 + peaked)) % (2 * half) for v in values], np.uint8).reshape(1, -1)
    known = np.zeros_like(codes)
    for number in range(width):
        body = fast.encode_plane(codes, width, number, sign)
        if twins.core:
            assert twins.planes(FAST)[0](codes, width, number, sign) == body
        if not codes.size:
            assert body is None
            continue
        twin = known
        known = fast.decode_plane(body, known, number, sign)
        assert np.array_equal(known, codes >> width - 1 - number)
        if twins.core:
            assert np.array_equal(twins.planes(FAST)[1](body, twin, number, sign), known)


@pytest.mark.parametrize("count", [8191, 8192, 8195])
def test_one_state_or_eight(count):
    """Long enough that states take turns, with a last round that is not full; and 200 symbols of frequencies."""
    for kind, reach in ((Kind(4, -8, 7), 2.7), (Kind(8, -128, 127), 4), (Kind(12, -2048, 2047), 3)):
        codes = gaussian(count, reach, kind.bits).reshape(1, -1)
        body = fast.encode_codes(codes, kind)
        assert np.array_equal(fast.decode_codes(body, Grid(1, count), kind), codes[0])
        if twins.core:
            assert core_encode(FAST, codes, kind) == body
            assert np.array_equal(core_decode(FAST, body, Grid(1, count), kind), codes)


@given(st.integers(1, 300), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_ternary_weights_come_back_and_the_core_makes_the_same_bytes(count, zeros, seed):
    """Any length and density."""
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random(count) < zeros, 0, rng.choice([-1, 1], count)).reshape(1, -1)
    body = ternary.encode_codes(codes, TWO)
    assert np.array_equal(ternary.decode_codes(body, Grid(1, count), TWO), codes[0])
    if twins.core:
        assert core_encode(TERNARY, codes, TWO) == body
        assert np.array_equal(core_decode(TERNARY, body, Grid(1, count), TWO), codes)


@needs_core
def test_a_hundred_thousand_ternary_tensors_come_back():
    """Random lengths and densities, through the core."""
    rng = np.random.default_rng(5)
    for zeros in np.repeat(rng.random(1000), 100):
        codes = rng.integers(0, 2, (1, rng.integers(1, 200))) * 2 - 1
        codes[rng.random(codes.shape) < zeros] = 0
        body = core_encode(TERNARY, codes, TWO)
        assert np.array_equal(core_decode(TERNARY, body, Grid(*codes.shape), TWO), codes)


def test_what_a_coding_is_not_for_gives_none():
    """Nothing to code, one code only, no ternary codes: None, and the part is raw."""
    assert fast.encode_codes(np.zeros((0, 3), np.int64), Kind(4, -8, 7)) is None
    assert fast.encode_codes(np.zeros((2, 3), np.int64), Kind(1, 0, 0)) is None
    assert ternary.encode_codes(np.zeros((2, 3), np.int64), Kind(2, -2, 1)) is None
    assert ternary.encode_codes(np.array([[0, -2]]), TWO) is None  # whose bits 10 are no weight, so that readers refuse them
    with pytest.raises(ValueError, match=r"between -1 and 1, got -2\.\.0"):
        decode_codes(Part(RAW, dense.pack(np.array([0, -2]), 2)), Grid(1, 2), TWO)


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("width", "reach"), [(2, 1.5), (3, 2), (4, 2.7), (4, 8), (8, 4), (8, 16)])
@pytest.mark.parametrize("count", [100, 3000, 30000])
def test_codes_are_near_their_entropy(width, reach, count):
    """At most 1.02 times the order-0 entropy of independent codes and 200 bytes."""
    kind = Kind(width, -(1 << width - 1), (1 << width - 1) - 1)
    codes = gaussian(count, reach, width).reshape(1, -1)
    part = encode_codes(codes, kind, "fast")
    assert len(part.body) <= 1.02 * entropy(codes) * count / 8 + 200


@pytest.mark.parametrize(("width", "reach"), [(12, 4), (16, 4), (16, 400)])
def test_wide_codes_are_near_the_entropy_of_their_source(width, reach):
    """Of a Gaussian: log2 of its deviation in codes and sqrt(2 pi e); what was drawn of it has less by chance."""
    kind = Kind(width, -(1 << width - 1), (1 << width - 1) - 1)
    part = encode_codes(gaussian(30000, reach, width).reshape(1, -1), kind, "fast")
    bound = np.log2((1 << width - 1) / reach * np.sqrt(2 * np.pi * np.e))
    assert len(part.body) <= 1.02 * bound * 30000 / 8 + 200


@pytest.mark.parametrize("scheme", ["nested3:sign", "nested4", "nested4:tree", "nested8", "nested8:sign", "nested8:tree"])
@pytest.mark.parametrize("source", ["normal", "laplace"])
def test_planes_cost_little_more_than_whole_codes(scheme, source):
    """At most 2 % over the entropy of whole codes, all planes together, for grids, trees with codes that never occur, signs."""
    values = getattr(np.random.default_rng(4), source)(size=(30, 1000)).astype(np.float32)
    nested = formats.parse(f"{scheme}/tensor")
    codes = np.asarray(formats.fit(nested, values).encode(values)).astype(np.uint8)
    parts = encode_planes(codes, nested.bits, "sign" in scheme, "fast")
    levels = 1 << nested.bits - 1  # bytes for the levels of all prefixes
    assert sum(len(part.body) for part in parts) <= 1.02 * entropy(codes) * codes.size / 8 + levels
    assert np.array_equal(decode_planes(parts, Grid(30, 1000), "sign" in scheme), codes)


def test_a_coded_byte_stands_for_so_many_numbers_at_most():
    """Constant codes, constant planes and no weights at all keep the bound that readers hold files to."""
    zeros = np.zeros((1, 60000), np.int64)
    for value, kind in ((0, Kind(4, -8, 7)), (7, Kind(4, -8, 7)), (255, Kind(8, 0, 255))):
        assert zeros.size <= MOST_PER_BYTE * len(fast.encode_codes(zeros + value, kind))
        assert encode_codes(zeros + value, kind, "fast").coding == FAST
    for value in (0, 255, 128):
        for number in range(8):
            assert zeros.size <= MOST_PER_BYTE * len(fast.encode_plane(zeros + value, 8, number, False))
    assert zeros.size <= MOST_PER_BYTE * len(ternary.encode_codes(zeros, TWO))


def test_constriction_needs_as_many_bytes():
    """An independent coder with the same frequencies: within half a percent and the final states."""
    stream = pytest.importorskip("constriction").stream
    codes = gaussian(20000, 2.7, 4) + 8
    frequencies = rans.quantized(np.bincount(codes, minlength=16).tolist())
    coder = stream.stack.AnsCoder()
    coder.encode_reverse(codes.astype(np.int32), stream.model.Categorical(np.array(frequencies) / rans.TOTAL, perfect=False))
    ours = len(rans.encode([(codes, frequencies)]))
    assert abs(ours - coder.num_bits() / 8) <= 0.005 * ours + 4 * rans.LANES


@pytest.mark.parametrize("zeros", [0, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_ternary_size_is_what_the_formula_says(zeros):
    """Flags and values as they are: one bit an item and three for each that is not zero; (4 - 3 z^2) / 2 bits a weight."""
    rng = np.random.default_rng(1)
    codes = np.where(rng.random(99999) < zeros, 0, rng.choice([-1, 1], 99999))
    flags, values = ternary.items(codes)
    packed = np.append(codes, 0).reshape(-1, 2)
    assert len(flags) == 50000
    assert len(values) == packed.any(axis=1).sum()
    assert len(bits.to_bytes(flags)) + len(ternary.three_bits(values)) == 6250 + (3 * len(values) + 7) // 8
    assert (len(flags) + 3 * len(values)) / codes.size == pytest.approx((4 - 3 * zeros**2) / 2, rel=0.01)
    assert len(ternary.encode_codes(codes, TWO)) <= 1 + 6250 + (3 * len(values) + 7) // 8  # 2 bits a string: one byte


# ------------------------------------------------------------------------------------------------------------ damage


def bodies():
    """Coded bodies of all sorts, each with what decodes it: coding, grid, kind."""
    rng = np.random.default_rng(3)
    for kind, reach in ((Kind(4, -8, 7), 2.7), (Kind(8, -128, 127), 8), (Kind(12, -2048, 2047), 4)):
        codes = gaussian(200, reach, kind.bits)
        yield fast.encode_codes(codes, kind), FAST, Grid(1, 200), kind
    for zeros in (0.0, 0.5, 0.7, 0.97):
        codes = np.where(rng.random(301) < zeros, 0, rng.choice([-1, 1], 301))
        yield ternary.encode_codes(codes, TWO), TERNARY, Grid(1, 301), TWO
    for way, make in enumerate((bits.to_bytes, ternary.runs, ternary.pairs, ternary.rans_flags)):
        flags, values = ternary.items(codes)
        yield bytes([way]) + make(flags) + ternary.three_bits(values), TERNARY, Grid(1, 301), TWO


@pytest.mark.parametrize("number", range(11))
def test_damage_is_refused_or_gives_other_codes(number):
    """Cut or longer is an error; another byte is an error or other codes of the kind; the core says the same."""
    body, coding, grid, kind = list(bodies())[number]
    rng = np.random.default_rng(number)
    bad = [body[:k] for k in range(len(body))] + [body + b"\0", body + b"\0\0"]
    assert answer(lambda: whole(coding, body, grid, kind)) != "refused"
    for cut in bad:
        assert answer(lambda cut=cut: whole(coding, cut, grid, kind)) == "refused"
    for _ in range(150):
        wrong = bytearray(body)
        wrong[rng.integers(0, len(wrong) if rng.random() < 0.5 else min(20, len(wrong)))] ^= 1 << rng.integers(0, 8)
        bad.append(bytes(wrong))
    if twins.core:
        for body in bad:
            expected = answer(lambda body=body: whole(coding, body, grid, kind))
            assert answer(lambda body=body: core_decode(coding, body, grid, kind)) == expected


@settings(max_examples=300)
@given(st.binary(max_size=30), st.integers(1, 40), st.booleans())
def test_any_bytes_are_refused_or_decoded_alike(body, count, sign):
    """No bytes crash a decoder, and the two agree on every one."""
    grid = Grid(1, count)
    for coding, kind in ((FAST, Kind(4, -8, 7)), (FAST, Kind(9, 0, 300)), (TERNARY, TWO)):
        expected = answer(lambda coding=coding, kind=kind: whole(coding, body, grid, kind))
        if twins.core:
            assert answer(lambda coding=coding, kind=kind: core_decode(coding, body, grid, kind)) == expected
    for number in (0, 2):
        known = np.arange(count, dtype=np.uint8).reshape(1, -1) % (1 << number)
        expected = answer(lambda known=known, number=number: fast.decode_plane(body, known, number, sign))
        if twins.core:
            assert answer(lambda known=known, number=number: twins.planes(FAST)[1](body, known, number, sign)) == expected


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rans.read_table(rans.table([4000, 95]), 0, 2), "must sum to 4096"),
        (lambda: rans.read_table(rans.table([4095, 1]), 0, 2), "be 4084 at most"),
        (lambda: rans.Reader(b"\xff\xff\0\0", 0, 1), "must be 65536 at least"),
        (lambda: rans.Reader(b"\0\0\1", 0, 1), "end too early"),
        (lambda: fast.decode_codes(bytes(5), Grid(1, 1), Kind(4, -8, 7)), "do not come of 5 bytes"),
        (lambda: fast.decode_codes(b"\0\0\0\0\0\x10" + bytes(20), Grid(1, 1), Kind(4, -8, 7)), "must not exceed 7"),
        (lambda: ternary.decode_codes(b"\x04\x01\x00", Grid(1, 1), TWO), "the way of 1 values"),
        (lambda: ternary.decode_codes(b"\x00\x02\x00", Grid(1, 1), TWO), "after the last one"),
        (lambda: ternary.decode_codes(b"\x00\x01\x00", Grid(1, 1), TWO), "set after the last"),
        (lambda: decode_codes(encode_codes(np.ones((1, 99), np.int64), TWO, "fast"), Grid(1, 300000), TWO), "2048 numbers"),
    ],
)
def test_refusals_say_what_was_wrong(call, text):
    """One line: what must be, what it is."""
    with pytest.raises(ValueError, match=text):
        call()
