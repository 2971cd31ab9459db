"""Formats against their neighbours at equal bits: error, coded size and accuracy of ResNet-20 when all but its ends have them.

Weights are rounded with error feedback, as `quantize` does; the first and the last have int8, and so have activations. Trees
are whole networks as `quantize` makes them, read at a width; they differ in the cells that they begin with. What formats of
activations do is measured with int8 weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from bench import cifar
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Judge, Subject, about, evenly, loss, subject
from bench.work import Work
from bitladder.formats import Format, Int, Nested, QTensor, parse
from bitladder.goal import Goal
from bitladder.ir.graph import Graph
from bitladder.ptq import data
from bitladder.ptq.calibrate import encodings, observe
from bitladder.ptq.rate import code_bits
from bitladder.ptq.workbench import Batches
from bitladder.task import Outcome, Task

QUICK = 2000  # test images
PAIRS = (  # a format of weights, and the neighbour that costs as many bits
    ("codebook4", "int4"),
    ("codebook4:15", "int4"),
    ("codebook4:squares", "int4"),
    ("codebook3", "int3"),
    ("codebook3:7", "int3"),
    ("codebook2", "int2"),
    ("codebook2:3", "ternary"),
    ("product4x256", "codebook2"),
    ("log4", "int4"),
)
ACTIVATIONS = (("log4", "int4"), ("log4:2", "int4"), ("log4:4", "int4"))
WIDTHS = (8, 4, 3, 2)  # of trees
SEEDS = ("entropy", "lloyd")
MOST_LOST = 1.0  # points, by 4-bit codebooks against float (S8)


def weights_of(on: Subject, graph: Graph) -> Mapping[str, tuple[np.ndarray, QTensor]]:
    """Every weight in the format that is looked at, as it was and as codes."""
    between = [name for name in on.names() if name not in on.ends()]
    constants = {name: graph.constants[name] for name in between}
    return {name: (np.asarray(on.plain.constants[name]), c) for name, c in constants.items() if isinstance(c, QTensor)}


def of_weights(on: Subject, text: str) -> Graph:
    """The network with a format between its ends."""
    fmt = parse(text)
    formats: dict[str, Format] = {n: Int(8) if n in on.ends() or fmt is None else fmt for n in on.names()}
    return replace(on.feedback, memo={}).network(formats)


def of_activations(on: Subject, text: str, calibration: cifar.Split) -> Graph:
    """The network with int8 weights, and a format of activations behind its first layer."""
    first, *rest = on.feedback.activations
    batches = Batches(on.plain, data.chunks(calibration.images), calibration.labels, 1)
    seen = observe(on.plain, batches, rest, per_channel=False)
    found = encodings(on.plain, seen, dict.fromkeys(rest, parse(text)))
    activations = {first: on.feedback.activations[first], **found}
    return replace(on.feedback, activations=activations, memo={}).network({n: Int(8) for n in on.names()})


def of_tree(on: Subject, cells: str) -> Graph:
    """What the recipe makes of trees that begin with such cells."""
    formats: dict[str, Format] = {n: Nested(8, "tree", cells=cells) for n in on.names()}
    task = Task(replace(on.feedback, memo={}), on.raw, formats, Goal(), on.batches, None, lambda stage, done, total: None)
    return task.model(Outcome()).graph


def facts(on: Subject, graph: Graph) -> tuple[float, float, float]:
    """Signal over noise of weights in dB, bits a weight with tables and scales, and bits a weight when codes are coded."""
    held = weights_of(on, graph)
    noise = np.mean([np.sum((q.decode() - w) ** 2) / np.sum(w**2) for w, q in held.values()])
    count = sum(w.size for w, _ in held.values())
    stored = sum(8 * (q.nbytes + sum(np.asarray(p).nbytes for p in q.encoding.params.values())) for _, q in held.values())
    coded = sum(code_bits(q.codes, q.format) for _, q in held.values())
    return float(-10 * np.log10(noise)), stored / count, coded / count


def percent(hits: np.ndarray) -> float:
    return 100 * float(hits.mean())


def bench(options: Options) -> Result:
    """Rows for each pair, and what 4-bit codebooks lose."""
    import torch

    torch.set_num_threads(options.threads)
    calibration, test = cifar.some(options.data, QUICK) if options.quick else whole(options)
    tell(f"{len(test)} test images")
    work = Work.of("formats", about(options, test))
    known: dict[str, Subject] = {}

    def on() -> Subject:
        if "it" not in known:
            known["it"] = subject(options, 20, calibration)
        return known["it"]

    judge = Judge("resnet20", test, lambda: on().plain, work, memory=0)

    def hits(key: str, make: Callable[[], Graph]) -> np.ndarray:
        return judge(key, make).value

    def measured(text: str) -> tuple[np.ndarray, np.ndarray]:
        made: dict[str, Graph] = {}

        def graph() -> Graph:
            return made.setdefault(text, of_weights(on(), text))

        return hits(text, graph), work(f"facts {text}", lambda: np.array(facts(on(), graph()))).value

    plain = hits("float", lambda: on().plain)
    rows = [Row("resnet20, float, top-1 %", percent(plain))]
    for text, peer in PAIRS:
        (ours, our), (theirs, their) = measured(text), measured(peer)
        what = f"resnet20, weights {text}"
        rows.append(Row.of(f"{what}, top-1 %", percent(ours), percent(theirs), peer, loss([ours], [theirs]).half))
        for name, a, b in zip(
            ("signal over noise, dB", "bits a weight, stored", "bits a weight, coded"), our, their, strict=True
        ):
            rows.append(Row.of(f"{what}, {name}", float(a), float(b), peer))
    for text, peer in ACTIVATIONS:
        ours, theirs = (hits(f"a={t}", lambda t=t: of_activations(on(), t, calibration)) for t in (text, peer))  # type: ignore[misc]
        what = f"resnet20, activations {text}, top-1 %"
        rows.append(Row.of(what, percent(ours), percent(theirs), f"a={peer}", loss([ours], [theirs]).half))
    trees = {cells: of_tree(on(), cells) for cells in SEEDS}
    for bits in WIDTHS:
        ours, theirs = (hits(f"tree {c} {bits}", lambda c=c, b=bits: trees[c].at(b)) for c in SEEDS)  # type: ignore[misc]
        what = f"resnet20, nested8:tree from cells of weighted entropy at {bits} bits, top-1 %"
        rows.append(Row.of(what, percent(ours), percent(theirs), "from Lloyd's", loss([ours], [theirs]).half))
    lost = loss([measured("codebook4")[0]], [plain])
    found = {"codebook4_lost": Figure.at_most(lost.mean, MOST_LOST, lost.low)}
    result = Result("formats", tuple(rows), found, machine(options.threads, options.command), versions())
    work.done()
    return result


def whole(options: Options) -> tuple[cifar.Split, cifar.Split]:
    """The first draw of calibration images, and all test images."""
    everything = cifar.load(options.data)
    return everything.draws[0], evenly(everything.test, len(everything.test))
