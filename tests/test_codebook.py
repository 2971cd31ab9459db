"""Levels by weighted entropy, powers of two and product codebooks: what each fit promises, against plain definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitladder.formats import Codebook, Log, Nested, Product, QTensor, fit, parse
from bitladder.formats.cells import COARSE, Sums, partition
from bitladder.formats.log import PLACES, first_level
from bitladder.formats.product import assigned, centroids
from bitladder.stats.points import Points


def weighted_entropy(magnitudes, cuts, pinned=False):
    """S by its definition: - sum of I_n P_n log P_n over levels of either sign, importance being the square."""
    n, total = len(magnitudes), 0.0
    for at, (i, j) in enumerate(itertools.pairwise(cuts)):
        if not (pinned and at == 0):
            share = (j - i) / n / 2
            total -= 2 * np.mean(magnitudes[i:j] ** 2) * share * math.log(share)
    return total


def greatest(magnitudes, cells, pinned):
    """The greatest S of all ways to cut, equal values staying together."""
    places = [k for k in range(1, len(magnitudes)) if magnitudes[k] != magnitudes[k - 1]]
    cells = min(cells, len(places) + 1)
    ways = itertools.combinations(places, cells - 1)
    return max(weighted_entropy(magnitudes, (0, *way, len(magnitudes)), pinned) for way in ways)


@pytest.mark.parametrize("pinned", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    x=arrays(np.float64, st.integers(2, 40), elements=st.floats(0.01, 100).map(lambda v: round(v, 2))),
    cells=st.integers(1, 4),
)
def test_no_other_cuts_have_a_greater_entropy(x, cells, pinned):
    """Brute force over all sets of boundaries finds no greater S (S8 acceptance)."""
    x = np.sort(x)
    found = partition(x, np.ones_like(x), "entropy", pinned)
    best = greatest(x, cells, pinned)
    assert found.total(found.cut(cells)) == pytest.approx(best, rel=1e-9, abs=1e-12 * float(np.sum(x**2)))


@pytest.mark.parametrize("goal", ["entropy", "squares"])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("sample", ["normal", "laplace"])
def test_sweeps_never_lose(goal, pinned, sample):
    """From equally full cells on, what cells are worth never falls, and it ends no higher than the search does."""
    x = np.sort(np.abs(getattr(np.random.default_rng(1), sample)(size=20_000)))
    found = partition(x, np.ones_like(x), goal, pinned)
    cuts, last = np.linspace(0, len(x), 9).astype(np.int64), -np.inf
    for _ in range(30):
        assert (np.diff(cuts) > 0).all()
        assert found.total(cuts) >= last
        last, cuts = found.total(cuts), found.swept(cuts)
    best = found.cut(8)
    assert found.total(best) >= last * (1 - 1e-12)
    assert np.array_equal(found.swept(best), best)
    assert found.total(best) > found.total(np.linspace(0, len(x), 9).astype(np.int64))


def test_levels_lie_in_their_cells():
    """b_k <= r_k < b_(k+1), and r_k is the root of the mean square (S8)."""
    x = np.sort(np.abs(np.random.default_rng(2).laplace(size=5000)))
    found = partition(x, np.ones_like(x), "entropy")
    cuts = found.cut(6)
    for level, i, j in zip(found.levels(cuts), cuts[:-1], cuts[1:], strict=True):
        assert found.sums.values[i] <= level <= found.sums.values[j - 1]
        assert level == pytest.approx(np.sqrt(np.mean(x[i:j] ** 2)))


def test_many_values_are_pooled():
    """With more different values than are looked at one by one, levels come out almost the same."""
    x = np.sort(np.abs(np.random.default_rng(3).normal(size=30_000)))
    exact = partition(x, np.ones_like(x), "entropy")
    pooled = type(exact)(Sums.distinct(x, np.ones_like(x), most=4000), exact.goal, exact.pinned)
    assert len(pooled.sums.values) <= 4000
    assert np.allclose(pooled.levels(pooled.cut(8)), exact.levels(exact.cut(8)), rtol=0.01)
    assert len(exact.sums.values) > COARSE  # so that cuts are looked for coarsely first


@pytest.mark.parametrize("text", ["codebook4", "codebook4:11", "codebook3/tensor", "codebook2", "log4", "log4:4"])
def test_scale_equivariance(text):
    """Q(a w) = a Q(w), exactly for powers of two (S8)."""
    w = np.random.default_rng(4).laplace(size=(6, 5, 3)).astype(np.float32)
    one, eight = QTensor.of(w, fit(parse(text), w)), QTensor.of(8 * w, fit(parse(text), 8 * w))
    assert np.array_equal(one.codes, eight.codes)
    assert np.array_equal(8 * one.decode(), eight.decode())


@pytest.mark.parametrize("text", ["codebook4", "codebook4:11", "codebook1", "log4", "log5/tensor", "ulog4/tensor"])
def test_monotone(text):
    """A larger value has no smaller code, and no smaller level."""
    w = np.random.default_rng(5).normal(size=(1, 500)).astype(np.float32)
    encoding = fit(parse(text), np.abs(w) if text[0] == "u" else w)
    x = np.linspace(-4, 4, 3001, dtype=np.float32).reshape(1, -1)
    codes = encoding.encode(x)
    assert (np.diff(codes) >= 0).all()
    assert (np.diff(encoding.decode(codes)) >= 0).all()


def test_a_tensor_with_zeros_has_a_zero():
    """Zeros of a pruned layer decode to zero, whatever the number of levels (S18); levels are alike for both signs."""
    rng = np.random.default_rng(6)
    w = rng.normal(size=(4, 300)).astype(np.float32)
    pruned = np.where(rng.random(w.shape) < 0.8, np.float32(0), w)
    for text in ("codebook4", "codebook2", "codebook1", "codebook4:11", "codebook2:3"):
        q = QTensor.of(pruned, fit(parse(text), pruned))
        assert (q.decode()[pruned == 0] == 0).all()
        assert len(np.unique(q.integers())) >= min(3, q.format.count) or text == "codebook1"
    even, odd = (fit(parse(t), w).params["levels"] for t in ("codebook4", "codebook4:11"))
    assert 0 not in even
    assert 0 in odd
    for levels in (even, odd):
        assert np.array_equal(-levels[::-1], levels)
        assert (np.diff(levels.astype(int)) > 0).all()


def test_few_different_values_keep_theirs():
    """As many levels as there are values, and none of them wrong."""
    w = np.array([[1.0, -0.5, 0.25, -1.0, 0.5, 0.0]], np.float32)
    q = QTensor.of(w, fit(Codebook(4), w))
    assert np.abs(q.decode() - w).max() <= 0.5 * q.step().max()
    assert len(q.encoding.params["levels"]) == 16


def test_entropy_spends_levels_otherwise_than_squared_error():
    """Weighted entropy leaves more room around zero, and its squared error is larger: it is not what it is after."""
    w = np.random.default_rng(7).normal(size=(8, 4000)).astype(np.float32)
    by = {cells: QTensor.of(w, fit(Codebook(4, cells=cells), w)) for cells in ("entropy", "squares")}
    first = {c: int(np.abs(q.encoding.params["levels"]).min()) for c, q in by.items()}
    error = {c: float(((q.decode() - w) ** 2).mean()) for c, q in by.items()}
    assert first["entropy"] > 2 * first["squares"]
    assert error["entropy"] > error["squares"]


@pytest.mark.parametrize(
    "text", ["codebook4:16", "codebook4:8", "codebook9", "codebook0", "log1", "log6", "log4:3", "product1x4", "product8x1"]
)
def test_what_no_format_is(text):
    """Texts that say what cannot be are refused in one line."""
    with pytest.raises(ValueError, match="format") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_widths():
    """A narrower book has all its levels; an odd one stays odd."""
    assert str(Codebook(4).with_bits(3)) == "codebook3"
    assert str(Codebook(4, 11).with_bits(3)) == "codebook3:7"
    assert str(Log(4, unsigned=True).with_bits(3)) == "ulog3"
    assert str(Product(8, 256).with_bits(4)) == "product8x16"


# ------------------------------------------------------------------------------------------------------------ trees


@pytest.mark.parametrize("scheme", ["tree", "sign"])
def test_trees_begin_with_cells_of_weighted_entropy(scheme):
    """Eight cells of weighted entropy are what a tree of three bits decodes to; wider ones split them."""
    w = np.random.default_rng(8).normal(size=(1, 6000)).astype(np.float32)
    tree, usual = (fit(Nested(8, scheme, cells=c), w) for c in ("entropy", "lloyd"))
    size = np.sort(np.abs(w / tree.params["scale"][0]).ravel().astype(np.float64))
    parts = partition(size, np.ones_like(size), "entropy", scheme == "sign")
    cuts = parts.cut(4)
    means = np.array([parts.sums.moment[j] - parts.sums.moment[i] for i, j in itertools.pairwise(cuts)]) / np.diff(cuts)
    levels = tree.params["levels3"].astype(int)
    assert np.abs((levels[4:] if scheme == "tree" else levels) - (means if scheme == "tree" else [0, *means[1:]])).max() <= 1.5
    assert not np.array_equal(levels, usual.params["levels3"])
    q = QTensor.of(w, tree)
    assert np.array_equal(q.at(5).at(3).codes, q.at(3).codes)


# ------------------------------------------------------------------------------------------------------------- logs


def plain_search(values, levels, apart):
    """The search of weighted log quantization by its description, value by value."""
    places = [math.floor(PLACES * math.log2(v)) for v in values if v > 0]
    best, chosen = -math.inf, 0
    for f in range(min(places) - apart * levels, max(places) + 2):
        counts = [0] * (levels + 1)
        for p in places:
            counts[min(max((p - f + apart // 2) // apart + 1, 0), levels)] += 1
        shares = [c / len(places) for c in counts]
        total = -sum(2 ** ((f + apart * i) / PLACES) * s * math.log(s) for i, s in enumerate(shares[1:]) if s)
        if total > best * (1 + 1e-12) if best > 0 else total > best:
            best, chosen = total, f
    return chosen


@pytest.mark.parametrize("octave", [1, 2, 8])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_first_level_is_that_of_the_plain_search(bits, octave):
    """The scale is what a plain search for the greatest weighted entropy finds (S8, activations)."""
    values = np.abs(np.random.default_rng(9).normal(size=400)).astype(np.float32)
    values[::3] = 0
    fmt = Log(bits, octave, unsigned=True)
    scale = fit(fmt, values.reshape(1, -1)).params["scale"][0]
    assert scale == np.float32(2 ** (plain_search(values.astype(np.float64), 2**bits - 1, PLACES // octave) / PLACES))


def test_powers_are_nearest_on_a_logarithmic_scale():
    """Half an octave to either side, the last one all above; below half an octave under the first is zero."""
    encoding = fit(Log(3, unsigned=True, per="tensor"), np.ones((1, 4), np.float32))
    s = float(encoding.params["scale"])
    x = np.array([0, 0.70, 0.71, 1.41, 1.42, 60, 1e9], np.float32) * s
    assert encoding.encode(x).tolist() == [0, 0, 1, 1, 2, 7, 7]
    assert (encoding.integers(np.arange(8)) == [0, 1, 2, 4, 8, 16, 32, 64]).all()
    signed = Log(3).integers(np.arange(-4.0, 4.0), {})
    assert signed.tolist() == [-8, -4, -2, -1, 0, 1, 2, 4]
    assert Log(3, 2, unsigned=True).integers(np.arange(8.0), {}).tolist() == [0, 128, 181, 256, 362, 512, 724, 1024]
    assert first_level(np.zeros(8), 3, 16) == 0


# ---------------------------------------------------------------------------------------------------------- products


def test_k_means_never_gets_worse():
    """The weighted error does not grow with more rounds, and no centroid is left without rows (S11 acceptance)."""
    rng = np.random.default_rng(10)
    x, weight = rng.normal(size=(900, 4)), rng.uniform(0.1, 2, (900, 4))
    errors = []
    for rounds in range(8):
        table = centroids(x, weight, 40, rounds)
        codes, error = assigned(x, weight, table)
        errors.append(error.sum())
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.8 * errors[0]
    assert len(np.unique(codes)) == 40


def test_every_block_goes_to_the_nearest_centroid():
    """Codes by brute force; blocks are neighbours along the inputs, at each place of the kernel."""
    w = np.random.default_rng(11).normal(size=(5, 6, 2, 2)).astype(np.float32)
    q = QTensor.of(w, fit(Product(3, 7), w))
    assert q.codes.shape == (5, 2, 2, 2)
    assert q.shape == w.shape
    table, scale = q.encoding.params["centroids"].astype(np.float64), q.encoding.params["scale"].astype(np.float64)
    for o, b, i, j in np.ndindex(q.codes.shape):
        block = w[o, 3 * b : 3 * b + 3, i, j] / scale[o]
        distances = ((table - block) ** 2).sum(1)
        assert distances[q.codes[o, b, i, j]] <= distances.min() * 1.001 + 0.1
        assert np.array_equal(q.integers()[o, 3 * b : 3 * b + 3, i, j], table[q.codes[o, b, i, j]])


def test_size_of_blocks():
    """Blocks take log2(centroids) bits each (S11's formula, with int8 centroids beside)."""
    w = np.random.default_rng(12).normal(size=(64, 64, 3, 3)).astype(np.float32)
    q = QTensor.of(w, fit(Product(8, 256), w))
    assert q.nbytes == 64 * 64 * 9 // 8
    assert q.encoding.params["centroids"].shape == (256, 8)


def test_importance_moves_centroids():
    """Errors where importance is greater become smaller."""
    rng = np.random.default_rng(13)
    w = rng.normal(size=(30, 8)).astype(np.float32)
    importance = np.ones_like(w)
    importance[:, ::2] = 100
    plain, told = (QTensor.of(w, fit(Product(2, 8), w, importance=i)).decode() for i in (None, importance))
    assert ((told - w)[:, ::2] ** 2).mean() < ((plain - w)[:, ::2] ** 2).mean()


def test_what_blocks_do_not_fit():
    """One line for shapes that cannot be cut into blocks."""
    for shape, axis in (((4, 3), 0), ((4, 4), 1), ((8,), 0)):
        with pytest.raises(ValueError, match="product2x4 needs channels along axis 0 and inputs in blocks of 2"):
            fit(Product(2, 4), np.ones(shape, np.float32), axis=axis)


def test_fits_are_the_same_every_time():
    """No fit depends on anything but what it is given."""
    w = np.random.default_rng(14).normal(size=(16, 8, 3, 3)).astype(np.float32)
    for text in ("codebook4", "log4", "product4x16", "codebook3:7/tensor"):
        a, b = fit(parse(text), w).params, fit(parse(text), w.copy()).params
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[k], b[k]) for k in a)
    assert Points.of(np.zeros((1, 1)), (0,)).low.tolist() == [0]
