"""Running a graph, slowly and obviously: the specification that every kernel must equal to the bit.

`run` is one loop. A node whose inputs are all integers, and whose sums have one unit, is computed in integers
(`bitladder.runtime.integer`); every other node sees reals. The same loop runs on numpy (`OPS`) and on torch
(`TORCH_OPS`), because the arithmetic between two operators is written once for both kinds of array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitladder.formats.tensor import Array, QTensor, like
from bitladder.ir.graph import Graph, Node, PerWidth
from bitladder.ir.ops import OPS
from bitladder.runtime import integer
from bitladder.runtime.integer import Coded

Ops = Mapping[str, Callable[..., Any]]
Watch = Callable[[str, Any], None]


def real(value: Any) -> Any:
    """The reals (or the untouched array) behind anything that flows through a graph."""
    if isinstance(value, Coded):
        return value.real()
    return value.decode() if isinstance(value, QTensor) else value


def run(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    ops: Ops = OPS,
    watch: Watch | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """The outputs of `graph` by name, as reals.

    watch: called as watch(name, value) with each value made, `Coded` where it is an integer.
    known: values that are there already (from an earlier run), so that nodes that make them are skipped.
    """
    env = {**start(graph, inputs), **(known or {})}
    for node in graph.nodes:
        if all(name in env for name in node.outputs):
            continue
        for name, value in zip(node.outputs, step(graph, node, env, ops), strict=True):
            env[name] = value
            if watch is not None:
                watch(name, value)
    return {name: real(env[name]) for name in graph.outputs}


def start(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Every value that is there before the first node: constants at their widths, inputs as codes where they have them."""
    env: dict[str, Any] = dict(graph.constants)
    widest = {k: c.at(graph.constants[c.of].format.bits) for k, c in graph.constants.items() if isinstance(c, PerWidth)}  # type: ignore[union-attr]
    env.update(widest)
    for value in graph.inputs:
        if value.name not in inputs:
            raise ValueError(
                f"run: input {value.name!r} is missing; give an array for each of {[v.name for v in graph.inputs]}"
            )
        env[value.name] = enter(graph, value.name, inputs[value.name])
    return env


def enter(graph: Graph, name: str, value: Array) -> Any:
    """`value` as codes where the graph has an encoding for `name`."""
    encoding = graph.encodings.get(name)
    return value if encoding is None or isinstance(value, Coded) else Coded(encoding.encode(value), encoding)


def step(graph: Graph, node: Node, env: Mapping[str, Any], ops: Ops) -> list[Any]:
    """The outputs of one node, each `Coded` if the graph has an encoding for it."""
    made = in_integers(graph, node, env, ops)
    return in_float(graph, node, env, ops) if made is None else made


def in_integers(graph: Graph, node: Node, env: Mapping[str, Any], ops: Ops = OPS) -> list[Any] | None:
    """The outputs of an integer node; None of a float node."""
    rule = integer.RULES.get(node.op)
    out_encoding = graph.encodings.get(node.outputs[0])
    made = None if rule is None else rule(node, [env[name] if name else None for name in node.inputs], out_encoding, ops)
    return None if made is None else [made if out_encoding is None else Coded(made, out_encoding)]


def in_float(graph: Graph, node: Node, env: Mapping[str, Any], ops: Ops = OPS) -> list[Any]:
    """The outputs of a node that sees reals."""
    args = [env[name] if name else None for name in node.inputs]
    flowing = (*args, *(env.get(v.name) for v in graph.inputs))  # a node of constants alone takes its kind from the inputs
    sample = next(
        (a.codes if isinstance(a, Coded) else a for a in flowing if a is not None and not isinstance(a, QTensor | np.ndarray)),
        None,
    )
    reals = [real(a) for a in args]
    if sample is not None:  # constants take the kind of array that flows
        reals = [like(sample, a) if isinstance(a, np.ndarray) else a for a in reals]
    out = ops[node.op](*reals, **node.attrs)
    outs = list(out) if isinstance(out, tuple | list) else [out]
    if node.clip is not None:
        outs[0] = clipped(outs[0], node.clip)
    return [enter(graph, name, value) for name, value in zip(node.outputs, outs, strict=False)]


def clipped(x: Array, limits: tuple[float | None, float | None]) -> Array:
    """`x` between two limits, either of which may be absent."""
    low, high = limits
    return x.clip(low, high)
