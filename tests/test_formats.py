"""The conformance suite: what every format promises, on numpy and torch alike, and what each promises beyond that."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitladder.formats import Encoding, Fixed, Int, Nested, QTensor, Ternary, fit, parse
from bitladder.formats.nested import SEED, Sums, centroids, lloyd, tree_levels
from bitladder.stats.points import Points

TEXTS = [
    *("int8", "int5", "int2", "uint8", "int8/tensor", "uint8/tensor", "int4/3", "int4/64"),
    *(
        "fixed8",
        "fixed3",
        "fixed16",
        "ufixed8",
        "fixed8/tensor",
        "q2.5",
        "q-3.10",
        "q9.-2",
        "uq0.8",
        "ternary",
        "ternary/tensor",
    ),
    *(
        "codebook4",
        "codebook3:5",
        "codebook2:3",
        "codebook1",
        "codebook8",
        "codebook3/tensor",
        "codebook4:11:squares",
        "log4",
        "ulog4:2",
        "log2/tensor",
        "log5:8",
    ),
    *("product2x4", "product2x3/tensor", "product2x300"),
    *("nested8", "nested5", "nested1", "nested8/tensor", "nested8:tree", "nested1:tree", "nested8:sign", "nested2:sign"),
]
NESTED = [t for t in TEXTS if t.startswith("nested")]
WIDTHS = range(1, 9)
reals = arrays(np.float32, (3, 2, 5), elements=st.floats(-1e3, 1e3, width=32))


@pytest.mark.parametrize("text", TEXTS)
def test_text_makes_the_format(text):
    """A format prints as the text that makes it."""
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=25, deadline=None)
@given(x=reals)
def test_codes_survive(text, x):
    """Decoding and encoding again gives the same codes, in range and finite, whichever array kind came in."""
    fmt = parse(text)
    encoding = fit(fmt, x)
    q = QTensor.of(x, encoding)
    low, high = fmt.span()
    assert q.codes.min() >= low
    assert q.codes.max() <= high
    decoded = q.decode()
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert np.array_equal(encoding.decode(encoding.encode(decoded)), decoded)
    if not any(word in text for word in ("tree", "sign", "codebook", "product")):  # tables may hold a level twice
        assert np.array_equal(encoding.encode(decoded), q.codes)


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=25, deadline=None)
@given(x=reals)
def test_numpy_and_torch_agree(text, x):
    """One formula, two kinds of array, the same bits."""
    encoding = fit(parse(text), x)
    codes = encoding.encode(x)
    assert np.array_equal(encoding.encode(torch.from_numpy(x)).numpy(), codes)
    assert np.array_equal(encoding.decode(torch.from_numpy(codes)).numpy(), encoding.decode(codes))
    assert np.array_equal(encoding.integers(torch.from_numpy(codes)).numpy(), encoding.integers(codes))


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=25, deadline=None)
@given(x=reals)
def test_value_is_integer_times_step(text, x):
    """Whatever a code means can be summed exactly: its value is an integer times a step."""
    q = QTensor.of(x, fit(parse(text), x))
    assert np.array_equal((q.integers().astype(np.float32) * q.step()).astype(np.float32), q.decode())


@pytest.mark.parametrize("text", TEXTS)
def test_constant_and_zero_channels(text):
    """An all-zero channel, a constant one and a huge one side by side: finite parameters, finite values."""
    x = np.zeros((4, 6), np.float32)
    x[1], x[2], x[3] = 0.75, 1e30, 1e-30
    with np.errstate(over="ignore"):
        decoded = QTensor.of(x, fit(parse(text), x)).decode()
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("text", ["int8", "fixed8", "nested8", "nested8:tree", "nested8:sign"])
def test_zero_is_near_zero(text):
    """Zero decodes to less than one step; exactly zero wherever the scheme has a zero."""
    x = np.random.default_rng(8).uniform(-1, 1, (2, 4000)).astype(np.float32)
    encoding = fit(parse(text), x)
    zero = QTensor.of(np.zeros_like(x), encoding).decode()
    assert (np.abs(zero) <= encoding.step(x.shape)).all()
    if text != "nested8":
        assert (zero == 0).all() or "tree" in text


# ----------------------------------------------------------------------------------------------------------- nested


@settings(max_examples=40, deadline=None)
@given(x=reals, half=st.floats(2**-10, 1024, width=32), width=st.sampled_from(list(WIDTHS)))
def test_midrise_prefix_is_the_direct_code(x, half, width):
    """The leading bits of an 8-bit mid-rise code are the codes of a direct quantizer over the same range (S1, E1)."""
    params = {"range": np.array(half, np.float32)}
    eight = QTensor.of(x, Encoding(Nested(8), params))
    direct = QTensor.of(x, Encoding(Nested(width), params))
    assert np.array_equal(eight.at(width).codes, direct.codes)
    assert np.array_equal(eight.at(width).decode(), direct.decode())


@pytest.mark.parametrize("text", ["nested8", "nested8:tree", "nested8:sign"])
def test_prefix_of_prefix(text):
    """prefix(prefix(u, 6), 4) == prefix(u, 4), in codes and in values."""
    x = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    q = QTensor.of(x, fit(parse(text), x))
    assert np.array_equal(q.at(6).at(4).codes, q.at(4).codes)
    assert np.array_equal(q.at(6).at(4).decode(), q.at(4).decode())


def test_wider_than_stored_is_refused():
    """Never extend silently."""
    with pytest.raises(ValueError, match="at most the 4 stored bits, got 5"):
        Nested(4).at(5)
    x = np.ones((1, 4), np.float32)
    assert QTensor.of(x, fit(Nested(4), x)).at(8).format.bits == 4  # a tensor runs at min(b, stored)


def test_plane_dot_product():
    """The plane-serial dot product of S1 equals the dequantized one, in integers."""
    rng = np.random.default_rng(1)
    w, a = rng.normal(size=(1, 64)).astype(np.float32), rng.integers(0, 256, 64)
    for bits in WIDTHS:
        q = QTensor.of(w, fit(Nested(8), w)).at(bits)
        planes = [(q.codes[0] >> (bits - 1 - j)) & 1 for j in range(bits)]
        serial = 2 * sum(2 ** (bits - 1 - j) * int(a @ p) for j, p in enumerate(planes)) + (1 - 2**bits) * int(a.sum())
        assert serial == int(a @ q.integers()[0].astype(np.int64))


def test_sign_keeps_zeros():
    """A weight of zero is zero at every width of sign-magnitude codes, in a sparse tensor."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 200)).astype(np.float32)
    x[rng.random(x.shape) < 0.7] = 0
    q = QTensor.of(x, fit(Nested(8, "sign"), x))
    for bits in range(2, 9):
        assert (q.at(bits).decode()[x == 0] == 0).all()
        assert ((np.sign(q.at(bits).decode()) * np.sign(x)) >= 0).all()


