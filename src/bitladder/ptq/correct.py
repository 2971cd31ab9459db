"""Bias correction: what rounding shifts on average, the bias takes back (Nagel et al., 2019).

The float network runs on a few hundred samples and leaves the mean output of every weighted node, per output channel and
before any clipping. The quantized network then runs node by node on the same samples: each bias takes up what its node's mean
lacks before the next node runs, so later nodes already see corrected inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.formats import QTensor
from bitladder.ir.graph import Graph, Node, PerWidth
from bitladder.ir.rewrite import bias_name
from bitladder.ptq.calibrate import Progress, as_kind, torch_ops
from bitladder.ptq.clock import ENDLESS, Clock
from bitladder.runtime.reference import clipped, enter, real, step

Rounding = Callable[[Node, Mapping[str, Any]], "QTensor | None"]

CORRECTED = ("conv", "conv_transpose", "linear")
FINE = 16  # parts of an output's step that a bias is rounded to at most
COARSE = 256  # parts of what means are on average, where outputs are no integers: a few large channels must not decide


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


def channel_mean(node: Node, value: Any) -> np.ndarray:
    """Mean over samples and positions of a node's output, per output channel, float64."""
    x = np.asarray(real(value))
    channel = x.ndim - 1 if node.op == "linear" else 1
    return x.mean(axis=tuple(a for a in range(x.ndim) if a != channel), dtype=np.float64)


def outputs_wanted(plain: Graph, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The mean output of every weighted node of the float network, per channel and before any clip, by node."""
    ops = torch_ops()
    env: dict[str, Any] = {**plain.constants, **{k: as_kind(v, ops) for k, v in samples.items()}}
    last, out = last_uses(plain), {}
    for at, node in enumerate(plain.nodes):
        bare = replace(node, clip=None)
        made = step(plain, bare, env, ops)
        if node.op in CORRECTED:
            out[node.name] = channel_mean(node, made[0])
        if node.clip is not None:
            made[0] = clipped(made[0], node.clip)
        env.update(zip(node.outputs, made, strict=False))
        forget(env, plain, node, at, last)
    return out


def last_uses(graph: Graph) -> dict[str, int]:
    """The position of the last node that reads each value."""
    return {name: at for at, node in enumerate(graph.nodes) for name in node.inputs}


def forget(env: dict[str, Any], graph: Graph, node: Node, at: int, last: Mapping[str, int]) -> None:
    """Drop the inputs of a node that nothing reads any more, but not those of the graph: they tell the kind of arrays."""
    stay = {v.name for v in graph.inputs} | set(graph.outputs)
    for name in node.inputs:
        if last.get(name) == at and name not in graph.constants and name not in stay:
            env.pop(name, None)


def corrected_biases(
    quantized: Graph,
    samples: Mapping[str, Any],
    wanted: Mapping[str, np.ndarray],
    progress: Progress | None = None,
    rounding: Rounding | None = None,
    clock: Clock = ENDLESS,
) -> dict[str, np.ndarray]:
    """Corrected biases (float32) by name, such that every weighted node's mean output is what is `wanted` of it.

    rounding: called with every node and the values before it; the codes it may give are the node's weight from there on.
    Nodes that the clock leaves no time for are left out.
    """
    ops = torch_ops()
    env: dict[str, Any] = dict(quantized.constants)
    env |= {k: enter(quantized, k, as_kind(v, ops)) for k, v in samples.items()}
    last, out = last_uses(quantized), dict[str, np.ndarray]()
    for at, node in enumerate(quantized.nodes):
        if clock.over():
            break
        if rounding is not None and (made := rounding(node, env)) is not None:
            env[node.inputs[1]] = made
        bias = node.inputs[2] if node.op in CORRECTED and isinstance(env.get(node.inputs[1]), QTensor) else ""
        if bias and isinstance(env[bias], np.ndarray) and bias not in out:
            bare = quantized.with_(encodings={k: v for k, v in quantized.encodings.items() if k != node.name})
            (got,) = step(bare, replace(node, clip=None), env, ops)
            exact = env[bias] + wanted[node.name] - channel_mean(node, got)
            env[bias] = out[bias] = short(exact, grid(quantized, node, wanted[node.name]))
        env.update(zip(node.outputs, step(quantized, node, env, ops), strict=False))
        forget(env, quantized, node, at, last)
        if progress:
            progress("correct biases", at + 1, len(quantized.nodes))
    return out


def grid(graph: Graph, node: Node, wanted: np.ndarray) -> float:
    """A power of two so far below what can be seen in a node's output that its bias may be a multiple of it."""
    encoding = graph.encodings.get(node.name)
    step = (
        float(np.min(encoding.format.step(encoding.params))) / FINE
        if encoding is not None
        else float(np.abs(wanted).mean()) / COARSE
        if wanted.size
        else 0.0
    )
    return float(np.exp2(np.floor(np.log2(step)))) if step > 0 else 0.0


def short(bias: np.ndarray, step: float) -> np.ndarray:
    """`bias` in multiples of `step`, float32: numbers of few digits, of which files take few bytes.

    >>> short(np.array([0.3, -1.01]), 0.25)
    array([ 0.25, -1.  ], dtype=float32)
    """
    return (np.round(bias / step) * step if step else bias).astype(np.float32)


def correct(
    plain: Graph,
    quantized: Graph,
    samples: Mapping[str, Any],
    widths: tuple[int, ...] = (),
    progress: Progress | None = None,
    wanted: Mapping[str, np.ndarray] | None = None,
    clock: Clock = ENDLESS,
) -> Graph:
    """`quantized` with corrected biases; one version for each of `widths` at biases whose weight is nested.

    wanted: what `outputs_wanted` found for `plain` on the same samples, if it is known already.
    """
    wanted = outputs_wanted(plain, samples) if wanted is None else wanted
    base = corrected_biases(quantized, samples, wanted, progress, clock=clock)
    constants: dict[str, Any] = {**quantized.constants, **base}
    owner = {
        n.inputs[2]: n.inputs[1] for n in quantized.nodes if n.op in CORRECTED and len(n.inputs) > 2 and n.inputs[2] in base
    }
    nested = {bias: w for bias, w in owner.items() if hasattr(quantized.constants[w].format, "at")}  # type: ignore[union-attr]
    versions = {bias: {stored_bits(quantized, w): base[bias]} for bias, w in nested.items()}
    for width in sorted(widths, reverse=True):
        narrow = quantized.at(width)
        if all(stored_bits(narrow, w) in versions[bias] for bias, w in nested.items()):
            continue
        for bias, array in corrected_biases(narrow, samples, wanted, progress, clock=clock).items():
            if bias in nested:
                versions[bias].setdefault(stored_bits(narrow, nested[bias]), array)
    return quantized.with_(constants=constants | {b: PerWidth(nested[b], arrays) for b, arrays in versions.items()})


def stored_bits(graph: Graph, weight: str) -> int:
    """The bits of a weight's codes."""
    c = graph.constants[weight]
    assert isinstance(c, QTensor)
    return c.format.bits
