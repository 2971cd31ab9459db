"""Operators on codes (QLinearConv and its kind), spelt as DequantizeLinear, the real operator and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bitladder.convert.onnx_draft import Call, Types

Coded = tuple[str, str, str]  # codes, scale, zero point
SAME = {f"com.microsoft.{op}": op for op in ("QuantizeLinear", "DequantizeLinear", "Gelu")}  # as in the standard


def spelt(calls: list[Call], types: Types) -> list[Call]:
    """The same calls with real operators only; `types` learns the new values."""
    out: list[Call] = []
    for call in calls:
        call = replace(call, op=SAME.get(call.op, call.op))
        known = REAL.get(call.op)
        out.extend([call] if known is None else spell(call, types, *known(call)))
    return out


def spell(
    call: Call, types: Types, op: str, inputs: list[tuple[Coded, int]], bias: str, result: Coded | None, attrs: dict[str, Any]
) -> Iterator[Call]:
    """One call as several: every input made real along its axis, the bias with the product of the two scales."""
    reals = []

    def value(base: str, like: str) -> str:
        name = f"{base}.real" if f"{base}.real" not in types else f"{call.outputs[0]}.{base}.real"
        types[name] = ("float32", types.get(like, (None, None))[1])
        return name

    def made(op: str, inputs: tuple[str, ...], output: str, **attrs: Any) -> Call:
        return Call(op, call.name, inputs, (output,), attrs, call.opset)

    for i, (coded, axis) in enumerate(inputs):
        reals.append(value(f"{call.outputs[0]}.{i}", coded[0]))
        yield made("DequantizeLinear", coded, reals[-1], axis=axis)
    if bias:
        step, real = value(f"{call.outputs[0]}.step", bias), value(f"{call.outputs[0]}.bias", bias)
        yield made("Mul", (inputs[0][0][1], inputs[1][0][1]), step)
        yield made("DequantizeLinear", (bias, step), real, axis=0)
        reals.append(real)
    if result is None:
        yield made(op, tuple(reals), call.outputs[0], **attrs)
        return
    output = value(call.outputs[0], call.outputs[0])
    yield made(op, tuple(reals), output, **attrs)
    yield made("QuantizeLinear", (output, *result[1:]), call.outputs[0], axis=-2)


def product(op: str, weight_axis: int) -> Callable[[Call], Any]:
    """QLinearConv and QLinearMatMul."""
    return lambda c: (
        op,
        [(c.inputs[0:3], -2), (c.inputs[3:6], weight_axis)],
        c.input(8),
        ("", c.inputs[6], c.inputs[7]),
        dict(c.attrs),
    )


def gemm(c: Call) -> Any:
    """QGemm of ONNX Runtime, whose result may be real."""
    axis = 0 if c.attrs.get("transB", 0) else 1
    result = ("", c.input(7), c.input(8)) if c.input(7) else None
    return "Gemm", [(c.inputs[0:3], -2), (c.inputs[3:6], axis)], c.input(6), result, dict(c.attrs)


def unary(op: str) -> Callable[[Call], Any]:
    """An operator of one value."""
    attrs = lambda c: {k: v for k, v in c.attrs.items() if k != "channels_last"}
    return lambda c: (op, [(c.inputs[0:3], 1)], "", ("", c.inputs[3], c.input(4)), attrs(c))


def binary(op: str) -> Callable[[Call], Any]:
    """An operator of two values."""
    return lambda c: (op, [(c.inputs[0:3], 1), (c.inputs[3:6], 1)], "", ("", c.inputs[6], c.input(7)), dict(c.attrs))


def concat(c: Call) -> Any:
    """QLinearConcat, which begins with the steps of its result."""
    parts = [(c.inputs[i : i + 3], 1) for i in range(2, len(c.inputs), 3)]
    return "Concat", parts, "", ("", *c.inputs[:2]), dict(c.attrs)


REAL: dict[str, Callable[[Call], Any]] = {
    "QLinearConv": product("Conv", 0),
    "QLinearMatMul": product("MatMul", -1),
    "com.microsoft.QGemm": gemm,
    "com.microsoft.QLinearAdd": binary("Add"),
    "com.microsoft.QLinearMul": binary("Mul"),
    "com.microsoft.QLinearConcat": concat,
    "com.microsoft.QLinearSigmoid": unary("Sigmoid"),
    "com.microsoft.QLinearLeakyRelu": unary("LeakyRelu"),
    "com.microsoft.QLinearAveragePool": unary("AveragePool"),
    "com.microsoft.QLinearGlobalAveragePool": unary("GlobalAveragePool"),
}
