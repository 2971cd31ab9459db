"""How much the loss minds errors of each layer's outputs, so that layers and channels can be weighed against each other.

The loss is the divergence from what the float network itself answers, so no labels are needed: answers are drawn from its
own output distribution, and the gradient of the loss towards a layer's outputs is kept as its second moments (the Fisher
information; Martens and Grosse, 2015). With the gram matrix G of a layer's inputs and these moments S, a change E of its
weights costs about tr(S E G E'). Outputs that are not classes count by their squared error, relative to their power.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bitladder.errors import require
from bitladder.ir.graph import Graph, Node
from bitladder.ptq import feedback
from bitladder.ptq.bake import check_finite
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.feedback import ROWS, looked_at
from bitladder.runtime.reference import run

DRAWS = 4  # answers drawn for each sample
BATCH = 32  # samples that gradients are taken of at once
LARGEST = 4096  # layers with more outputs than this are left out: their moments would fill the memory


class Importance(NamedTuple):
    """What errors of a layer's outputs cost: half the moments (groups, outputs, outputs) of the gradient, float64.

    They are sums over positions and means over samples. rows: how many rows its gram matrix is a sum of.
    """

    moments: np.ndarray
    rows: int


def importances(
    graph: Graph, batches: Iterable[Mapping[str, Any]], *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Importance]:
    """What errors cost, by weight. Weights that no gradient reaches are absent.

    The batches are those that `ptq.feedback.grams` gets; it is a fold over them, too.
    """
    torch = require("torch", "torch", "quantize: rounding for rate")
    from bitladder.convert.torch_ops import TORCH_OPS, tensor

    weighted = {
        node.outputs[0]: (name, node) for name, node in graph.weights() if node.op in ROWS and fits(graph.constants[name])
    }
    known = {name: tensor(c) for name, c in graph.constants.items() if isinstance(c, np.ndarray)}
    for name, _ in weighted.values():
        check_finite(name, known[name].numpy())
        known[name].requires_grad_(True)  # so that whatever comes of it remembers how it was made
    draw, samples = np.random.default_rng(seed), 0
    found, rows = dict[str, np.ndarray](), dict[str, int]()  # sums of moments; rows that the gram matrix is a sum of
    for done, batch in enumerate(parts(batches), 1):
        made: dict[str, Any] = {}
        results = run(
            graph,
            {k: torch.from_numpy(v) for k, v in batch.items()},
            ops=TORCH_OPS,
            known=known,
            watch=lambda name, value: made.update({name: value} if name in weighted else {}),  # noqa: B023  # called now
        )
        samples += len(next(iter(batch.values())))
        outputs = [results[name] for name in graph.outputs if results[name].requires_grad]
        for _ in range(DRAWS if outputs else 0):
            towards = [torch.from_numpy(direction(out.detach().numpy(), draw)) for out in outputs]
            slopes = torch.autograd.grad(outputs, list(made.values()), towards, retain_graph=True, allow_unused=True)
            for (output, value), slope in zip(made.items(), slopes, strict=True):
                if slope is not None:
                    name, node = weighted[output]
                    moment, count = moments(unclipped(slope, value, node).numpy(), node)
                    found[name] = found.get(name, 0.0) + moment
                    rows[name] = rows.get(name, 0) + count
        if progress:
            progress("measure outputs", done, 0)
    return {name: Importance(moment / (2 * samples * DRAWS), rows[name] // DRAWS) for name, moment in found.items()}


def fits(w: Any) -> bool:
    """Whether a constant is an array with few enough outputs and inputs for matrices of each."""
    return isinstance(w, np.ndarray) and w.shape[0] <= LARGEST and w[0].size <= feedback.LARGEST


def parts(batches: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, np.ndarray]]:
    """The same samples, few at a time."""
    for batch in batches:
        arrays = {k: np.asarray(v) for k, v in batch.items()}
        for at in range(0, len(next(iter(arrays.values()))), BATCH):
            yield {k: v[at : at + BATCH] for k, v in arrays.items()}


def direction(out: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A random gradient towards the outputs of a batch, whose second moments are the curvature of the loss there.

    Classes (samples, classes): the softmax less a class drawn from it. All else: noise of the size that makes squared errors
    count as shares of the outputs' power.
    """
    if out.ndim == 2 and out.shape[1] > 1:
        p = np.exp(out - out.max(1, keepdims=True), dtype=np.float64)
        p /= p.sum(1, keepdims=True)
        drawn = (p.cumsum(1) < draw.random((len(p), 1))).sum(1).clip(max=p.shape[1] - 1)
        return (p - np.eye(p.shape[1])[drawn]).astype(out.dtype)
    power = max(float(np.mean(np.square(out, dtype=np.float64))) * (out.size / len(out)), 1e-30)
    return (draw.normal(size=out.shape) * np.sqrt(2 / power)).astype(out.dtype)


def unclipped(slope: Any, value: Any, node: Node) -> Any:
    """The gradient before the clip that is fused into a node."""
    low, high = node.clip or (None, None)
    value = value.detach()
    if low is not None:
        slope = slope * (value > low)
    return slope if high is None else slope * (value < high)


def moments(slope: np.ndarray, node: Node) -> tuple[np.ndarray, int]:
    """Second moments (groups, outputs, outputs) of gradients, summed over samples and positions, and the rows that their
    gram matrix is a sum of."""
    groups = int(node.attrs.get("groups", 1))
    if node.op == "linear":
        rows = slope.reshape(-1, slope.shape[-1])
        count = len(rows)
    else:
        rows = np.moveaxis(slope, 1, -1).reshape(-1, slope.shape[1])
        count = len(slope) * looked_at(slope.shape[2:])
    each = rows.reshape(len(rows), groups, -1).transpose(1, 0, 2).astype(np.float64)
    return np.matmul(each.swapaxes(1, 2), each), count
