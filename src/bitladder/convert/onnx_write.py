"""An ONNX graph being written down: nodes, initializers, and what each value of ours is called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bitladder.errors import require
from bitladder.ir.graph import Graph

if TYPE_CHECKING:
    import onnx

TYPE_ATTRS = frozenset({"to", "dtype", "output_dtype", "softmax_precision"})  # attributes that name a type
Known = tuple[str, tuple[int | str | None, ...]]  # dtype and shape of a value


@dataclass(frozen=True)
class Options:
    """What the user asked for: the opset, how codes are kept, and whether everything must be exact."""

    opset: int = 21
    int4: bool = True
    compact: bool = False
    lossless: bool = True
    signed: bool = False


@dataclass
class Writer:
    """What has been written so far, and what is known about the values of the graph."""

    graph: Graph
    options: Options
    known: Mapping[str, Known] = field(default_factory=dict)  # what has been found out about values
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # what those who use a value read
    codes: dict[str, str] = field(default_factory=dict)  # where the codes of an encoded value are
    shifts: dict[str, int] = field(default_factory=dict)  # what has been added to them
    memo: dict[Any, str] = field(default_factory=dict)  # what has been written for constants
    problems: list[tuple[str, str, int | None]] = field(default_factory=list)  # (what, node, opset that has it)
    node: str = ""  # the node of ours that is being written
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.graph
        self.taken |= {v.name for v in graph.inputs} | set(graph.constants) | {o for n in graph.nodes for o in n.outputs}

    def rank(self, name: str) -> int:
        """The number of axes of a value; 0 if unknown."""
        return len(self.known.get(name, ("", ()))[1])

    def dtype(self, name: str) -> str:
        """The dtype of a value; float32 if unknown."""
        return self.known.get(name, ("float32", ()))[0]

    def fresh(self, name: str) -> str:
        """`name`, or the first of name_1, name_2 ... that nothing has yet."""
        chosen, k = name, 0
        while chosen in self.taken:
            k += 1
            chosen = f"{name}_{k}"
        self.taken.add(chosen)
        return chosen

    def tensor(self, name: str, array: np.ndarray, dtype: str = "") -> str:
        """An initializer of exactly this name; dtype where numpy has no word for it."""
        onnx = require("onnx", "onnx", "to_onnx")
        array = np.asarray(array)
        if dtype in ("int4", "uint4", "int2", "uint2"):
            made = onnx.helper.make_tensor(name, type_number(dtype), array.shape, array.reshape(-1))
        else:
            made = onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self.initializers[name] = made
        return name

    def constant(self, value: Any, dtype: str, base: str = "const") -> str:
        """An initializer without a name of its own; equal ones are one."""
        array = np.asarray(value, dtype)
        key = ("constant", dtype, array.shape, array.tobytes())
        if key not in self.memo:
            self.memo[key] = self.tensor(self.fresh(base), array)
        return self.memo[key]

    def ints(self, values: Sequence[int]) -> str:
        """A list of sizes, axes or positions."""
        return self.constant(list(values), "int64", "sizes")

    def add(self, op: str, inputs: Sequence[str], outputs: Sequence[str] | str, **attrs: Any) -> str:
        """Writes a node of the asked opset, or notes why there is none; the name of its first output."""
        onnx = require("onnx", "onnx", "to_onnx")
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        given = {k: v for k, v in attrs.items() if v is not None}
        inputs = list(inputs)
        while inputs and not inputs[-1]:
            inputs.pop()
        schema = fitting(op, len(inputs), given, self.options.opset)
        if schema is None:
            later = (o for o in range(self.options.opset + 1, onnx.defs.onnx_opset_version() + 1))
            self.problems.append((op, self.node, next((o for o in later if fitting(op, len(inputs), given, o)), None)))
            return names[0]
        node = onnx.helper.make_node(op, inputs, names, name=self.fresh(f"{self.node}/{op}"))
        node.attribute.extend(attribute(schema, k, v) for k, v in given.items() if k in schema.attributes)
        self.nodes.append(node)
        return names[0]

    def refuse(self, what: str, opset: int | None = None) -> None:
        """Notes that something of the present node cannot be said."""
        self.problems.append((what, self.node, opset))


def fitting(op: str, inputs: int, attrs: Mapping[str, Any], opset: int) -> Any:
    """The schema of an operator in an opset if it takes these inputs and attributes, else None.

    An attribute that the opset does not know may stay away as long as it says nothing (0, "NOTSET").
    """
    onnx = require("onnx", "onnx", "to_onnx")
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None
    unknown = any(k not in schema.attributes and v not in (0, 0.0, "NOTSET", "stretch") for k, v in attrs.items())
    return None if unknown or inputs > schema.max_input else schema


def attribute(schema: Any, name: str, value: Any) -> onnx.AttributeProto:
    """An attribute of the type that the operator declares."""
    onnx = require("onnx", "onnx", "to_onnx")
    kind = schema.attributes[name].type
    if name in TYPE_ATTRS and isinstance(value, str):
        value = type_number(value)
    if kind == onnx.defs.OpSchema.AttrType.TENSOR:
        return onnx.helper.make_attribute(name, onnx.numpy_helper.from_array(np.asarray(value), name))
    cast = ATTR_CASTS.get(kind.name, lambda v: v)
    return onnx.helper.make_attribute(name, cast(value), attr_type=kind.value)


ATTR_CASTS: dict[str, Any] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "INTS": lambda v: [int(i) for i in v],
    "FLOATS": lambda v: [float(i) for i in v],
    "STRINGS": lambda v: [str(i) for i in v],
}


def type_number(dtype: str) -> int:
    """ONNX's number of a type with a numpy name.

    >>> type_number("float32"), type_number("int4")
    (1, 22)
    """
    onnx = require("onnx", "onnx", "to_onnx")
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(onnx.TensorProto.DataType.Value(names.get(dtype, dtype.upper())))
