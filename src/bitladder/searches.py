"""What a goal asks for, found by search: so many layers, a budget, an allowed drop."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bitladder.assign.budget import target
from bitladder.assign.edge import edge, meet
from bitladder.assign.journal import Journal
from bitladder.assign.search import SEARCHES, SLACK, also
from bitladder.ir.graph import Graph
from bitladder.model import packed_bytes
from bitladder.ptq.clock import OutOfTime
from bitladder.ptq.rate import coded
from bitladder.ptq.workbench import Workbench
from bitladder.ranking import ranked
from bitladder.task import SEARCH_TIME, Outcome, Task

LEVELS = (8, 4, 3, 2)  # the widths that a budget steps down through
SAID = 352  # about how many bytes of a file say how it was made


def by_search(task: Task) -> Outcome:
    """What the goal asks for: a search by score, so many layers, a budget, or nothing."""
    if task.bench.rate is not None:
        for word in ("count", "keep"):
            if getattr(task.goal, word) is not None:
                raise ValueError(f"quantize: rounding for rate takes a budget or a max_drop, got a {word}; leave it out")
        return by_rate(task)
    if task.goal.budget is not None:
        return by_budget(task)
    if task.goal.count is not None:
        return by_count(task)
    if task.score is not None and task.goal.max_drop is not None:
        return by_score(task, task.goal.max_drop)
    return Outcome({}, task.told(None, None, True))


def by_score(task: Task, allowed: float) -> Outcome:
    """As many layers at `low` bits as the allowed drop permits, those first that the criterion ranks lowest."""
    goal, clock, late = task.goal, task.bench.clock.share(SEARCH_TIME), list[int]()
    plain, reference = task.scored(task.bench.plain), task.scored(task.network({}))
    about = hashlib.sha256(f"{task.fingerprint()}{plain}{reference}".encode()).hexdigest()
    memo: MutableMapping[str, float] = {} if goal.work is None else Journal(goal.work / "search.journal", about)

    memo = memo if clock.end == math.inf else dict(memo)  # what time did not allow is no loss to remember

    def loss(tried: Sequence[str] | Mapping[str, int]) -> float:
        if clock.over():
            late.append(1)
            return math.inf
        task.tell("search", len(memo) + 1, 0)
        return plain - task.scored(task.network(tried if isinstance(tried, Mapping) else dict.fromkeys(tried, goal.low)))

    def measured(names: Sequence[str]) -> float:
        if clock.over():
            raise OutOfTime
        return loss(names)

    ranking = ranked(task, measured)
    found = SEARCHES[goal.search].find(
        ranking.order.ranked, loss, allowed, memo=memo, samples=getattr(task.score, "samples", None)
    )
    if not found.plan:
        found = also(found, ranking.order.silent, loss, allowed, memo=memo)
    lowered = dict(found.plan) or dict.fromkeys(found.chosen, goal.low)
    score = plain - found.loss if found.chosen else reference
    if plain - reference > allowed:
        task.notes.append(
            f"with every layer at its widest the network already loses {plain - reference:.4f}, more than allowed"
        )
    if late:
        found = replace(found, notes=tuple(note for note in found.notes if "not numbers" not in note))
        task.notes.append(f"search: the time was over; {len(late)} sets of layers were not scored and stay wide")
    met = plain - score <= allowed + 1e-9
    return Outcome(lowered, task.told(found, ranking, met) | {"float": plain, "reference": reference, "score": score})


def by_count(task: Task) -> Outcome:
    """The layers that the criterion ranks lowest, as many as told."""
    ranking = ranked(task, partial(measured_loss, task))
    count = min(int(task.goal.count or 0), len(ranking.order.ranked))
    found = SEARCHES["count"].find(ranking.order.ranked, count)
    return Outcome(dict.fromkeys(found.chosen, task.goal.low), task.told(found, ranking, True))


def by_budget(task: Task) -> Outcome:
    """Layers stepped down in the order of the criterion, level by level, until the budget is met."""
    what, limit = target(str(task.goal.budget))
    ranking = ranked(task, partial(measured_loss, task))
    sizes = {n: int(np.prod(task.bench.plain.constants[n].shape)) for n in task.formats}  # type: ignore[union-attr]

    def cost(plan: Mapping[str, int]) -> float:
        if what == "bytes":
            return packed_bytes(task.bench.plain, task.narrowed(plan), task.bench.activations)
        return sum(b * sizes[n] for n, b in task.bits(plan).items()) / sum(sizes.values())

    levels = [b for b in LEVELS if b <= max(f.bits for f in task.formats.values())]
    found = SEARCHES["budget"].find(ranking.order.ranked, cost, limit, levels, floors=task.floors())
    lowered = {n: b for n, b in found.plan.items() if b < task.formats[n].bits}
    task.notes.append(f"{what} {cost(lowered):.6g}, {limit:g} allowed")
    return Outcome(lowered, task.told(found, ranking, found.met))


def by_rate(task: Task) -> Outcome:
    """The divergence that meets a budget of coded bytes or an allowed drop, else the usual one."""
    goal, benches, said = task.goal, dict[float, Workbench](), dict[str, Any]()

    def network(divergence: float) -> Graph:
        if benches and divergence not in benches and task.bench.clock.over():
            raise OutOfTime
        task.tell("search", len(benches) + 1, 0)
        task.bench = benches.setdefault(divergence, task.bench.at_divergence(divergence))
        made = task.network({})
        return made.with_(meta={**made.meta, "plan": {n: str(f) for n, f in task.formats.items()}})

    assert task.bench.rate is not None
    divergence, weights, met = task.bench.rate.divergence, task.bench.rate.weights, True
    if goal.budget is not None:
        what, limit = target(goal.budget)
        slope = 0.5 if what == "avg_bits" else weights / 16  # half a bit a weight
        spare = SAID if what == "bytes" else 0
        sizes: dict[float, float] = {}

        def size_of(d: float) -> float:
            return sizes.setdefault(d, coded(network(d), what))

        try:
            found = meet(size_of, limit - spare, divergence, slope)
        except OutOfTime:
            found = min((d for d, size in sizes.items() if size <= limit - spare), default=None)
            task.notes.append("search: the time was over; what was found until then is the result")
        divergence, met = found or max(benches), found is not None
    elif task.score is not None and goal.max_drop is not None:
        said["float"] = plain = task.scored(task.bench.plain)
        allowed = goal.max_drop + SLACK
        passed: dict[float, bool] = {}

        def passes(d: float) -> bool:
            return passed.setdefault(d, plain - task.scored(network(d)) <= allowed)

        try:
            most, least = edge(passes, divergence)
        except OutOfTime:
            most, least = max((d for d, good in passed.items() if good), default=None), min(passed, default=None)
            task.notes.append("search: the time was over; what was found until then is the result")
        divergence, met = most or least or divergence, most is not None
    graph = network(divergence)
    size, bits = coded(graph, "bytes"), coded(graph, "avg_bits")
    task.notes.append(f"{size:,.0f} bytes once coded, {bits:.3g} bits a weight")
    said |= {"score": task.scored(graph)} if task.score else {}
    said |= {"rounding": task.bench.rate.name, "divergence": divergence, "evaluations": len(benches), "coded": size}
    return Outcome({}, task.told(None, None, met) | {"max_drop": goal.max_drop, "budget": goal.budget} | said)


def measured_loss(task: Task, names: Sequence[str]) -> float:
    """What layers lose at low bits, for criteria that measure."""
    if task.score is None:
        raise ValueError(
            f"quantize: criterion {task.goal.criterion!r} measures accuracy; give evaluation data or another criterion"
        )
    if task.bench.clock.over():
        raise OutOfTime
    if "reference" not in task.known:
        task.known["reference"] = task.scored(task.network({}))
    return task.known["reference"] - task.scored(task.network(dict.fromkeys(names, task.goal.low)))