def snr(x: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10((x**2).mean() / ((x - y) ** 2).mean()))


@pytest.mark.parametrize("sample", ["normal", "laplace"])
def test_tree_is_near_lloyd(sample):
    """One split-up tree is within 0.3 dB of a separate Lloyd quantizer at each of 2 to 5 bits (S1 acceptance 2)."""
    x = np.sort(getattr(np.random.default_rng(3), sample)(size=1_000_000))
    sums = Sums.of(x, np.ones_like(x))
    levels = tree_levels(x, np.ones_like(x), 5, SEED)
    for bits in range(2, 6):
        cuts = lloyd(sums, bits, pinned=False)
        best = snr(x, np.repeat(centroids(sums, cuts, pinned=False), np.diff(cuts)))
        assert snr(x, levels[bits][np.searchsorted((levels[bits][1:] + levels[bits][:-1]) / 2, x)]) > best - 0.3


def test_fit_serves_the_widths_that_matter():
    """A fit for 2 bits is better at 2 bits than one for 8, and the other way round."""
    x = np.random.default_rng(4).normal(size=(4, 4000)).astype(np.float32)
    low = QTensor.of(x, fit(Nested(8, matter={2: 1.0}), x))
    high = QTensor.of(x, fit(Nested(8, matter={8: 1.0}), x))
    assert snr(x, low.at(2).decode()) > snr(x, high.at(2).decode()) + 2
    assert snr(x, high.decode()) > snr(x, low.decode()) + 2


