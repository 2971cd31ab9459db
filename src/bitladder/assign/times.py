"""Milliseconds of layers in each way of storing them, for budgets of time: as the native core runs them, or ONNX Runtime.

A source takes the networks of all ways, the k-th with every layer in its k-th way, and gives milliseconds of one sample: by
layer and k, and of all that is no layer. Layers that it cannot time are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitladder import native, peers
from bitladder.convert.to_onnx import to_onnx
from bitladder.device.machine import terminal
from bitladder.device.times import medians, profile
from bitladder.errors import require
from bitladder.formats import Fixed, Format, Int, Nested, QTensor
from bitladder.ir.graph import Constant, Graph, Node, Value
from bitladder.model import Model
from bitladder.ptq.calibrate import Progress
from bitladder.runtime.reference import real, run
from bitladder.timing import Run, interleaved

Graphs = Mapping[int, Graph]
Arrays = Mapping[str, np.ndarray]
Found = tuple[dict[str, dict[int, float]], float]

ROUNDS = 30
PACKED = 4  # bits of the codes of ONNX Runtime's MatMulNBits; fewer are stored in as many
BLOCKS = (16, 32, 64, 128, 256)  # inputs that may share a scale there
WHOLE = 128  # of them where all inputs of an output share one
LEAST = 1e-5  # milliseconds of a layer
NOTHING = "nothing"
DOING = "quantize: times onnxruntime"


def native_core(graphs: Graphs, example: Arrays, seed: int, tell: Progress) -> Found:
    """As the native core profiles whole networks, which take turns in an order drawn anew each round; nothing without one."""
    if native.core is None:
        return {}, 0.0
    models, arrays = {k: Model(graph) for k, graph in graphs.items()}, tuple(example.values())
    profiles: dict[int, list[dict[str, float]]] = {k: [] for k in models}
    whole: dict[int, list[float]] = {k: [] for k in models}
    for model in models.values():
        model(*arrays)  # the first call prepares
    order = np.random.default_rng(seed)
    for turn in range(ROUNDS):
        tell("time layers", turn + 1, ROUNDS)
        for k in map(int, order.permutation(list(models))):
            began = time.perf_counter()
            models[k](*arrays)
            whole[k].append(1e3 * (time.perf_counter() - began))
            profiles[k].append(profile(models[k], arrays))
    layers = medians(profiles)
    rest = [float(np.median(whole[k])) - sum(each.get(k, 0.0) for each in layers.values()) for k in models]
    return layers, max(0.0, round(float(np.median(rest)), 6))


def where(source: str) -> dict[str, Any]:
    """What milliseconds are of: this machine, and the version of ONNX Runtime."""
    told = {} if source == NATIVE else {source: str(require(source, "onnx", DOING).__version__)}
    return terminal().json() | told


# ------------------------------------------------------------------------------------------------------ ONNX Runtime


def onnx_runtime(graphs: Graphs, example: Arrays, seed: int, tell: Progress) -> Found:
    """As ONNX Runtime runs every layer alone, from codes to codes, on one thread, and the whole network beside them.

    Layers are what `to_onnx` makes of them with int8 for few bits; matrix products of at most 4 bits may be MatMulNBits where
    that is faster. Ways that come out alike take one time.
    """
    calls: dict[str, Run] = {NOTHING: nothing()}
    values = run_through(next(iter(graphs.values())), example)

    def call(name: str, model: Any, feeds: Arrays) -> str:
        """The name of a call that runs the model of a layer, or of the network."""
        key = f"{name} {spelling(model)}"
        if key not in calls:
            calls[key] = peers.onnxruntime(model.SerializeToString(), feeds, 1)
        return key

    ways: dict[tuple[str, int], list[str]] = {}
    for done, (k, graph) in enumerate(graphs.items(), 1):
        tell("open layers", done, len(graphs))
        for name, node in graph.weights():
            model, feeds = of_codes(exported(alone(graph, node, values)), values)
            ways[name, k] = [call(name, model, feeds)]
            if (block := block_of(graph, node)) is not None:
                ways[name, k].append(call(name, packed(model, graph.constants[name], block), feeds))
    wholes = {k: call("", exported(graph), example) for k, graph in graphs.items()}
    tell("time layers", 0, 0)
    took = {key: 1e3 * each.median for key, each in interleaved(calls, ROUNDS, settle=False).items()}
    spent = {key: max(LEAST, ms - took[NOTHING]) for key, ms in took.items()}
    layers: dict[str, dict[int, float]] = {}
    for (name, k), keys in ways.items():
        layers.setdefault(name, {})[k] = round(min(spent[key] for key in keys), 6)
    rest = [took[wholes[k]] - sum(spent[keys[0]] for (_, j), keys in ways.items() if j == k) for k in graphs]
    return layers, max(0.0, round(float(np.median(rest)), 6))


def exported(graph: Graph) -> Any:
    """What ONNX Runtime gets of a network: integers as int8, which it multiplies as such; what ONNX cannot say in reals."""
    return to_onnx(graph, int4=False, lossless=False)


def nothing() -> Run:
    """A call that does nothing, which tells what any call costs."""
    graph = Graph((Value("x", "float32", (1,)),), ("y",), (Node("identity", ("x",), ("y",)),))
    return peers.onnxruntime(exported(graph).SerializeToString(), {"x": np.zeros(1, np.float32)}, 1)


def run_through(graph: Graph, example: Arrays) -> dict[str, np.ndarray]:
    """Every value of a run, as reals."""
    values: dict[str, Any] = dict(example)
    run(graph, example, watch=lambda name, value: values.update({name: np.asarray(real(value))}))
    return values


def alone(graph: Graph, node: Node, values: Arrays) -> Graph:
    """A network of one node; what others make for it is an input."""
    constants = {name: graph.constants[name] for name in node.inputs if name in graph.constants}
    reads = [name for name in dict.fromkeys(node.inputs) if name and name not in constants]
    inputs = tuple(Value(name, str(values[name].dtype), values[name].shape) for name in reads)
    encodings = {name: graph.encodings[name] for name in (*reads, *node.outputs) if name in graph.encodings}
    return Graph(inputs, node.outputs, (node,), constants, encodings)


def of_codes(model: Any, values: Arrays) -> tuple[Any, dict[str, np.ndarray]]:
    """A model that takes and gives codes where `model` makes them first and undoes them last, and arrays for it."""
    onnx = require("onnx", "onnx", DOING)
    graph, dtypes = model.graph, {t.name: t.data_type for t in model.graph.initializer}
    first = {n.input[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    last = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    zeros = {n.output[0]: dtypes[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"}
    feeds = {v.name: values[v.name] for v in graph.input}
    for value in [v for v in graph.input if v.name in first]:
        node = first[value.name]
        value.name, value.type.tensor_type.elem_type = node.output[0], zeros[node.output[0]]
        graph.node.remove(node)
    for value in [v for v in graph.output if v.name in last and last[v.name].input[0] in zeros]:
        node = last[value.name]
        value.name, value.type.tensor_type.elem_type = node.input[0], zeros[node.input[0]]
        graph.node.remove(node)
    kinds = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in graph.input}
    return model, {name: a.astype(kind) for (name, kind), a in zip(kinds.items(), feeds.values(), strict=True)}


def spelling(model: Any) -> str:
    """What a model is, less the numbers of its constants: models of one spelling take one time."""
    nodes = [(n.op_type, [a.SerializeToString() for a in n.attribute], list(n.input)) for n in model.graph.node]
    return repr((nodes, [(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer]))


# ------------------------------------------------------------------------------------------------------- MatMulNBits


def block_of(graph: Graph, node: Node) -> int | None:
    """How many inputs share a scale, if MatMulNBits can hold the weight of a node; else None."""
    weight = graph.constants[node.inputs[1]] if node.op == "linear" else None
    if not isinstance(weight, QTensor) or not even(weight.format) or weight.format.bits > PACKED:
        return None
    block = weight.format.group or WHOLE
    return block if block in BLOCKS else None


def even(fmt: Format) -> bool:
    """Whether the values of a format are evenly spaced, as those of MatMulNBits are."""
    return isinstance(fmt, Int | Fixed) or (isinstance(fmt, Nested) and fmt.scheme == "midrise")


def packed(model: Any, weight: Constant, block: int) -> Any:
    """The model of the product with a weight, with MatMulNBits in its place: activations as int8 within, codes of zero."""
    assert isinstance(weight, QTensor)
    onnx, shape, blocks = require("onnx", "onnx", DOING), weight.shape, -(-weight.shape[1] // block)
    made = onnx.ModelProto.FromString(model.SerializeToString())
    node = next(n for n in made.graph.node if n.op_type in ("Gemm", "MatMul"))
    settings = {"K": shape[1], "N": shape[0], "bits": PACKED, "block_size": block, "accuracy_level": 4}
    names = [node.input[0], "packed.codes", "packed.scales"]
    node.CopyFrom(onnx.helper.make_node("MatMulNBits", names, node.output, domain="com.microsoft", **settings))
    codes, scales = np.zeros((shape[0], blocks, block * PACKED // 8), np.uint8), np.ones((shape[0], blocks), np.float32)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for a, n in zip((codes, scales), names[1:], strict=True))
    for one in reversed(list(made.graph.node)):  # ONNX Runtime computes also what nobody reads
        read = {i for n in made.graph.node for i in n.input} | {v.name for v in made.graph.output}
        if not read.intersection(one.output):
            made.graph.node.remove(one)
    made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return made


NATIVE = "native"
TIMES: dict[str, Callable[[Graphs, Arrays, int, Progress], Found]] = {NATIVE: native_core, "onnxruntime": onnx_runtime}
