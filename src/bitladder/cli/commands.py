"""What each command does, as one function from its words to an `Outcome`."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import disk, file, native, recipes
from bitladder.assign.accept import leaks, line
from bitladder.assign.gains import by_plane, gains
from bitladder.assign.score import Score, accuracy, check_classes, class_like, first_output, likeness, runner
from bitladder.assign.sensitivity import Table
from bitladder.cli import arrays
from bitladder.cli.bound import Bound
from bitladder.cli.network import network
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.convert.from_safetensors import holds_codes
from bitladder.dial import Rungs, choose
from bitladder.file import Gains
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph
from bitladder.model import Model, bits_of, by_plan, load
from bitladder.recipe import SHORT, leads, quantize
from bitladder.table import table

WORDS = recipes.words()  # of the command line and of recipes, with what they mean when nobody says
MAX_DROP = 0.01
FEW = 32  # samples that planes are weighed on
TOLD = 5  # nodes without a kernel that are listed


# -------------------------------------------------------------------------------------------------------- quantize


def quantize_command(args: Namespace, terminal: Terminal) -> Outcome:
    """A network quantized as the words say, saved, with what was found."""
    for path in filter(None, (args.output, args.recipe_out)):
        disk.check_writable(path)
    if args.weights is not None and holds_codes(args.weights):
        return later("tensors", "quantize")(args, terminal)
    if args.data is None:
        raise ValueError("quantize: needs calibration data; give --data CALIB.npz, or codes with --weights FILE.safetensors")
    words = settings(args)
    if words["max_drop"] is not None and args.eval is None and args.test is None:
        raise ValueError("quantize: --max-drop needs data to measure by; give --eval EVAL.npz")
    terminal.progress("read", 0, 0)
    graph = network(args.net, args.weights, arrays.read(args.data))
    data = read_all(args, graph)
    score, test = (measure(graph, data[name]) if name in data else None for name in ("evaluation", "test"))
    goal = words["plan"] is not None or words["budget"] is not None or words["count"] is not None
    if score is not None and not goal and words["max_drop"] is None:
        words["max_drop"] = MAX_DROP
    told = goal or score is not None or words["rounding"] in SHORT
    shared, notes = leaks({name: samples.feeds for name, samples in data.items()})
    notes += [] if told else ["neither plan nor budget nor evaluation data: every weight becomes nested8"]
    bound = Bound.of(args, recipe_of(args), words, graph, data)
    saving = {word: words.pop(word) for word in recipes.SAVING}
    work = Path(f"{args.output}.work")
    begun = time.monotonic()
    calib = data["calibration"]
    given: dict[str, Any] = {"labels": calib.labels, "score": score, "test": test, "work": work, "progress": terminal.progress}
    model = quantize(graph, calib.batches(), table=args.table, **given, **words)
    model = annotated(model, score, notes, saving, {"leaked": shared} if shared else {})
    if not leads():  # under torchrun all processes learn, one writes
        return Outcome("", met=bool(model.graph.meta["result"].get("goal_met", True)))
    terminal.progress("save", 0, 0)
    worth = planes_worth(model, calib, terminal) if saving["order"] == "importance" else None
    bound.save(lambda path: model.save(path, **saving, gains=worth))
    shutil.rmtree(work, ignore_errors=True)
    model = Model(model.whole)  # what is told is what is stored
    result = model.graph.meta["result"]
    lines = [*result.get("notes", []), *over_budget(result), *measured(result), *by_default(model)]
    facts = {
        **summary(model),
        "result": result,
        "file_bytes": os.path.getsize(args.output),
        "seconds": time.monotonic() - begun,
    }
    return Outcome(str(model), args.output, lines, facts, met=bool(result.get("goal_met", True)))


def read_all(args: Namespace, graph: Graph) -> dict[str, arrays.Samples]:
    """The data of a command by what it is for, all of it checked."""
    paths = {"calibration": args.data, "evaluation": args.eval, "test": args.test}
    found = {name: arrays.samples(path, graph.inputs) for name, path in paths.items() if path is not None}
    for name, samples in found.items():
        check_labels(graph, samples, paths[name])
    return found


def planes_worth(model: Model, calib: arrays.Samples, terminal: Terminal) -> Gains:
    """What each plane takes off the error of the outputs on a few samples."""
    few = {k: a if calib.fixed else a[:FEW] for k, a in calib.batches()[0].items()}
    return by_plane(gains(model, few, terminal.progress), model)


def settings(args: Namespace) -> dict[str, Any]:
    """The words of the command line, else of the recipe file, else the usual ones."""
    usual = WORDS | recipes.SAVING
    given = {key: getattr(args, key) for key in usual if getattr(args, key, None) is not None}
    if "meta" in given:
        given["meta"] = description(given["meta"])
    if str(given.get("plan", "")).endswith(".ladder"):
        given["plan"] = recipes.plan_in(given["plan"])
    path = recipe_of(args)
    if path is not None and path == given.get("plan"):
        del given["plan"]
    return usual | (recipes.read(path) if path is not None else {}) | given


def recipe_of(args: Namespace) -> str | None:
    """The recipe file that a command names, as such or in place of a plan."""
    plan = args.plan if str(args.plan or "").endswith((".yaml", ".yml")) else None
    if plan is not None and args.recipe is not None:
        raise ValueError(f"quantize: --plan {plan} and --recipe {args.recipe} are both recipes; give one of them")
    return args.recipe if plan is None else plan


def description(path: str) -> dict[str, Any]:
    """What a JSON file says of a network: class labels, normalisation, layout."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"meta: {path!r} must be a JSON file ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise ValueError(f'meta: {path!r} must hold an object such as {{"labels": [...]}}, got {type(found).__name__}')
    return found


