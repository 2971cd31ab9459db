"""Encodings as QuantizeLinear and DequantizeLinear, weights as integer initializers.

Activations: codes live in uint8 up to 8 bits (signed ones with 128 added, which is then the zero point: the integers stay
the same, and ONNX Runtime has integer kernels for one unsigned type throughout), otherwise in uint16 or int16. Where the
format is narrower than its type, the real value is held to the format's ends before it is rounded, which gives the same
codes as holding the codes.

Weights: the integers behind the codes, in int4, int8, int16 or int32, with what one of them is worth as the scale.

    one step per tensor or output channel   DequantizeLinear along that axis
    one step per group of inputs            blocks of a matrix (rows, inputs), then a Reshape where the weight has more axes
    one step per kernel slice (S3)          scale 1, then a product with the steps (outputs, inputs, 1, ...): all are powers
                                            of two, so the product is exact, and runtimes fold it
    nested, mid-rise, up to 7 bits          odd numbers of half steps, which int8 holds
    nested, mid-rise, 8 bits                odd numbers up to 255 do not fit: u = code - 128, plus 1/2 from an initializer
                                            of its own, times the step; runtimes fold that, and multiply in float
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.convert.onnx_write import Pair, Writer
from bitladder.formats import Codebook, Encoding, Fixed, Int, Log, Nested, Product, QTensor
from bitladder.formats.cells import GRID
from bitladder.formats.tensor import spread

SPANS = {
    "int4": (-8, 7), "uint4": (0, 15), "uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}  # fmt: skip
SINCE = {"int4": 21, "uint4": 21, "uint16": 21, "int16": 21}  # the opset whose DequantizeLinear takes a type; others: 13
BLOCKS = 21  # the opset of block_size
Clip = tuple[float | None, float | None] | None


def narrowest(low: float, high: float, among: tuple[str, ...], opset: int) -> str | None:
    """The first type that holds all integers from `low` to `high` in an opset.

    >>> narrowest(-9, 9, ("int4", "int8"), 21)
    'int8'
    """
    return next((t for t in among if SPANS[t][0] <= low and high <= SPANS[t][1] and SINCE.get(t, 13) <= opset), None)


# ------------------------------------------------------------------------------------------------------ activations


def pair_of(writer: Writer, name: str, encoding: Encoding) -> Pair | None:
    """How an activation is written as codes; None, and a note, if it cannot be."""
    fmt, axes = encoding.format, encoding.axes
    low, high = fmt.span()
    known = isinstance(fmt, Int | Fixed) and fmt.group is None and len(axes) <= 1
    opset = writer.options.opset
    shift = 0 if low >= 0 or high > 127 or writer.options.signed else 128
    dtype = narrowest(low + shift, high + shift, ("uint8", "int8", "uint16", "int16"), opset) if known else None
    if dtype is None:
        if writer.options.lossless:
            later = narrowest(low, high, ("uint16", "int16"), 21) if known else None
            writer.refuse(f"activation {name!r} as {fmt} (lossless=False leaves it real)", SINCE["int16"] if later else None)
        return None
    p = encoding.params
    scale = np.asarray(fmt.step(p), np.float32)
    zero = np.broadcast_to(np.asarray(p.get("zero_point", 0)) + shift, scale.shape).astype(dtype)
    return Pair(dtype, scale, zero, axes[0] if axes else None, (low + shift, high + shift), shift)


def quantized(writer: Writer, pair: Pair, x: str, base: str, out: str, whole: bool = False) -> str:
    """`x` (in units of its codes if `whole`) as codes, and those as the real value `out`; the name of the codes."""
    scale = writer.tensor(writer.fresh(f"{base}.scale"), pair.scale)
    zero = writer.tensor(writer.fresh(f"{base}.zero_point"), pair.zero)
    unit = writer.constant(np.ones(pair.scale.shape), "float32", "one") if whole else scale
    codes = writer.fresh(f"{base}.codes")
    writer.add("QuantizeLinear", (x, unit, zero), codes, axis=pair.axis)
    writer.add("DequantizeLinear", (codes, scale, zero), out, axis=pair.axis)
    return codes


Stage = Callable[[str, str], Any]  # writes what makes the second name of the first


def landed(
    writer: Writer, name: str, produce: Stage | None, clip: Clip = None, integer: bool = False, whole: bool = False
) -> None:
    """Writes a value from the node that makes it (none for an input) to what its readers read: clip, codes, reals again.

    integer: the node sums integers, so that a clip which rounding does not imply comes after it, between codes of its own;
    this leaves the node next to its QuantizeLinear, where runtimes look for it.
    whole: what the node makes counts in units of codes.
    """
    encoding = writer.graph.encodings.get(name)
    pair = pair_of(writer, name, encoding) if encoding is not None else None
    stages = [produce] if produce is not None else []
    if pair is not None and encoding is not None:
        stages += between(writer, name, pair, encoding, clip, integer, whole)
    elif clip is not None and clip != (None, None):
        stages.append(held(writer, name, *clip))
    output = name in writer.graph.outputs
    last = name if produce is not None and not (pair and output) else writer.fresh(f"{name}.float")
    x = name
    for left, stage in zip(range(len(stages) - 1, -1, -1), stages, strict=True):
        out = writer.fresh(f"{name}.before") if left else last
        stage(x, out)
        x = out
    if pair is not None:
        writer.read[name] = name if output and produce is not None else writer.fresh(f"{name}.real")
        writer.pairs[name] = pair
        writer.codes[name] = quantized(writer, pair, x, name, writer.read[name], whole)


def between(writer: Writer, name: str, pair: Pair, encoding: Encoding, clip: Clip, integer: bool, whole: bool) -> list[Stage]:
    """What comes between a node and its codes."""
    low, high = limits_in_codes(pair, encoding, clip)
    least, most = SPANS[pair.dtype]
    if (low <= least).all() and (high >= most).all():  # the type clips by itself; say so only where that is plain to see
        ends = (reals(pair, np.float32(least)).min(), reals(pair, np.float32(most)).max())
        below, above = clip or (None, None)
        plain = (below is None or below <= ends[0]) and (above is None or above >= ends[1])
        return [held(writer, name, below, above)] if clip and plain and not whole else []
    pair = replace(pair, scale=np.ones_like(pair.scale)) if whole else pair
    hold = held(writer, name, *(reals(pair, e) if (e != t).any() else None for e, t in ((low, least), (high, most))))
    if whole or not integer:
        return [hold]
    return [lambda x, out: quantized(writer, pair, x, f"{name}.wide", out), hold]


def limits_in_codes(pair: Pair, encoding: Encoding, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest code that a value may have after its format and a fused clip."""
    ends = [np.broadcast_to(np.asarray(end, np.float32), pair.scale.shape) for end in pair.span]
    alone = Encoding(encoding.format, encoding.params, (0,) if encoding.axes else ())
    for i, limit in enumerate(clip or ()):
        if limit is not None:
            code = alone.encode(np.full(pair.scale.shape, limit, np.float32)) + pair.shift
            ends[i] = (np.maximum, np.minimum)[i](ends[i], code)
    return ends[0], ends[1]


