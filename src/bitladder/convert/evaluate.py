"""What a graph makes of data, in batches, fast; and what graphs make of it that differ from the first in a few layers.

A search asks for the outputs of hundreds of networks that share their beginning. An `Evaluator` keeps activations of the
base network, codes as small integers, and starts each other network behind the last kept place before its first change.
Results are equal, to the bit, to running the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from bitladder.convert.torch_ops import TORCH_OPS, tensor
from bitladder.formats.tensor import QTensor
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node, PerWidth, Value
from bitladder.runtime.integer import Coded
from bitladder.runtime.reference import Ops, Watch, run

Values = dict[str, Any]
Outputs = tuple[torch.Tensor, ...]
SMALL = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1)}


class Evaluator:
    """Outputs of `graph` on anything, and of graphs like it on `data` (an array, a tuple of them, or a dict by input name).

    batch: how many samples run at once. memory: how many bytes of activations may be kept.
    """

    def __init__(self, graph: Graph, data: Any = None, *, batch: int = 256, memory: int = 1 << 30, ops: Ops = TORCH_OPS):
        self.base, self.batch, self.memory, self.ops = graph, batch, memory, ops
        self.tensors = {name: tensor(c) for name, c in graph.constants.items() if isinstance(c, np.ndarray)}
        self.fixed = any(v.shape and isinstance(v.shape[0], int) for v in graph.inputs)
        self.data = [] if data is None else self.batches(named(graph, data))
        self.keep: frozenset[str] = frozenset()
        self.kept: list[Values] = []  # for each batch, packed values by name
        self.made: list[Outputs] = []  # for each batch, the outputs of the base

    def __call__(self, *inputs: Any) -> Any:
        """The outputs of the base graph: arrays for arrays, tensors for tensors; one, or a tuple of them."""
        made = joined([self.run(self.base, part, self.tensors) for part in self.batches(named(self.base, inputs))])
        return single(made) if isinstance(inputs[0], torch.Tensor) else single(arrays(made))

    def outputs(self, graph: Graph | None = None) -> Any:
        """The outputs of `graph` (the base if None) on the data, as numpy arrays: one, or a tuple of them."""
        if not self.data:
            raise ValueError("Evaluator.outputs: needs data, got none; give it as the second argument of Evaluator")
        if not self.made:
            self.fill()
        graph = self.base if graph is None else graph
        changed = first_change(self.base, graph)
        if changed == len(self.base.nodes) == len(graph.nodes) and graph.outputs == self.base.outputs:
            return single(arrays(joined(self.made)))
        live = cuts(graph)
        start = next(k for k in range(changed, -1, -1) if live[k] <= self.keep)
        rest = graph.with_(inputs=(*graph.inputs, *map(Value, live[start])), nodes=graph.nodes[start:])
        constants = self.constants(graph)
        parts = zip(self.data, self.kept, strict=True)
        made = [self.run(rest, {**x, **{n: unpacked(kept[n]) for n in live[start]}}, constants) for x, kept in parts]
        return single(arrays(joined(made)))

    def rebase(self, graph: Graph) -> None:
        """From now on compare with `graph`: a search has made a step. Costs one whole run at the next question."""
        self.tensors, self.base, self.made = self.constants(graph), graph, []

    def fill(self) -> None:
        """Run the base graph, and keep what is worth it."""
        rows = next(iter(self.data[0].values())).shape[0]
        few = self.data[0] if self.fixed else {name: x[:2] for name, x in self.data[0].items()}
        scale = 1 if self.fixed else rows / min(rows, 2)
        sizes: dict[str, float] = {}
        self.run(self.base, few, self.tensors, lambda name, value: sizes.update({name: nbytes(packed(value)) * scale}))
        self.keep = worth_keeping(self.base, sizes, self.memory // len(self.data))
        self.kept, self.made = [], []
        for part in self.data:
            held: Values = {}
            self.made.append(self.run(self.base, part, self.tensors, partial(hold, held, self.keep)))
            self.kept.append(held)

    def run(self, graph: Graph, inputs: Values, constants: Values, watch: Watch | None = None) -> Outputs:
        """The outputs of a graph on one batch."""
        with torch.inference_mode():
            made = run(graph, inputs, ops=self.ops, watch=watch, known=constants)
        return tuple(made[name] for name in graph.outputs)

    def constants(self, graph: Graph) -> Values:
        """The plain constants of a graph as tensors; those of the base are converted already."""
        plain = {name: c for name, c in graph.constants.items() if isinstance(c, np.ndarray)}
        return {name: self.tensors[name] if self.base.constants.get(name) is c else tensor(c) for name, c in plain.items()}

    def batches(self, inputs: Values) -> list[Values]:
        """The inputs in pieces along axis 0; whole where the graph's batch is fixed, or its outputs are laid out otherwise."""
        rows = next(iter(inputs.values())).shape[0]
        if self.fixed or rows <= self.batch:
            return [inputs]
        probe = self.run(self.base, {name: x[:3] for name, x in inputs.items()}, self.tensors)
        if any(y.ndim == 0 or y.shape[0] != 3 for y in probe):
            return [inputs]
        return [{name: x[at : at + self.batch] for name, x in inputs.items()} for at in range(0, rows, self.batch)]


