"""Types of densities: exact errors, the table, the profile, the network that tells types, and the rule `pdf` (S7)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from torch import nn

from bitladder.convert.from_torch import from_torch
from bitladder.formats import Fixed, Int, fit
from bitladder.ir.graph import Graph, Value
from bitladder.ir.rewrite import simplify
from bitladder.ptq.calibrate import encodings, fitted, observe, placement
from bitladder.runtime.reference import run
from bitladder.stats import types
from bitladder.stats.densities import DENSITIES, error, quantile
from bitladder.stats.histogram import Histogram
from bitladder.stats.profile import Profile
from bitladder.stats.train_types import Lesson, best_steps, steps, write
from bitladder.stats.types import BORDER, OPTIMUM, TYPES

SPEC = {  # steps of S7's table at 3, 4, 6 and 8 bits, to 1 % where the exact ones agree with them
    "normal": (0.602, 0.338, 0.104, 0.0308),
    "laplace": (0.762, 0.468, 0.166, 0.0549),
}


def clipped_rounding(x, step, below, above):
    """Mean square error of `x` on codes -below .. above, the slow way."""
    return np.mean((np.clip(np.round(x / step), -below, above) * step - x) ** 2)


# ----------------------------------------------------------------------------------------------- densities, table


@pytest.mark.parametrize("name", TYPES)
def test_densities_have_unit_variance(name):
    """Twice the integral of 2 t tail(t), by even steps of a variable that reaches infinity."""
    density = DENSITIES[name]
    u = (np.arange(200_000) + 0.5) / 200_000
    t = u / (1 - u)
    variance = np.mean(4 * t * density.tail(t) / (1 - u) ** 2)
    assert variance == pytest.approx(1, abs=1e-4)
    assert density.tail(np.array(0.0)) == pytest.approx(0.5)
    middle = t[::1000]
    slope = (density.rest(middle * (1 + 1e-5)) - density.rest(middle * (1 - 1e-5))) / (2e-5 * middle)
    np.testing.assert_allclose(-slope, density.tail(middle), rtol=2e-3, atol=1e-8)


@pytest.mark.parametrize("name", TYPES)
def test_the_table_is_what_samples_say(name):
    """Monte Carlo: the error at the table's step, and no better step (1 %). Every other value is drawn from far out, where a
    few decide, and counts less."""
    rng, n = np.random.default_rng(TYPES.index(name)), 200_000
    far = 1e-3 * 10 ** (-12 * rng.random(n))
    p = np.concatenate([1e-3 + 0.499 * rng.random(n), far])
    counts = np.concatenate([np.full(n, 0.499), far * 12 * np.log(10)]) / n
    x = -quantile(DENSITIES[name], p)

    def sampled(step, below, above):
        return sum(counts @ (np.clip(np.round(x / step), 0, levels) * step - x) ** 2 for levels in (below, above))

    for bits in (3, 4, 6, 8):
        row = types.table()[0, bits - 2, TYPES.index(name)]
        step, sides = np.exp2(row[OPTIMUM]), (2 ** (bits - 1), 2 ** (bits - 1) - 1)
        assert sampled(step, *sides) == pytest.approx(error(DENSITIES[name], step, *sides), rel=0.01)
        for other in (0.8, 0.95, 1.05, 1.25):
            assert sampled(step * other, *sides) > sampled(step, *sides)


def test_the_table_is_exact_and_current():
    """The file holds what is computed anew; S7's own steps are met; borders err as much as their doubles."""
    assert types.table().shape == (2, 12, 8, 11)
    np.testing.assert_allclose(types.table()[:, :7], steps(7), rtol=0, atol=1e-5)
    for name, wanted in SPEC.items():
        found = np.exp2(types.table()[0, [1, 2, 4, 6], TYPES.index(name), OPTIMUM])
        np.testing.assert_allclose(found, wanted, rtol=0.01)
    for name in TYPES:
        border = 2 ** types.table()[0, 6, TYPES.index(name), BORDER]
        errors = [error(DENSITIES[name], border * s, 128, 127) for s in (0.97, 1, 2, 2.06)]
        assert errors[1] == pytest.approx(errors[2], rel=1e-3)
        assert errors[0] > errors[1]
        assert errors[3] > errors[2]


