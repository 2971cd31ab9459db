"""Operators on codes (QLinearConv and its kind), spelt as DequantizeLinear, the real operator and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bitladder.convert.onnx_draft import Call, Types

Steps = tuple[str, ...]  # scale and zero point, if there is one

SAME = {f"com.microsoft.{op}": op for op in ("QuantizeLinear", "DequantizeLinear", "Gelu")}  # as in the standard
MOVES = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity"})  # any codes


@dataclass(frozen=True)
class Spelling:
    """How to write a call with reals: the operator, its inputs (codes, steps, axis), and the steps of its result."""

    op: str
    inputs: tuple[tuple[str, Steps, int], ...]
    result: Steps
    attrs: dict[str, Any] = field(default_factory=dict)
    bias: str = ""  # codes whose scale is the product of the two inputs' scales
    rest: tuple[str, ...] = ()  # inputs that are no codes


def spelt(calls: list[Call], types: Types) -> list[Call]:
    """The same calls with real operators only; `types` learns the new values."""
    out: list[Call] = []
    steps: dict[str, Steps] = {}  # of values that are codes
    for call in calls:
        call = replace(call, op=SAME.get(call.op, call.op))
        if call.op == "QuantizeLinear" and types.get(call.inputs[1], (None, None))[1] in ((), (1,)):
            steps[call.outputs[0]] = call.inputs[1:3]
        spelling = REAL[call.op](call) if call.op in REAL else moved(call, steps)
        out.extend([call] if spelling is None else spell(call, spelling, types))
        if spelling is not None and spelling.result:
            steps[call.outputs[0]] = spelling.result
    return out


def moved(call: Call, steps: dict[str, Steps]) -> Spelling | None:
    """An operator that only moves codes about moves the reals behind them just as well."""
    if call.op not in MOVES or call.inputs[0] not in steps or len(call.outputs) > 1:
        return None
    same = steps[call.inputs[0]]
    return Spelling(call.op, ((call.inputs[0], same, 1),), same, dict(call.attrs), rest=call.inputs[1:])


def spell(call: Call, spelling: Spelling, types: Types) -> Iterator[Call]:
    """One call as several: every input made real, the operator, and the result made codes."""
    output = call.outputs[0]

    def value(part: str, like: str) -> str:
        name = f"{output}.{part}"
        while name in types:
            name += "_"
        types[name] = ("float32", types.get(like, (None, None))[1])
        return name

    def made(op: str, inputs: tuple[str, ...], output: str, **attrs: Any) -> Call:
        return Call(op, call.name, inputs, (output,), attrs, call.opset)

    reals = [value(f"input{i}", codes) for i, (codes, _, _) in enumerate(spelling.inputs)]
    for real, (codes, steps, axis) in zip(reals, spelling.inputs, strict=True):
        yield made("DequantizeLinear", (codes, *steps), real, axis=axis)
    if spelling.bias:
        step, bias = value("step", ""), value("bias", spelling.bias)
        yield made("Mul", (spelling.inputs[0][1][0], spelling.inputs[1][1][0]), step)
        yield made("DequantizeLinear", (spelling.bias, step), bias, axis=0)
        reals.append(bias)
    real = value("real", output) if spelling.result else output
    yield made(spelling.op, (*reals, *spelling.rest), real, **spelling.attrs)
    if spelling.result:
        yield made("QuantizeLinear", (real, *spelling.result), output, axis=-2)


def product(op: str, weight_axis: int) -> Callable[[Call], Spelling]:
    """QLinearConv and QLinearMatMul."""

    def spelling(c: Call) -> Spelling:
        inputs = ((c.inputs[0], c.inputs[1:3], -2), (c.inputs[3], c.inputs[4:6], weight_axis))
        return Spelling(op, inputs, c.inputs[6:8], dict(c.attrs), bias=c.input(8))

    return spelling


def gemm(c: Call) -> Spelling:
    """QGemm of ONNX Runtime, whose result may be real."""
    inputs = ((c.inputs[0], c.inputs[1:3], -2), (c.inputs[3], c.inputs[4:6], 0 if c.attrs.get("transB", 0) else 1))
    return Spelling("Gemm", inputs, c.inputs[7:9] if c.input(7) else (), dict(c.attrs), bias=c.input(6))


def unary(op: str) -> Callable[[Call], Spelling]:
    """An operator of one value."""

    def spelling(c: Call) -> Spelling:
        attrs = {k: v for k, v in c.attrs.items() if k != "channels_last"}
        return Spelling(op, ((c.inputs[0], c.inputs[1:3], 1),), c.inputs[3:5], attrs)

    return spelling


def binary(op: str) -> Callable[[Call], Spelling]:
    """An operator of two values."""
    return lambda c: Spelling(op, ((c.inputs[0], c.inputs[1:3], 1), (c.inputs[3], c.inputs[4:6], 1)), c.inputs[6:8])


def concat(c: Call) -> Spelling:
    """QLinearConcat, which begins with the steps of its result."""
    parts = tuple((c.inputs[i], c.inputs[i + 1 : i + 3], 1) for i in range(2, len(c.inputs), 3))
    return Spelling("Concat", parts, c.inputs[:2], dict(c.attrs))


REAL: dict[str, Callable[[Call], Spelling]] = {
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
