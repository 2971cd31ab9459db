"""Graph to graph: fold batch norm into weights, fuse activations into the nodes before them, drop what nothing reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bitladder.ir.graph import Graph, Node, PerWidth

CARRIES_CLIP = ("conv", "conv_transpose", "linear", "matmul", "add", "mul", "sub", "global_avg_pool", "avg_pool", "batch_norm")


def simplify(graph: Graph) -> Graph:
    """The graph as quantization wants it: no identities, batch norm folded, biases and clips fused, nothing unused."""
    for rewrite in (drop_identities, fold_batch_norm, fuse_bias, fuse_clip, drop_unused):
        graph = rewrite(graph)
    return graph


def _constant(graph: Graph, name: str) -> np.ndarray | None:
    c = graph.constants.get(name)
    return c if isinstance(c, np.ndarray) else None


def _sole_user(graph: Graph, users: dict[str, list[Node]], name: str) -> Node | None:
    """The one node that reads `name`, if there is just one and it is not an output of the graph."""
    readers = users.get(name, [])
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def drop_unused(graph: Graph) -> Graph:
    """Without nodes and constants that no output depends on."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed |= set(node.inputs)
    return graph.with_(
        nodes=tuple(reversed(kept)),
        constants={k: v for k, v in graph.constants.items() if k in needed},
        encodings={k: v for k, v in graph.encodings.items() if k in needed or k in graph.outputs},
    )


def drop_identities(graph: Graph) -> Graph:
    """Without identity nodes; one that makes an output of the graph stays unless its input can take the name."""
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(i, i) for i in node.inputs)
        held = {*graph.outputs, *graph.encodings}  # a copy may have an encoding that the original has not
        if node.op in ("identity", "dropout") and node.outputs[0] not in held and len(node.outputs) == 1:
            renamed[node.outputs[0]] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return graph.with_(nodes=tuple(nodes))


def fold_batch_norm(graph: Graph) -> Graph:
    """Batch norm with constant statistics becomes part of the convolution or linear node before it (Jacob et al., 2018)."""
    users = graph.users()
    constants, nodes, replaced = dict(graph.constants), list(graph.nodes), {}
    for at, node in enumerate(graph.nodes):
        if node.op not in ("conv", "conv_transpose", "linear"):
            continue
        norm = _sole_user(graph, users, node.outputs[0])
        w = _constant(graph, node.inputs[1])
        if norm is None or norm.op != "batch_norm" or w is None or len(users[node.inputs[1]]) > 1 or node.clip is not None:
            continue
        stats = [_constant(graph, name) for name in norm.inputs[1:5]]
        bias = _constant(graph, node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(1, np.float32)
        if any(s is None for s in stats) or bias is None:
            continue
        gamma, beta, mean, var = (np.asarray(s, np.float64) for s in stats)
        factor = gamma / np.sqrt(var + float(norm.attrs.get("epsilon", 1e-5)))
        constants[node.inputs[1]] = _scaled(node, w, factor)
        name = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else bias_name(node.inputs[1], constants)
        constants[name] = (beta + (bias - mean) * factor).astype(np.float32)
        nodes[at] = replace(node, inputs=(*node.inputs[:2], name), outputs=norm.outputs, clip=norm.clip)
        replaced[id(norm)] = True
    return graph.with_(nodes=tuple(n for n in nodes if id(n) not in replaced), constants=constants)


def _scaled(node: Node, w: np.ndarray, factor: np.ndarray) -> np.ndarray:
    if node.op == "conv_transpose":
        groups = int(node.attrs.get("groups", 1))
        per_group = factor.reshape(groups, 1, -1)  # outputs of one group
        folded = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1) * per_group[..., None]
        return folded.reshape(w.shape).astype(np.float32)
    return (w * factor.reshape(-1, *[1] * (w.ndim - 1))).astype(np.float32)


def bias_name(weight: str, taken: object) -> str:
    """A name for the bias that goes with a weight.

    >>> bias_name("conv1.weight", {})
    'conv1.bias'
    """
    stem = weight.removesuffix(".weight").removesuffix("_weight")
    name = f"{stem}.bias"
    while name in taken:  # type: ignore[operator]
        name += "_"
    return name


def fuse_bias(graph: Graph) -> Graph:
    """The addition of a constant vector after a convolution or linear node without bias becomes its bias."""
    users = graph.users()
    constants, nodes, gone = dict(graph.constants), list(graph.nodes), set()
    for at, node in enumerate(graph.nodes):
        if node.op not in ("conv", "conv_transpose", "linear") or (len(node.inputs) > 2 and node.inputs[2]) or node.clip:
            continue
        add = _sole_user(graph, users, node.outputs[0])
        if add is None or add.op != "add":
            continue
        other = add.inputs[1] if add.inputs[0] == node.outputs[0] else add.inputs[0]
        b, w = _constant(graph, other), graph.constants.get(node.inputs[1])
        if b is None or w is None or isinstance(w, PerWidth) or b.dtype != np.float32:
            continue
        outs = w.shape[1] * int(node.attrs.get("groups", 1)) if node.op == "conv_transpose" else w.shape[0]
        fits = (outs,) if node.op == "linear" else (outs, *[1] * (len(w.shape) - 2))
        squeezed = (
            b.reshape(b.shape[-len(fits) :]) if b.ndim >= len(fits) and b.size == b[(0,) * (b.ndim - len(fits))].size else b
        )
        if squeezed.shape != fits or outs == 1:
            continue
        name = other if len(users[other]) == 1 else bias_name(node.inputs[1], constants)
        constants[name] = squeezed.reshape(-1)
        nodes[at] = replace(node, inputs=(*node.inputs[:2], name), outputs=add.outputs, clip=add.clip)
        gone.add(id(add))
    return graph.with_(nodes=tuple(n for n in nodes if id(n) not in gone), constants=constants)


LIMITS: dict[str, Callable[[Graph, Node], tuple[float | None, float | None] | None]] = {
    "relu": lambda graph, node: (0.0, None),
    "clip": lambda graph, node: _clip_limits(graph, node),
}


def _clip_limits(graph: Graph, node: Node) -> tuple[float | None, float | None] | None:
    limits = [(_constant(graph, name) if name else None) for name in (*node.inputs[1:], "", "")[:2]]
    if any(name and limit is None for name, limit in zip(node.inputs[1:], limits, strict=False)):
        return None
    low, high = (None if v is None else float(v.reshape(())) for v in limits)
    return low, high


def fuse_clip(graph: Graph) -> Graph:
    """Relu and clip become part of the node before them where they are its only reader."""
    users = graph.users()
    made = {name: node for node in graph.nodes for name in node.outputs}
    swapped: dict[int, Node] = {}
    gone = set()
    for node in graph.nodes:
        limits = LIMITS[node.op](graph, node) if node.op in LIMITS else None
        source = made.get(node.inputs[0]) if limits is not None else None
        if source is None or source.op not in CARRIES_CLIP or source.clip is not None or id(source) in swapped:
            continue
        if _sole_user(graph, users, source.outputs[0]) is node:
            swapped[id(source)] = replace(source, outputs=node.outputs, clip=limits)
            gone.add(id(node))
    return graph.with_(nodes=tuple(swapped.get(id(n), n) for n in graph.nodes if id(n) not in gone))
