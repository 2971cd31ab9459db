"""Training in formats: `prepare` makes a module of a network, `finish` the `Model` that the module has become.

What lies between is any loop of yours, or `bitladder.train.nested`. PyTorch is imported when `prepare` is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from bitladder.errors import require
from bitladder.formats import Encoding, Format, QTensor
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.model import Model
from bitladder.ptq import data
from bitladder.ptq.calibrate import encodings, observe
from bitladder.ptq.correct import CORRECTED, outputs_wanted, with_biases
from bitladder.recipe import imported, quantize
from bitladder.task import LEAST_BITS

if TYPE_CHECKING:
    from bitladder.train.prepared import Prepared

WIDTHS = (8, 4, 3, 2)  # to train at, if nobody says
STARTS = ("codes", "float")
MEANS = 512  # samples that means are taken from at the start


def prepare(
    net: Any,
    plan: Any = None,
    calib: Any = None,
    *,
    widths: Iterable[int] | None = None,
    start: str = "codes",
    follow: bool = False,
    learn_ranges: bool = True,
    centre: bool = True,
    batches: int = 8,
    effort: str = "balanced",
    rounding: str | None = None,
    seed: int = 0,
) -> Prepared:
    """`net` as a module that trains in the formats of `plan`; it starts as good as quantization after training makes it.

    net: a torch module, an ExportedProgram, the path of an ONNX file, a float Graph, or a quantized `Model`, which brings its
    plan and its ranges. calib: as for `quantize`; `batches` batches of it are looked at, at even distances, the
    first ones of an iterable without a length.
    plan, effort, rounding, seed: as for `quantize`, which chooses the ranges that training starts from.
    widths: those to be trained at, by default 8, 4, 3 and 2 as far as the nested weights have them; other formats have one.
    start: masters begin as what their widest codes stand for ("codes": every width starts as quantized), or as the float
    weights ("float"). follow: activations have the width of the weights, from 2 bits up, and into a layer with a floor that
    layer's; `finish` then takes a width. learn_ranges: ranges of weights and activations learn too; `refit` chooses them anew
    from the masters.
    centre: layers that had a batch norm are centred by the batch's means in training.
    """
    require("torch", "torch", "prepare")
    from bitladder.train.prepared import Prepared

    if start not in STARTS:
        raise ValueError(f"prepare: start must be one of {', '.join(STARTS)}, got {start!r}")
    if batches < 1:
        raise ValueError(f"prepare: batches must be 1 or more, got {batches}")
    if isinstance(net, Model):
        if plan is not None:
            raise ValueError("prepare: a quantized Model brings its plan; leave out `plan`, or pass the float network")
        if follow:
            raise ValueError("prepare: activations that follow the weights want the float network; pass that and `calib`")
        coded, masters, wanted, chunks, plain = net.whole, {}, {}, [], net.whole
    else:
        if calib is None:
            raise ValueError("prepare: a float network needs `calib` to choose ranges from; give a few batches of data")
        chunks = data.some(calib, batches)
        if not chunks:
            raise ValueError("prepare: calib must have at least one batch, got none")
        raw = imported(net, chunks[0])
        plain = with_biases(simplify(raw))
        coded = quantize(raw, chunks, plan=plan, effort=effort, rounding=rounding, seed=seed).whole
        masters = {} if start == "codes" else {n: c for n, c in plain.constants.items() if isinstance(c, np.ndarray)}
        wanted = means_wanted(raw, plain, chunks) if centre else {}
    chosen = usual_widths(coded, widths)
    graph = to_width(coded, min(chosen))
    activations = followed(graph, plain, chunks, chosen) if follow else None
    return Prepared(graph, masters, wanted, chosen, learn_ranges, activations)


def finish(net: Prepared, bits: int | None = None) -> Model:
    """The network as it is trained now: one nested file without further ado, every trained width a prefix of its codes.

    bits: the width to run at; needed where activations follow the weights, since a file has one width of activations.
    """
    if bits is None and net.follows:
        raise ValueError(f"finish: activations have a width as the weights do; give one of {list(net.widths)} as `bits`")
    return Model(net.to_graph(bits), bits)


def followed(graph: Graph, plain: Graph, chunks: list[Any], widths: Iterable[int]) -> dict[int, dict[str, Encoding]]:
    """Encodings of activations for every width: that of the widest weight that reads them, else the width itself."""
    batches = [data.checked(data.named(chunk, plain.inputs)[0], plain.inputs) for chunk in chunks]
    seen = observe(plain, batches, graph.encodings, per_channel=True)
    readers = {v: [n.inputs[1] for n in graph.nodes if n.op in CORRECTED and n.inputs[0] == v] for v in graph.encodings}
    out = {}
    for bits in widths:
        narrow = graph.at(bits).constants
        formats: dict[str, Format | None] = {}
        for value, encoding in graph.encodings.items():
            coded = [c.format.bits for name in readers[value] if isinstance(c := narrow[name], QTensor)]
            width = min(max([2, *(coded or [bits])]), encoding.format.bits)
            formats[value] = encoding.format.with_bits(width)  # type: ignore[attr-defined]  # activations are int or fixed
        out[bits] = encodings(plain, seen, formats)
    return out


def means_wanted(raw: Graph, plain: Graph, chunks: list[Any]) -> dict[str, np.ndarray]:
    """The mean outputs, per channel, of the weighted nodes of `plain` whose batch norm was folded, by weight."""
    normed = {name for n in raw.nodes if n.op == "batch_norm" for name in n.inputs[:1]}
    weights = {n.inputs[1] for n in raw.nodes if n.op in CORRECTED and n.outputs[0] in normed}
    arrays = [data.named(chunk, plain.inputs)[0] for chunk in chunks]
    samples = {v.name: np.concatenate([np.asarray(a[v.name], v.dtype) for a in arrays]) for v in plain.inputs}
    count = len(next(iter(samples.values())))
    rows = np.linspace(0, count - 1, min(count, MEANS)).round().astype(int)  # data may be in the order of its classes
    means = outputs_wanted(plain, {name: x[rows] for name, x in samples.items()})
    return {n.inputs[1]: means[n.name] for n in plain.nodes if n.op in CORRECTED and n.inputs[1] in weights}


def usual_widths(graph: Graph, widths: Iterable[int] | None) -> tuple[int, ...]:
    """The widths to train at, widest first: those given, or all of `WIDTHS` that nested weights have."""
    nested = [c.format.bits for c in graph.constants.values() if isinstance(c, QTensor) and hasattr(c.format, "at")]
    most = max((c.format.bits for c in graph.constants.values() if isinstance(c, QTensor)), default=8)
    if widths is None:
        return tuple(b for b in WIDTHS if b <= max(nested)) or (most,) if nested else (most,)
    chosen = tuple(sorted(set(widths), reverse=True))
    if not chosen or min(chosen) < 1 or max(chosen) > most:
        raise ValueError(f"prepare: widths must be from 1 to the {most} bits of the plan, got {list(chosen)}")
    return chosen


def to_width(graph: Graph, least: int) -> Graph:
    """`graph` with the floors that stand for "nothing was trained" lowered to the least width that will be."""
    floors = graph.meta.get("min_bits", {})
    lowered = {name: min(bits, least) if bits <= LEAST_BITS else bits for name, bits in floors.items()}
    return graph.with_(meta={**graph.meta, "min_bits": lowered}) if floors else graph
