"""A graph being written down from an ONNX model, one node after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitladder.errors import Unsupported
from bitladder.formats.tensor import Encoding, QTensor
from bitladder.ir.graph import Constant, Node
from bitladder.ir.ops import OPS

FOLD_LIMIT = 1 << 20  # elements; a constant expression with a bigger result stays a node, unless its inputs are as big
GROWING = frozenset({"expand", "tile", "pad", "resize", "range", "one_hot", "constant_of_shape", "col2im", "center_crop_pad"})
MOVING = frozenset({"transpose", "reshape", "squeeze", "unsqueeze", "flatten", "cast", "quantize_linear"})

TRUTHS = frozenset(
    {"equal", "greater", "less", "greater_or_equal", "less_or_equal", "and_", "or_", "xor", "not_", "is_nan", "is_inf"}
)
TYPES = frozenset(  # what flows through a graph; bfloat16 becomes float32
    {"bool", "float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (2, 4, 8, 16, 32, 64))}
)
Types = dict[str, tuple[str | None, tuple[int | str, ...] | None]]  # ONNX type and shape by name, as far as known


@dataclass(frozen=True)
class Call:
    """One node of an ONNX graph in plain words: names for values, numpy and Python for attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    opset: int

    def input(self, i: int) -> str:
        """The name of an input, or nothing where it is absent."""
        return self.inputs[i] if i < len(self.inputs) else ""


def type_name(name: str) -> str:
    """The numpy name of the type in which values of an ONNX type are held.

    >>> type_name("bfloat16")
    'float32'
    """
    held = "float32" if name == "bfloat16" else name
    if held not in TYPES:
        raise Unsupported(f"type {name}")
    return held


@dataclass
class Draft:
    """What has been written so far, and what is known about the names of the model."""

    types: Types
    readers: dict[str, list[Call]]
    kept: frozenset[str]  # names of inputs and outputs, which must stay
    outputs: tuple[str, ...]
    constants: dict[str, Constant] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)  # names that mean another value
    turned: dict[str, str] = field(default_factory=dict)  # matrices that are the transpose of a constant
    pairs: dict[str, str] = field(default_factory=dict)  # codes of activations, and the value that carries their encoding
    uses: Counter[str] = field(default_factory=Counter)
    number: int = 0

    def __post_init__(self) -> None:
        self.uses.update({name: len(calls) for name, calls in self.readers.items()})
        self.uses.update(self.outputs)

    def name(self, name: str) -> str:
        """The value that a name of the model stands for."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        self.number += 1
        name = f"{base}.{self.number}"
        return self.fresh(base) if name in self.types or name in self.constants else name

    def array(self, name: str) -> np.ndarray | None:
        """The constant of that name, if it is one and an array."""
        constant = self.constants.get(self.name(name))
        return constant if isinstance(constant, np.ndarray) else None

    def dtype(self, name: str) -> str:
        """The ONNX type of a value of the model, as text."""
        known = self.types.get(name, (None, None))[0]
        if known is not None:
            return known
        array = self.array(name)
        if array is not None:
            return array.dtype.name
        maker = next((node for node in reversed(self.nodes) if self.name(name) in node.outputs), None)
        if maker is None:
            raise Unsupported(f"type of {name!r} unknown")
        if maker.op in TRUTHS:
            return "bool"
        return maker.attrs.get("to") or self.dtype(maker.inputs[1 if maker.op == "where" else 0])

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """The shape of a value, as far as it is known."""
        constant = self.constants.get(self.name(name))
        return tuple(constant.shape) if isinstance(constant, np.ndarray | QTensor) else self.types.get(name, (None, None))[1]

    def rank(self, name: str) -> int:
        """The number of axes of a value."""
        shape = self.shape(name)
        if shape is None:
            raise Unsupported(f"rank of {name!r} unknown")
        return len(shape)

    def constant(self, array: Any, base: str = "constant") -> str:
        """The name of a new constant."""
        name = self.fresh(base)
        self.constants[name] = np.asarray(array)
        return name

    def same(self, output: str, source: str) -> None:
        """Lets `output` mean `source`."""
        source = self.name(source)
        self.alias[output] = source
        self.uses[source] += self.uses[output] - 1

    def add(self, op: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attrs: Any) -> str:
        """Writes a node, or the constant it amounts to; the name of its first output."""
        outputs = tuple(outputs) if outputs else (self.fresh(op),)
        while len(outputs) > 1 and not outputs[-1]:
            outputs = outputs[:-1]
        outputs = tuple(name or self.fresh(op) for name in outputs)
        inputs = tuple(self.name(name) for name in inputs)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        if not self.fold(op, inputs, outputs, attrs):
            self.nodes.append(Node(op, inputs, outputs, attrs))
        return outputs[0]

    def fold(self, op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], attrs: Mapping[str, Any]) -> bool:
        """Whether the node is a constant of modest size, which is then kept in its place."""
        args = [self.array(name) if name else None for name in inputs]
        if any(name and a is None for name, a in zip(inputs, args, strict=True)) or not self.modest(op, args, outputs[0]):
            return False
        made = OPS[op](*args, **attrs)
        made = made if isinstance(made, tuple) else (made,)
        if op in MOVING and self.uses[inputs[0]] == 1 and inputs[0] not in self.kept and outputs[0] not in self.kept:
            self.same(outputs[0], inputs[0])  # a weight that is only moved keeps its name
            outputs = inputs[:1]
        for name, array in zip(outputs, made, strict=False):
            self.constants[name] = np.asarray(array)
        return True

    def modest(self, op: str, args: Sequence[np.ndarray | None], output: str) -> bool:
        """Whether a constant expression is small enough to be computed now."""
        given = sum(a.size for a in args if a is not None)
        shape = self.shape(output)
        if shape is not None and all(isinstance(n, int) for n in shape):
            return int(np.prod([int(n) for n in shape], dtype=np.float64)) <= max(FOLD_LIMIT, 2 * given)
        return op not in GROWING and given <= FOLD_LIMIT
