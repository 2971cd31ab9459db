"""Matrix products and lookups of an ONNX graph as `linear`, `matmul` and `embedding`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitladder.convert.onnx_draft import Call, Draft
from bitladder.formats.tensor import QTensor
from bitladder.ir.graph import Constant, Node

LOOKUPS = frozenset({"Gather", "MatMul", "Gemm", "Transpose", "DequantizeLinear"})  # what may share a matrix with an embedding


def turned(constant: Constant) -> Constant:
    """The transpose of a matrix."""
    if isinstance(constant, QTensor):
        axes = tuple(1 - a for a in constant.encoding.axes)
        return QTensor(replace(constant.encoding, axes=axes), constant.codes.T)
    assert isinstance(constant, np.ndarray)
    return constant.T


def is_matrix(draft: Draft, name: str) -> bool:
    """Whether a name is a constant of two axes that holds reals."""
    constant = draft.constants.get(draft.name(name))
    if isinstance(constant, QTensor):
        return len(constant.shape) == 2
    return isinstance(constant, np.ndarray) and constant.ndim == 2 and constant.dtype.kind == "f"


def transposed(draft: Draft, name: str) -> str:
    """The name of the transpose of a constant matrix: its own name if nothing else needs it as it is."""
    name = draft.name(name)
    if name in draft.turned:
        return draft.turned[name]
    constant = draft.constants[name]
    if draft.uses[name] == 1 and name not in draft.kept and not (isinstance(constant, QTensor) and constant.format.group):
        draft.constants[name] = turned(constant)
        return name
    other = f"{name}.T" if f"{name}.T" not in draft.types else draft.fresh(name)
    draft.constants[other] = turned(constant)
    draft.turned.update({name: other, other: name})
    draft.uses[other] = draft.uses[name]
    return other


def transpose(draft: Draft, call: Call) -> None:
    """Transpose; of a constant matrix that others share, it is remembered what it is the transpose of."""
    name = draft.name(call.inputs[0])
    shared = is_matrix(draft, name) and draft.uses[name] > 1 and tuple(call.attrs.get("perm", (1, 0))) == (1, 0)
    if shared and call.outputs[0] not in draft.kept:
        draft.same(call.outputs[0], transposed(draft, name))
    else:
        draft.add("transpose", call.inputs, call.outputs, **call.attrs)


def matmul(draft: Draft, call: Call) -> None:
    """MatMul with a constant matrix on the right is `linear`."""
    x, w = call.inputs
    if is_matrix(draft, w) and draft.name(x) not in draft.constants:
        draft.add("linear", (x, transposed(draft, w)), call.outputs)
    else:
        draft.add("matmul", call.inputs, call.outputs)


def gemm(draft: Draft, call: Call) -> None:
    """Gemm with a constant B is `linear`; any other is the product, the scale and the sum it says."""
    a, b, c = call.inputs[0], call.inputs[1], draft.name(call.input(2))
    alpha, beta = call.attrs.get("alpha", 1.0), call.attrs.get("beta", 1.0)
    if call.attrs.get("transA", 0):
        a = draft.add("transpose", (a,), perm=(1, 0))
    if is_matrix(draft, b) and alpha == 1 and draft.name(a) not in draft.constants:
        w = draft.name(b) if call.attrs.get("transB", 0) else transposed(draft, b)
        bias = draft.array(c) if c else None
        wide = draft.constants[w].shape[0]
        if not c:
            draft.add("linear", (a, w), call.outputs)
        elif bias is not None and bias.size in (1, wide) and (bias.ndim < 2 or bias.shape[-1] == bias.size):
            flat = (bias.reshape(-1) * bias.dtype.type(beta)) if beta != 1 else bias.reshape(-1)
            name = c
            if flat.size != wide or bias.ndim != 1 or beta != 1:
                name = draft.constant(np.broadcast_to(flat, wide), c)
            draft.add("linear", (a, w, name), call.outputs)
        else:
            add_scaled(draft, draft.add("linear", (a, w)), c, beta, call)
        return
    if call.attrs.get("transB", 0):
        b = draft.add("transpose", (b,), perm=(1, 0))
    product = scaled(
        draft, draft.add("matmul", (a, b)) if alpha != 1 or c else draft.add("matmul", (a, b), call.outputs), alpha, call
    )
    if c:
        add_scaled(draft, product, c, beta, call)
    elif alpha != 1:
        draft.add("identity", (product,), call.outputs)


def scaled(draft: Draft, name: str, factor: float, call: Call) -> str:
    """A value times a number."""
    if factor == 1:
        return name
    return draft.add("mul", (name, draft.constant(np.asarray(factor, draft.dtype(call.inputs[0])), "factor")))


def add_scaled(draft: Draft, product: str, c: str, beta: float, call: Call) -> None:
    """The output of a Gemm: the product plus beta c."""
    draft.add("add", (product, scaled(draft, c, beta, call)), call.outputs)


def add(draft: Draft, call: Call) -> None:
    """Add; a constant vector added to nothing but a `linear` becomes its bias."""
    for i in (0, 1):
        y, b = draft.name(call.inputs[i]), draft.array(call.inputs[1 - i])
        place = (
            next((k for k in range(len(draft.nodes) - 1, -1, -1) if draft.nodes[k].outputs[0] == y), None)
            if b is not None
            else None
        )
        if b is None or place is None or draft.uses[y] != 1 or y in draft.encodings:
            continue
        node = draft.nodes[place]
        if node.op == "linear" and len(node.inputs) == 2 and b.shape == (draft.constants[node.inputs[1]].shape[0],):
            draft.nodes[place] = Node("linear", (*node.inputs, draft.name(call.inputs[1 - i])), call.outputs)
            return
    draft.add("add", call.inputs, call.outputs)


def gather(draft: Draft, call: Call) -> None:
    """Gather of rows from a constant matrix that serves for nothing else is `embedding`."""
    table, indices = call.inputs[:2]
    axis = call.attrs.get("axis", 0)
    lookup = axis in (0, -2) and is_matrix(draft, table) and all(c.op in LOOKUPS for c in draft.readers.get(table, ()))
    if lookup and draft.name(indices) not in draft.constants:
        draft.add("embedding", (table, indices), call.outputs)
    else:
        draft.add("gather", call.inputs, call.outputs, axis=axis)