def test_uniform_steps_are_those_of_a_textbook():
    """Even values in so many equal cells: with the same number of levels on both sides, 2 K + 1 of them."""
    best, _, *_ = best_steps(DENSITIES["uniform"], 3, 3)
    assert 2**best == pytest.approx(2 * 3**0.5 / 7, rel=1e-3)


# -------------------------------------------------------------------------------------------------------- profile


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 499), max_size=5))
def test_profiles_of_parts(seed, cuts):
    """Any cut of a stream gives the moments of the whole; zeros change nothing."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(3, 500)) * (rng.random((3, 500)) < 0.5)).astype(np.float32)
    pieces = [p for p in np.split(x, sorted(cuts), axis=1) if p.shape[1]]
    profile = Profile.of(pieces[0])
    for piece in pieces[1:]:
        profile = profile.update(piece)
    for channel, got, count in zip(x.astype(np.float64), profile.moments, profile.count, strict=True):
        live = channel[channel != 0]
        magnitude, deviation = abs(live), np.sqrt(np.mean(live**2))
        assert count == len(live)
        plain = [live.mean(), magnitude.mean(), deviation**2, *(np.mean((magnitude / deviation) ** k) for k in (3, 4, 5, 6))]
        np.testing.assert_allclose(got, plain, rtol=1e-9, atol=1e-12)
    whole = Profile.of(x)
    assert np.array_equal(profile.low, whole.low)
    assert np.array_equal(profile.high, whole.high)
    np.testing.assert_allclose(whole.pooled().moments, Profile.of(x.reshape(1, -1)).moments, rtol=1e-9)


def test_profiles_do_not_overflow():
    """The largest and the smallest float32 have sixth powers too."""
    for x in (np.full((1, 100), 3e38, np.float32), np.full((1, 100), 1e-45, np.float32)):
        assert np.isfinite(Profile.of(x).moments).all()
        assert Profile.of(x).moments[0, 6] == pytest.approx(1)


def test_counted_points_are_repeated_values():
    x, counts = np.array([[1.0, -2.0, 0.5, 0.0]]), np.array([[3, 1, 2, 5]])
    np.testing.assert_allclose(Profile.of(x, counts).moments, Profile.of(np.repeat(x, counts[0], axis=1)).moments)


def test_histograms_carry_profiles():
    """Through update, merge and pooling, where they are asked for."""
    x = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
    kept = Histogram.of(x[:, :100], profiled=True).update(x[:, 100:])
    np.testing.assert_allclose(kept.points().profile.moments, Profile.of(x).moments)
    assert kept.pooled().points().profile.count == [1200]
    assert Histogram.of(x).points().kept is None


# ---------------------------------------------------------------------------------------------------- the network


def sample(name, seed, n=100_000):
    return quantile(DENSITIES[name], np.random.default_rng(seed).random(n)).astype(np.float32)[None]


@pytest.mark.parametrize("name", ["laplace", "normal", "uniform", "super_cauchy"])
def test_types_of_samples(name):
    """Of 100,000 values, at least 95 % of the answers are within 0.05 dB of the best type's."""
    right = []
    for seed in range(5):
        x = sample(name, seed)
        profile = Profile.of(x)
        for bits in (3, 4, 5, 6, 7, 8):
            table = np.exp2(types.table()[0, bits - 2, :, OPTIMUM]) * profile.deviation
            lost = np.array([clipped_rounding(x, s, 2 ** (bits - 1), 2 ** (bits - 1) - 1) for s in table])
            told = types.named(profile, np.array([bits - 1]))[0]
            right.append(lost[told] <= lost.min() * 10**0.005)
    assert np.mean(right) >= 0.95


def test_wider_on_ties(monkeypatch):
    monkeypatch.setattr(types, "shares", lambda profile, bits: np.full((1, 8), 1 / 8))
    assert types.named(Profile.of(np.ones((1, 1))), np.array([4])) == [TYPES.index("super_cauchy")]


