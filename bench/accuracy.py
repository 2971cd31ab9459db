"""Accuracy beside the peers that quantize (bench/quantizers.py), at the same bytes of weights, nothing trained afterwards.

Weights have 8, 4, 3 or 2 bits, or so many in the mean; activations have 8. Both sides get the same 512 calibration images.
Against each result of a peer stands the network of ours that takes no more bytes and was best on the choosing images, our
other ways are shown beside it; of a peer every setting is shown, and figures take the one that is best on the test images
themselves, which favours it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

import bitladder as bl
from bench import cifar, quantizers, resnet
from bench.codec import BATCH, hits
from bench.nested import percent
from bench.options import Options, tell
from bench.plans import one_width
from bench.quantizers import QUANTIZERS, Made, Quantizer
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import about, evenly, loss
from bench.work import Work
from bitladder import file
from bitladder.convert.from_torch import from_torch
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.recipe import SHORT

BITS = (8, 4, 3, 2)
QUICK = 2000  # test images
CHOOSING = 2000  # images that our settings are chosen on


def packed(sizes: Mapping[str, int], mean: float, size: float) -> dict[str, Any]:
    """A plan of one width, the ends at eight bits, of no more bits in the mean; the best rounding."""
    return {"plan": one_width(sizes, "mid-rise", int(mean)) if mean < max(BITS) else "int8", "effort": "best"}


def coded(sizes: Mapping[str, int], mean: float, size: float) -> dict[str, Any]:
    """Rounding for coded bytes; the whole file counts, headers and biases and all."""
    return {"plan": "int8", "rounding": "rate", "budget": f"{int(size)}B"}


# Our ways to get to a mean number of bits, or to so many bytes; the best on the choosing images is what peers are held against.
OURS: dict[str, Callable[[Mapping[str, int], float, float], dict[str, Any]]] = {"packed": packed, "coded": coded}


@dataclass
class Ours:
    """Our networks on one ResNet: hits on the choosing images and on the test images by setting and bits."""

    options: Options
    depth: int
    data: cifar.Data
    choose: cifar.Split
    test: cifar.Split
    work: Work
    known: dict[tuple[float, float], list[Made]] = field(default_factory=dict)

    def ranked(self, mean: float, size: float) -> list[Made]:
        """The networks of at most `mean` bits a weight, or so many bytes, the best on the choosing images first."""
        if (mean, size) not in self.known:
            made = [self.made(name, how(self.layers, mean, size)) for name, how in OURS.items()]
            self.known[mean, size] = [found for _, found in sorted(made, key=lambda pair: -pair[0])]
        return self.known[mean, size]

    @cached_property
    def layers(self) -> dict[str, int]:
        """Elements of every weight, in the order of the network."""
        net = resnet.load(self.options.data, self.depth)
        graph = simplify(from_torch(net, (torch.from_numpy(self.data.draws[0].images[:1]),)))
        return {name: int(np.prod(graph.constants[name].shape)) for name, _ in graph.weights()}  # type: ignore[union-attr]

    def made(self, name: str, how: Mapping[str, Any]) -> tuple[float, Made]:
        """Accuracy on the choosing images, and what was made."""
        said = {
            word: {k: str(f) for k, f in value.items()} if isinstance(value, dict) else value for word, value in how.items()
        }
        value = self.work(f"{self.depth} {name} {said}", lambda: self.ran(how)).value
        size, bits, seconds, chosen = value[:4]
        hits = value[4:].astype(bool)
        tell(f"resnet{self.depth}: ours, {name}: {100 * hits.mean():.2f} %, {size:.0f} bytes, {bits:.3f} bits")
        return chosen, Made(name, size, bits, seconds, hits)

    def ran(self, said: Mapping[str, Any]) -> np.ndarray:
        """Bytes, mean bits, seconds, accuracy on the choosing images, and hits on the test images."""
        net, began = resnet.load(self.options.data, self.depth), time.process_time()
        model = bl.quantize(net, self.data.draws[0].images, **said).with_(threads=self.options.threads, batch=BATCH)
        seconds, layers = time.process_time() - began, layers_of(model.graph)
        mean = quantizers.mean_bits(layers)
        coded = said.get("rounding") in SHORT
        size = len(file.to_bytes(model.whole, "best")) if coded else quantizers.weight_bytes(layers)
        return np.array([size, mean, seconds, hits(model, self.choose).mean(), *hits(model, self.test)])


def layers_of(graph: Graph) -> list[tuple[str, int, int, int]]:
    """Of every weight its elements, its bits and the numbers that say what its codes mean, as drivers of peers tell them."""
    weights = {name: graph.constants[name] for name, _ in graph.weights()}
    return [
        (name, int(np.prod(w.shape)), w.format.bits, sum(np.asarray(p).size for p in w.encoding.params.values() if np.any(p)))
        for name, w in weights.items()
        if isinstance(w, QTensor)
    ]


# ------------------------------------------------------------------------------------------------------------- rows


def pair_rows(what: str, ours: Made, theirs: Made) -> list[Row]:
    """Accuracy, bytes and seconds of a peer's network beside ours."""
    half = loss([ours.hits], [theirs.hits]).half
    return [
        Row.of(f"{what}, top-1 %", percent(ours.hits), percent(theirs.hits), theirs.name, half),
        Row.of(f"{what}, bytes", ours.bytes, theirs.bytes, theirs.name),
        Row.of(f"{what}, processor seconds of quantizing", ours.seconds, theirs.seconds, theirs.name),
    ]


