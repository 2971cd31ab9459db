"""Whole numbers in float: a weighted node spelt so that a runtime that multiplies in float gives the reference's integers.

Activations and weights go in as the integers they are (scale 1), so their sums are exact in float32 below 2^24; the sums are
multiplied by float32(sx sw / sy) and rounded, to the letter what docs/numerics.md says. A Round between the two changes
nothing, and keeps runtimes from folding the factor into the weights, which would make them reals again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitladder.convert.onnx_encode import dequantized, narrow, narrowest, own, stored
from bitladder.convert.onnx_write import Writer
from bitladder.formats import Encoding, Nested, QTensor
from bitladder.ir.graph import Node
from bitladder.runtime.integer import aligned, bias_codes

WEIGHTED = ("conv", "conv_transpose", "linear")


@dataclass(frozen=True)
class Whole:
    """The integers of a weighted node: weights, what a sum counts in (per output), and the factor to codes or reals."""

    weights: np.ndarray
    unit: np.ndarray
    factor: np.ndarray


def whole(writer: Writer, node: Node) -> Whole | None:
    """The integers of a node that is to be spelt with them: one that would run in float, if exactness is asked for."""
    if not writer.options.exact or node.op not in WEIGHTED:
        return None
    w, x = writer.graph.constants.get(node.inputs[1]), writer.graph.encodings.get(node.inputs[0])
    y = writer.graph.encodings.get(node.outputs[0])
    if not isinstance(w, QTensor) or x is None or node.inputs[0] not in writer.codes or has_kernel(writer, node, w, x, y):
        return None
    together = aligned(x, w, node.op, int(node.attrs.get("groups", 1)))
    axis = writer.rank(node.inputs[0]) - 1 if node.op == "linear" else 1
    if together is None or (y is not None and y.axes not in ((), (axis,))):
        return None
    e, unit = together
    step = np.float32(1) if y is None else y.step(unit.shape) if not y.axes else np.asarray(y.format.step(y.params))
    return Whole(e, unit, (unit / step).astype(np.float32))


def has_kernel(writer: Writer, node: Node, w: QTensor, x: Encoding, y: Encoding | None) -> bool:
    """Whether ONNX Runtime has an integer kernel for a node: 8 bits all around, one scale for each activation."""
    if node.op == "conv_transpose" or (node.op == "linear" and writer.rank(node.inputs[0]) != 2):
        return False
    halves = isinstance(w.format, Nested) and w.format.scheme == "midrise" and w.format.bits == 8
    small = not halves and not narrow(writer, w.format) and stored(writer, w)[2] in ("int8", "uint8")
    codes = [e for e in (x, y) if e is not None]
    return small and all(not e.axes and e.format.bits <= 8 for e in codes) and (node.op == "linear" or y is not None)


def operands(writer: Writer, node: Node, told: Whole, transposed: bool) -> list[str]:
    """Activation, weight and bias of a node as integers in float."""
    x, w = node.inputs[:2]
    bias = writer.graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    inputs = [activation(writer, x), weight(writer, w, told.weights.T if transposed else told.weights)]
    if bias is not None:
        codes = bias_codes(writer.array(node.inputs[2]), told.unit)
        inputs.append(dequantized(writer, own(writer, node.inputs[2]), codes, 1.0, None, "int32"))
    return inputs


def activation(writer: Writer, name: str) -> str:
    """The integers of an activation, in float."""
    key = ("whole", name)
    if key not in writer.memo:
        pair = writer.pairs[name]
        ones = writer.constant(np.ones(pair.scale.shape), "float32", "one")
        inputs = (writer.codes[name], ones, writer.constant(pair.zero, pair.dtype, "zero"))
        writer.memo[key] = writer.add("DequantizeLinear", inputs, writer.fresh(f"{name}.whole"), axis=pair.axis)
    return writer.memo[key]


def weight(writer: Writer, name: str, integers: np.ndarray) -> str:
    """Integer weights, in float."""
    key = ("whole", name, integers.shape, hash(integers.tobytes()))
    if key not in writer.memo:
        q = writer.graph.constants[name]
        assert isinstance(q, QTensor)
        among = (("int4",) if narrow(writer, q.format) else ()) + ("int8", "int16", "int32")
        low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
        dtype = narrowest(low, high, among, writer.options.opset) or "int32"
        writer.memo[key] = dequantized(writer, own(writer, name), integers, 1.0, None, dtype)
    return writer.memo[key]


def scaled(writer: Writer, told: Whole, sums: str, out: str, spatial: int) -> str:
    """Sums, their channels before so many spatial axes, as codes without their zero point, or as reals."""
    factor = told.factor.reshape(-1, *[1] * spatial)
    rounded = writer.add("Round", (sums,), writer.fresh(f"{out}.sums"))
    return writer.add("Mul", (rounded, writer.tensor(writer.fresh(f"{out}.factor"), factor)), out)