def measure(graph: Graph, data: arrays.Samples) -> Score:
    """The score on some data: accuracy with labels, else likeness to the float network."""
    if data.labels is None:
        return likeness(data.feeds, runner(graph), data.batch)
    return accuracy(data.feeds, data.labels, data.batch)


def check_labels(graph: Graph, data: arrays.Samples, path: str) -> None:
    """Return if the labels of a file, should it have any, are classes of the network's output; one sample is run to see."""
    if data.labels is None:
        return
    one = tuple(a if data.fixed else a[:1] for a in data.batches()[0].values())
    try:
        check_classes(first_output(Model(graph), one), data.labels)
    except ValueError as error:
        raise ValueError(str(error).replace("score:", f"data {path}:", 1)) from None


def annotated(model: Model, score: Score | None, notes: list[str], saving: Mapping[str, Any], more: Mapping[str, Any]) -> Model:
    """The model with the name of the measure and more in its result, our notes before those of the search, the whole recipe."""
    result = {**model.graph.meta.get("result", {}), **more}
    if score is not None:
        result |= {"metric": score.metric, "samples": score.samples}
    result["notes"] = [*notes, *result.get("notes", [])]
    whole = model.whole
    recipe = {**whole.meta.get("recipe", {}), **{word: how for word, how in saving.items() if how != recipes.SAVING[word]}}
    return by_plan(whole.with_(meta={**whole.meta, "result": result, "recipe": recipe}))


def over_budget(result: Mapping[str, Any]) -> list[str]:
    """That a budget is not kept, and what to do, if that is the goal that was missed."""
    if result.get("goal_met", True) or result.get("budget") is None or result.get("max_drop") is not None:
        return []
    return [f"budget {result['budget']} MISSED: no smaller plan was found; allow more, or fewer bits with --levels or --low"]


def measured(result: Mapping[str, Any]) -> list[str]:
    """What was measured, and what an acceptance found, a line each, if anything was."""
    if result.get("score") is None:
        return line(result)
    parts = [
        f"{word} {result[key]:.4f}"
        for key, word in (("float", "float"), ("reference", "widest"))
        if result.get(key) is not None
    ]
    parts.append(f"this network {result['score']:.4f}")
    if result.get("evaluations"):
        parts.append(f"{result['evaluations']} evaluations")
    goal = (
        ""
        if result.get("max_drop") is None
        else f"; allowed loss {result['max_drop']:g}, {'met' if result['goal_met'] else 'MISSED'}"
    )
    return [f"{result.get('metric', 'score')} on {result.get('samples', '?')} samples: {', '.join(parts)}{goal}", *line(result)]


def by_default(model: Model) -> list[str]:
    """What a file that keeps more planes than its plan needs runs at unless told otherwise."""
    marked = model.graph.meta.get("default_bits")
    if not marked:
        return []
    bits = ", ".join(f"{name} {b}" for name, b in marked.items() if b < bits_of(model.graph.constants[name]))
    average = model.at(marked).average_bits
    return [f"runs by default at {average:.3g} bits on average" + (f", fewer than stored: {bits}" if bits else "")]


