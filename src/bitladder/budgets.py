"""A plan from a sensitivity table: the table of a task, saved or measured now, solved for what the goal asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from bitladder import file
from bitladder.assign.budget import BITS, BYTES, MILLISECONDS, said, target
from bitladder.assign.journal import Journal
from bitladder.assign.probe import CODER, METHODS, SAID, Probe
from bitladder.assign.search import SLACK
from bitladder.assign.sensitivity import Solution, Table
from bitladder.assign.solve import SOLVERS
from bitladder.assign.times import NATIVE
from bitladder.formats import Format, Nested, parse
from bitladder.ir.graph import Graph
from bitladder.ptq.workbench import within
from bitladder.task import Outcome, Task, at_an_end, at_bits

Ways = dict[str, list[Format]]

SAMPLES = 512  # that losses are measured on, at most
SAMPLE_BYTES = 1 << 27  # and no more than fill so much
WASTE = 0.005  # share of a budget of bytes that may stay unused
TRIES = 4  # plans that are scored until one keeps to the allowed drop


def by_table(task: Task) -> Outcome:
    """What a table says for the budget or the allowed drop; with a score, a plan that drops more gives way to a better one.

    The task's formats become those of the plan.
    """
    goal, result, evaluations = task.goal, dict[str, Any](), 0
    check(task)
    ways = ways_of(task)
    found_table = table(task, ways)
    if goal.budget is None and goal.max_drop is None:
        return Outcome({}, task.told(None, None, True))
    solver = goal.search if goal.search in SOLVERS else "lagrangian"
    drop, plain = goal.max_drop, None if task.score is None else task.scored(task.bench.plain)
    if goal.budget is not None and target(goal.budget)[0] == BYTES:
        found_table = weighed(task, found_table, ways, solver)
    while True:
        found = found_table.solve(goal.budget, max_drop=drop, solver=solver)
        task.formats = in_ways(ways, found)
        met = found.met
        if plain is None:
            break
        score, evaluations = task.scored(task.network({})), evaluations + 1
        result |= {"float": plain, "score": score}
        kept = goal.max_drop is None or plain - score <= goal.max_drop + SLACK
        met = kept and (found.met or goal.budget is None)
        if kept or drop is None or goal.budget is not None or evaluations == TRIES:
            break
        drop /= 2
    task.notes.append(expectation(found))
    result |= {"evaluations": evaluations, "criterion": found_table.criterion, "search": solver, "expected": asdict(found)}
    result["expected"] = {k: v for k, v in result["expected"].items() if k not in ("plan", "bits", "met")}
    return Outcome({}, task.told(None, None, met) | {"max_drop": goal.max_drop, "budget": goal.budget} | result)


def weighed(task: Task, found_table: Table, ways: Ways, solver: str) -> Table:
    """The table with the bytes of all that is no layer as they are in the file of the plan that it gives: biases have a version
    for each width."""
    limit = target(str(task.goal.budget))[1]
    over = found_table
    for _ in range(TRIES):
        found = found_table.solve(task.goal.budget, solver=solver)
        size = len(file.to_bytes(in_formats(task, in_ways(ways, found)), CODER)) + SAID
        off = size - round(found.bytes)
        if off <= 0:
            over = found_table
        if off == 0 or (off < 0 and size > limit * (1 - WASTE)):
            break
        found_table = replace(found_table, bytes=found_table.bytes + off)
    return over


def in_ways(ways: Ways, found: Solution) -> dict[str, Format]:
    """The formats of a solution."""
    return {n: next(f for f in ways[n] if str(f) == text) for n, text in found.plan.items()}


def in_formats(task: Task, formats: Mapping[str, Format]) -> Graph:
    """The finished network in some formats, with biases for every width."""
    most = max((f.bits for f in formats.values() if isinstance(f, Nested)), default=1)
    return replace(task, formats=dict(formats)).finished(Outcome({}, {}), dict(formats), tuple(range(2, most + 1)))[0]


def check(task: Task) -> None:
    """Return if a table can serve the goal."""
    for word in ("count", "keep"):
        if getattr(task.goal, word) is not None:
            raise ValueError(f"quantize: a sensitivity table takes a budget or a max_drop, got a {word}; leave it out")
    if task.bench.rate is not None:
        raise ValueError(
            f"quantize: a sensitivity table is of formats, and rounding for {task.bench.rate.name} chooses steps instead; "
            "use rounding feedback or nearest"
        )


def ways_of(task: Task) -> Ways:
    """The formats that every layer may have, the widest first; classifiers of many classes keep their bits."""
    least, ends = task.floors(), task.ends()
    out: Ways = {}
    for name, fmt in task.formats.items():
        if task.goal.levels is None:
            each = [at_bits(fmt, b) for b in range(fmt.bits, 1, -1)] or [fmt]
        else:
            each = [level(fmt, word.strip()) for word in task.goal.levels.split(",")]
        if name in ends:
            each = [at_an_end(f) for f in each]
        wide = [f for f in each if f.bits >= least.get(name, 0)] or [max(each, key=lambda f: f.bits)]
        out[name] = list({str(f): f for f in sorted(wide, key=lambda f: -f.bits)}.values())
    return out


def level(fmt: Format, word: str) -> Format:
    """What a level of a plan means for a layer: a width of its own format, or a format."""
    found = at_bits(fmt, int(word)) if word.isdecimal() else parse(word)
    if found is None:
        raise ValueError(f"quantize: levels must be widths or formats such as 8,4,3,2 or nested4,int4/64, got {word!r}")
    return found


def table(task: Task, ways: Ways) -> Table:
    """The saved table of a task, or one that is measured now, and saved if there is a place."""
    goal, bench = task.goal, task.bench
    settings = [bench.cover, bench.align, *((n, [str(f) for f in each]) for n, each in ways.items())]
    settings += [] if goal.times == NATIVE else [goal.times]
    about = hashlib.sha256(f"{task.about()}{settings}".encode()).hexdigest()
    if goal.table is not None and goal.table.exists():
        found = Table.load(goal.table)
        if found.about != about:
            raise ValueError(
                f"quantize: table {str(goal.table)!r} must be of this network, these calibration data, levels and times, "
                "and is of others; name another file, and it will be measured"
            )
        return found
    criterion = goal.criterion if goal.criterion in METHODS else "divergence"
    memo = {} if goal.work is None else Journal(goal.work / "table.journal", f"{about}{criterion}{goal.seed}")
    samples = task.batches.some(within(SAMPLES, task.batches.some(1)[0], SAMPLE_BYTES))[0]

    def network(formats: Mapping[str, Format]) -> Graph:
        return replace(task, formats=dict(formats)).network({})

    whole = in_formats(task, {name: each[0] for name, each in ways.items()})
    probe = Probe(bench, ways, network, samples, goal.seed, memo, task.tell, goal.times)
    score = None if task.score is None else task.scored
    made = probe.table(criterion, about, whole, score, getattr(task.score, "metric", "score"))
    if goal.table is not None:
        made.save(goal.table)
    return made


def expectation(found: Solution) -> str:
    """What the table expects of a plan, in a line."""
    spent: Sequence[tuple[str, float | None]] = (
        (BYTES, found.bytes), (BITS, found.avg_bits), (MILLISECONDS, found.milliseconds)
    )  # fmt: skip
    words = [said(what, amount) for what, amount in spent if amount is not None]
    words += [] if found.score is None else [f"score {found.score[0]:.4g} ({found.score[1]:.4g} to {found.score[2]:.4g})"]
    return f"the table expects a loss of {found.loss:.3g} ({found.low:.3g} to {found.high:.3g}), {', '.join(words)}"
