"""Applying a plan: weights become codes, activations get encodings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bitladder.formats import Encoding, Fixed, Format, QTensor, fit
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node
from bitladder.ptq.align import aligned_weights


def weight_encoding(
    node: Node, w: np.ndarray, fmt: Format, x: Encoding | None, *, cover: str = "mse", align: str = "weights"
) -> Encoding:
    """The encoding of one weight: per output channel, or per kernel slice where input channels have fractional lengths."""
    if isinstance(fmt, Fixed) and fmt.fl is None and x is not None and x.axes == (1,) and node.op == "conv":
        return aligned_weights(
            fmt, w, np.asarray(x.params["fl"]), mode=align, cover=cover, groups=int(node.attrs.get("groups", 1))
        )
    return fit(fmt, w, axis=CHANNEL_AXIS[node.op], cover=cover)


def bake(
    graph: Graph,
    formats: Mapping[str, Format | None],
    activations: Mapping[str, Encoding],
    *,
    cover: str = "mse",
    align: str = "weights",
    memo: dict[tuple[str, str], QTensor] | None = None,
    rounded: Callable[[str, np.ndarray, Encoding], QTensor] | None = None,
) -> Graph:
    """`graph` with its weights as codes of their formats and `activations` as its encodings.

    memo: tensors made earlier, by (weight, format text), so that plans that differ in a few layers cost a few layers.
    rounded: how weights become codes, `QTensor.of` (to the nearest) by default.
    """
    memo = {} if memo is None else memo
    constants = dict(graph.constants)
    for name, node in graph.weights():
        fmt, w = formats.get(name), graph.constants[name]
        if fmt is None or not isinstance(w, np.ndarray):
            continue
        if not np.isfinite(w).all():
            raise ValueError(f"quantize: weight {name!r} holds NaN or infinity; must be finite; repair or retrain the network")
        if (name, str(fmt)) not in memo:
            encoding = weight_encoding(node, w, fmt, activations.get(node.inputs[0]), cover=cover, align=align)
            memo[name, str(fmt)] = rounded(name, w, encoding) if rounded else QTensor.of(w, encoding)
        constants[name] = memo[name, str(fmt)]
    return graph.with_(constants=constants, encodings={**graph.encodings, **activations})
