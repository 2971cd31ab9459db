"""Matrix products and lookups of an ONNX graph as `linear`, `matmul` and `embedding`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitladder.convert.onnx_draft import Call, Draft, type_name
from bitladder.formats.tensor import QTensor
from bitladder.ir.graph import Constant, Node, PerWidth

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


def is_grouped(draft: Draft, name: str) -> bool:
    """Whether a name is a constant whose scales belong to groups along its rows: turned, no encoding describes it."""
    constant = draft.constants.get(draft.name(name))
    return isinstance(constant, QTensor) and constant.format.group is not None


def has_transpose(draft: Draft, name: str) -> bool:
    """Whether a name is a constant matrix that can be turned, or is known to be the transpose of one."""
    return draft.name(name) in draft.turned or (is_matrix(draft, name) and not is_grouped(draft, name))


def transposed(draft: Draft, name: str) -> str:
    """The name of the transpose of a constant matrix: its own name if nothing else needs it as it is."""
    name = draft.name(name)
    if name in draft.turned:
        return draft.turned[name]
    constant = draft.constants[name]
    if draft.uses[name] == 1 and name not in draft.kept:
        draft.constants[name] = turned(constant)
        return name
    other = f"{name}.T" if f"{name}.T" not in draft.types else draft.fresh(name)
    draft.constants[other] = turned(constant)
    draft.turned.update({name: other, other: name})
    draft.uses[other] = draft.uses[name]
    return other


def transpose(draft: Draft, call: Call) -> None:
    """Transpose; of a constant matrix that is shared or quantized, it is remembered what it is the transpose of."""
    name, out = draft.name(call.inputs[0]), call.outputs[0]
    swaps = is_matrix(draft, name) and tuple(call.attrs.get("perm", (1, 0))) == (1, 0) and out not in draft.kept
    if swaps and is_grouped(draft, name):
        draft.turned[out] = name
    elif swaps and (draft.uses[name] > 1 or isinstance(draft.constants[name], QTensor)):
        draft.same(out, transposed(draft, name))
        return
    draft.add("transpose", call.inputs, call.outputs, **call.attrs)


def matmul(draft: Draft, call: Call) -> None:
    """MatMul with a constant matrix on the right is `linear`."""
    x, w = call.inputs
    if has_transpose(draft, w) and draft.name(x) not in draft.constants:
        draft.add("linear", (x, transposed(draft, w)), call.outputs)
    else:
        draft.add("matmul", call.inputs, call.outputs)


def rows_of(draft: Draft, name: str) -> int:
    """The number of rows of a constant weight."""
    w = draft.constants[name]
    assert not isinstance(w, PerWidth)
    return int(w.shape[0])


def gemm(draft: Draft, call: Call) -> None:
    """Gemm with a constant B is `linear`, any other `matmul`; alpha and beta are products of their own, unless they are 1."""
    a, b, c = call.inputs[0], call.inputs[1], draft.name(call.input(2))
    alpha, beta = call.attrs.get("alpha", 1.0), call.attrs.get("beta", 1.0)
    as_it_is = call.attrs.get("transB", 0)
    if call.attrs.get("transA", 0):
        a = draft.add("transpose", (a,), perm=(1, 0))
    weighted = is_matrix(draft, b) if as_it_is else has_transpose(draft, b)
    if weighted and draft.name(a) not in draft.constants:
        op, inputs = "linear", [a, draft.name(b) if as_it_is else transposed(draft, b)]
        if alpha == beta == 1 and c and (bias := vector(draft, c, rows_of(draft, inputs[1]))):
            inputs, c = [*inputs, bias], ""
    else:
        op, inputs = "matmul", [a, draft.add("transpose", (b,), perm=(1, 0)) if as_it_is else b]
    y = draft.add(op, inputs, () if c or alpha != 1 else call.outputs)
    if alpha != 1:
        y = scaled(draft, y, alpha, call, () if c else call.outputs)
    if c:
        draft.add("add", (y, c if beta == 1 else scaled(draft, c, beta, call)), call.outputs)


def scaled(draft: Draft, name: str, factor: float, call: Call, outputs: tuple[str, ...] = ()) -> str:
    """A value times a number, in the type of the call's first input."""
    number = np.asarray(factor, type_name(draft.dtype(call.inputs[0])))
    return draft.add("mul", (name, draft.constant(number, "factor")), outputs)


def vector(draft: Draft, name: str, size: int) -> str:
    """The name of a constant as one number per output, under its own name if nothing else reads it; nothing if it is none."""
    array = draft.array(name)
    if array is None or array.size not in (1, size) or (array.ndim > 1 and array.shape[-1] != array.size):
        return ""
    if array.shape == (size,):
        return name
    own = draft.uses[name] == 1 and name not in draft.kept
    name = name if own else draft.fresh(name)
    draft.constants[name] = np.broadcast_to(array.reshape(-1), size)
    return name


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
        if node.op == "linear" and len(node.inputs) == 2 and b.shape == (rows_of(draft, node.inputs[1]),):
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
