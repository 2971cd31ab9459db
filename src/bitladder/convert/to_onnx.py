"""An ONNX model from a graph: the same operators, integers as QuantizeLinear and DequantizeLinear around them (QDQ).

Names stay: a value of the graph has its name in the model, its codes are `NAME.codes`, a weight's initializer has the
weight's name. What a runtime makes of the model is told by docs/numerics.md: ONNX Runtime turns a node between codes of 8
bits into one integer operator whose results equal the reference to the bit; what it cannot turn runs in float.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from bitladder.convert.onnx_encode import landed
from bitladder.convert.onnx_spell import spelled
from bitladder.convert.onnx_write import Known, Options, Writer, type_number
from bitladder.disk import replacing
from bitladder.errors import Unsupported, require
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph
from bitladder.runtime.reference import real, run

if TYPE_CHECKING:
    import onnx

OLDEST = 13  # the opset in which scales first came per channel
IR_VERSION = 10  # of opset 21; newer opsets ask for newer ones
BIG = 1024  # elements; shape inference needs no constant beyond these
UNTOLD = ("GroupNormalization",)  # operators whose shape ONNX does not infer: that of their first input
LIMIT = 2**31 - 2**20  # bytes that one file of protocol buffers may have


def to_onnx(
    graph: Graph,
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int = 21,
    int4: bool = True,
    compact: bool = False,
    lossless: bool = True,
    signed: bool = False,
    exact: bool = False,
) -> onnx.ModelProto:
    """The graph as an ONNX model, also written to `path` (whole or not at all).

    >>> to_onnx(graph, "net.onnx")  # doctest: +SKIP

    int4: weights of at most 4 bits become int4 initializers where the opset has them (21), otherwise int8. They are half the
    size, but ONNX Runtime multiplies them in float; int4=False keeps its integer kernels.
    compact: the same for nested weights of 4 bits or fewer, which otherwise take int8 and run as integers.
    lossless: refuse what cannot be said exactly; otherwise such activations stay real and such weights become reals.
    signed: keep signed activations in int8 with zero point 0, as some accelerators want it; ONNX Runtime then multiplies in
    float unless told session.qdqisint8allowed=1, and where signed and unsigned activations meet. By default they are uint8
    with zero point 128, and the same integers.
    exact: spell layers for which ONNX Runtime has no integer kernel (8-bit nested codes, int4, a scale per channel of the
    activations) with whole numbers, so that float sums are exact below 2^24 and every integer is the reference's; scales then
    stand apart from the codes, which other tools may not recognise. Without it, a few in a million integers of such layers are
    off by one where scales are not powers of two.
    """
    writer = written(graph, Options(opset, int4, compact, lossless, signed, exact))
    model = assembled(writer)
    if path is not None:
        save(model, path)
    return model


def written(graph: Graph, options: Options) -> Writer:
    """The nodes of a graph in ONNX, written twice: first without ranks, to learn them, then for good."""
    onnx = require("onnx", "onnx", "to_onnx")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= options.opset <= newest:
        raise ValueError(f"to_onnx: opset must be {OLDEST}..{newest}, got {options.opset}; opset 21 suits most runtimes")
    first = noted(Writer(graph, options))
    if not first.problems:
        first = noted(Writer(graph, options, inferred(first)))
    if first.problems:
        raise Unsupported(explained(first))
    return first


def noted(writer: Writer) -> Writer:
    """The writer with the whole graph written down."""
    for value in writer.graph.inputs:
        writer.node = value.name
        if value.name in writer.graph.encodings:
            landed(writer, value.name, None)
    for node in writer.graph.nodes:
        spelled(writer, node)
    return writer


def explained(writer: Writer) -> str:
    """One line that names everything that ONNX, or the asked opset, has no word for."""
    parts = []
    for what in dict.fromkeys(what for what, _, _ in writer.problems):
        nodes = [node for w, node, _ in writer.problems if w == what]
        opset = next(o for w, _, o in writer.problems if w == what)
        since = f"opset {opset} has it" if opset else "no opset has it"
        parts.append(f"{what} ({len(nodes)}x, first at {nodes[0]!r}; {since})")
    needed = [o for _, _, o in writer.problems]
    cure = f"export with opset={max(o for o in needed if o)}" if all(needed) else "replace these, or leave them unquantized"
    return f"to_onnx: everything in the graph must exist in opset {writer.options.opset}, got {', '.join(parts)}; {cure}"


# ------------------------------------------------------------------------------------------------------------ the model


def inferred(writer: Writer) -> dict[str, Known]:
    """Dtype and shape of every value that ONNX can find out; constants count by their shape only."""
    onnx = require("onnx", "onnx", "to_onnx")
    model = assembled(writer, skeleton=True)
    for node in model.graph.node:
        if node.op_type in UNTOLD:
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type and kind.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)
            known[value.name] = (str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)
    return known if known.keys() >= set(writer.graph.outputs) else probed(writer.graph) | known


def probed(graph: Graph) -> dict[str, Known]:
    """Dtype and rank of every value, from a run on ones: for operators whose shapes ONNX does not infer."""
    ones = {v.name: np.ones([n if isinstance(n, int) else 2 for n in v.shape or ()], v.dtype) for v in graph.inputs}
    seen: dict[str, Known] = {}
    with contextlib.suppress(Exception):  # lengths that do not go together, most likely: then those outputs have no type
        run(graph, ones, watch=lambda name, value: seen.update({name: known_of(value)}))
    return seen


def known_of(value: Any) -> Known:
    """Dtype and rank of a value that flows through a graph."""
    array = np.asarray(real(value))
    return str(array.dtype), (None,) * array.ndim


def assembled(writer: Writer, skeleton: bool = False) -> onnx.ModelProto:
    """The model around what has been written; as a skeleton, big constants are inputs of their type and shape."""
    onnx = require("onnx", "onnx", "to_onnx")
    graph, helper = writer.graph, onnx.helper
    inputs = [helper.make_tensor_value_info(v.name, type_number(v.dtype), v.shape) for v in graph.inputs]
    kept = list(writer.initializers.values())
    if skeleton:
        big = [t for t in kept if size(t.dims) > BIG]
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in big]
        kept = [t for t in kept if size(t.dims) <= BIG]
    outputs = [output(writer, name) for name in graph.outputs]
    made = helper.make_graph(writer.nodes, str(graph.meta.get("name", "network")), inputs, outputs, kept)
    ir_version = max(IR_VERSION, helper.find_min_ir_version_for([helper.make_opsetid("", writer.options.opset)]))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", writer.options.opset)], ir_version=ir_version)
    model.producer_name = "bitladder"
    model.doc_string = description(graph)
    helper.set_model_props(model, properties(graph))
    return model


def size(dims: Iterable[int]) -> int:
    """The number of elements of a shape."""
    out = 1
    for n in dims:
        out *= n
    return out


def output(writer: Writer, name: str) -> Any:
    """An output of the model, its type as far as it is known."""
    onnx = require("onnx", "onnx", "to_onnx")
    if name not in writer.known:
        return onnx.helper.make_empty_tensor_value_info(name)
    dtype, shape = writer.known[name]
    return onnx.helper.make_tensor_value_info(name, type_number(dtype), shape)


def description(graph: Graph) -> str:
    """One sentence on what the model is."""
    bits = [c.format.bits for c in graph.constants.values() if isinstance(c, QTensor)]
    width = f"weights of {min(bits)} to {max(bits)} bits" if bits else "real weights"
    return f"Exported by bitladder: {width}, {len(graph.encodings)} activations as integers."


def properties(graph: Graph) -> dict[str, str]:
    """What the model says about itself: the properties it came with, labels, normalisation, layout, formats by name."""
    meta = graph.meta
    out = {str(k): str(v) for k, v in meta.get("onnx", {}).items()}
    told = {"labels": meta.get("labels"), **meta.get("normalisation", {})}
    out |= {k: json.dumps(v) for k, v in told.items() if v is not None}
    if meta.get("layout"):
        out["layout"] = str(meta["layout"])
    out["bitladder.weights"] = json.dumps({k: str(c.format) for k, c in graph.constants.items() if isinstance(c, QTensor)})
    out["bitladder.activations"] = json.dumps({k: str(e.format) for k, e in graph.encodings.items()})
    return out


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Writes a model whole or not at all."""
    if (count := model.ByteSize()) > LIMIT:
        raise ValueError(
            f"to_onnx: {os.fspath(path)!r} must be smaller than 2 GiB, got {count} bytes; quantize more of the weights"
        )
    with replacing(path) as file:
        file.write(model.SerializeToString())
