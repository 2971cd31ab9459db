"""Building a graph value by value: what an importer writes down while it reads another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitladder.ir.graph import Graph, Node, Value

Size = int | str  # a number, or the symbol of a free axis


@dataclass(frozen=True)
class Ref:
    """A value of the graph to be: its name, what is known of its shape, its dtype, its array if it is a
    constant, and the number that all of it is, where that is known.
    """

    name: str
    shape: tuple[Size, ...] | None = None
    dtype: str = "float32"
    array: np.ndarray | None = None
    fill: float | None = None

    @property
    def rank(self) -> int:
        assert self.shape is not None, self.name
        return len(self.shape)

    def size(self, axis: int) -> int | None:
        """The size along an axis, None where it is free."""
        assert self.shape is not None, self.name
        n = self.shape[axis]
        return n if isinstance(n, int) else None


class Builder:
    """Nodes and constants in the making. Values are called `base` (the last of a group) or `base.op` (those before it)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.taken: set[str] = set()
        self.groups: list[tuple[str, int]] = []
        self.scalars: dict[tuple, Ref] = {}

    def begin(self, base: str) -> None:
        """What follows belongs to the value called `base`."""
        self.groups.append((base, len(self.nodes)))

    def tensor(self, name: str, array: np.ndarray) -> Ref:
        """A constant with a name of its own."""
        name = self.free(name)
        self.constants[name] = array
        return Ref(name, array.shape, str(array.dtype), array)

    def const(self, value: Any, dtype: str) -> Ref:
        """A constant without a name of its own; equal ones are one."""
        array = np.asarray(value, dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self.scalars:
            self.scalars[key] = self.tensor(f"const.{len(self.scalars)}", array)
        return self.scalars[key]

    def ints(self, values: Sequence[int]) -> Ref:
        """A list of sizes, axes or positions."""
        return self.const(list(values), "int64")

    def emit(self, op: str, *inputs: Ref | None, shape: tuple[Size, ...] | None = None, dtype: str = "", **attrs: Any) -> Ref:
        """The value of one new node."""
        return self.emits(1, op, *inputs, shape=shape, dtype=dtype, **attrs)[0]

    def emits(self, outputs: int, op: str, *inputs: Ref | None, shape: Any = None, dtype: str = "", **attrs: Any) -> list[Ref]:
        """The values of one new node with several outputs."""
        first = next((i for i in inputs if i is not None), None)
        names = tuple(f"%{len(self.nodes)}.{k}" for k in range(outputs))
        listed = [i.name if i is not None else "" for i in inputs]
        while listed and not listed[-1]:
            listed.pop()
        self.nodes.append(Node(op, tuple(listed), names, attrs))
        return [Ref(name, shape, dtype or (first.dtype if first else "float32")) for name in names]

    def free(self, name: str) -> str:
        """`name`, or the first of name_1, name_2 ... that is not in use yet."""
        chosen, k = name, 0
        while chosen in self.taken:
            k += 1
            chosen = f"{name}_{k}"
        self.taken.add(chosen)
        return chosen

    def graph(self, inputs: tuple[Value, ...], outputs: Sequence[Ref]) -> Graph:
        """The graph that makes `outputs`, without what they do not need."""
        names = self.spoken()
        called = [renamed(n, names) for n in self.nodes]
        wanted = {names.get(r.name, r.name) for r in outputs}
        kept = []
        for node in reversed(called):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(node.inputs)
        constants = {k: v for k, v in self.constants.items() if k in wanted}
        return Graph(inputs, tuple(names.get(r.name, r.name) for r in outputs), tuple(reversed(kept)), constants)

    def spoken(self) -> dict[str, str]:
        """What each value made by a node will be called."""
        out: dict[str, str] = {}
        ends = [start for _, start in self.groups[1:]] + [len(self.nodes)]
        spans = [(base, self.nodes[start:end]) for (base, start), end in zip(self.groups, ends, strict=True)]
        for base, nodes in spans:  # the last of each group first: it has a right to the plain name
            if nodes:
                out |= {o: self.free(base if k == 0 else f"{base}.{k}") for k, o in enumerate(nodes[-1].outputs)}
        for base, nodes in spans:
            for node in nodes[:-1]:
                stem = f"{base}.{node.op}"
                out |= {o: self.free(stem if k == 0 else f"{stem}.{k}") for k, o in enumerate(node.outputs)}
        return out


def renamed(node: Node, names: dict[str, str]) -> Node:
    return replace(
        node,
        inputs=tuple(names.get(i, i) for i in node.inputs),
        outputs=tuple(names.get(o, o) for o in node.outputs),
    )
