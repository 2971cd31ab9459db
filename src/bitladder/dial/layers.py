"""A width for each weight, from what every width costs there and what it loses there.

The cheapest way to lose less is a sequence of steps that does not depend on the demand: from all weights at their narrowest,
each step raises the one where a unit of cost saves the most loss. A demand only says how far to go, so a stricter demand on
speed never gives any weight more bits, and a stricter one on accuracy never fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from bitladder.model import Model, constant_bytes

ByWidth = Mapping[int, float]


class Option(NamedTuple):
    """What a weight costs and what it loses at a width."""

    bits: int
    cost: float
    loss: float


def choose_layers(
    costs: Mapping[str, ByWidth], losses: Mapping[str, ByWidth], *, budget: float | None = None, max_loss: float | None = None
) -> dict[str, int]:
    """The width of each weight: as little loss as `budget` buys, or as little cost as `max_loss` allows.

    costs, losses: for each weight a number for each width, both added up over the weights; costs are milliseconds
    (`Times.layers`) or bytes (`layer_bytes`), losses those of `layer_losses`. With both demands the loss is reached and no
    more is spent. Widths off the convex hull of a weight's costs and losses are not used, and a step is not split: a budget
    may be left over by less than one step.

    >>> costs = {"a": {2: 1, 8: 4}, "b": {2: 1, 8: 4}}
    >>> losses = {"a": {2: 0.5, 8: 0.0}, "b": {2: 0.1, 8: 0.0}}
    >>> choose_layers(costs, losses, budget=5), choose_layers(costs, losses, max_loss=0.05)
    ({'a': 8, 'b': 2}, {'a': 8, 'b': 8})
    """
    if budget is None and max_loss is None:
        raise ValueError("choose_layers: give a budget, a max_loss, or both")
    ladders = {name: hull(name, costs[name], losses.get(name, {})) for name in costs}
    at = {name: ladder[0] for name, ladder in ladders.items()}
    if budget is not None and spent(at) > budget:
        raise ValueError(f"choose_layers: budget must be at least {spent(at):g}, the cheapest widths, got {budget:g}")
    for name, option in steps(ladders):
        if max_loss is not None and lost(at) <= max_loss:
            break
        if budget is not None and spent({**at, name: option}) > budget:
            break
        at[name] = option
    if max_loss is not None and lost(at) > max_loss:
        dearest = {name: ladder[-1] for name, ladder in ladders.items()}
        why = "the least there is" if at == dearest else f"the least within a budget of {budget:g}"
        raise ValueError(f"choose_layers: max_loss must be at least {lost(at):.6g}, {why}, got {max_loss:g}; allow more")
    return {name: option.bits for name, option in at.items()}


def spent(at: Mapping[str, Option]) -> float:
    return math.fsum(option.cost for option in at.values())


def lost(at: Mapping[str, Option]) -> float:
    return math.fsum(option.loss for option in at.values())


def steps(ladders: Mapping[str, Sequence[Option]]) -> list[tuple[str, Option]]:
    """All steps of all weights, those first that save most for their cost; on a hull each weight's come in their order."""
    found = [(saving(a, b), name, b) for name, ladder in ladders.items() for a, b in pairwise(ladder)]
    return [(name, option) for _, name, option in sorted(found, key=lambda step: -step[0])]


def saving(a: Option, b: Option) -> float:
    """The loss that a unit of cost saves from a to b, which costs more."""
    return (a.loss - b.loss) / (b.cost - a.cost)


def hull(weight: str, costs: ByWidth, losses: ByWidth) -> list[Option]:
    """The widths worth having: costs rise, losses fall, and each step saves less for its cost.

    A width is left out if a wider one costs no more and loses less, or a narrower one loses no more.

    >>> [option.bits for option in hull("w", {2: 1, 3: 2, 4: 3, 8: 5}, {2: 10, 3: 9, 4: 2, 8: 3})]
    [2, 4]
    """
    if not costs or set(costs) != set(losses):
        raise ValueError(
            f"choose_layers: weight {weight!r} must have costs and losses at the same widths, "
            f"got {sorted(costs)} and {sorted(losses)}"
        )
    if not all(map(math.isfinite, [*costs.values(), *losses.values()])):
        raise ValueError(f"choose_layers: costs and losses of weight {weight!r} must be finite; measure them again")
    kept: list[Option] = []
    for bits in sorted(costs):
        here = Option(bits, costs[bits], losses[bits])
        if kept and here.loss >= kept[-1].loss:
            continue
        while kept and here.cost <= kept[-1].cost:
            kept.pop()
        while len(kept) > 1 and saving(kept[-2], kept[-1]) <= saving(kept[-1], here):
            kept.pop()
        kept.append(here)
    return kept


# ----------------------------------------------------------------------------------------------------------- measuring


def layer_bytes(model: Model, widths: Sequence[int]) -> dict[str, dict[int, float]]:
    """Bytes that each weight of a model takes at each width."""
    at = {bits: model.at(bits).graph.constants for bits in widths}
    return {name: {bits: constant_bytes(at[bits][name]) for bits in widths} for name, _ in model.graph.weights()}


def layer_losses(
    model: Model, score: Callable[[Model], float], widths: Sequence[int], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[int, float]]:
    """What the score loses when one weight has each width and all others the widest; one call of `score` for each.

    Losses below zero, which are noise, count as none.
    """
    widest, names = max(widths), [name for name, _ in model.graph.weights()]
    best = float(score(model.at(widest)))
    found: dict[str, dict[int, float]] = {}
    for done, name in enumerate(names):
        if progress is not None:
            progress(done, len(names))
        lower = {b: float(score(model.at({**dict.fromkeys(names, widest), name: b}))) for b in sorted(widths) if b < widest}
        found[name] = {**{b: max(0.0, best - each) for b, each in lower.items()}, widest: 0.0}
    return found
