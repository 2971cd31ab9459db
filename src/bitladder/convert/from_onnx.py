"""A graph from an ONNX model: a path, the bytes of one, or a model that is loaded already."""

from __future__ import annotations

import ast
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitladder.convert.onnx_draft import TYPES, Call, Draft, Types, type_name
from bitladder.convert.onnx_spelt import spelt
from bitladder.convert.onnx_words import TYPE_ATTRS, WORDS
from bitladder.errors import Malformed, Unsupported, require
from bitladder.ir.graph import Graph, Node, Value
from bitladder.ir.ops_elementwise import SMALL_INTS

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

OLDEST = 13  # operators of this opset and later are read as they are
TARGET = 18  # what older models are converted to
HELD = frozenset((*TYPES, "bfloat16"))  # types that an array of ours can hold
FOLD_LIMIT = 1024  # elements; the optimizer folds arithmetic on shapes, and leaves weights (and their names) to us


def from_onnx(source: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model) -> Graph:
    """The network of an ONNX model as a graph: initializers keep their names, quantized models their scales.

    >>> from_onnx("model.onnx")  # doctest: +SKIP
    """
    model = load(source)
    try:
        model = prepared(model)
        calls, draft = begin(model)
        problems = written(draft, calls, model)
        if problems:
            raise Unsupported(explained(problems))
        return finished(draft, model)
    except (Unsupported, Malformed, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        text = f"from_onnx: the model must be valid ONNX, but contradicts itself ({first_line(error)})"
        raise Malformed(f"{text}; try onnx.checker.check_model") from error


def load(source: Any) -> ir.Model:
    """The model, checked not to read files from outside its folder."""
    onnx_ir = require("onnx_ir", "onnx", "from_onnx")
    folder = None
    if isinstance(source, str | os.PathLike):
        folder = Path(os.path.abspath(source)).parent
        if not os.path.isfile(source):
            raise FileNotFoundError(f"from_onnx: no file {os.fspath(source)!r}; give the path of an .onnx file")
        try:
            model = onnx_ir.load(source)
        except Exception as error:
            raise Malformed(f"from_onnx: {os.fspath(source)!r} is not a readable ONNX model ({first_line(error)})") from None
    elif isinstance(source, bytes):
        onnx = require("onnx", "onnx", "from_onnx")
        try:
            model = onnx_ir.from_proto(onnx.load_model_from_string(source))
        except Exception as error:
            raise Malformed(f"from_onnx: the bytes are not a readable ONNX model ({first_line(error)})") from None
    else:
        model = source if isinstance(source, onnx_ir.Model) else onnx_ir.from_proto(source)
    for tensor in external_tensors(model):
        check_beneath(tensor, Path(tensor.base_dir) if folder is None and tensor.base_dir else folder)
    return model


def first_line(error: BaseException) -> str:
    """What an error says first, or what caused it does, in one line of modest length."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor of the model whose data is in another file."""
    import onnx_ir

    for graph in (model.graph, *model.graph.subgraphs(), *(f.graph for f in model.functions.values())):
        for value in graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attr in node.attributes.values():
                held = attr.value if isinstance(attr.value, list | tuple) else (attr.value,)
                yield from (t for t in held if isinstance(t, onnx_ir.ExternalTensor))


def check_beneath(tensor: ir.ExternalTensor, folder: Path | None) -> None:
    """Refuses data that is not a plain file of the model's own folder, or of one beneath it."""

    def refused(why: str) -> Malformed:
        where = f"location {os.fspath(tensor.location)!r} {why}"
        return Malformed(
            f"from_onnx: data of {tensor.name!r} must lie beneath the model's folder, but its {where}; move it there"
        )

    if folder is None:
        raise refused("is a file, and a model without a path has no folder")
    location = Path(tensor.location)
    if location.is_absolute() or ".." in location.parts:
        raise refused("points outside")
    path = folder / location
    if not path.resolve().is_relative_to(folder.resolve()):
        raise refused("is a link to outside")
    try:
        info = path.stat()
    except OSError:
        raise FileNotFoundError(
            f"from_onnx: data of {tensor.name!r} should be in {os.fspath(path)!r}, which is missing"
        ) from None
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        raise refused("is not a plain file (or has a second hard link)")


def prepared(model: ir.Model) -> ir.Model:
    """The model in an opset we read, without functions and control flow that constants decide."""
    optimizer = require("onnxscript.optimizer", "onnx", "from_onnx")
    opset = model.opset_imports.get("", TARGET)
    model = converted(model, opset) if opset < OLDEST else model.clone()
    for name in [v.name for v in model.graph.inputs if v.name in model.graph.initializers]:
        model.graph.inputs.remove(model.graph.initializers[name])  # as old files list them
    optimizer.inline(model)
    folded = model.clone()
    limits = {"input_size_limit": FOLD_LIMIT, "output_size_limit": FOLD_LIMIT, "should_fold": no_weights}
    try:
        optimizer.fold_constants_ir(folded, onnx_shape_inference=True, **limits)
        optimizer.remove_unused_nodes(folded)
    except Exception:  # it stumbles over some operators that are not ours either; those are then named one by one
        return model
    return folded


def no_weights(node: ir.Node) -> bool | None:
    """False where a matrix or more would be folded: that may be a weight, whose name would be lost; elsewhere no opinion."""
    held = [v.const_value for v in node.inputs if v is not None and v.const_value is not None]
    return False if any(len(tensor.shape) >= 2 for tensor in held) else None


def converted(model: ir.Model, opset: int) -> ir.Model:
    """The model in a newer opset."""
    import onnx_ir

    converter = require("onnx.version_converter", "onnx", "from_onnx")
    try:
        return onnx_ir.from_proto(converter.convert_version(onnx_ir.to_proto(model), TARGET))
    except Exception as error:
        text = f"from_onnx: opset must be {OLDEST} or newer, got {opset}, and conversion failed ({first_line(error)})"
        raise Unsupported(f"{text}; export the model again with a newer opset") from None


def begin(model: ir.Model) -> tuple[list[Call], Draft]:
    """What the model computes, call by call, and a draft that knows its names, types and initializers, and has no nodes yet."""
    graph = model.graph
    nodes = [node for node in graph]
    for number, value in enumerate(v for node in nodes for v in node.outputs):
        value.name = value.name if value.name is not None else f"value.{number}"
    values = (*graph.inputs, *graph.initializers.values(), *(v for node in nodes for v in node.outputs if v.name))
    types: Types = {str(v.name): (type_of(v), shape_of(v)) for v in values}
    readers: dict[str, list[Call]] = {}
    calls = spelt([called(node, model) for node in nodes], types)
    for call in calls:
        for name in dict.fromkeys(filter(None, call.inputs)):
            readers.setdefault(name, []).append(call)
    outputs = tuple(str(v.name) for v in graph.outputs)
    draft = Draft(types, readers, frozenset((*outputs, *(str(v.name) for v in graph.inputs))), outputs)
    for name, value in graph.initializers.items():
        if value.const_value is not None and types[name][0] in HELD:
            draft.constants[name] = array_of(value.const_value)
    return calls, draft


def type_of(value: ir.Value) -> str | None:
    """The type of a value: a numpy name, or what it is if no numpy array holds it; None if unknown."""
    import onnx_ir

    if value.type is not None and not isinstance(value.type, onnx_ir.TensorType):
        return type(value.type).__name__.removesuffix("Type").lower()
    if value.dtype is None or value.dtype == onnx_ir.DataType.UNDEFINED:
        return None
    return "string" if value.dtype == onnx_ir.DataType.STRING else value.dtype.numpy().name


def shape_of(value: ir.Value) -> tuple[int | str, ...] | None:
    """The shape of a value; a free axis has its name, or one that nothing else has."""
    if value.shape is None:
        return None
    return tuple(n if isinstance(n, int) else n.value or f"{value.name}.{axis}" for axis, n in enumerate(value.shape))


def array_of(tensor: ir.TensorProtocol) -> np.ndarray:
    """A tensor as a plain numpy array: narrow integers in 8 bits, bfloat16 as float32."""
    array = tensor.numpy()
    name = array.dtype.name
    if name in SMALL_INTS:
        return array.astype(np.int8 if SMALL_INTS[name][1] else np.uint8)
    return array.astype(np.float32) if name == "bfloat16" else array


def called(node: ir.Node, model: ir.Model) -> Call:
    """A node in plain words."""
    inputs = tuple("" if v is None else str(v.name or "") for v in node.inputs)
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    attrs = {name: plain_attr(name, attr) for name, attr in node.attributes.items()}
    outputs = tuple(str(v.name) for v in node.outputs)
    opset = node.version or model.opset_imports.get("", TARGET)
    return Call(domain + node.op_type, node.name or outputs[0], inputs, outputs, attrs, opset)


def plain_attr(name: str, attr: ir.Attr) -> Any:
    """An attribute as a plain value; a tensor as an array, a number that names a type as that name."""
    import onnx_ir

    value = attr.value
    if isinstance(value, onnx_ir.TensorProtocol):
        return array_of(value) if type_known(value.dtype) else value
    if name in TYPE_ATTRS and isinstance(value, int):
        known = onnx_ir.DataType(value)
        return "string" if known == onnx_ir.DataType.STRING else None if not value else known.numpy().name
    return tuple(value) if isinstance(value, list | tuple) else value


def type_known(dtype: ir.DataType) -> bool:
    """Whether a numpy array of ours can hold this type."""
    import onnx_ir

    return dtype not in (onnx_ir.DataType.STRING, onnx_ir.DataType.UNDEFINED) and dtype.numpy().name in HELD


def written(draft: Draft, calls: list[Call], model: ir.Model) -> list[tuple[str, str, str]]:
    """Writes every node into the draft; what could not be written, as (operator, why, node)."""
    problems = [("input", f"of type {type_of(v)}", str(v.name)) for v in model.graph.inputs if type_of(v) not in HELD]
    for call in sorted(calls, key=lambda call: call.op != "Constant"):  # stable: constants first, then as they come
        try:
            for name in filter(None, (*call.inputs, *call.outputs)):
                if (kind := draft.types.get(name, (None, None))[0]) is not None:
                    type_name(kind)
            if call.op not in WORDS:
                raise Unsupported("")
            WORDS[call.op](draft, call)
        except Unsupported as error:
            problems.append((call.op, str(error), call.name))
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            if problems:  # it may only miss what another node could not make
                continue
            doing = f"from_onnx: node {call.name!r} ({call.op}) must be valid ONNX, but reading it failed"
            raise Malformed(f"{doing} ({type(error).__name__}: {first_line(error)}); try onnx.checker.check_model") from error
    return problems


def explained(problems: list[tuple[str, str, str]]) -> str:
    """One line that names every operator that has no word, how often it occurs, and one node of each."""
    counts = Counter((op, why) for op, why, _ in problems)
    first = {(op, why): node for op, why, node in reversed(problems)}
    parts = [f"{n} x {op}{f' ({why})' if why else ''} at {first[op, why]!r}" for (op, why), n in counts.items()]
    return (
        f"from_onnx: the model must use supported operators only, but has {' '.join(', '.join(parts).split())}; "
        "export it with standard operators (opset 18 or newer, inference mode), or cut those nodes off"
    )


def finished(draft: Draft, model: ir.Model) -> Graph:
    """The graph of a draft: outputs under their own names, nothing that no output needs."""
    nodes = list(draft.nodes)
    for name in draft.outputs:
        if name in draft.alias:
            nodes.append(Node("identity", (draft.name(name),), (name,)))
    nodes = needed(nodes, draft.outputs)
    names = {**renamed(nodes, draft), **returned(nodes, draft)}
    nodes = [
        Node(n.op, tuple(names.get(i, i) for i in n.inputs), tuple(names.get(o, o) for o in n.outputs), n.attrs)
        for n in nodes
        if not (n.op == "identity" and names.get(n.inputs[0]) == n.outputs[0])
    ]
    read = {name for node in nodes for name in node.inputs} | set(draft.outputs)
    made = {name for node in nodes for name in node.outputs} | {str(v.name) for v in model.graph.inputs}
    encodings = {names.get(k, k): e for k, e in draft.encodings.items()}
    return Graph(
        inputs=tuple(Value(str(v.name), type_name(type_of(v) or "float32"), shape_of(v)) for v in model.graph.inputs),
        outputs=draft.outputs,
        nodes=tuple(nodes),
        constants={n: c for k, c in draft.constants.items() if (n := names.get(k, k)) in read and k not in names.values()},
        encodings={k: e for k, e in encodings.items() if k in made},
        meta=meta_of({str(k): str(v) for k, v in model.metadata_props.items()}),
    )


def needed(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes that an output depends on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def renamed(nodes: list[Node], draft: Draft) -> dict[str, str]:
    """New names for values of which an output is a mere copy, so that the copy can go."""
    makers = {name for node in nodes for name in node.outputs}
    names: dict[str, str] = {}
    for node in nodes:
        source, copy = node.inputs[0] if node.inputs else "", node.outputs[0]
        if node.op != "identity" or copy not in draft.outputs or copy in draft.encodings:
            continue
        if source in makers and source not in draft.outputs and source not in names:
            names[source] = copy
    return names


def returned(nodes: list[Node], draft: Draft) -> dict[str, str]:
    """The old names of matrices that everybody reads transposed."""
    read = {name for node in nodes for name in node.inputs} | set(draft.outputs)
    return {k: old for k, old in draft.turned.items() if k in read and k not in draft.types and old not in read}


LABEL_KEYS = ("labels", "names", "classes", "class_names", "id2label")
NORMAL_KEYS = ("mean", "std")
LAYOUT_KEYS = ("layout", "input_layout", "data_layout")


def meta_of(props: Mapping[str, str]) -> dict[str, Any]:
    """What a model says about itself, and of that what deployment needs: class labels, normalisation, layout."""
    meta: dict[str, Any] = {"onnx": dict(props)} if props else {}
    lower = {k.lower(): v for k, v in props.items()}
    labels = next((listed(lower[k]) for k in LABEL_KEYS if k in lower), None)
    if labels is not None:
        meta["labels"] = [str(label) for label in labels]
    normal = {k: numbers for k in NORMAL_KEYS if k in lower and (numbers := floats(listed(lower[k]))) is not None}
    if normal:
        meta["normalisation"] = normal
    layout = next((lower[k] for k in LAYOUT_KEYS if k in lower), None)
    if layout is not None:
        meta["layout"] = layout
    return meta


def listed(text: str) -> list[Any] | None:
    """A list written as JSON, as Python, as number: name, or with commas or line ends between.

    >>> listed("{0: 'cat', 1: 'dog'}"), listed("cat,dog")
    (['cat', 'dog'], ['cat', 'dog'])
    """
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return [value[k] for k in sorted(value, key=lambda k: (len(str(k)), str(k)))]
        return list(value) if isinstance(value, list | tuple) else [value]
    return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]


def floats(values: list[Any] | None) -> list[float] | None:
    """The values as numbers, if all are."""
    try:
        return [float(v) for v in values or ()] or None
    except (TypeError, ValueError):
        return None
