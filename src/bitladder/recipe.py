"""The recipe on one page: import, observe, learn, rank, search, bake, correct; a `Model` comes out.

`quantize` is what most users call. Each step of it is one room of the house, and each can be called alone.
"""

from __future__ import annotations

import inspect
import io
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import file
from bitladder.assign.accept import accepted, check_rule
from bitladder.assign.criteria import CRITERIA, parts
from bitladder.assign.times import NATIVE
from bitladder.budgets import by_table
from bitladder.errors import Malformed, require
from bitladder.formats import Fixed, Format, Int, Nested
from bitladder.formats.uniform import COVERS
from bitladder.goal import Goal
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.model import Model, by_plan
from bitladder.ptq import data
from bitladder.ptq.align import MODES
from bitladder.ptq.calibrate import encodings, observe, placement
from bitladder.ptq.clock import Clock
from bitladder.ptq.correct import with_biases
from bitladder.ptq.equalize import equalized
from bitladder.ptq.feedback import grams
from bitladder.ptq.importance import importances
from bitladder.ptq.plan import activation_default, plan_of, resolve
from bitladder.ptq.rate import Rate
from bitladder.ptq.workbench import Batches, Workbench, within
from bitladder.searches import by_search
from bitladder.task import Formats, Progress, Score, Task


@dataclass(frozen=True)
class Effort:
    """How much work a preset does: samples to round on, samples kept to learn from, cycles of learning."""

    correct: int
    learn: int
    cycles: int
    rounding: str


EFFORTS = {
    "fast": Effort(64, 2048, 25, "feedback"),
    "balanced": Effort(256, 8192, 100, "sequence"),
    "best": Effort(512, 65536, 200, "moments"),
}


ROUNDINGS = ("nearest", "feedback", "sequence", "moments", "rate", "trellis")
SHORT = ("rate", "trellis")  # those that look at the length of codes
MINDFUL = (*SHORT, "moments")  # those that look at what the loss minds of outputs
FED = ("feedback", "sequence", "moments")  # those with error feedback

UNSAID = (
    "net",
    "calib",
    "labels",
    "score",
    "test",
    "meta",
    "table",
    "work",
    "progress",
)  # what no file says of how it came about
RUN_BYTES = 1 << 26  # inputs that biases are corrected on at once; activations take some ten times as much


