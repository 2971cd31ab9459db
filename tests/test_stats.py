"""Statistics are folds: any cut of a stream into batches, and any merge of parts, gives the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder.stats.histogram import BINS, Histogram
from bitladder.stats.moments import Moments


def parts(seed: int, cuts: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(3, 500)) * 2.0 ** rng.integers(-6, 6, (3, 500))).astype(np.float32)
    return x, [p for p in np.split(x, sorted(cuts), axis=1) if p.shape[1]]


CUTS = st.lists(st.integers(1, 499), max_size=6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), cuts=CUTS)
def test_moments_of_parts(seed, cuts):
    """Streaming equals the plain formulas over the whole."""
    x, pieces = parts(seed, cuts)
    m = Moments.of(pieces[0])
    for piece in pieces[1:]:
        m = m.update(piece)
    y = x.astype(np.float64)
    d = y - y.mean(1, keepdims=True)
    assert m.n == 500
    np.testing.assert_allclose(m.mean, y.mean(1), atol=1e-12)
    np.testing.assert_allclose(m.variance, y.var(1), rtol=1e-10)
    np.testing.assert_allclose(m.skewness, (d**3).mean(1) / y.var(1) ** 1.5, atol=1e-8)
    np.testing.assert_allclose(m.kurtosis, (d**4).mean(1) / y.var(1) ** 2, rtol=1e-8)
    assert np.array_equal(m.low, y.min(1))
    assert np.array_equal(m.high, y.max(1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), cuts=CUTS, order=st.randoms())
def test_histogram_does_not_depend_on_batches(seed, cuts, order):
    """The same counts to the last one, however the stream was cut and in whatever order the parts were merged."""
    x, pieces = parts(seed, cuts)
    whole = Histogram.of(x)
    hists = [Histogram.of(p) for p in pieces]
    order.shuffle(hists)
    merged = hists[0]
    for h in hists[1:]:
        merged = merged.merge(h)
    assert np.array_equal(merged.exponent, whole.exponent)
    assert np.array_equal(merged.counts, whole.counts)
    assert np.array_equal(merged.low, whole.low)
    assert merged.counts.shape[1] == BINS


def test_histogram_points_are_near_the_values():
    """Bin centres are at most half a bin away, and never beyond the extremes."""
    x = np.random.default_rng(0).uniform(-1, 3, (2, 1000)).astype(np.float32)
    h = Histogram.of(x)
    points = h.points()
    assert points.values.min() >= x.min()
    assert points.values.max() <= x.max()
    mean = points.mean(points.values)
    np.testing.assert_allclose(mean, x.mean(1), atol=2 * 4 / BINS)
    assert h.pooled().counts.sum() == 2000


@pytest.mark.parametrize(
    "x", [np.zeros((2, 5), np.float32), np.full((1, 3), -2.5, np.float32), np.full((1, 1), 1e30, np.float32)]
)
def test_histogram_of_constants(x):
    """Constant channels, zero among them, count in one bin and keep their value."""
    points = Histogram.of(x).points()
    assert (Histogram.of(x).counts.sum(1) == x.shape[1]).all()
    np.testing.assert_allclose(points.mean(points.values), x[:, 0], rtol=1e-3)
