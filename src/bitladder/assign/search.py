"""From a ranking and a budget to a choice of layers. Pure functions of names and numbers, no network (S2, US12393828).

A search is given layers, the one to lower first in front, and `loss`: a function of the names at low precision that gives
what they cost against the same network without them. Losses are asked for once per set; with `memo`, a mapping that
outlives the process (`bitladder.assign.journal`), an interrupted search asks only for what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

Names = Sequence[str]
Loss = Callable[[Names], float]
PlanLoss = Callable[[Mapping[str, int]], float]
Memo = MutableMapping[str, float]

SLACK = 1e-9  # losses are differences of accuracies; 0.91 - 0.90 must pass a threshold of 0.01


@dataclass(frozen=True)
class Trial:
    """One set of layers that was tried, and its loss."""

    names: tuple[str, ...]
    loss: float


@dataclass(frozen=True)
class Choice:
    """The layers to put at low precision, in the order they were given; whether their loss is within the threshold.

    `trace` has every set tried, in order; `evaluations` counts those that were not known from before. `plan` holds bits by
    name where a search gives several widths. `notes` are lines for people.
    """

    chosen: tuple[str, ...]
    met: bool
    trace: tuple[Trial, ...] = ()
    evaluations: int = 0
    loss: float = 0.0
    plan: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Trials:
    """Losses, asked for once per set: the only thing here that lives over time."""

    def __init__(self, loss: Callable[[Any], float], memo: Memo | None = None):
        self.loss = loss
        self.memo: Memo = {} if memo is None else memo
        self.known: dict[str, float] = {}
        self.trace: list[Trial] = []
        self.evaluations = 0

    def __call__(self, tried: Names | Mapping[str, int]) -> float:
        """The loss of `tried`; nothing at low precision costs nothing, and a loss that is no number is infinite."""
        if not tried and not isinstance(tried, Mapping):
            return 0.0
        key = label(tried)
        if key not in self.known:
            if key not in self.memo:
                self.memo[key] = float(self.loss(tried))
                self.evaluations += 1
            self.known[key] = math.inf if math.isnan(self.memo[key]) else self.memo[key]
            self.trace.append(Trial(tuple(tried), self.known[key]))
        return self.known[key]

    def choice(self, chosen: Names, threshold: float, notes: Names = ()) -> Choice:
        """What came of it."""
        loss = self(chosen)
        said = [*notes, *(text for text in (broken(self.trace), uneven(self.trace)) if text)]
        return Choice(tuple(chosen), within(loss, threshold), tuple(self.trace), self.evaluations, loss, notes=tuple(said))


def label(tried: Names | Mapping[str, int]) -> str:
    """A set of layers as one line of text, the same in whatever order.

    >>> label(["b", "a"]), label({"b": 4, "a": 2})
    ('a|b', 'a=2|b=4')
    """
    parts = [f"{name}={bits}" for name, bits in tried.items()] if isinstance(tried, Mapping) else list(tried)
    return "|".join(sorted(parts))


def within(loss: float, threshold: float) -> bool:
    """Whether a loss passes; the last digits of a difference of two accuracies do not decide."""
    return loss <= threshold + SLACK


def coarse(samples: int | None, threshold: float) -> tuple[str, ...]:
    """A warning when one sample more or less moves the loss by half the threshold.

    >>> coarse(1000, 0.01), len(coarse(100, 0.01))
    ((), 1)
    """
    if not samples or 1 / samples < threshold / 2:
        return ()
    need = f"; use more than {math.ceil(2 / threshold)} samples" if threshold > 0 else ""
    return (f"search: {samples} evaluation samples resolve a loss of {1 / samples:.2g}, too coarse for {threshold:g}{need}",)


def broken(trace: Sequence[Trial]) -> str | None:
    """A warning about losses that were no numbers."""
    bad = [trial for trial in trace if trial.loss == math.inf]
    return f"search: {len(bad)} of {len(trace)} losses were not numbers and count as failed" if bad else None


def uneven(trace: Sequence[Trial]) -> str | None:
    """A warning when more layers at low precision lost less than fewer did."""
    rising = sorted(trace, key=lambda trial: len(trial.names))
    for few, more in pairwise(rising):
        if more.loss < few.loss and len(few.names) < len(more.names):
            return f"search: {len(more.names)} layers lost less ({more.loss:.4g}) than {len(few.names)} ({few.loss:.4g}); noise"
    return None


NOTHING = "search: no set of layers was within the threshold; none is chosen, so allow a larger loss"


def halving(
    order: Names, loss: Loss, threshold: float, *, accept_at_most: int = 0, samples: int | None = None, memo: Memo | None = None
) -> Choice:
    """The first lower half, quarter, eighth ... of `order` within the threshold (US12393828 FIG 11, literally).

    Halves are rounded down; after a success no larger set is tried. A set of at most `accept_at_most` layers is accepted
    even beyond the threshold, and `met` says so.
    """
    tried, pool, notes = Trials(loss, memo), list(order), coarse(samples, threshold)
    while pool := pool[: len(pool) // 2]:
        if within(tried(pool), threshold) or len(pool) <= accept_at_most:
            return tried.choice(pool, threshold, notes)
    return replace(tried.choice((), threshold, (*notes, NOTHING)), met=False)


def bisection(
    order: Names, loss: Loss, threshold: float, *, walk: int = 0, samples: int | None = None, memo: Memo | None = None
) -> Choice:
    """The longest beginning of `order` within the threshold, in ceil(log2(N + 1)) evaluations if losses rise with length.

    Where they do not, the result is still within the threshold: every bound was measured. `walk` lets it try so many longer
    beginnings beyond the one that failed, one layer at a time, and take the longest that passes (US11934939, "binary search").
    """
    tried, low, high = Trials(loss, memo), 0, len(order)
    while low < high:
        k = (low + high + 1) // 2
        low, high = (k, high) if within(tried(order[:k]), threshold) else (low, k - 1)
    for k in range(low + 2, min(low + 2 + walk, len(order) + 1)):  # low + 1 is known to fail
        low = k if within(tried(order[:k]), threshold) else low
    notes = coarse(samples, threshold)
    return tried.choice(order[:low], threshold, notes if low or not order else (*notes, NOTHING))


def count(
    order: Names,
    k: int,
    loss: Loss | None = None,
    threshold: float = math.inf,
    *,
    samples: int | None = None,
    memo: Memo | None = None,
) -> Choice:
    """The first `k` of `order`, as told (US12393828 FIG 12); measured only if a loss is given."""
    if not 0 <= k <= len(order):
        raise ValueError(f"search count: the number of layers must be 0 to {len(order)}, got {k}")
    if loss is None:
        return Choice(tuple(order[:k]), True)
    return Trials(loss, memo).choice(order[:k], threshold, coarse(samples, threshold))


def budget(
    order: Names,
    cost: PlanLoss,
    target: float,
    levels: Sequence[int] = (8, 4, 3, 2),
    *,
    floors: Mapping[str, int] | None = None,
    memo: Memo | None = None,
) -> Choice:
    """The fewest steps down that bring `cost(plan)` to `target`: all layers in order to the next level, then the next.

    `plan` maps every name of `order` to bits, at first levels[0]; `floors` are bits that a layer never goes below. Costs are
    taken to fall with every step, so the number of steps is bisected.
    """
    if not levels or list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"search budget: levels must fall, such as 8, 4, 3, 2; got {list(levels)}")
    least = floors or {}
    steps = [(name, bits) for bits in levels[1:] for name in order if bits >= least.get(name, 0)]
    top = {name: max(levels[0], least.get(name, 0)) for name in order}

    def plan(n: int) -> dict[str, int]:
        return top | dict(steps[:n])

    tried, low, high = Trials(cost, memo), 0, len(steps)
    while low < high:
        k = (low + high) // 2
        low, high = (low, k) if tried(plan(k)) <= target else (k + 1, high)
    reached = tried(plan(low))
    missed = f"search budget: the target must be at least {reached:g}, the least that bits {list(levels)} allow; got {target:g}"
    chosen = tuple(name for name in order if plan(low)[name] < top[name])
    return Choice(
        chosen,
        reached <= target,
        tuple(tried.trace),
        tried.evaluations,
        reached,
        plan(low),
        () if reached <= target else (missed,),
    )


def multi_level(
    order: Names,
    loss: PlanLoss,
    threshold: float,
    levels: Sequence[int] = (4, 3, 2),
    *,
    search: Callable[..., Choice] | None = None,
    shares: Sequence[float] | None = None,
    memo: Memo | None = None,
    **options: Any,
) -> Choice:
    """A plan over several widths: each level is searched among the layers that the level before accepted, so sets are nested.

    `loss(plan)` is of the whole plan against the network with none of it, so the threshold is spent cumulatively: by level
    i the loss may reach sum(shares[: i + 1]) of it; equal shares if none are given.
    """
    shares = shares or [1 / len(levels)] * len(levels)
    if len(shares) != len(levels):
        raise ValueError(f"search multi_level: one share for each of {len(levels)} levels is needed, got {len(shares)}")
    search = search or bisection
    plan: dict[str, int] = {}
    trace: list[Trial] = []
    notes: list[str] = []
    pool, reached, evaluations, met = tuple(order), 0.0, 0, True
    known: Memo = {} if memo is None else memo
    for i, bits in enumerate(levels):
        whole = Trials(loss, known)  # of plans, so that what one level learned cannot be mistaken for another's
        found = search(pool, _at(bits, plan, whole), threshold * sum(shares[: i + 1]), **options)
        plan = {**plan, **dict.fromkeys(found.chosen, bits)}
        trace += whole.trace
        notes += [note for note in found.notes if note != NOTHING and note not in notes]
        evaluations += whole.evaluations
        pool, met = found.chosen, met and (found.met or not found.chosen)
        reached = found.loss if found.chosen else reached
        if not pool:
            break
    if not plan and order:
        notes.append(NOTHING)
    chosen = tuple(n for n in order if n in plan)
    return Choice(chosen, met, tuple(trace), evaluations, reached, plan, tuple(notes))


def _at(bits: int, plan: Mapping[str, int], loss: PlanLoss) -> Loss:
    """The loss of `plan` with some names at `bits`."""
    return lambda names: loss({**plan, **dict.fromkeys(names, bits)})


def also(choice: Choice, names: Names, loss: Loss, threshold: float, *, memo: Memo | None = None) -> Choice:
    """`choice` with `names` added if all of them together stay within the threshold.

    For layers that learning says nothing about, such as frozen ones: lowered only if they pass the accuracy test.
    """
    if not names:
        return choice
    tried, both = Trials(loss, memo), (*choice.chosen, *names)
    passed = within(tried(both), threshold)
    word = "pass the accuracy test and are lowered too" if passed else "fail the accuracy test and stay"
    seen = replace(
        choice,
        trace=(*choice.trace, *tried.trace),
        evaluations=choice.evaluations + tried.evaluations,
        notes=(*choice.notes, f"search: {len(names)} layers that did not learn {word}"),
    )
    return replace(seen, chosen=both, met=True, loss=tried(both)) if passed else seen


@dataclass(frozen=True)
class Search:
    """A search by name: what finds the layers, what it must be given after the order, and a sentence about it."""

    find: Callable[..., Choice]
    needs: tuple[str, ...]
    says: str


SEARCHES = {
    "halving": Search(
        halving, ("loss", "threshold"), "the patent's: the lower half, then a quarter, until the loss is allowed"
    ),
    "bisection": Search(bisection, ("loss", "threshold"), "the largest set whose loss is allowed, by bisection"),
    "count": Search(count, ("k",), "as many layers as told"),
    "budget": Search(budget, ("cost", "target"), "level by level until bytes, bits or milliseconds are met"),
    "multi_level": Search(multi_level, ("loss", "threshold"), "bisection at 4 bits, among those at 3, among those at 2"),
}
