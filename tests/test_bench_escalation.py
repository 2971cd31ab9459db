"""The benchmark of escalation without its data: what fixed widths of the same cost are, and what figures make of it."""

import numpy as np
import pytest

from bench import escalation
from bench.escalation import COSTS, WIDTHS, Judged, judged

CLASSES = 10


class Made:
    """Scores of images at every width: four of five are easy, the others are right the more often the more bits there are."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.y = {s: rng.integers(0, CLASSES, 3000) for s in ("test", "choose")}
        self.z = {s: {b: self.at(b, labels, rng) for b in WIDTHS} for s, labels in self.y.items()}

    def at(self, bits, labels, rng):
        signal = np.where(np.arange(len(labels)) % 5 == 0, 4.0, 20.0)[:, None]
        return signal * np.eye(CLASSES)[labels] + 6 / bits * rng.normal(size=(len(labels), CLASSES))

    def scores(self, split):
        return self.z[split]

    def labels(self, split):
        return self.y[split]


@pytest.fixture(scope="module")
def draw():
    return judged(Made(), "last")


def test_fixed_widths_of_the_same_cost(draw):
    """The best single width costs no more; the mixture costs exactly as much, and its accuracy is the interpolated one."""
    accuracy = {bits: hits.mean() for bits, hits in draw.fixed.items()}
    for cost in COSTS:
        spent = draw.climbs[cost].cost
        assert draw.best_single(cost).mean() == max(a for bits, a in accuracy.items() if bits <= spent)
        wanted = np.interp(spent, WIDTHS, [accuracy[bits] for bits in WIDTHS])
        assert draw.mixture(cost).mean() == pytest.approx(wanted, abs=1e-12)


def test_escalation_wins_where_images_differ_and_not_where_nothing_can_be_won(draw):
    """The figure is met by images that are easy and hard, and missed when every width is equally right."""
    made = escalation.figures([draw])
    assert made["escalation_costs_won"].met
    flat = Made()
    for split in flat.z:
        flat.z[split] = dict.fromkeys(WIDTHS, flat.z[split][2])
    made = escalation.figures([judged(flat, "last")])
    assert made["escalation_costs_won"].value == 0
    assert not made["escalation_costs_won"].met


def test_rows_say_both_costs_and_every_peer(draw):
    """A row for each width, and for each cost one against either way of spending it and one against means."""
    rows = escalation.rows("net", [draw], [judged(Made(), "mean")])
    assert len(rows) == len(WIDTHS) + 3 * len(COSTS)
    assert all(row.spread is not None for row in rows[len(WIDTHS) :])
    assert {row.peer_name for row in rows[len(WIDTHS) :]} == {
        "best width of that cost",
        "mixture of widths of that cost",
        "mean of all passes",
    }


def test_as_good_as_the_widest_is_the_least_cost(draw):
    """The first cost that loses little; none if all lose much."""
    found = escalation.as_good_as_widest([draw])
    assert found is None or found < 8
    none = Judged({**draw.fixed, 8: np.ones_like(draw.labels, bool)}, draw.rules, draw.climbs, draw.labels)
    assert escalation.as_good_as_widest([none]) is None
    assert not escalation.figures([none])["escalation_bits_as_good_as_8"].met
