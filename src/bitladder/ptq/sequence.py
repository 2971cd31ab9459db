"""Rounding one layer after another: each sees the inputs that it will get from the layers rounded before it.

The float network runs beside. A layer's weights are first moved some way to where they would give the true outputs for the
inputs as they are now; all the way would also learn the noise that those inputs carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bitladder.formats import Format, QTensor
from bitladder.ir.graph import Graph, Node
from bitladder.ptq.calibrate import as_kind, torch_ops
from bitladder.ptq.correct import forget, last_uses
from bitladder.ptq.feedback import ROWS, damped
from bitladder.ptq.rate import Rate
from bitladder.runtime.reference import real, step

FOLLOW = 0.5  # share of the way that weights are moved


class Sequence:
    """Weights rounded when their node is reached; called for every node of the quantized network, in order.

    memo: tensors made before, by (weight, format text).
    """

    def __init__(
        self,
        plain: Graph,
        samples: Mapping[str, Any],
        rate: Rate,
        formats: Mapping[str, Format | None],
        memo: dict[tuple[str, str], QTensor],
    ):
        self.plain, self.rate, self.formats, self.memo = plain, rate, formats, memo
        self.true = values(plain, samples)
        self.made: dict[str, QTensor] = {}

    def __call__(self, node: Node, env: Mapping[str, Any]) -> QTensor | None:
        """The weight of a node, whose inputs are in `env`; None if it has none that is to be rounded here."""
        true, name = next(self.true), node.inputs[1] if node.op in ROWS else ""
        fmt, w = self.formats.get(name), self.plain.constants.get(name)
        if name not in self.rate.minds or fmt is None or not isinstance(w, np.ndarray):
            return None
        if (name, str(fmt)) not in self.memo:
            moved, gram = followed(w, *(rows_of(v[node.inputs[0]], node, w.shape) for v in (true, env)))
            self.memo[name, str(fmt)] = self.rate.rounded(name, moved, fmt, gram)
        self.made[name] = self.memo[name, str(fmt)]
        return self.made[name]


def values(graph: Graph, samples: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All values that are needed before each node, node after node; the same dict every time."""
    ops = torch_ops()
    env: dict[str, Any] = {**graph.constants, **{k: as_kind(v, ops) for k, v in samples.items()}}
    last = last_uses(graph)
    for at, node in enumerate(graph.nodes):
        yield env
        env.update(zip(node.outputs, step(graph, node, env, ops), strict=False))
        forget(env, graph, node, at, last)


def rows_of(value: Any, node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """The inputs of a node's weight as rows (groups, rows, inputs)."""
    from bitladder.ir.windows import resolve

    return ROWS[node.op](np.asarray(real(value), np.float32), node, tuple(shape), resolve)


def followed(w: np.ndarray, true: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights on their way to those that make of the rows `got` what `w` makes of `true`; and the gram matrices of `got`."""
    gram = np.matmul(got.swapaxes(1, 2), got).astype(np.float64)
    lost = np.matmul((true - got).swapaxes(1, 2), got).astype(np.float64)
    flat = w.reshape(len(gram), -1, gram.shape[-1]).astype(np.float64)
    moved = [f + FOLLOW * np.linalg.solve(damped(g), (f @ x).T).T for f, g, x in zip(flat, gram, lost, strict=True)]
    return np.stack(moved).reshape(w.shape), gram
