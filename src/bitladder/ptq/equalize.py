"""Equalisation across layers: channels of like size, the network the same (Nagel et al., 2019).

Where one layer feeds another and nothing else, through nodes that let a positive factor pass (relu, pooling), every channel
between the two may be divided by a number that the next layer's weights are multiplied with. Channels whose weights are large
on one side and small on the other get both sides alike, so that one step suits all of them. Factors are powers of two, so
outputs stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bitladder.ir.graph import Graph, Node

PASS = {  # what a positive factor goes through, between layers of one kind
    "conv": ("identity", "relu", "max_pool", "avg_pool", "global_avg_pool", "global_max_pool"),
    "linear": ("identity", "relu"),
}
ROUNDS = 4  # times that chains of pairs are gone through


def equalized(graph: Graph) -> Graph:
    """The same network with channels between neighbouring layers scaled alike."""
    chains = list(pairs(graph))
    constants = dict(graph.constants)
    for _ in range(ROUNDS if chains else 0):
        for first, second in chains:
            a, b = (np.asarray(constants[n.inputs[1]], np.float32) for n in (first, second))
            by = factors(np.abs(a.reshape(len(a), -1)).max(1), inputs_of(b, second))
            constants[first.inputs[1]] = a / by.reshape(-1, *(1,) * (a.ndim - 1))
            if len(first.inputs) > 2 and first.inputs[2]:
                constants[first.inputs[2]] = np.asarray(constants[first.inputs[2]], np.float32) / by
            constants[second.inputs[1]] = scaled(b, second, by)
    return graph.with_(constants=constants)


def pairs(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Layers of which the second alone reads the first, with only what a positive factor passes between them."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def alone(name: str) -> Node | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in graph.outputs else None

    for first in graph.nodes:
        if not scalable(graph, first) or not own(first, readers):
            continue
        at, second = first, alone(first.outputs[0])
        while second is not None and second.op in PASS[first.op] and homogeneous(at):
            at, second = second, alone(second.outputs[0])
        if second is None or not homogeneous(at) or not scalable(graph, second) or not own(second, readers):
            continue
        if first.op == second.op and second.inputs[0] == at.outputs[0]:
            yield first, second


def scalable(graph: Graph, node: Node) -> bool:
    """Whether a node is a layer whose weights and bias are plain arrays."""
    return node.op in PASS and all(isinstance(graph.constants.get(n), np.ndarray) for n in node.inputs[1:] if n)


def own(node: Node, readers: dict[str, list[Node]]) -> bool:
    """Whether no other node reads a layer's weights or bias."""
    return all(len(readers[name]) == 1 for name in node.inputs[1:] if name)


def homogeneous(node: Node) -> bool:
    """Whether the clip that is fused into a node lets a positive factor pass."""
    return node.clip is None or (node.clip[0] in (0, None) and node.clip[1] is None)


def inputs_of(w: np.ndarray, node: Node) -> np.ndarray:
    """The largest magnitude of the weights of every input channel (inputs,)."""
    groups = int(node.attrs.get("groups", 1))
    apart = np.abs(w.reshape(groups, len(w) // groups, w.shape[1], -1))
    return np.asarray(apart.max(axis=(1, 3)).ravel())


def scaled(w: np.ndarray, node: Node, by: np.ndarray) -> np.ndarray:
    """Weights whose inputs come divided by `by`."""
    groups = int(node.attrs.get("groups", 1))
    each = by.reshape(groups, -1).repeat(len(w) // groups, axis=0)  # (outputs, inputs of its group)
    return np.asarray(w * each.reshape(*each.shape, *(1,) * (w.ndim - 2)), np.float32)


def factors(outgoing: np.ndarray, incoming: np.ndarray) -> np.ndarray:
    """Powers of two that bring both sides of every channel to about the same size; 1 where one side is zero.

    >>> factors(np.array([4.0, 1.0, 0.0]), np.array([1.0, 4.0, 1.0]))
    array([2. , 0.5, 1. ], dtype=float32)
    """
    some = (outgoing > 0) & (incoming > 0)
    ratio = np.divide(outgoing, incoming, out=np.ones(len(outgoing)), where=some)
    return np.exp2(np.round(np.log2(ratio) / 2)).astype(np.float32)
