"""Layers in the order of a criterion: what it needs to know of a quantization under way, and which layers stand apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bitladder.assign.classes import searchable
from bitladder.assign.criteria import CRITERIA, SEVERAL, Criterion, averaged, low_steps, parts
from bitladder.assign.score import divergence, outputs_of
from bitladder.errors import require
from bitladder.ptq.clock import OutOfTime
from bitladder.task import SEARCH_TIME, Ranking, Task, at_bits
from bitladder.threads import one_thread


def ranked(task: Task, loss: Callable[[Sequence[str]], float]) -> Ranking:
    """The layers in the order of the criterion; heads that need their bits are set aside."""
    goal = task.goal
    free = searchable(tuple(task.formats), task.floors(), goal.low)
    low = at_bits(next(iter(task.formats.values())), goal.low)
    given: dict[str, Any] = {"graph": task.bench.plain, "names": free, "loss": loss, "seed": goal.seed, "low": low}
    try:
        criterion, values = values_of(task, given | {"samples": task.bench.samples, "apart": partial(apart, task)})
    except OutOfTime:
        task.notes.append(f"no time for the criterion {goal.criterion}; layers are in the order of their weights' ranges")
        criterion = CRITERIA["range"]
        values = criterion.values(*(given[n] for n in criterion.needs))
    found = criterion.order({n: values[n] for n in free if n in values}, skip_smallest=goal.skip_smallest)
    why = dict.fromkeys(found.silent, "did not learn") | dict.fromkeys(found.skipped, "the smallest value, skipped")
    held = {n: "classifier, kept wide by its number of classes" for n in task.formats if n not in free}
    return Ranking(values, found, why | held)


def values_of(task: Task, given: dict[str, Any]) -> tuple[Criterion, Mapping[str, float]]:
    """What the criterion, or several together, say of each layer. given: what they may need, less what takes time."""
    goal, named = task.goal, parts(task.goal.criterion)
    needs = {need for name, _ in named for need in CRITERIA[name].needs}
    options: dict[str, Any] = {}
    if "codes" in needs:
        lowered = task.narrowed(dict.fromkeys(given["names"], goal.low))
        given["codes"] = {n: c for n, c in task.bench.baked(lowered).constants.items() if n in given["names"]}
    if "learned" in needs:
        given["learned"] = learned(task)
        steps = low_steps(task.bench.plain, given["low"]) if goal.normalize == "step" else None
        options = {"statistic": goal.statistic, "normalize": goal.normalize, "steps": steps}

    def by(name: str) -> Mapping[str, float]:
        criterion = CRITERIA[name]
        return criterion.values(*(given[n] for n in criterion.needs), **(options if "learned" in criterion.needs else {}))

    if len(named) == 1:
        return CRITERIA[named[0][0]], by(named[0][0])
    return SEVERAL, averaged([(by(name), weight) for name, weight in named])


def apart(task: Task, names: Sequence[str]) -> float:
    """How far layers at low bits move the outputs from the float network's, on the samples that biases are corrected on."""
    graph = task.network(dict.fromkeys(names, task.goal.low))
    return float(divergence(outputs_of(task.bench.plain, task.bench.samples), outputs_of(graph, task.bench.samples)).mean())


def learned(task: Task) -> Any:
    """How far each weight moves in a few cycles of learning (S2)."""
    torch = require("torch", "torch", "quantize: criterion weight_difference")
    from bitladder.convert.to_torch import to_torch
    from bitladder.train.learn import learn

    module = to_torch(task.raw)
    samples, labels = task.batches.some(task.batches.keep)
    clock = task.bench.clock.share(SEARCH_TIME)

    def tell(done: int, total: int, word: str) -> None:
        if clock.over():
            raise OutOfTime
        task.tell("learn", done, total)

    if labels is None:
        task.notes.append("the calibration data has no labels, so the network learned from its own answers")
    with one_thread(torch):
        found = learn(
            module,
            samples,
            labels,
            weights={n: p for n, p in module.weights().items() if n in task.formats},
            cycles=task.goal.cycles,
            seed=task.goal.seed,
            start=task.goal.start,
            work=task.goal.work,
            progress=tell,
        )
    task.notes += found.notes
    return found
