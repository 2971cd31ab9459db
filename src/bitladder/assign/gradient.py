"""What storing a layer in fewer bits costs, from gradients: the Fisher form of the loss, sample by sample, without a trial.

The loss is the divergence from what the float network itself answers. To second order, a change that moves a layer's outputs
by dy costs half the mean of v squared, where v is the product of dy with the gradient towards a random direction of the
network's outputs, drawn so that its second moments are the curvature of the loss there. One backward pass a draw serves all
layers, and one run of a layer each way of storing it.

Biases take back what rounding shifts on average (`ptq.correct`), so the mean of dy does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bitladder.assign.score import class_like
from bitladder.errors import require
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node
from bitladder.ptq.bake import check_finite
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.importance import parts, unclipped
from bitladder.runtime.reference import run

DRAWS = 4  # directions drawn for each sample
LINEAR = ("conv", "conv_transpose", "linear")  # operators whose outputs change by what the same operator makes of a change


def pulls(
    graph: Graph,
    ways: Mapping[str, Sequence[QTensor]],
    batches: Iterable[Mapping[str, Any]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """By weight (ways, samples, draws): how far each way of storing it moves a sample's outputs in the directions drawn for it.

    ways: codes of a weight by its name. Weights that no gradient reaches, or that are not linear in their inputs, are absent.
    """
    torch = require("torch", "torch", "quantize: criterion gradient")
    from bitladder.convert.torch_ops import TORCH_OPS, tensor

    weighted = {node.outputs[0]: (name, node) for name, node in graph.weights() if node.op in LINEAR and name in ways}
    known = {name: tensor(c) for name, c in graph.constants.items() if isinstance(c, np.ndarray)}
    for name, _ in weighted.values():
        check_finite(name, known[name].numpy())
        known[name].requires_grad_(True)  # so that whatever comes of it remembers how it was made
    draw, folds = np.random.default_rng(seed), {name: Fold() for name, _ in weighted.values()}
    for done, batch in enumerate(parts(batches), 1):
        made: dict[str, Any] = {k: torch.from_numpy(v) for k, v in batch.items()}
        results = run(graph, dict(made), ops=TORCH_OPS, known=known, watch=made.__setitem__)
        outputs = [results[name] for name in graph.outputs if results[name].requires_grad]
        values = {name: made[name] for name in weighted}
        slopes: dict[str, list[Any]] = {name: [] for name in weighted}
        for _ in range(draws if outputs else 0):
            towards = [torch.from_numpy(direction(out.detach().numpy(), draw)) for out in outputs]
            found = torch.autograd.grad(outputs, list(values.values()), towards, retain_graph=True, allow_unused=True)
            for (value, at), slope in zip(values.items(), found, strict=True):
                if slope is not None:
                    slopes[value].append(by_channel(unclipped(slope, at, weighted[value][1]), weighted[value][1]))
        with torch.no_grad():
            for value, each in slopes.items():
                name, node = weighted[value]
                if each:
                    moved = (change(q, known[name], made[node.inputs[0]], node, TORCH_OPS) for q in ways[name])
                    folds[name].update(torch.stack(each), moved)
        if progress:
            progress("measure gradients", done, 0)
    return {name: fold.pulls() for name, fold in folds.items() if fold.rows}


def direction(out: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A random direction of the outputs of a batch whose second moments are the curvature of the loss there.

    Classes (samples, classes): the square roots of the softmax under random signs, less what moves all classes alike. A class
    drawn from the softmax would do as well on average, but of confident answers nearly every draw would say nothing. All else:
    random signs of the size that makes squared errors count as shares of the outputs' power.
    """
    signs = draw.integers(0, 2, out.shape) * 2.0 - 1.0
    if class_like(out):
        p = np.exp(out - out.max(1, keepdims=True), dtype=np.float64)
        p /= p.sum(1, keepdims=True)
        return (np.sqrt(p) * signs - p * (np.sqrt(p) * signs).sum(1, keepdims=True)).astype(out.dtype)
    power = max(float(np.mean(np.square(out, dtype=np.float64))) * (out.size / len(out)), 1e-30)
    return (signs * np.sqrt(2 / power)).astype(out.dtype)


def change(coded: QTensor, plain: Any, x: Any, node: Node, ops: Mapping[str, Any]) -> Any:
    """What a node's outputs (samples, channels, positions) move by when its weight is stored as codes."""
    import torch

    dw = torch.from_numpy(np.ascontiguousarray(coded.decode(), np.float32)) - plain
    return by_channel(ops[node.op](x, dw, None, **node.attrs), node)


def by_channel(value: Any, node: Node) -> Any:
    """A node's output or gradient as (samples, channels, positions)."""
    if node.op == "linear":
        return value.reshape(len(value), -1, value.shape[-1]).swapaxes(1, 2)
    return value.flatten(2)


class Fold:
    """One weight's pulls, batch after batch, and the mean move of each channel, which its bias takes back at the end."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []  # (ways, samples, draws)
        self.sums: list[np.ndarray] = []  # (samples, draws, channels) of gradients
        self.shift: Any = 0.0  # (ways, channels), summed over samples and positions
        self.count = 0

    def update(self, slopes: Any, moved: Iterable[Any]) -> None:
        """Take in gradients (draws, samples, channels, positions) and the moves (samples, channels, positions) of each way."""
        flat = slopes.flatten(2).double()
        rows, shift = [], []
        for move in moved:
            rows.append((flat * move.flatten(1).double()).sum(2).T.numpy())
            shift.append(move.sum((0, 2)).double().numpy())
        self.rows.append(np.stack(rows))
        self.sums.append(slopes.sum(3).double().permute(1, 0, 2).numpy())
        self.shift = self.shift + np.stack(shift)
        self.count += slopes.shape[1] * slopes.shape[3]

    def pulls(self) -> np.ndarray:
        """All of them, less what the bias takes back."""
        mean = self.shift / max(self.count, 1)
        back = np.einsum("sdc,wc->wsd", np.concatenate(self.sums), mean)
        return np.concatenate(self.rows, axis=1) - back


def losses(found: np.ndarray) -> np.ndarray:
    """What each way costs on each sample (ways, samples), from its pulls."""
    return np.square(found).mean(axis=2) / 2


def together(one: np.ndarray, other: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """How far two changes make each other worse, -1 to 1, from their pulls (samples, draws): one number, or one for each row
    of `shares` (rows, samples) that samples have in it.

    >>> a = np.array([[1.0, -1.0], [2.0, 0.0]])
    >>> [float(together(a, b)) for b in (a, -a, np.array([[1.0, 1.0], [0.0, 5.0]]))]
    [1.0, -1.0, 0.0]
    """
    shares = np.ones(len(one)) if shares is None else shares
    both, first, second = (shares @ (a * b).sum(1) for a, b in ((one, other), (one, one), (other, other)))
    return np.asarray(both / np.maximum(np.sqrt(first * second), 1e-30))
