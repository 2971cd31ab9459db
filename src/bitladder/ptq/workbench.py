"""Networks to compare: one float graph, one set of activation encodings, and as many plans for the weights as are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitladder.formats import Encoding, Format, QTensor
from bitladder.ir.graph import Graph
from bitladder.ptq import data
from bitladder.ptq.bake import bake
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.correct import correct


class Batches:
    """Checked batches of a stream, read once; the first `keep` samples stay, with their labels, for what needs them again."""

    def __init__(self, graph: Graph, stream: Iterator[Any], labels: Any, keep: int):
        self.graph, self.stream, self.labels, self.keep = graph, stream, labels, keep
        self.kept: list[dict[str, np.ndarray]] = []
        self.kept_labels: list[np.ndarray] = []
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.stream:
            arrays, labels = data.named(batch, self.graph.inputs)
            arrays = data.checked(arrays, self.graph.inputs)
            size = len(next(iter(arrays.values())))
            if self.labels is not None:
                labels = np.asarray(self.labels)[self.count : self.count + size]
            if self.count < self.keep:
                self.kept.append(arrays)
                if labels is not None:
                    self.kept_labels.append(data.checked_labels(labels, size))
            self.count += size
            yield arrays
        if self.labels is not None and len(self.labels) != self.count:
            raise ValueError(f"data: labels must be as many as samples ({self.count}), got {len(self.labels)}")

    def first(self, samples: int) -> dict[str, np.ndarray]:
        """The first samples of the stream, as many as asked for or were kept."""
        return {v.name: np.concatenate([b[v.name] for b in self.kept])[:samples] for v in self.graph.inputs}

    def first_labels(self, samples: int) -> np.ndarray | None:
        """Their labels, if every batch had some."""
        return np.concatenate(self.kept_labels)[:samples] if len(self.kept_labels) == len(self.kept) else None


@dataclass(frozen=True)
class Workbench:
    """What all plans for one network share. `network` makes the graph of a plan, biases corrected on `samples`."""

    plain: Graph
    activations: Mapping[str, Encoding]
    samples: Mapping[str, np.ndarray]
    memo: dict[tuple[str, str], QTensor] = field(default_factory=dict)
    progress: Progress | None = None

    def network(self, formats: Mapping[str, Format | None], *, bits: Mapping[str, int] | None = None, widths: tuple[int, ...] = ()) -> Graph:
        """The network in these formats; nested weights on the leading `bits` planes; biases for each of `widths` too."""
        baked = bake(self.plain, formats, self.activations, memo=self.memo)
        if bits is not None:
            baked = baked.at(bits)
        return correct(self.plain, baked, self.samples, widths, self.progress)