def reals(pair: Pair, codes: Any) -> np.ndarray:
    """The reals of codes, float32."""
    return ((codes - pair.zero.astype(np.float32)) * pair.scale).astype(np.float32)


def held(writer: Writer, name: str, low: Any, high: Any) -> Stage:
    """A stage that holds a value between limits: numbers, or one for every entry of axis 1, or None."""
    ends = [None if v is None else np.asarray(v) for v in (low, high)]
    if any(v is not None and (v != v.flat[0]).any() for v in ends):
        return lambda x, out: held_apart(writer, name, ends, x, out)
    numbers = [None if v is None else float(v.flat[0]) for v in ends]
    if numbers == [0, None]:
        return lambda x, out: writer.add("Relu", (x,), out)
    dtype = writer.dtype(name)
    return lambda x, out: writer.add(
        "Clip", (x, *("" if v is None else writer.constant(v, dtype, "limit") for v in numbers)), out
    )


def held_apart(writer: Writer, name: str, ends: list[np.ndarray | None], x: str, out: str) -> None:
    """A value held between limits that differ along axis 1."""
    column = (-1, *[1] * (max(writer.rank(name), 2) - 2))
    limits = [(op, v.reshape(column)) for op, v in zip(("Max", "Min"), ends, strict=True) if v is not None]
    for op, limit in limits:
        to = out if op == limits[-1][0] else writer.fresh(f"{name}.least")
        x = writer.add(op, (x, writer.constant(limit, writer.dtype(name), f"{name}.limit")), to)


# ----------------------------------------------------------------------------------------------------------- weights


def weight(writer: Writer, name: str, transposed: bool = False) -> str:
    """The real values of a quantized constant, made from an integer initializer; the name to read them by."""
    key = ("weight", name, transposed)
    if key not in writer.memo:
        q = writer.graph.constants[name]
        assert isinstance(q, QTensor)
        writer.memo[key] = written_weight(writer, own(writer, name), q, transposed)
    return writer.memo[key]


def own(writer: Writer, name: str) -> str:
    """The constant's own name for whoever asks first, another one afterwards (tied weights in two layouts)."""
    return writer.fresh(f"{name}.again") if name in writer.initializers else name


def written_weight(writer: Writer, base: str, q: QTensor, transposed: bool) -> str:
    fmt = q.format
    if fmt.group is not None and writer.options.opset < BLOCKS:
        if writer.options.lossless:
            writer.refuse(f"weight {base!r} as {fmt} (lossless=False writes reals)", BLOCKS)
        return writer.tensor(base, q.decode().T if transposed else q.decode())
    if fmt.group is not None:
        return blocks(writer, base, q, transposed)
    if len(q.encoding.axes) > 1:
        return slices(writer, base, q)
    if isinstance(fmt, Nested) and fmt.scheme == "midrise" and (fmt.bits == 8 or (fmt.bits == 4 and narrow(writer, fmt))):
        return halves(writer, base, q, transposed)
    integers, zero, dtype = stored(writer, q)
    axis = q.encoding.axes[0] if q.encoding.axes else None
    if transposed:
        integers, axis = integers.T, None if axis is None else 1 - axis
    return dequantized(writer, base, integers, np.asarray(fmt.step(q.encoding.params)), zero, dtype, axis=axis)