def summary(model: Model) -> dict[str, Any]:
    """What JSON says of a model."""
    rows = [{**asdict(r), "shape": list(r.shape)} for r in model.rows()]
    return {"average_bits": model.average_bits, "bytes": model.nbytes, "weights": rows, "widths": model.widths}


# ------------------------------------------------------------------------------------------------- the other ones


def show(args: Namespace, terminal: Terminal) -> Outcome:
    """Layers, formats, bytes, coded bits per weight, and the widths a file can run at."""
    model = Model(file.load(args.file, recover=args.recover))
    if args.recipe:
        return Outcome(recipes.shown_of(model), None, (), {"recipe": recipes.of(model)})
    found = file.overview(args.file, recover=args.recover)
    coded = {
        name: 8 * found.stored[name] / max(math.prod(c.shape), 1)
        for name, c in model.graph.constants.items()
        if isinstance(c, QTensor)
    }
    rows = model.rows()
    reasons = model.engine.reasons()
    by = {name: "reference" if node.name in reasons else "native" for name, node in model.graph.weights()}
    cells = [(r.name, r.op, r.shape, r.format, r.bits, coded.get(r.name), r.nbytes, r.runs, by[r.name]) for r in rows]
    whole = found.file_bytes - found.missing
    total = ("total", "", "", "", model.average_bits, None, model.nbytes, f"file {whole:,}", "")
    text = table(("weight", "operator", "shape", "format", "bits", "coded", "bytes", "runs in", "by"), cells, total)
    reach = {p.bits: p.nbytes for p in found.prefixes if p.bits in model.widths}
    sums = [r.sums for r in rows if r.sums is not None]
    lines = [f"inputs: {', '.join(f'{v.name} {v.dtype} {shape_text(v.shape)}' for v in model.graph.inputs)}"]
    lines += [*missing(found.missing, model), *prefix_lines(found, model)]
    if sums:
        safe = "so 32-bit accumulators cannot overflow" if max(sums) <= 32 else "more than 32-bit accumulators hold"
        lines.append(f"sums of {len(sums)} integer layers need at most {max(sums)} bits, {safe}")
    lines += [*kernels(reasons, len(model.graph.nodes)), *measured(model.graph.meta.get("result", {})), *by_default(model)]
    facts = {
        **summary(model),
        "instruction_set": native.isa(),
        "nodes": len(model.graph.nodes),
        "on_the_reference": reasons,
        "coded_bits": coded,
        "file_bytes": whole,
        "prefix_bytes": reach,
        "prefixes": [{**asdict(p), "score": score_at(model, p.bits)} for p in found.prefixes],
        "identity": found.identity,
        "order": found.policy,
        "header_bytes": found.header_bytes,
        "missing_bytes": found.missing,
        "recovered": model.graph.meta.get("recovered", []),
        "inputs": [asdict(v) for v in model.graph.inputs],
        "outputs": list(model.graph.outputs),
        "default_bits": model.graph.meta.get("default_bits"),
        "labels": model.labels,
        "result": model.graph.meta.get("result"),
    }
    return Outcome(text, None, lines, facts)


def missing(count: int, model: Model) -> list[str]:
    """What is not there of a file, and what of it was damaged."""
    lines = [f"{count:,} bytes of the file are missing; it runs at {model.average_bits:.3g} bits on average"] if count else []
    return lines + [f"recovered: {note}" for note in model.graph.meta.get("recovered", [])]


def score_at(model: Model, bits: int | None) -> float | None:
    """The score of a width in the table that a network keeps of its own."""
    rows = model.whole.meta.get("widths")
    scores = [r.get("score") for r in rows if isinstance(r, dict) and r.get("bits") == bits] if isinstance(rows, list) else []
    return scores[0] if bits is not None and scores else None


def prefix_lines(found: file.Overview, model: Model) -> list[str]:
    """What each prefix of a file gives, as a table."""
    rows = [(p.nbytes, p.bits, p.average, p.coded, score_at(model, p.bits)) for p in found.prefixes]
    text = table(("first bytes", "width", "planes", "coded", "score"), rows)
    return [f"order: {found.policy}; headers: {found.header_bytes:,} bytes; identity: {found.identity}", *text.splitlines()]


