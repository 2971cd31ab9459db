"""Escalation: run low, and only where the margin is small run on with more planes of the same weights.

The easy samples of a batch are answered at few bits, the hard ones at many, from one file, with no second model. A second
pass is a run of its own, so a sample that goes from 2 to 4 bits costs 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitladder.dial.climb import Climb, Rule, margin
from bitladder.dial.samples import Batch
from bitladder.model import Model

MOST = 3  # widths of a rule that is searched for; every further pass is paid for in full
PARTS = 20  # in how many parts the samples that reach a width are cut when thresholds are tried


@dataclass(frozen=True)
class Escalation:
    """A model that gives each sample as many planes as it needs; call it like the model.

    The margin is that of the first output, whose rows are scores of classes. Results do not depend on what else is in the
    batch. `widths` and `thresholds` are those of a `Rule`; `fit` finds them.
    """

    model: Model
    widths: tuple[int, ...]
    thresholds: tuple[float, ...]
    combine: str = "last"
    weights: tuple[float, ...] | None = None
    rule: Rule = field(init=False)
    models: Mapping[int, Model] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rule = Rule(self.widths, self.thresholds, self.combine, self.weights)
        check_widths(self.model, rule.widths)
        object.__setattr__(self, "rule", rule)
        object.__setattr__(self, "models", {bits: self.model.at(bits) for bits in rule.widths})

    def __call__(self, *arrays: Any) -> Any:
        """The outputs, as the model would give them."""
        return Batch(arrays).back(self.run(*arrays).outputs)

    def run(self, *arrays: Any) -> Climb:
        """The outputs as numpy arrays by name, with the width each sample stopped at and what it cost."""
        batch = Batch(arrays)
        return self.rule.climb(lambda bits, which: batch.run(self.models[bits], which), len(batch))


def check_widths(model: Model, widths: Sequence[int]) -> None:
    """Return if the model has a rung for each of these widths."""
    if lost := [bits for bits in widths if bits not in model.widths]:
        has = ", ".join(map(str, model.widths)) or "none, as nothing in it is nested"
        raise ValueError(f"escalation: width {lost[0]} must be one the model can run at ({has}); choose among them")


# ------------------------------------------------------------------------------------------------------------- fitting


def fit(
    model: Model,
    x: Any,
    widths: Sequence[int],
    cost: float,
    *,
    labels: Any = None,
    combine: str = "last",
    weights: Mapping[int, float] | None = None,
    batch: int = 256,
) -> Escalation:
    """The escalation over some of `widths` that is right most often on the samples `x`, at a mean cost of at most `cost`.

    x: an array, a tuple of arrays or a dict by name. labels: (samples,) integers; without them right is what the widest
    width says. batch: samples that run at once. `fit_rule` does the choosing, and takes scores from wherever they come.
    """
    check_widths(model, widths)
    whole = Batch(x if isinstance(x, tuple) else (x,))
    parts = [whole.at(np.arange(at, min(at + batch, len(whole)))) for at in range(0, len(whole), batch)]

    def scores(bits: int) -> np.ndarray:
        at = model.at(bits)
        return np.concatenate([next(iter(part.run(at).values())) for part in parts])

    rule = fit_rule({bits: scores(bits) for bits in sorted(widths)}, cost, labels=labels, combine=combine, weights=weights)
    return Escalation(model, rule.widths, rule.thresholds, rule.combine, rule.weights)


def fit_rule(
    scores: Mapping[int, np.ndarray],
    cost: float,
    *,
    labels: Any = None,
    combine: str = "last",
    weights: Mapping[int, float] | None = None,
) -> Rule:
    """The rule that is right most often on samples whose scores at every width are known, at a mean cost of at most `cost`.

    Every one, two and three of the widths are tried, and with three many ways of sharing the cost between the two steps; of
    equals the one that costs less. Labels are what the widest width says if not given.
    """
    widths = sorted(scores)
    truth = scores[widths[-1]].argmax(1) if labels is None else np.asarray(labels)
    samples = len(scores[widths[0]])
    if truth.shape != (samples,):
        raise ValueError(f"escalation: labels must be one for each of {samples} samples, got shape {truth.shape}")
    if cost < widths[0]:
        raise ValueError(f"escalation: cost must be at least {widths[0]}, the narrowest width, got {cost:g}")
    best: tuple[float, float, Rule] | None = None
    for count in range(1, min(len(widths), MOST) + 1):
        for part in itertools.combinations(widths, count):
            for rule in candidates(scores, Rule(part, (0.0,) * (count - 1), combine, chosen(weights, part)), cost):
                climb = rule.replay(scores)
                right = float((climb.outputs["scores"].argmax(1) == truth).mean())
                if climb.cost <= cost and (best is None or (right, -climb.cost) > best[:2]):
                    best = (right, -climb.cost, rule)
    assert best is not None
    return best[2]


def chosen(weights: Mapping[int, float] | None, widths: Sequence[int]) -> tuple[float, ...] | None:
    """The weights of these widths."""
    return None if weights is None else tuple(float(weights[bits]) for bits in widths)


def candidates(scores: Mapping[int, np.ndarray], rule: Rule, cost: float) -> Iterator[Rule]:
    """Rules with the widths of `rule` whose mean cost on these samples is at most `cost`, and close to it.

    The last threshold spends what the steps before leave over; those try every twentieth of the samples that reach them.
    """
    total = len(scores[rule.widths[0]])
    yield from extended(scores, rule, 0, total, cost * total - rule.widths[0] * total)


def extended(scores: Mapping[int, np.ndarray], rule: Rule, step: int, reach: int, left: float) -> Iterator[Rule]:
    """Rules that agree with `rule` before `step`, which so many samples reach with so many bits left to spend."""
    if left < 0:
        return
    if step == len(rule.thresholds):
        yield rule
        return
    bits = rule.widths[step + 1]
    most = min(reach, int(left // bits))
    if step == len(rule.thresholds) - 1:
        counts = [most]
    else:
        counts = sorted({reach * part // PARTS for part in range(1, PARTS + 1) if reach * part // PARTS <= most})
    margins = np.sort(margins_at(scores, rule, step))
    for count in counts:
        if count == 0:
            continue
        threshold = float(margins[count]) if count < len(margins) else float("inf")
        thresholds = (*rule.thresholds[:step], threshold, *rule.thresholds[step + 1 :])
        on = int((margins < threshold).sum())
        with_it = Rule(rule.widths, thresholds, rule.combine, rule.weights)
        yield from extended(scores, with_it, step + 1, on, left - bits * on)


def margins_at(scores: Mapping[int, np.ndarray], rule: Rule, step: int) -> np.ndarray:
    """The margins of the samples that reach a step, after its pass."""
    weights = None if rule.weights is None else rule.weights[: step + 1]
    shorter = Rule(rule.widths[: step + 1], rule.thresholds[:step], rule.combine, weights)
    climb = shorter.replay(scores)
    return margin(climb.outputs["scores"][climb.stopped == rule.widths[step]])
