"""Weight differences: the fold equals brute force, merges, and says what it cannot know."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder.stats.differences import NORMALIZATIONS, STATISTICS, Differences

BRUTE = {
    "mean_square": lambda d: (d**2).mean(0),
    "mean": lambda d: abs(d.mean(0)),
    "variance": lambda d: d.var(0),
    "std": lambda d: d.std(0),
}


def folded(rows):
    """The fold over `rows`, one per cycle."""
    out = Differences()
    for d in rows:
        out.update(d)
    return out


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from([np.asarray, torch.from_numpy]), st.floats(1e-6, 1e3))
@settings(max_examples=40, deadline=None)
def test_running_equals_brute_force(cycles, seed, kind, size):
    """Every statistic of the two running tensors is the one of all K copies, to 1e-12, whichever array kind came in."""
    rng = np.random.default_rng(seed)
    d = size * (rng.standard_normal((cycles, 3, 4)) + 1).cumsum(0)
    moved = folded(kind(row) for row in d)
    w0, step = rng.standard_normal((3, 4)), rng.uniform(0.1, 1, (3, 1))
    for name, brute in BRUTE.items():
        power = STATISTICS[name].power
        units = {"none": 1.0, "relative": np.sqrt((w0**2).mean()), "step": step}
        for normalize, unit in units.items():
            want = (brute(d) / (unit * 0.5) ** power).mean()
            assert moved.value(name, normalize=normalize, w0=w0, step=step, rate=0.5) == pytest.approx(want, rel=1e-12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_merge_equals_one_fold(cuts, seed):
    """Folds over pieces of the cycles merge into the fold over all, empty pieces included."""
    d = np.random.default_rng(seed).standard_normal((sum(cuts), 5)) + 3
    merged, start = Differences(), 0
    for n in cuts:
        merged.merge(folded(d[start : start + n]))
        start += n
    assert merged.count == len(d)
    for name in STATISTICS if len(d) > 1 else ():
        assert merged.value(name) == pytest.approx(folded(d).value(name), rel=1e-12)


def test_merge_leaves_the_other_alone():
    """What was merged in goes on by itself."""
    one, two = Differences(), folded([np.ones(2)])
    one.merge(two)
    one.update(np.zeros(2))
    assert two.count == 1
    assert two.value() == 1.0


def test_updates_of_known_size_reproduce_the_order():
    """Layers that move by known amounts come out in that order."""
    rng = np.random.default_rng(1)
    sizes = {f"layer{i}": 10.0**-i for i in range(6)}
    values = {name: folded(size * rng.standard_normal((10, 50))).value() for name, size in sizes.items()}
    assert sorted(values, key=values.__getitem__) == list(reversed(sizes))


def test_one_cycle_is_legal_for_the_patents_statistic_only():
    """K = 1 gives mean square and mean; a variance over one cycle is refused in words."""
    moved = folded([np.array([2.0, 0.0])])
    assert (moved.value(), moved.value("mean")) == (2.0, 1.0)
    with pytest.raises(ValueError, match="needs at least 2 cycles, got 1"):
        moved.value("std")


def test_nothing_to_divide_by():
    """An all-zero layer has no size to compare with: infinitely far if it moved, nowhere if not; NaN never."""
    assert folded([np.ones(2)]).value(normalize="relative", w0=np.zeros(2)) == float("inf")
    assert folded([np.zeros(2)]).value(normalize="relative", w0=np.zeros(2)) == 0.0
    with pytest.raises(ValueError, match="step must be above 0"):
        folded([np.ones(2)]).value(normalize="step", step=0.0)


@pytest.mark.parametrize(("options", "text"), [
    ({"statistic": "median"}, "statistic must be one of mean_square"),
    ({"normalize": "lsb"}, "normalize must be one of none"),
    ({"normalize": "relative"}, "pass w0"),
    ({"normalize": "step"}, "pass step"),
])  # fmt: skip
def test_wrong_arguments_are_named(options, text):
    """The error lists what would do."""
    with pytest.raises(ValueError, match=text):
        folded([np.ones(2)]).value(**options)


def test_shape_must_stay():
    """A layer does not change its shape between cycles."""
    moved = folded([np.ones(2)])
    with pytest.raises(ValueError, match="every cycle must have the shape"):
        moved.update(np.ones(3))


def test_tables_are_what_the_docs_say():
    """The names users type."""
    assert list(STATISTICS) == ["mean_square", "mean", "variance", "std"]
    assert list(NORMALIZATIONS) == ["none", "relative", "step"]