def quantize(
    net: Any,
    calib: Any,
    *,
    plan: Any = None,
    score: Score | None = None,
    max_drop: float | None = None,
    test: Score | None = None,
    accept: str = "plausible",
    criterion: str = "weight_difference",
    search: str = "bisection",
    budget: str | None = None,
    table: str | Path | None = None,
    levels: str | None = None,
    times: str = NATIVE,
    labels: Any = None,
    low: int = 4,
    count: int | None = None,
    statistic: str = "mean_square",
    normalize: str = "none",
    start: str = "float",
    cycles: int | None = None,
    skip_smallest: bool = False,
    accept_at_most: int = 0,
    head_rule: str = "log2",
    cover: str = "mse",
    align: str = "weights",
    rounding: str | None = None,
    equalize: bool = False,
    time_limit: float | None = None,
    meta: Mapping[str, Any] | None = None,
    keep: int | None = None,
    effort: str = "balanced",
    seed: int = 0,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """A `Model`: `net` with weights and activations in the formats of a plan, searched for if a goal is given.

    net: a torch module, an ExportedProgram, the path of an ONNX file, or a Graph.
    calib: an array, a dict of arrays by input name, or any iterable of batches (arrays, tensors, tuples, dicts); a tuple may
    end in labels, a dict may hold them as `y`. It is read once; only the samples that learning needs are kept.
    plan: formats by pattern, a format, or a text such as "fixed8,a=fixed8"; "nested8" unless said otherwise.
    score, max_drop: as many layers as `score(network) >= score(float network) - max_drop` allows go to `low` bits, in the
    order of `criterion`, found by `search`. count: so many layers instead. budget: "0.5MB", "avg_bits=4" or "5ms" instead.
    table: a sensitivity table, measured and saved there if it is not there yet, from which the plan for `budget` or `max_drop`
    is solved; sizes are then coded ones. levels: what it may choose from, such as "8,4,3,2" or "nested4,int4/64". times: whose
    milliseconds they are, native or onnxruntime.
    test, accept: once finished, the network is compared with float on the samples of `test`, which nothing was chosen by, or
    else of `score`; the goal is missed if its loss is surely above max_drop ("plausible") or not surely within it ("proved").
    Either must tell of single samples, as those of `bitladder.assign.score` do; of others nothing is said.
    statistic, normalize, start, cycles: how the weight difference is taken (S2): mean_square, mean, variance or std; none,
    relative or step; learning from the float network (FIG 13) or from its "fixed8" version (FIG 14), for so many cycles.
    cover, align: how ranges are chosen (max, kstd, mse, pdf), and how sums of fixed-point channels agree (weights, sums) (S3).
    rounding: nearest, feedback (a layer's later weights make up for what earlier ones lose), sequence (also, later layers make
    up for what earlier ones lost, and ranges are those of least output error), moments (also, codes of a layer know of each
    other across its outputs, by the moments of the loss's gradient; needs torch), rate (with feedback, steps of all layers
    are such that coded bytes buy the least loss; weights are int8 unless said otherwise, `budget` counts coded bytes, and
    `max_drop` takes as few of them as the score allows) or trellis (the same, a few percent shorter and a few times slower);
    as `effort` says by default. equalize: channels between neighbouring layers are scaled alike first.
    time_limit: seconds after which the best that was found until then is finished in the quickest way and returned.
    meta: what deployment needs and no layer does, kept in the file: class "labels", "normalisation", "layout".
    skip_smallest, accept_at_most: the patent's options. head_rule: how classifiers of many classes keep their bits (S6).
    keep: store this many planes of every nested weight and mark the plan as what runs by default.
    work: a folder for the state of long steps; the same call resumes there, with the same result.

    What was found is in `model.graph.meta["result"]`, and what was asked for in `meta["recipe"]`. Raises ValueError with one
    line for anything wrong in the arguments.
    """
    given = dict(locals())
    for word, value, known in (("effort", effort, EFFORTS), ("cover", cover, COVERS), ("align", align, MODES)):
        if value not in known:
            raise ValueError(f"quantize: {word} must be one of {', '.join(known)}, got {value!r}")
    if rounding not in (None, *ROUNDINGS):
        raise ValueError(f"quantize: rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    check_rule(accept, max_drop, test or score)
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"quantize: time_limit must be more than 0 seconds, got {time_limit:g}; leave it out for no limit")
    clock = Clock.of(time_limit)
    hard, tell = EFFORTS[effort], progress or (lambda stage, done, total: None)
    folder = None if work is None or not leads() else Path(work)
    goal = Goal(
        criterion=criterion,
        search=search,
        statistic=statistic,
        normalize=normalize,
        start=start,
        cycles=hard.cycles if cycles is None else cycles,
        low=low,
        count=count,
        skip_smallest=skip_smallest,
        accept_at_most=accept_at_most,
        head_rule=head_rule,
        max_drop=max_drop,
        budget=budget,
        seed=seed,
        keep=keep,
        work=folder,
        table=None if table is None else Path(table),
        levels=levels,
        times=times,
    )

    items = data.chunks(calib)
    first = next(items, None)
    if first is None:
        raise ValueError("quantize: the calibration data has no batch; give at least one")
    raw = imported(net, first)
    raw = raw.with_(meta={**raw.meta, **(meta or {})})
    plain = with_biases(simplify(raw))
    plain = equalized(plain) if equalize else plain
    batches = Batches(plain, itertools.chain([first], items), labels, hard.learn, clock)

    names = [name for name, _ in plain.weights() if isinstance(plain.constants[name], np.ndarray)]
    wanted = plan_of(plan)
    usual: Format = Int(8) if rounding in SHORT else Nested(keep or 8)
    planned = dict.fromkeys(names, usual) | resolve(wanted, names)
    formats = {name: fmt for name, fmt in planned.items() if fmt is not None}
    if not formats:
        raise ValueError("quantize: no float weight is left to quantize; the network has none, or the plan leaves all in float")
    values = placement(plain, formats)
    chosen = dict.fromkeys(values, activation_default()) | resolve(wanted, values, activations=True)
    seen = observe(plain, batches, values, per_channel=True, profiled=cover == "pdf", progress=tell)
    activations = encodings(
        plain, seen, {v: fmt and together(plain, v, fmt, formats) for v, fmt in chosen.items()}, cover=cover
    )
    kept = batches.some(hard.correct)[0]
    samples = batches.some(within(hard.correct, kept, RUN_BYTES))[0]
    rounding = rounding or usual_rounding(hard)
    measured = max_drop is not None or any("loss" in CRITERIA[name].needs for name, _ in parts(criterion))
    searched = goal.by_table or (score is not None and measured)
    feedback = rounding in FED and not clock.over() and (rounding == "feedback" or searched)
    inputs = grams(plain, data.chunks(samples), progress=tell) if feedback else None
    minds, rate = {}, None
    if rounding in MINDFUL and not clock.over():
        minds = importances(plain, data.chunks(samples), seed=seed, progress=tell)
        minds = {name: found for name, found in minds.items() if name in formats}
    if rounding in SHORT:
        rate = Rate.of(plain, minds, dependent=rounding == "trellis")

    bench = Workbench(plain, activations, samples, inputs, cover, align, rate, rounding in FED[1:], minds, clock)
    task = Task(bench, raw, formats, goal, batches, score, tell)
    model = task.model(by_table(task) if goal.by_table else by_search(task))
    model = accepted(model, plain, test or score, allowed=max_drop, rule=accept, held_out=test is not None)
    return by_plan(model.whole.with_(meta={**model.whole.meta, "recipe": settings(given)}))


def usual_rounding(effort: Effort) -> str:
    """The rounding of an effort; moments are of gradients, so without torch the one before."""
    return "sequence" if effort.rounding == "moments" and find_spec("torch") is None else effort.rounding


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `quantize` that decide what comes out, those that are not the usual ones: what a file keeps of them.

    >>> settings({"plan": Nested(4), "seed": 0, "low": 3, "calib": [1]})
    {'plan': {'*': 'nested4'}, 'low': 3}
    """
    usual = {name: p.default for name, p in inspect.signature(quantize).parameters.items()}
    out = {name: value for name, value in given.items() if name not in UNSAID and value is not None and value != usual[name]}
    if "plan" in out:
        out["plan"] = {pattern: "float" if fmt is None else str(fmt) for pattern, fmt in plan_of(out["plan"]).items()}
    return out


def from_safetensors(net: Any, path: str | os.PathLike[str]) -> Model:
    """The `Model` of a safetensors file of codes, as `Model.to_safetensors` writes it, with the topology of `net`.

    net: a torch module, an ExportedProgram, the path of an ONNX or a ladder file, or a Graph: the network that the file was
    made from, float or not. Codes, formats, biases and activations come from the file, the same integers to the bit.
    """
    from bitladder.convert.from_safetensors import made_from, onto, read

    tensors = read(path)
    if isinstance(net, str | os.PathLike) and Path(net).suffix == ".ladder":
        net = file.load(net)
    graph = imported(net, tensors.example())
    if not made_from(graph, tensors):
        graph = with_biases(simplify(graph))
    graph = onto(graph, tensors)
    try:
        file.load_from(io.BytesIO(file.to_bytes(graph)), os.fspath(path))
    except ValueError as error:  # whatever a file of ours may not say, this one may not
        words = str(error).partition(": ")[2].removesuffix("; the file is damaged")
        raise Malformed(f"safetensors: {os.fspath(path)!r}: {words}; export it again") from None
    return by_plan(graph)


def leads() -> bool:
    """Whether this process is the one that writes: the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def together(graph: Graph, value: str, fmt: Format, weights: Formats) -> Format:
    """`fmt` as it suits the readers of an activation: lengths per channel only where every weight is fixed point too."""
    readers = [n for n in graph.nodes if value in n.inputs]
    fixed = all(isinstance(weights.get(n.inputs[1]), Fixed) for n in readers if n.op in ("conv", "conv_transpose"))
    return replace(fmt, per="tensor") if isinstance(fmt, Fixed) and not fixed else fmt


def imported(net: Any, first: Any) -> Graph:
    """The float graph of whatever a user calls a network; `first` is a batch to export a module with."""
    if isinstance(net, Graph):
        return net
    if isinstance(net, str | os.PathLike):
        if Path(net).suffix != ".onnx":
            raise ValueError(f"quantize: network {str(net)!r} must be an .onnx file or a torch module; export it first")
        require("onnx_ir", "onnx", "quantize")
        from bitladder.convert.from_onnx import from_onnx

        return from_onnx(net)
    torch = require("torch", "torch", "quantize")
    from bitladder.convert.from_torch import from_torch

    return from_torch(net, example(net, first, torch))


def example(net: Any, first: Any, torch: Any) -> Any:
    """One batch as a module takes it: tensors, without labels."""
    if isinstance(first, Mapping):
        tensors = {k: torch.as_tensor(np.asarray(v)) for k, v in first.items() if k != data.LABELS}
        return next(iter(tensors.values())) if set(tensors) == {"x"} else tensors
    parts = (
        tuple(torch.as_tensor(np.asarray(p)) for p in first)
        if isinstance(first, tuple | list)
        else (torch.as_tensor(np.asarray(first)),)
    )
    return parts[: arity(net)] if len(parts) > 1 else parts


def arity(net: Any) -> int | None:
    """How many inputs a module's forward takes without defaults; None if it does not say."""
    forward = getattr(net, "forward", None)
    if forward is None:
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in inspect.signature(forward).parameters.values()) or None
