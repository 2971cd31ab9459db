"""Networks to compare: one float graph, one set of activation encodings, and as many plans for the weights as are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from bitladder.formats import Encoding, Format, QTensor
from bitladder.ir.graph import Graph
from bitladder.ptq import data
from bitladder.ptq.bake import bake
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.clock import ENDLESS, Clock
from bitladder.ptq.correct import correct, corrected_biases, outputs_wanted
from bitladder.ptq.importance import Importance
from bitladder.ptq.passes import Codes
from bitladder.ptq.rate import Rate
from bitladder.ptq.sequence import Inputs, Sequence

KEPT_BYTES = 1 << 28  # samples that stay fill at most twice this
FEWEST = 32  # but so many stay however large they are


class Batches:
    """Checked batches of a stream, read once; an even selection of at most 2 `keep` samples stays for what needs them again.

    Every stride-th sample is kept; when there are too many, every other one goes and the stride doubles. So a stream that is
    sorted by class leaves samples of every class. When the time is over no further batch is read.
    """

    def __init__(self, graph: Graph, stream: Iterator[Any], labels: Any, keep: int, clock: Clock = ENDLESS):
        self.graph, self.stream, self.labels, self.keep, self.clock = graph, stream, labels, keep, clock
        self.kept: list[tuple[dict[str, np.ndarray], Any]] = []  # single samples with their labels, None without
        self.count, self.stride = 0, 1

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.stream:
            arrays, labels = data.named(batch, self.graph.inputs)
            arrays = data.checked(arrays, self.graph.inputs)
            size = len(next(iter(arrays.values())))
            self.keep = within(self.keep, arrays, KEPT_BYTES)
            if self.labels is not None:
                labels = np.asarray(self.labels)[self.count : self.count + size]
            if labels is not None:
                labels = data.checked_labels(labels, size)
            for i in range(-self.count % self.stride, size, self.stride):
                self.kept.append(({k: v[i].copy() for k, v in arrays.items()}, None if labels is None else labels[i]))
            self.count += size
            if len(self.kept) > 2 * self.keep:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
            yield arrays
            if self.clock.over():
                return
        if self.labels is not None and len(self.labels) != self.count:
            raise ValueError(f"data: labels must be as many as samples ({self.count}), got {len(self.labels)}; cut them")

    def some(self, samples: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """So many samples (or all kept), evenly spaced over the stream, and their labels if every one has some."""
        samples = min(samples, len(self.kept))
        at = np.unique(np.linspace(0, len(self.kept) - 1, samples).round().astype(int))
        chosen = [self.kept[i] for i in at]
        labels = [label for _, label in chosen if label is not None]
        arrays = {v.name: np.stack([sample[v.name] for sample, _ in chosen]) for v in self.graph.inputs}
        return arrays, np.array(labels, np.int64) if len(labels) == len(chosen) else None


def within(samples: int, arrays: Mapping[str, np.ndarray], limit: int) -> int:
    """So many samples, or fewer if more would fill more than `limit` bytes; `arrays` is a batch of them.

    >>> within(1000, {"x": np.zeros((2, 250), np.float32)}, 100_000)
    100
    """
    size = len(next(iter(arrays.values())))
    return min(samples, max(FEWEST, limit * size // max(sum(a.nbytes for a in arrays.values()), 1)))


@dataclass(frozen=True)
class Workbench:
    """What all plans for one network share. `network` makes the graph of a plan, biases corrected on `samples`.

    grams: weights that have one are rounded with error feedback. rate: those that it knows, for the length of their codes.
    passes: finished networks are rounded layer after layer, each for the inputs that it will get, and, where it is known, by
    what the loss `minds` of outputs. clock: when to stop; whatever is not done by then is done in the quickest way.
    """

    plain: Graph
    activations: Mapping[str, Encoding]
    samples: Mapping[str, np.ndarray]
    grams: Mapping[str, np.ndarray] | None = None
    cover: str = "mse"
    align: str = "weights"
    rate: Rate | None = None
    passes: bool = False
    minds: Mapping[str, Importance] = field(default_factory=dict)
    clock: Clock = ENDLESS
    memo: dict[tuple[str, str], QTensor] = field(default_factory=dict)

    @cached_property
    def wanted(self) -> dict[str, np.ndarray]:
        """Mean outputs of the float network's weighted nodes, measured once."""
        return outputs_wanted(self.plain, self.samples)

    def baked(self, formats: Mapping[str, Format | None]) -> Graph:
        """The network in these formats, biases as they were."""
        return bake(self.plain, formats, self.activations, memo=self.memo, grams=self.grams, cover=self.cover, align=self.align)

    def network(
        self,
        formats: Mapping[str, Format | None],
        *,
        bits: Mapping[str, int] | None = None,
        least: Mapping[str, int] | None = None,
        widths: tuple[int, ...] = (),
        progress: Progress | None = None,
    ) -> Graph:
        """The network in these formats, biases corrected; nested weights on their leading `bits` planes if given.

        least: the fewest planes that a nested weight runs on. widths: those for which biases get a version of their own.
        """
        baked = self.baked({n: f for n, f in formats.items() if self.rate is None or n not in self.rate.minds})
        if least:
            baked = baked.with_(meta={**baked.meta, "min_bits": dict(least)})
        if bits is not None:
            baked = baked.at(bits)
        if self.clock.over():
            return baked
        if self.rate is None:
            return correct(self.plain, baked, self.samples, widths, progress, self.wanted, self.clock)
        rate, formats = self.rate, dict(formats)

        def rounded(name: str, inputs: Inputs) -> QTensor | None:
            fmt = formats.get(name)
            if fmt is None or name not in rate.minds:
                return None
            if (name, str(fmt)) not in self.memo:
                moved, gram = inputs()
                self.memo[name, str(fmt)] = rate.rounded(name, moved, fmt, gram)
            return self.memo[name, str(fmt)]

        sequence = Sequence(self.plain, self.samples, rounded)
        biases = corrected_biases(baked, self.samples, self.wanted, progress, sequence)
        return baked.with_(constants={**baked.constants, **sequence.made, **biases})

    def finished(
        self,
        formats: Mapping[str, Format | None],
        *,
        least: Mapping[str, int] | None = None,
        widths: tuple[int, ...] = (),
        progress: Progress | None = None,
    ) -> Graph:
        """The network in these formats as well as the workbench can make it: rounded layer after layer, width after width."""
        if not self.passes:
            return self.network(formats, least=least, widths=widths, progress=progress)
        codes = Codes(self.plain, formats, self.activations, self.cover, self.align, self.minds)
        rest = {name: fmt for name, fmt in formats.items() if name not in codes.nodes}
        base = bake(self.plain, rest, self.activations, memo=self.memo, cover=self.cover, align=self.align)
        base = base.with_(meta={**base.meta, "min_bits": dict(least)}) if least else base
        biases: dict[str, np.ndarray] = {}
        passes = codes.widths()
        for bits in passes:
            if self.clock.over():
                biases = {}  # they would be those of a width before
                break
            sequence = Sequence(self.plain, self.samples, partial(codes.reach, bits=bits))
            now = codes.graph(base)
            biases = corrected_biases(now, self.samples, self.wanted, progress, sequence, self.clock)
            codes.complete(bits)
        codes.complete(passes[-1])
        made = codes.graph(base)
        if widths:
            return correct(self.plain, made, self.samples, widths, progress, self.wanted, self.clock)
        return made.with_(constants={**made.constants, **biases})

    def at_divergence(self, divergence: float) -> Workbench:
        """The same workbench whose weights may cost so much; it must have a rate."""
        assert self.rate is not None
        return replace(self, rate=replace(self.rate, divergence=divergence), memo={})
