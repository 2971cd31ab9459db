"""Applying a plan: weights become codes, activations get encodings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitladder.formats import Encoding, Fixed, Format, QTensor, fit
from bitladder.formats.tensor import width_of
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node
from bitladder.ptq import blocks
from bitladder.ptq.align import aligned_weights
from bitladder.ptq.feedback import rounded


def weight_encoding(
    node: Node,
    w: np.ndarray,
    fmt: Format,
    x: Encoding | None,
    *,
    cover: str = "mse",
    align: str = "weights",
    gram: np.ndarray | None = None,
) -> Encoding:
    """The encoding of one weight: per output channel, or per kernel slice where input channels have fractional lengths.

    With the gram matrices of its inputs, errors count by the energy of the input that they multiply.
    """
    if isinstance(fmt, Fixed) and fmt.fl is None and x is not None and x.axes == (1,) and node.op == "conv":
        groups = int(node.attrs.get("groups", 1))
        return aligned_weights(fmt, w, np.asarray(x.params["fl"]), mode=align, cover=cover, groups=groups)
    importance = None
    if gram is not None:
        energy = np.diagonal(gram, axis1=1, axis2=2).repeat(w.shape[0] // len(gram), axis=0)  # (outputs, inputs)
        importance = (energy / max(float(energy.mean()), 1e-30) + 0.01).reshape(w.shape)
    return fit(fmt, w, axis=CHANNEL_AXIS[node.op], cover=cover, importance=importance)


def check_finite(name: str, w: np.ndarray) -> None:
    """Return if a weight can be quantized."""
    if not np.isfinite(w).all():
        raise ValueError(f"quantize: weight {name!r} holds NaN or infinity; must be finite; repair or retrain the network")


def check_blocks(name: str, w: np.ndarray, fmt: Format, axis: int) -> None:
    """Return if a weight can be cut into the blocks of a format."""
    if (dim := width_of(fmt)) > 1 and (axis != 0 or w.ndim < 2 or w.shape[1] % dim):
        raise ValueError(
            f"quantize: weight {name!r} has shape {w.shape} with channels along axis {axis}; {fmt} needs channels along axis 0 "
            f"and inputs in blocks of {dim}; give it another format"
        )


def bake(
    graph: Graph,
    formats: Mapping[str, Format | None],
    activations: Mapping[str, Encoding],
    *,
    cover: str = "mse",
    align: str = "weights",
    memo: dict[tuple[str, str], QTensor] | None = None,
    grams: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """`graph` with its weights as codes of their formats and `activations` as its encodings.

    memo: tensors made earlier, by (weight, format text), so that plans that differ in a few layers cost a few layers.
    grams: of the inputs of weights that are to be rounded with error feedback (`ptq.feedback`); others go to the nearest code.
    """
    memo = {} if memo is None else memo
    constants = dict(graph.constants)
    for name, node in graph.weights():
        fmt, w = formats.get(name), graph.constants[name]
        if fmt is None or not isinstance(w, np.ndarray):
            continue
        check_finite(name, w)
        check_blocks(name, w, fmt, CHANNEL_AXIS[node.op])
        if (name, str(fmt)) not in memo:
            gram = (grams or {}).get(name)
            encoding = weight_encoding(node, w, fmt, activations.get(node.inputs[0]), cover=cover, align=align, gram=gram)
            feedback = blocks.rounded if width_of(fmt) > 1 else rounded
            memo[name, str(fmt)] = QTensor.of(w, encoding) if gram is None else feedback(w, encoding, gram)
        constants[name] = memo[name, str(fmt)]
    return graph.with_(constants=constants, encodings={**graph.encodings, **activations})
