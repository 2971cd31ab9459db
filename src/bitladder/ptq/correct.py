"""Bias correction: what rounding shifts on average, the bias takes back (Nagel et al., 2019).

The float and the quantized network run side by side, node by node, on a few hundred samples. At every weighted node the mean
of the difference of their outputs, per output channel and before any clipping, is added to the bias, so later nodes already
see corrected inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth
from bitladder.ir.rewrite import bias_name
from bitladder.ptq.calibrate import Progress, as_kind, torch_ops
from bitladder.runtime.integer import Coded
from bitladder.runtime.reference import enter, step

CORRECTED = ("conv", "conv_transpose", "linear")


def with_biases(graph: Graph) -> Graph:
    """The graph with a bias, zero if it had none, at every weighted node, so that there is something to correct."""
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        w = graph.constants.get(node.inputs[1]) if node.op in CORRECTED else None
        if w is not None and not (len(node.inputs) > 2 and node.inputs[2]) and not isinstance(w, PerWidth):
            name = bias_name(node.inputs[1], constants)
            outs = w.shape[1] * int(node.attrs.get("groups", 1)) if node.op == "conv_transpose" else w.shape[0]
            constants[name] = np.zeros(outs, np.float32)
            node = replace(node, inputs=(*node.inputs[:2], name))
        nodes.append(node)
    return graph.with_(constants=constants, nodes=tuple(nodes))


def corrected_biases(
    plain: Graph, quantized: Graph, samples: Mapping[str, Any], progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Corrected biases (float32) by name. Both graphs have the same nodes; the biases of `quantized` are arrays."""
    ops = torch_ops()
    inputs = {k: as_kind(v, ops) for k, v in samples.items()}
    truth: dict[str, Any] = {**plain.constants, **inputs}
    made: dict[str, Any] = {**quantized.constants, **{k: enter(quantized, k, v) for k, v in inputs.items()}}
    last = {name: at for at, node in enumerate(plain.nodes) for name in node.inputs}
    out: dict[str, np.ndarray] = {}
    for at, (node, twin) in enumerate(zip(plain.nodes, quantized.nodes, strict=True)):
        bias = twin.inputs[2] if twin.op in CORRECTED and isinstance(made.get(twin.inputs[1]), QTensor) else ""
        if bias and isinstance(made[bias], np.ndarray) and bias not in out:
            shift = mean_difference(plain, quantized, node, twin, truth, made, ops)
            made[bias] = out[bias] = (made[bias] + shift).astype(np.float32)
        for graph, n, env in ((plain, node, truth), (quantized, twin, made)):
            env.update(zip(n.outputs, step(graph, n, env, ops), strict=False))
            for name in n.inputs:
                if last.get(name) == at and name not in graph.constants:
                    env.pop(name, None)
        if progress:
            progress("correct biases", at + 1, len(plain.nodes))
    return out


def mean_difference(
    plain: Graph, quantized: Graph, node: Node, twin: Node, truth: Mapping[str, Any], made: Mapping[str, Any], ops: Any
) -> np.ndarray:
    """Mean over samples and positions of float minus quantized output, per output channel, before clip and encoding."""
    bare = quantized.with_(encodings={k: v for k, v in quantized.encodings.items() if k != twin.outputs[0]})
    (want,) = step(plain, replace(node, clip=None), truth, ops)
    (got,) = step(bare, replace(twin, clip=None), made, ops)
    difference = np.asarray(want, np.float64) - np.asarray(got.real() if isinstance(got, Coded) else got, np.float64)
    channel = difference.ndim - 1 if node.op == "linear" else 1
    return difference.mean(axis=tuple(a for a in range(difference.ndim) if a != channel))


def correct(
    plain: Graph, quantized: Graph, samples: Mapping[str, Any], widths: tuple[int, ...] = (), progress: Progress | None = None
) -> Graph:
    """`quantized` with corrected biases; one version for each of `widths` at biases whose weight is nested."""
    base = corrected_biases(plain, quantized, samples, progress)
    constants: dict[str, Any] = {**quantized.constants, **base}
    nested = {
        n.inputs[2]: n.inputs[1] for n in quantized.nodes if n.op in CORRECTED and len(n.inputs) > 2 and n.inputs[2] in base
    }
    versions: dict[str, dict[int, np.ndarray]] = {}
    for width in sorted(widths):
        narrow = quantized.at(width)
        for bias, array in corrected_biases(plain, narrow, samples, progress).items():
            weight = narrow.constants[nested[bias]]
            stored = quantized.constants[nested[bias]]
            if isinstance(weight, QTensor) and isinstance(stored, QTensor) and stored.at(1) is not stored:
                versions.setdefault(bias, {})[weight.format.bits] = array
    for bias, arrays in versions.items():
        stored = quantized.constants[nested[bias]]
        assert isinstance(stored, QTensor)
        arrays[stored.format.bits] = base[bias]
        constants[bias] = PerWidth(nested[bias], arrays)
    return quantized.with_(constants=constants)