def near(options: Options) -> list[Quantizer]:
    """The peers that are measured: with --quick those that need no environment of their own."""
    return [peer for peer in QUANTIZERS if not (options.quick and peer.apart)]


def figure(pairs: Sequence[tuple[Made, Made]]) -> Figure:
    """Points by which the most accurate peer is better than ours at its bytes; below zero is what is asked for."""
    lost = [percent(theirs.hits) - percent(ours.hits) for ours, theirs in pairs]
    return Figure.below(max(lost) if lost else None, 0.0)


def measure(
    options: Options, among: Sequence[int] = BITS, slow: tuple[bool, ...] | None = None
) -> tuple[list[Row], dict[str, Figure]]:
    """Rows and figures of every ResNet at these bits. slow: of settings that do not learn, or do; with --full of both."""
    slow = slow or ((False, True) if options.full else (False,))
    tell("reading images")
    data = cifar.load(options.data)
    test, choose = evenly(data.test, QUICK if options.quick else len(data.test)), evenly(data.choose, CHOOSING)
    rows: list[Row] = []
    figures: dict[str, Figure] = {}
    for depth in options.depths:
        peers = quantizers.Bench(options, depth, data.draws[0], test, slow)
        work = Work.of("accuracy", list(OURS), about(options, test), about(options, choose))
        mine = Ours(options, depth, data, choose, test, work)
        for bits in among:
            what, pairs = f"resnet{depth}, {bits} bits", []
            for theirs in peers.all(bits, near(options)):
                if theirs.why:
                    rows.append(Row(f"{what}, top-1 %", None, None, f"{theirs.name}: {theirs.why}"))
                    continue
                ours, *others = mine.ranked(theirs.bits, theirs.bytes)
                pairs.append((ours, theirs))
                rows += pair_rows(f"{what}, ours {ours.name}", ours, theirs)
                rows += [pair_rows(f"{what}, also ours {other.name}", other, theirs)[0] for other in others]
            figures[f"resnet{depth}_peers_{bits}"] = figure(pairs)
    return rows, figures


def bench(options: Options) -> Result:
    """Every bit width, rows and figures."""
    torch.set_num_threads(options.threads)
    rows, figures = measure(options)
    return Result("accuracy", tuple(rows), figures, machine(options.threads, options.command), versions())