def narrow(writer: Writer, fmt: Any) -> bool:
    """Whether codes of 4 bits and fewer are to take half a byte; ONNX Runtime multiplies those in float."""
    options = writer.options
    return options.opset >= SINCE["int4"] and (options.compact if isinstance(fmt, Nested) else options.int4)


def integer_span(fmt: Any) -> tuple[int, int]:
    """The smallest and the largest integer behind a code."""
    low, high = fmt.span()
    if isinstance(fmt, Log):
        low, high = fmt.integers(np.array([low, high], np.float32), {})
    if isinstance(fmt, Codebook | Product):
        return -GRID, GRID
    if not isinstance(fmt, Nested):
        return int(low), int(high)
    end = 2**fmt.bits - 1 if fmt.scheme == "midrise" else GRID
    return -end, end


def stored(writer: Writer, q: QTensor) -> tuple[np.ndarray, np.ndarray | None, str]:
    """What goes into the initializer (codes where there are zero points, integers otherwise), the zero points, the type."""
    opset = writer.options.opset
    among = (("int4", "uint4") if narrow(writer, q.format) else ()) + ("int8", "uint8", "int16", "uint16", "int32")
    dtype = narrowest(*integer_span(q.format), among, opset) or "int32"
    zero = q.encoding.params.get("zero_point")
    if zero is None or not np.any(zero) or dtype == "int32":  # int32 codes may have no zero point
        return q.integers(), None, dtype
    return q.codes, np.asarray(zero), dtype


def dequantized(
    writer: Writer, base: str, integers: np.ndarray, scale: Any, zero: np.ndarray | None, dtype: str, **attrs: int | None
) -> str:
    """An integer initializer called `base` and the DequantizeLinear that makes it real.

    Zeros are written out, for each weight its own: ONNX Runtime's session.x64quantprecision fails without them.
    """
    held = {"int4": "int8", "uint4": "uint8"}.get(dtype, dtype)
    if zero is None and dtype != "int32":
        zero = np.zeros(np.shape(scale))
    names = [
        writer.tensor(base, integers.astype(held), dtype),
        writer.tensor(writer.fresh(f"{base}.scale"), np.asarray(scale, np.float32)),
    ]
    if zero is not None:
        names.append(writer.tensor(writer.fresh(f"{base}.zero_point"), zero.astype(held), dtype))
    return writer.add("DequantizeLinear", names, writer.fresh(f"{base}.real"), **attrs)


def slices(writer: Writer, base: str, q: QTensor) -> str:
    """Codes with one step per kernel slice."""
    integers, _, dtype = stored(writer, q)
    real = dequantized(writer, base, integers, 1.0, None, dtype)
    steps = np.asarray(q.format.step(q.encoding.params), np.float32)
    factor = writer.tensor(writer.fresh(f"{base}.steps"), spread(steps, q.shape, q.encoding.axes, None))
    return writer.add("Mul", (real, factor), writer.fresh(f"{base}.shaped"))


def halves(writer: Writer, base: str, q: QTensor, transposed: bool) -> str:
    """Mid-rise codes as (u + 1/2) steps: the sum is exact, so the product rounds as the format does."""
    fmt = q.format
    steps = spread(2 * np.asarray(fmt.step(q.encoding.params), np.float32), q.shape, q.encoding.axes, None)
    whole = q.codes.astype(np.int32) - 2 ** (fmt.bits - 1)
    if transposed:
        whole, steps = whole.T, steps.T
    parts = (
        dequantized(writer, base, whole, 1.0, None, "int8" if fmt.bits == 8 else "int4"),
        dequantized(writer, writer.fresh(f"{base}.half"), np.ones(()), 0.5, None, "int8"),
    )
    factor = writer.tensor(writer.fresh(f"{base}.steps"), steps)
    return writer.add("Mul", (writer.add("Add", parts, writer.fresh(f"{base}.codes")), factor), writer.fresh(f"{base}.shaped"))


def blocks(writer: Writer, base: str, q: QTensor, transposed: bool) -> str:
    """Groups of inputs as blocks of a matrix (outputs, inputs)."""
    integers, zero, dtype = stored(writer, q)
    rows, steps, axis = integers.reshape(q.shape[0], -1), np.asarray(q.format.step(q.encoding.params)), 1
    if transposed:
        rows, steps, axis, zero = rows.T, steps.T, 0, None if zero is None else zero.T
    real = dequantized(writer, base, rows, steps, zero, dtype, axis=axis, block_size=int(q.format.group))  # type: ignore[arg-type]
    if len(q.shape) == 2:
        return real
    return writer.add("Reshape", (real, writer.ints(q.shape)), writer.fresh(f"{base}.shaped"))
