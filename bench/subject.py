"""Networks under test: a trained ResNet calibrated and ready to be quantized in many ways, and the judge of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bench import cifar, resnet
from bench.options import Options, tell
from bench.work import Measured, Work, digest
from bitladder.convert.evaluate import Evaluator
from bitladder.convert.from_torch import from_torch
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.ptq import data
from bitladder.ptq.calibrate import encodings, observe, placement
from bitladder.ptq.correct import with_biases
from bitladder.ptq.feedback import grams
from bitladder.ptq.plan import activation_default
from bitladder.ptq.workbench import Batches, Workbench
from bitladder.recipe import EFFORTS

Make = Callable[[], Graph]


@dataclass(frozen=True)
class Subject:
    """A network as it came (`raw`), and a workbench with activations int8 and Gram matrices, as `quantize` makes them."""

    raw: Graph
    feedback: Workbench
    batches: Batches

    @property
    def plain(self) -> Graph:
        return self.feedback.plain

    @property
    def nearest(self) -> Workbench:
        """A workbench that rounds to the nearest code instead."""
        return replace(self.feedback, grams=None, memo={})

    def names(self) -> tuple[str, ...]:
        """The weights, in the order of the graph."""
        return tuple(name for name, _ in self.plain.weights())

    def ends(self) -> tuple[str, str]:
        """The first and the last weight."""
        names = self.names()
        return names[0], names[-1]


def subject(options: Options, depth: int, calibration: cifar.Split) -> Subject:
    """ResNet-`depth`, calibrated on a draw of images."""
    tell(f"calibrating resnet{depth}")
    net = resnet.load(options.data, depth)
    raw = from_torch(net, (torch.from_numpy(calibration.images[:64]),))
    plain = with_biases(simplify(raw))
    batches = Batches(plain, data.chunks(calibration.images), calibration.labels, len(calibration))
    values = placement(plain, [name for name, _ in plain.weights()])
    seen = observe(plain, batches, values, per_channel=True)
    samples = batches.some(EFFORTS["balanced"].correct)[0]
    bench = Workbench(plain, encodings(plain, seen, dict.fromkeys(values, activation_default())), samples)
    return Subject(raw, replace(bench, grams=grams(plain, data.chunks(samples))), batches)


@dataclass
class Judge:
    """Which images of a split networks get right. Networks that begin like `base` cost only what comes after."""

    name: str
    split: cifar.Split
    base: Make
    work: Work
    memory: int = 1 << 30
    evaluator: Evaluator | None = field(default=None, init=False)
    known: dict[str, Measured] = field(default_factory=dict, init=False)

    def __call__(self, key: str, make: Make) -> Measured:
        """Hits (images,) of a network, and the processor seconds it took to make and to run it."""
        if key not in self.known:
            self.known[key] = found = self.work(f"{self.name}/{key}", lambda: self.hits(make()))
            tell(f"{self.name}: {key}: {100 * found.value.mean():.2f} % ({found.seconds:.1f} s)")
        return self.known[key]

    def hits(self, graph: Graph) -> np.ndarray:
        if self.evaluator is None:
            self.evaluator = Evaluator(self.base(), self.split.images, memory=self.memory)
        return np.asarray(self.evaluator.outputs(graph)).argmax(1) == self.split.labels


@dataclass(frozen=True)
class Interval:
    """A mean in points, and half of its 95 % interval (normal approximation over images)."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half


def loss(hits: Sequence[np.ndarray], peer: Sequence[np.ndarray]) -> Interval:
    """Points that networks lose against their peers on the same images, the mean over draws, paired image by image.

    >>> loss([np.array([1, 0, 1, 1])], [np.array([1, 1, 1, 1])]).mean
    25.0
    """
    each = 100 * np.mean([np.asarray(b, float) - np.asarray(a, float) for a, b in zip(hits, peer, strict=True)], axis=0)
    return Interval(float(each.mean()), float(1.96 * each.std() / np.sqrt(len(each))))


def about(options: Options, split: cifar.Split) -> str:
    """A hash of the networks and the images that measured values depend on."""
    nets = (resnet.path(options.data, depth).read_bytes() for depth in options.depths)
    return digest([*nets, split.images.tobytes(), split.labels.tobytes()])


def evenly(split: cifar.Split, count: int) -> cifar.Split:
    """So many images at even distances, all if there are fewer."""
    return split[np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))]