def test_training_is_reproducible(tmp_path):
    """The same lesson gives the same bytes; another seed does not. What is shipped is small."""
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, Lesson(40, 2, seed), types.table())
    made = {folder: (tmp_path / folder / "types.npz").read_bytes() for folder in "abc"}
    assert made["a"] == made["b"] != made["c"]
    assert (tmp_path / "a" / "steps.npy").read_bytes() == types.TABLE.read_bytes()
    assert np.array_equal(steps(3), steps(3))
    assert types.WEIGHTS.stat().st_size < 10_000


# ------------------------------------------------------------------------------------------------- the rule `pdf`


@settings(max_examples=50, deadline=None)
@given(x=arrays(np.float32, (3, 80), elements=st.floats(-8, 8, width=16)), k=st.integers(-20, 20), half=st.booleans())
def test_scaling_shifts_lengths(x, k, half):
    """A channel times 2^k has a fractional length shorter by k, a scale 2^k times as large, and the same codes."""
    x = abs(x) if half else x
    live, factor = np.abs(x).max(1) > 0, np.float32(2.0**k)
    for bits in (3, 8):
        a, b = (fit(Fixed(bits, unsigned=half), y, cover="pdf") for y in (x, x * factor))
        assert (a.params["fl"][live] - b.params["fl"][live] == k).all()
        assert np.array_equal(a.encode(x)[live], b.encode(x * factor)[live])
        a, b = (fit(Int(bits), y, cover="pdf") for y in (x, x * factor))
        assert np.array_equal(a.params["scale"][live] * factor, b.params["scale"][live])


def test_too_little_to_tell_falls_back():
    """Few values, equal values and silence: the rule is `max`."""
    few = np.random.default_rng(0).laplace(size=(2, 63)).astype(np.float32)
    for x in (few, np.full((1, 200), -0.3, np.float32), np.zeros((1, 200), np.float32)):
        for fmt in (Fixed(6), Int(6)):
            a, b = fit(fmt, x, cover="pdf"), fit(fmt, x, cover="max")
            assert {k: v.tolist() for k, v in a.params.items()} == {k: v.tolist() for k, v in b.params.items()}
    assert fit(Fixed(8), np.zeros((1, 200), np.float32), cover="pdf").params["fl"].tolist() == [7]


def test_unsigned_fixed_point_has_all_its_codes_above_zero():
    """Values below zero are lost to it whatever the step is; integers with a zero point make room for them."""
    x = abs(np.random.default_rng(0).normal(size=(1, 5000))).astype(np.float32)
    y = np.concatenate([x, np.full((1, 1), -1e-3, np.float32)], 1)
    assert fit(Fixed(5, unsigned=True), y, cover="pdf").params == fit(Fixed(5, unsigned=True), x, cover="pdf").params
    both = np.concatenate([x, -x], 1)
    one, two = (fit(Int(8, per="tensor", unsigned=True), z, cover="pdf").params for z in (x, both))
    assert one["zero_point"] == 0
    assert two["zero_point"] in (127, 128)
    assert 1.5 < two["scale"] / one["scale"] < 2.2


def test_promised_noise_is_near_the_real_one():
    """Mostly within 0.5 dB for samples of seven types; beside a border a little clipping makes a great difference."""
    off = []
    for name in TYPES[:-1]:
        x = sample(name, 1, 20_000)
        for bits in (4, 6, 8):
            encoding, profile = fit(Fixed(bits), x, cover="pdf"), Profile.of(x)
            noise = np.mean((encoding.decode(encoding.encode(x)) - x) ** 2, dtype=np.float64)
            promised = types.predicted(profile, *Fixed(bits).span(), np.exp2(-encoding.params["fl"]))
            off.append(abs(promised[0] - 10 * np.log10(profile.deviation[0] ** 2 / noise)))
    assert np.median(off) < 0.5
    assert max(off) < 6


def test_no_more_is_covered_than_was_seen():
    """At 16 bits a Laplace would reserve room for what never comes."""
    x = np.random.default_rng(0).laplace(size=(1, 1000)).astype(np.float32)
    assert fit(Fixed(16), x, cover="pdf").params["fl"] == fit(Fixed(16), x, cover="max").params["fl"]