# ------------------------------------------------------------------------------------------------------- what to keep


def first_change(base: Graph, graph: Graph) -> int:
    """The number of the first node that computes something else in `graph` than in `base`."""
    if any(base.encodings.get(v.name) is not graph.encodings.get(v.name) for v in graph.inputs) or base.inputs != graph.inputs:
        return 0
    for k, (a, b) in enumerate(zip(base.nodes, graph.nodes, strict=False)):
        coded = all(base.encodings.get(name) is graph.encodings.get(name) for name in a.outputs)
        if (a is not b and a != b) or not coded or not all(unchanged(base, graph, name) for name in a.inputs):
            return k
    return min(len(base.nodes), len(graph.nodes))


def unchanged(base: Graph, graph: Graph, name: str) -> bool:
    """Whether a constant is the same in both graphs (and so whatever is none)."""
    a, b = base.constants.get(name), graph.constants.get(name)
    if isinstance(a, PerWidth) and isinstance(b, PerWidth) and not unchanged(base, graph, a.of):
        return False
    if isinstance(a, QTensor) and isinstance(b, QTensor):
        return a is b or (a.encoding is b.encoding and np.array_equal(a.codes, b.codes))
    return a is b or (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and same_bits(a, b))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def cuts(graph: Graph) -> list[frozenset[str]]:
    """Before each node, and after the last: the values made by then that are still to be read."""
    given = {v.name for v in graph.inputs} | set(graph.constants) | {""}
    need = set(graph.outputs)
    out = [frozenset(need - given)]
    for node in reversed(graph.nodes):
        need = (need - set(node.outputs)) | set(node.inputs)
        out.append(frozenset(need - given))
    return out[::-1]


def worth_keeping(graph: Graph, sizes: Mapping[str, float], memory: int) -> frozenset[str]:
    """The values that save most work for their bytes, when each weight is as likely to change as any other."""
    live, n = cuts(graph), len(graph.nodes)
    weights = dict((node.name, name) for name, node in graph.weights())
    before = np.concatenate([[0.0], np.cumsum([work(graph, node, weights, sizes) for node in graph.nodes])])
    starts = np.zeros(n + 1, int)  # where a change at each node would start from
    counts = np.array([node.name in weights for node in graph.nodes] + [True])
    keep: frozenset[str] = frozenset()
    while True:
        best = (0.0, 0)
        for k in range(1, n + 1):
            extra = sum(sizes[name] for name in live[k] - keep)
            saved = float(np.sum(np.maximum(before[k] - before[starts[k:]], 0) * counts[k:]))
            if extra + sum(sizes[name] for name in keep) <= memory:
                best = max(best, (saved / (extra + 1), k))
        if best[0] == 0.0:
            return keep
        k = best[1]
        keep |= live[k]
        starts[k:] = np.maximum(starts[k:], k)


def work(graph: Graph, node: Node, weights: Mapping[str, str], sizes: Mapping[str, float]) -> float:
    """About how much there is to compute: outputs, times the products that each of them takes."""
    outputs = float(sum(sizes.get(name, 0) for name in node.outputs))
    if node.name not in weights:
        return outputs
    weight = graph.constants[weights[node.name]]
    assert not isinstance(weight, PerWidth)
    shape = weight.shape
    return outputs * math.prod(shape) / shape[CHANNEL_AXIS[node.op]]


# ----------------------------------------------------------------------------------------------------- keeping it small


def packed(value: Any) -> Any:
    """Codes in the smallest integer type that holds them; a copy of anything else. Strides stay, so sums keep their order."""
    if not isinstance(value, Coded):
        return value.clone()
    low, high = value.encoding.format.span()
    kind = next((t for t, (least, most) in SMALL.items() if least <= low and high <= most), torch.float32)
    return Coded(value.codes.to(kind), value.encoding)


def unpacked(value: Any) -> Any:
    """What `packed` was given."""
    return Coded(value.codes.float(), value.encoding) if isinstance(value, Coded) else value


def nbytes(value: Any) -> int:
    return int((value.codes if isinstance(value, Coded) else value).nbytes)


def hold(held: Values, keep: frozenset[str], name: str, value: Any) -> None:
    """Keep a value that was chosen."""
    if name in keep:
        held[name] = packed(value)


# ---------------------------------------------------------------------------------------------------------- in and out


def named(graph: Graph, data: Any) -> dict[str, torch.Tensor]:
    """Inputs by name as tensors."""
    names = [v.name for v in graph.inputs]
    if not isinstance(data, Mapping):
        parts = data if isinstance(data, tuple | list) else (data,)
        data = dict(zip(names, parts, strict=True))
    return {n: data[n] if isinstance(data[n], torch.Tensor) else tensor(data[n]) for n in names}


def joined(rows: Sequence[Outputs]) -> Outputs:
    """Batches of outputs one behind the other."""
    return rows[0] if len(rows) == 1 else tuple(torch.cat(column) for column in zip(*rows, strict=True))


def arrays(made: Outputs) -> tuple[np.ndarray, ...]:
    return tuple(y.numpy() for y in made)


def single(made: tuple) -> Any:
    """The only entry of a tuple, or the tuple."""
    return made[0] if len(made) == 1 else made
