"""What a network is: values with names, nodes in order, constants, and the encodings of the values that are integers.

A `Graph` is frozen. Importers make one, rewrites turn one into another, `run` gives it meaning, files store it.
Operators are the words of `bitladder.ir.ops`; what depends on data is a node's input, everything else a plain attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitladder.formats.tensor import Encoding, QTensor

Attr = Any  # int, float, str, bool, None or a tuple of those


@dataclass(frozen=True)
class Value:
    """An input or output of a network: its name, numpy dtype as text, and shape (str for a free axis).

    >>> Value("x", "float32", ("batch", 3, 32, 32)).shape[0]
    'batch'
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True)
class Node:
    """One operation: `outputs = op(*inputs, **attrs)`; an absent optional input is the empty string.

    `clip` is an activation fused into the node: outputs are clipped to (low, high), None meaning no limit.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    clip: tuple[float | None, float | None] | None = None

    @property
    def name(self) -> str:
        """A node is called by its first output."""
        return self.outputs[0]


@dataclass(frozen=True)
class PerWidth:
    """A constant that comes in one version per width of the weight `of`: a bias corrected for each precision."""

    of: str
    arrays: Mapping[int, np.ndarray]

    def at(self, bits: int) -> np.ndarray:
        """The version for `bits`, or for the nearest wider width, or for the widest."""
        wider = [b for b in self.arrays if b >= bits]
        return self.arrays[min(wider) if wider else max(self.arrays)]


Constant = np.ndarray | QTensor | PerWidth


@dataclass(frozen=True)
class Graph:
    """A network. Nodes are in an order in which every input is known before it is used.

    `encodings` names the activations that are integers and how they are coded; weights carry their own (`QTensor`).
    `meta` is what deployment needs and no node does: normalisation, layout, class labels, the plan; plain JSON values.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {v.name for v in self.inputs} | set(self.constants)
        for node in self.nodes:
            for name in node.inputs:
                if name and name not in known:
                    raise ValueError(f"graph: node {node.name!r} ({node.op}) reads {name!r}, which nothing before it makes")
            for name in node.outputs:
                if name in known:
                    raise ValueError(f"graph: value {name!r} is made twice, the second time by {node.op}")
                known.add(name)
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"graph: output {name!r} is never made")

    def with_(self, **changes: Any) -> Graph:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def weights(self) -> Iterator[tuple[str, Node]]:
        """Every weight worth quantizing, once, with the first node that uses it (tied weights count once)."""
        seen = set()
        for node in self.nodes:
            for slot in WEIGHT_SLOTS.get(node.op, ()):
                name = node.inputs[slot]
                constant = self.constants.get(name)
                if isinstance(constant, QTensor | np.ndarray) and name not in seen and len(constant.shape) >= 2:
                    seen.add(name)
                    yield name, node

    def users(self) -> dict[str, list[Node]]:
        """For every value, the nodes that read it."""
        out: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                out.setdefault(name, []).append(node)
        return out

    def at(self, bits: int | Mapping[str, int]) -> Graph:
        """The same network on the leading `bits` planes of each nested weight; a mapping gives each weight its own."""
        constants: dict[str, Constant] = {}
        for name, c in self.constants.items():
            if isinstance(c, QTensor):
                width = bits if isinstance(bits, int) else bits.get(name, c.format.bits)
                floor = int(self.meta.get("min_bits", {}).get(name, 1))
                constants[name] = c.at(max(width, floor))
        for name, c in self.constants.items():
            if isinstance(c, PerWidth):
                weight = constants[c.of]
                assert isinstance(weight, QTensor)
                constants[name] = c.at(weight.format.bits)
            elif not isinstance(c, QTensor):
                constants[name] = c
        return self.with_(constants=constants)


# Which inputs of an operator are weights, and along which of their axes the output channels lie.
WEIGHT_SLOTS = {
    "conv": (1,),
    "conv_transpose": (1,),
    "linear": (1,),
    "embedding": (0,),
    "lstm": (1, 2),
    "gru": (1, 2),
    "rnn": (1, 2),
}
CHANNEL_AXIS = {"conv": 0, "conv_transpose": 1, "linear": 0, "embedding": 0, "lstm": 1, "gru": 1, "rnn": 1}
