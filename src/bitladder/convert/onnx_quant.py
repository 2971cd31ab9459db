"""QuantizeLinear and DequantizeLinear as encodings, so that a quantized model keeps its scales."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitladder.convert.onnx_draft import Call, Draft, type_name
from bitladder.formats.tensor import Encoding, QTensor
from bitladder.formats.uniform import Int
from bitladder.ir.ops import OPS

INTEGERS = {f"{u}int{bits}": (bits, u == "u") for bits in (2, 4, 8, 16) for u in ("", "u")}  # by type: bits, unsigned


def steps(draft: Draft, call: Call) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and zero point of a node as float32, if they are constants."""
    scale = draft.array(call.inputs[1])
    zero = draft.array(call.input(2)) if call.input(2) else None
    if scale is None or (call.input(2) and zero is None):
        return None
    return scale.astype(np.float32), np.zeros(scale.shape, np.float32) if zero is None else zero.astype(np.float32)


def code_type(draft: Draft, call: Call) -> str:
    """The integer type of the codes that a node takes or gives: that of its zero point, if there is one."""
    if call.input(2):
        return draft.dtype(call.input(2))
    given = call.attrs.get("output_dtype") or "uint8"
    return given if call.op == "QuantizeLinear" else draft.dtype(call.inputs[0])


def options(call: Call, *names: str) -> dict[str, Any]:
    """Those attributes of a node that have these names; types as numpy calls them."""
    return {k: v for k, v in call.attrs.items() if k in names and v is not None}


def encoding(dtype: str, scale: np.ndarray, zero: np.ndarray, shape: tuple[Any, ...] | None, axis: int) -> Encoding | None:
    """The encoding with these steps along an axis (or for all); None if the type or the rank is beyond us."""
    if dtype not in INTEGERS:
        return None
    bits, unsigned = INTEGERS[dtype]
    if scale.size == 1:
        params = {"scale": scale.reshape(()), "zero_point": zero.reshape(())}
        return Encoding(Int(bits, per="tensor", unsigned=unsigned), params)
    if scale.ndim != 1 or (shape is None and axis < 0):
        return None
    return Encoding(Int(bits, unsigned=unsigned), {"scale": scale, "zero_point": zero}, (axis % len(shape) if shape else axis,))


def blocks(dtype: str, scale: np.ndarray, zero: np.ndarray, block: int) -> Encoding:
    """The encoding of a matrix (rows, columns) with one scale per row and `block` columns."""
    bits, unsigned = INTEGERS[dtype]
    return Encoding(Int(bits, group=block, unsigned=unsigned), {"scale": scale, "zero_point": zero}, (0,))


def dequantize(draft: Draft, call: Call) -> None:
    """The value that carries the encoding of these codes; or a constant with its own; or the explicit operator."""
    x, out = call.inputs[0], call.outputs[0]
    if draft.name(x) in draft.pairs:
        draft.same(out, draft.pairs[draft.name(x)])
    elif not stored(draft, call):
        draft.add("dequantize_linear", call.inputs, call.outputs, **options(call, "axis", "block_size", "output_dtype"))


def stored(draft: Draft, call: Call) -> bool:
    """Whether constant codes became a quantized constant (one axis or none: plain numbers, as biases are)."""
    x, out = draft.name(call.inputs[0]), call.outputs[0]
    codes, known = draft.array(x), steps(draft, call)
    if codes is None or known is None:
        return False
    dtype, axis, block = code_type(draft, call), call.attrs.get("axis", 1), call.attrs.get("block_size", 0)
    name = x if draft.uses[x] == 1 and not {x, out} & draft.kept else out
    if codes.ndim < 2:
        real = OPS["dequantize_linear"](codes, *known, axis=axis, block_size=block)
        draft.constants[name] = np.asarray(real, type_name(call.attrs.get("output_dtype") or draft.dtype(call.inputs[1])))
    elif block and codes.ndim == 2 and dtype in INTEGERS and axis in (0, -2):
        draft.constants[f"{name}.T"] = QTensor(blocks(dtype, known[0].T, known[1].T, block), codes.T)
        draft.turned[name if name != x else out] = f"{name}.T"
        draft.add("transpose", (f"{name}.T",), (out,), perm=(1, 0))
        return True
    else:
        blocked = block and codes.ndim == 2 and dtype in INTEGERS
        made = blocks(dtype, *known, block) if blocked else None if block else encoding(dtype, *known, codes.shape, axis)
        if made is None:
            return False
        draft.constants[name] = QTensor(made, codes)
    if name == x:
        draft.same(out, x)
    return True


def pair_of(draft: Draft, call: Call) -> Encoding | None:
    """The encoding that a QuantizeLinear and all that read it agree upon, if they only turn it back into reals."""
    readers = draft.readers.get(call.outputs[0], [])
    known = steps(draft, call)
    if known is None or not readers or call.attrs.get("block_size") or call.outputs[0] in draft.kept:
        return None
    for reader in readers:
        theirs = steps(draft, reader) if reader.op == "DequantizeLinear" and reader.inputs[0] == call.outputs[0] else None
        if theirs is None or any(not np.array_equal(a, b) for a, b in zip(known, theirs, strict=True)):
            return None
    return encoding(code_type(draft, call), *known, draft.shape(call.inputs[0]), call.attrs.get("axis", 1))


def equal(a: Encoding | None, b: Encoding) -> bool:
    """Whether two encodings give the same codes."""
    same = a is not None and (a.format, a.axes) == (b.format, b.axes)
    return same and all(np.array_equal(a.params[k], b.params[k]) for k in b.params)  # type: ignore[union-attr]


def quantize(draft: Draft, call: Call) -> None:
    """An encoding for the value itself if all its readers see codes, otherwise for a copy; or the explicit operator."""
    x, out = draft.name(call.inputs[0]), call.outputs[0]
    made = pair_of(draft, call) if x not in draft.constants else None
    if made is None:
        target = type_name(code_type(draft, call))
        draft.add("quantize_linear", call.inputs, call.outputs, **options(call, "axis", "block_size"), output_dtype=target)
        return
    if equal(draft.encodings.get(x), made):
        draft.pairs[out] = x
        return
    readers = draft.readers.get(call.inputs[0], [])
    agreed = all(r.op == "QuantizeLinear" and r.inputs[0] == call.inputs[0] and equal(pair_of(draft, r), made) for r in readers)
    direct = x == call.inputs[0] and x not in draft.outputs and x not in draft.encodings
    carrier = x if agreed and direct else draft.add("identity", (x,), (draft.fresh(x),))
    draft.encodings[carrier] = made
    draft.pairs[out] = carrier