@pytest.mark.parametrize(
    "fmt", [Fixed(4), Fixed(6, unsigned=True), Fixed(8), Int(4), Int(6, per="tensor", unsigned=True)], ids=str
)
def test_steps_are_nearly_the_best(fmt):
    """On samples of random shapes the error is within 0.5 dB of that of `mse` on average, and below that of `max`."""
    from bitladder.stats.synthetic import DRAWS

    lost, gained = [], []
    for seed, draw in enumerate(DRAWS * 4):
        rng = np.random.default_rng(seed)
        x = draw(rng, 3000)
        x = (x * rng.uniform(1, 2) * (1 if fmt.unsigned else rng.choice([-1, 1], 3000))).astype(np.float32)[None]
        errors = {}
        for cover in ("pdf", "mse", "max"):
            encoding = fit(fmt, x, cover=cover)
            errors[cover] = 10 * np.log10(np.mean((encoding.decode(encoding.encode(x)) - x) ** 2))
        lost.append(errors["pdf"] - errors["mse"])
        gained.append(errors["max"] - errors["pdf"])
    assert np.mean(lost) < 0.5
    assert np.mean(gained) > 0


def test_calibration_needs_moments():
    """Encodings by `pdf` come from observed moments; histograms alone are refused in one line."""
    graph = Graph((Value("x", "float32", ("n", 1)),), ("x",), ())
    x = np.random.default_rng(0).laplace(size=(500, 1)).astype(np.float32)
    formats = {"x": Fixed(6)}
    seen = observe(graph, [{"x": x}], ["x"], per_channel=False, profiled=True)
    fl = encodings(graph, seen, formats, cover="pdf")["x"].params["fl"]
    assert fl == fit(Fixed(6, per="tensor"), x, cover="pdf").params["fl"]
    with pytest.raises(ValueError, match="observe them with profiled=True"):
        encodings(graph, observe(graph, [{"x": x}], ["x"], per_channel=False), formats, cover="pdf")


@pytest.fixture(scope="module")
def digits():
    """A convolutional network that reads digits, as a graph, and ten images that it was not trained on."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_digits()
    x, y = (data.images[:, None] / 16).astype(np.float32), data.target
    layers = [m for a, b in ((1, 16), (16, 32), (32, 32)) for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for at in range(0, 1500, 50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x[at : at + 50])), torch.from_numpy(y[at : at + 50])).backward()
        optimizer.step()
    hits = net(torch.from_numpy(x[1500:])).argmax(1).numpy() == y[1500:]
    assert hits.mean() > 0.6
    return simplify(from_torch(net.eval(), (torch.from_numpy(x[:2]),))), x[1600:1610]


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_lengths_of_a_network_are_nearly_the_best(digits, bits):
    """From ten images, at least 95 % of its channels are within 0.3 dB of the exhaustive choice on them (S7 acceptance)."""
    graph, images = digits
    values = {}
    inputs = {graph.inputs[0].name: images}
    names = placement(graph, [name for name, _ in graph.weights()])
    run(graph, inputs, watch=lambda name, value: values.__setitem__(name, np.asarray(value)))
    seen = observe(graph, [inputs], names, per_channel=True, profiled=True)
    lost = []
    for name in [n for n in names if n in values and values[n].ndim == 4 and values[n].shape[1] > 1]:
        encoding, told = fitted(Fixed(bits), seen[name], "pdf"), types.enough(seen[name].profile)
        bottom, top = encoding.format.span()
        for channel, fl in enumerate(encoding.params["fl"]):
            x = values[name][:, channel].astype(np.float64)
            noise = [np.mean((np.clip(np.round(x * s), bottom, top) / s - x) ** 2) for s in np.exp2(fl + np.arange(-5.0, 6))]
            if told[channel]:
                lost.append(10 * np.log10(noise[5] / min(noise)))
    assert len(lost) >= 60
    assert np.mean(np.array(lost) <= 0.3) >= 0.95
