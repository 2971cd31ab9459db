"""The codec: bit planes and dense streams, exact both ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.codec.dense import pack, unpack
from bitladder.codec.planes import from_planes, plane_bytes, to_planes


@st.composite
def unsigned(draw):
    """A width and codes of that width."""
    bits = draw(st.integers(1, 16))
    return bits, np.array(draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), np.int64)


@given(unsigned())
def test_any_prefix_of_planes_is_the_prefix_of_every_code(case):
    """Round trip with all planes, `code >> (bits - b)` with the first b of them, zero with none."""
    bits, codes = case
    planes = to_planes(codes, bits)
    assert [len(p) for p in planes] == [plane_bytes(codes.size)] * bits
    for b in range(bits + 1):
        assert np.array_equal(from_planes(planes[:b], bits, codes.size), codes >> (bits - b))


@given(unsigned(), st.booleans())
def test_dense_streams_come_back(case, signed):
    """Any width, signed or not."""
    bits, codes = case
    codes = codes - 2 ** (bits - 1) if signed else codes
    assert np.array_equal(unpack(pack(codes, bits), bits, codes.size, signed), codes)


def test_bytes_are_as_documented():
    """Code 0 is the lowest bit of the first byte; int8 and int16 are plain little-endian arrays."""
    assert to_planes(np.array([1, 0, 0, 0, 0, 0, 0, 0, 1]), 1) == [b"\x01\x01"]
    assert pack(np.array([-2, 5], np.int8), 8) == np.array([-2, 5], np.int8).tobytes()
    assert pack(np.array([-2, 500]), 16) == np.array([-2, 500], "<i2").tobytes()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: to_planes(np.array([4]), 2), "must be 0..3"),
        (lambda: to_planes(np.array([-1]), 2), "must be 0..3"),
        (lambda: from_planes([b"\x01"] * 3, 2, 1), "at most 2"),
        (lambda: from_planes([b"\x01\x00"], 2, 1), "must have 1 bytes, got 2"),
        (lambda: from_planes([b"\x02"], 2, 1), "after its last code"),
        (lambda: from_planes([], 17, 1), "1..16"),
        (lambda: pack(np.array([16]), 4), "must fit in 4 bits"),
        (lambda: unpack(b"\x00\x00", 4, 1, True), "must have 1 bytes, got 2"),
        (lambda: unpack(b"\x10", 4, 1, True), "after the last code"),
        (lambda: unpack(b"", 33, 0, True), "1..32"),
    ],
)
def test_refusals_say_what_was_wrong(call, text):
    """Nothing is wrapped round or cut off in silence."""
    with pytest.raises(ValueError, match=text):
        call()