def kernels(reasons: Mapping[str, str], nodes: int) -> list[str]:
    """Who computes: how many nodes have a kernel, and why the others have none."""
    if native.core is None:
        return [f"no native core, so all {nodes} nodes run on the reference: {native.why}"]
    lines = [f"the native core ({native.isa()}) runs {nodes - len(reasons)} of {nodes} nodes"]
    return [*lines, *(f"on the reference: {name}: {why}" for name, why in list(reasons.items())[:TOLD])]


def shape_text(shape: tuple[int | str, ...] | None) -> str:
    return "of any shape" if shape is None else "(" + ", ".join(map(str, shape)) + ")"


def run(args: Namespace, terminal: Terminal) -> Outcome:
    """Outputs for the arrays of a file, written by name."""
    disk.check_writable(args.output)
    model = on_rung(args)
    data = arrays.samples(args.input, model.graph.inputs)
    parts = []
    batches = data.batches()
    begun = time.monotonic()
    for done, feeds in enumerate(batches):
        terminal.progress("run", done, len(batches))
        out = model(feeds)
        parts.append(out if isinstance(out, dict) else {model.graph.outputs[0]: out})
    seconds = time.monotonic() - begun
    outputs = {name: joined([p[name] for p in parts], name) for name in model.graph.outputs}
    arrays.write(args.output, outputs)
    lines = [*missing(model.missing, model), f"{model.average_bits:.3g} bits on average, {seconds:.3g} s"]
    facts: dict[str, Any] = {"average_bits": model.average_bits, "seconds": seconds, "missing_bytes": model.missing}
    first = outputs[model.graph.outputs[0]]
    if data.labels is not None and class_like(first):
        check_classes(first, data.labels)
        facts["accuracy"] = float((first.argmax(1) == data.labels).mean())
        lines.append(f"top-1 accuracy on {len(first)} samples: {facts['accuracy']:.4f}")
    rows = [(name, a.shape, str(a.dtype)) for name, a in outputs.items()]
    facts["outputs"] = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in rows]
    return Outcome(table(("output", "shape", "type"), rows), args.output, lines, facts)


def on_rung(args: Namespace) -> Model:
    """The network at the width asked for, or at the one that the file's own table says is needed."""
    if args.milliseconds is None and args.min_accuracy is None:
        return load(args.file, args.bits, recover=args.recover)
    if args.bits != "auto":
        raise ValueError(
            f"run: --bits {args.bits} leaves --milliseconds and --min-accuracy nothing to choose; give one of them"
        )
    model = load(args.file, recover=args.recover)
    return model.at(choose(Rungs.of(model), milliseconds=args.milliseconds, accuracy=args.min_accuracy))


def joined(parts: list[np.ndarray], name: str) -> np.ndarray:
    """One array of the outputs of all batches."""
    if len(parts) > 1 and parts[0].ndim == 0:
        raise ValueError(f"run: output {name!r} has no batch axis; give at most {arrays.BATCH} samples at a time")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def report(args: Namespace, terminal: Terminal) -> Outcome:
    """One page about a network."""
    disk.check_writable(args.output)
    model = Model(file.load(args.file))
    from bitladder.report import write

    terminal.progress("report", 0, 0)
    table = None if args.table is None else Table.load(args.table)
    write(model, args.output, place=args.file, table=table)
    return Outcome(str(model), args.output, (), {"file_bytes": os.path.getsize(args.output)})


def demo(args: Namespace, terminal: Terminal) -> Outcome:
    """The whole path on a small data set; `bitladder.demo.run` gives table, lines, the path written, and facts."""
    from bitladder.demo import run as run_demo

    facts = dict(run_demo(args.output, terminal.progress))
    text, lines, wrote = (facts.pop(key, usual) for key, usual in (("table", ""), ("lines", ()), ("wrote", args.output)))
    return Outcome(str(text), str(wrote), lines, facts)


def later(module: str, name: str) -> Callable[[Namespace, Terminal], Outcome]:
    """A command in a module of its own, which is imported when it runs."""
    return lambda args, terminal: getattr(import_module(f"bitladder.cli.{module}"), name)(args, terminal)


RUN: dict[str, Callable[[Namespace, Terminal], Outcome]] = {
    "demo": demo,
    "quantize": quantize_command,
    "show": show,
    "run": run,
    "export": later("tensors", "export"),
    "diff": later("deltas", "diff"),
    "patch": later("deltas", "patch"),
    "verify": later("checks", "verify"),
    "doctor": later("health", "doctor"),
    "bench": later("speed", "bench"),
    "report": report,
}