# ---------------------------------------------------------------------------------------------------- fixed point


def test_fixed_point_facts():
    """Q2.0 spans -4..3 in steps of 1, Q1.1 spans -2..1.5 in steps of 0.5 (US 12,393,828 FIG 5-6)."""
    for text, low, high, step in [("q2.0", -4, 3, 1), ("q1.1", -2, 1.5, 0.5)]:
        encoding = fit(parse(text), np.zeros((1, 1), np.float32))
        codes = np.array([[-1e9, 1e9]], np.float32)
        assert encoding.decode(encoding.encode(codes)).tolist() == [[low, high]]
        assert encoding.step((1, 1)).item() == step


@settings(max_examples=50, deadline=None)
@given(x=arrays(np.float32, (3, 40), elements=st.floats(-8, 8, width=16)), k=st.integers(-20, 20))
def test_scaling_shifts_fractional_lengths(x, k):
    """Scaling a channel by 2^k changes its fractional length by -k and no code (S3 acceptance)."""
    for cover in ("max", "mse", "kstd"):
        a = fit(Fixed(8), x, cover=cover)
        b = fit(Fixed(8), x * np.float32(2.0**k), cover=cover)
        live = np.abs(x).max(1) > 0
        assert (a.params["fl"][live] - b.params["fl"][live] == k).all()
        assert np.array_equal(a.encode(x)[live], b.encode(x * np.float32(2.0**k))[live])


def test_max_rule_clips_nothing():
    """`max` is the longest fractional length that clips nothing; an all-zero channel gets width - 1."""
    x = np.array([[0.99, -0.3], [1.01, 0.2], [-1.0, 0.5], [0, 0]], np.float32)
    encoding = fit(Fixed(8), x, cover="max")
    assert encoding.params["fl"].tolist() == [7, 6, 7, 7]


def test_per_channel_beats_per_tensor():
    """With `mse`, no channel is worse off with a fractional length of its own (S3 acceptance)."""
    x = np.random.default_rng(5).normal(size=(16, 500)).astype(np.float32) * np.exp2(np.arange(16) / 2 - 4)[:, None].astype(
        np.float32
    )
    own, shared = fit(Fixed(6), x), fit(Fixed(6, per="tensor"), x)
    error = [((e.decode(e.encode(x)) - x) ** 2).mean(1) for e in (own, shared)]
    assert (error[0] <= error[1]).all()


def test_ternary_optimum():
    """No other threshold and scale has a smaller error."""
    x = np.random.default_rng(6).laplace(size=(1, 300)).astype(np.float32)
    got = ((QTensor.of(x, fit(Ternary(), x)).decode() - x) ** 2).mean()
    for t in np.linspace(0.05, 4, 200):
        kept = np.abs(x) > t
        s = np.abs(x[kept]).mean() if kept.any() else 0
        assert got <= ((np.sign(x) * kept * s - x) ** 2).mean() + 1e-6


def test_groups_have_their_own_scale():
    """int4/64 on rows of 100: two groups a row, the last one short."""
    x = np.random.default_rng(7).normal(size=(3, 100)).astype(np.float32)
    x[:, 64:] *= 100
    encoding = fit(Int(4, group=64), x)
    assert encoding.params["scale"].shape == (3, 2)
    assert (encoding.params["scale"][:, 1] > 10 * encoding.params["scale"][:, 0]).all()
    assert snr(x[:, :64], encoding.decode(encoding.encode(x))[:, :64]) > 15


@pytest.mark.parametrize(
    "text", ["int17", "int1", "nested9", "nested1:sign", "nested8:sideways", "fixed25", "int", "q2", "int8/rows", ""]
)
def test_bad_texts_are_refused(text):
    """One line that says what may be written."""
    with pytest.raises(ValueError, match="format") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_points_know_channels():
    """Channels of (output, input) slices come out in that order."""
    x = np.arange(24.0).reshape(2, 3, 4)
    assert Points.of(x, (0, 1)).high.tolist() == [3, 7, 11, 15, 19, 23]
    assert Points.of(x, (1,)).high.tolist() == [15, 19, 23]
