"""Whether ONNX Runtime gives the integers that the reference gives, value by value."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitladder.convert.onnx_write import Options, Writer
from bitladder.convert.to_onnx import assembled, written
from bitladder.errors import Unsupported, require
from bitladder.ir.graph import Graph
from bitladder.runtime.integer import Coded
from bitladder.runtime.reference import enter, run

if TYPE_CHECKING:
    import onnx

CONFIG = {"session.qdqisint8allowed": "1", "session.x64quantprecision": "1"}  # signed codes too; no saturation without VNNI
MOVERS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity")
CLIPS = ("Clip", "Relu", "Max", "Min")


@dataclass(frozen=True)
class Row:
    """How one value compares: `differing` of `count` integers, by `largest` at most, made by operator `by` of ONNX Runtime."""

    name: str
    op: str
    differing: int
    count: int
    largest: int
    by: str

    @property
    def integer(self) -> bool:
        """Whether ONNX Runtime computed it in integers (or only moved codes about)."""
        return self.by != "QuantizeLinear"


def compare(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    opset: int = 21,
    int4: bool = True,
    compact: bool = False,
    exact: bool = False,
    layered: bool = True,
    threads: int = 1,
) -> list[Row]:
    """One row for every activation that is an integer, in the order they are made.

    layered: every node reads the reference's integers, so that a difference shows where it arises and nowhere else;
    otherwise the model runs from end to end.
    """
    writer = written(graph, Options(opset, int4, compact, exact=exact))
    model = tapped(writer, assembled(writer), layered)
    types = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    truth = {name: codes + writer.pairs[name].shift for name, codes in reference(graph, inputs).items() if name in writer.codes}
    feed = {v.name: np.asarray(inputs[v.name]) for v in graph.inputs}
    if layered:
        feed |= {fed(codes): truth[name].astype(numpy_type(types[codes])) for name, codes in writer.codes.items()}
    made, makers = executed(model, feed, threads)
    ops = {v.name: "input" for v in graph.inputs} | {o: n.op for n in graph.nodes for o in n.outputs}
    rows = []
    for name, codes in writer.codes.items():
        apart = np.abs(made[codes].astype(np.int64) - truth[name])
        rows.append(Row(name, ops[name], int((apart > 0).sum()), apart.size, int(apart.max(initial=0)), makers.get(codes, "")))
    return rows


def reference(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The codes of every integer activation, as the reference makes them, int32."""
    seen: dict[str, Any] = {v.name: enter(graph, v.name, np.asarray(inputs[v.name])) for v in graph.inputs}
    run(graph, inputs, watch=lambda name, value: seen.update({name: value}))
    return {name: np.asarray(v.codes).astype(np.int32) for name, v in seen.items() if isinstance(v, Coded)}


def numpy_type(number: int) -> np.dtype:
    """The numpy type that ONNX calls by a number."""
    return np.dtype(require("onnx", "onnx", "compare").helper.tensor_dtype_to_np_dtype(number))


def fed(codes: str) -> str:
    """The name of the input that takes the place of codes."""
    return f"{codes}.fed"


def tapped(writer: Writer, model: onnx.ModelProto, layered: bool) -> onnx.ModelProto:
    """The model with all codes as outputs and, if `layered`, as inputs to those who read them."""
    onnx = require("onnx", "onnx", "compare")
    types = {i.name: i.data_type for i in model.graph.initializer}
    for name, codes in writer.codes.items():
        maker = next(n for n in model.graph.node if codes in n.output)
        kind, shape = types[maker.input[2]], writer.known.get(name, ("", None))[1]
        model.graph.output.append(onnx.helper.make_tensor_value_info(codes, kind, shape))
        if layered:
            model.graph.input.append(onnx.helper.make_tensor_value_info(fed(codes), kind, shape))
            for node in model.graph.node:
                node.input[:] = [fed(codes) if i == codes else i for i in node.input]
    return model


def executed(
    model: onnx.ModelProto, feed: Mapping[str, np.ndarray], threads: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All outputs of a model by name, and the operator that makes each after ONNX Runtime's own rewrites."""
    onnx, ort = require("onnx", "onnx", "compare"), require("onnxruntime", "onnx", "compare")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is told once, by us
    options.intra_op_num_threads = threads
    for key, value in CONFIG.items():
        options.add_session_config_entry(key, value)
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of ONNX Runtime's own, without a common base
            words = " ".join(str(error).split())[:200]
            raise Unsupported(f"compare: ONNX Runtime does not take the exported network ({words})") from None
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    names = [o.name for o in session.get_outputs()]
    out = dict(zip(names, session.run(names, {i.name: feed[i.name] for i in session.get_inputs()}), strict=True))
    made = {o: n for n in nodes for o in n.output}
    return out, {name: maker(name, made) for name in names}


def maker(name: str, made: Mapping[str, Any]) -> str:
    """The operator that makes a value, seen through those that only move values about, and clips between codes."""
    node = made.get(name)
    while node is not None and (source := before(node, made)) is not None:
        node = source
    return "" if node is None else str(node.op_type)


def before(node: Any, made: Mapping[str, Any]) -> Any | None:
    """The node whose codes another one moves or clips; None if it does more than that."""
    if node.op_type in MOVERS:
        return made.get(node.input[0])
    if node.op_type != "QuantizeLinear":
        return None
    source = made.get(node.input[0])
    while source is not None and source.op_type in CLIPS:
        source = made.get(source.input[0])
    return made.get(source.input[0]) if source is not None and source.op_type == "DequantizeLinear" else None
