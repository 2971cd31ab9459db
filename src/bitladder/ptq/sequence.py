"""Rounding one layer after another: each sees the inputs that it will get from the layers rounded before it.

The float network runs beside. A layer's weights are first moved some way to where they would give the true outputs for the
inputs as they are now; all the way would also learn the noise that those inputs carry. So a layer makes up for what earlier
ones lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node
from bitladder.ptq.calibrate import as_kind, torch_ops
from bitladder.ptq.correct import forget, last_uses
from bitladder.ptq.feedback import ROWS, damped, products
from bitladder.runtime.reference import real, step

FOLLOW = 0.5  # share of the way that weights are moved


Inputs = Callable[[], tuple[np.ndarray, np.ndarray]]  # the weight on its way, and the gram matrices of its inputs
Rounder = Callable[[str, Inputs], "QTensor | None"]


class Sequence:
    """Weights rounded when their node is reached; called for every node of the quantized network, in order.

    rounder: what makes codes of a weight, by its name; None leaves it as it is. made: all that it made.
    """

    def __init__(self, plain: Graph, samples: Mapping[str, Any], rounder: Rounder, follow: float = FOLLOW):
        self.plain, self.rounder, self.follow = plain, rounder, follow
        self.true = values(plain, samples)
        self.made: dict[str, QTensor] = {}

    def __call__(self, node: Node, env: Mapping[str, Any]) -> QTensor | None:
        """The weight of a node, whose inputs are in `env`; None if it has none that is to be rounded here."""
        true, name = next(self.true), node.inputs[1] if node.op in ROWS else ""
        w = self.plain.constants.get(name)
        if not isinstance(w, np.ndarray):
            return None

        def inputs() -> tuple[np.ndarray, np.ndarray]:
            before, now = (rows_of(values[node.inputs[0]], node, w.shape) for values in (true, env))
            return followed(w, before, now, self.follow)

        made = self.made.get(name) or self.rounder(name, inputs)
        if made is not None:
            self.made[name] = made
        return made


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


def followed(w: np.ndarray, true: np.ndarray, got: np.ndarray, follow: float = FOLLOW) -> tuple[np.ndarray, np.ndarray]:
    """Weights on their way to those that make of the rows `got` what `w` makes of `true`; and the gram matrices of `got`."""
    gram, lost = products(got, got), products(true - got, got)
    flat = w.reshape(len(gram), -1, gram.shape[-1]).astype(np.float64)
    moved = [f + follow * np.linalg.solve(damped(g), (f @ x).T).T for f, g, x in zip(flat, gram, lost, strict=True)]
    return np.stack(moved).reshape(w.shape), gram
