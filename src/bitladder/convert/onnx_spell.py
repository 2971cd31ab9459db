"""What each word of a graph becomes in ONNX: the operator of that name, or a few that mean the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitladder.convert.onnx_encode import landed, own, pair_of, quantized, weight
from bitladder.convert.onnx_whole import operands, scaled, whole
from bitladder.convert.onnx_words import RENAMED, SAME_NAME
from bitladder.convert.onnx_write import Writer, fitting
from bitladder.formats import QTensor
from bitladder.ir.graph import Node
from bitladder.runtime.integer import RULES, aligned, bias_codes, lookup

Spell = Callable[[Writer, Node, list[str]], None]  # writes a node whose outputs are to have these names

OP_OF = {
    **{word: op for op, word in RENAMED.items()},
    **{op.lower(): op for op in SAME_NAME},
    "arg_max": "ArgMax", "arg_min": "ArgMin", "matmul": "MatMul", "add": "Add", "gather": "Gather", "embedding": "Gather",
    "dynamic_quantize_linear": "DynamicQuantizeLinear", "transpose": "Transpose", "quantize_linear": "QuantizeLinear",
    "dequantize_linear": "DequantizeLinear", "conv": "Conv", "conv_transpose": "ConvTranspose",
    "max_pool": "MaxPool", "max_pool_indices": "MaxPool",
    "avg_pool": "AveragePool", "lp_pool": "LpPool", "max_unpool": "MaxUnpool", "col2im": "Col2Im",
    "batch_norm": "BatchNormalization", "group_norm": "GroupNormalization", "reduce_sum": "ReduceSum",
    "reduce_mean": "ReduceMean", "reduce_prod": "ReduceProd",
    "reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_l2": "ReduceL2", "reduce_log_sum_exp": "ReduceLogSumExp",
    "identity": "Identity", "split": "Split",
}  # fmt: skip


def operand(writer: Writer, name: str) -> str:
    """What a node reads to get a value or a constant."""
    if name not in writer.graph.constants:
        return writer.read.get(name, name)
    if isinstance(writer.graph.constants[name], QTensor):
        return weight(writer, name)
    if name not in writer.initializers:
        writer.tensor(name, writer.array(name))
    return name


def attributes(node: Node) -> dict[str, Any]:
    """A node's attributes as ONNX spells them: groups is group, pads are all begins and then all ends."""
    out = dict(node.attrs)
    if "groups" in out:
        out["group"] = out.pop("groups")
    if out.get("pads"):
        out["pads"] = [n for ends in zip(*out["pads"], strict=True) for n in ends]
    return out


def spelled(writer: Writer, node: Node) -> None:
    """Writes one node and everything up to what the readers of its outputs read."""
    writer.node = node.name
    spell = SPELL.get(node.op, plain)
    if len(node.outputs) == 1:
        exact = whole(writer, node) is not None and node.name in writer.graph.encodings
        landed(writer, node.name, lambda _, out: spell(writer, node, [out]), node.clip, summed(writer, node), exact)
        return
    clips = (node.clip, *[None] * (len(node.outputs) - 1))
    more = [name in writer.graph.encodings or clip is not None for name, clip in zip(node.outputs, clips, strict=True)]
    raw = [writer.fresh(f"{name}.raw") if m else name for name, m in zip(node.outputs, more, strict=True)]
    spell(writer, node, raw)
    for name, source, clip, m in zip(node.outputs, raw, clips, more, strict=True):
        if m:
            landed(writer, name, lambda _, out, source=source: writer.add("Identity", (source,), out), clip)  # type: ignore[misc]


def summed(writer: Writer, node: Node) -> bool:
    """Whether the sums of a node are integers."""
    return RULES.get(node.op, lookup) is not lookup and node.inputs[0] in writer.graph.encodings


def plain(writer: Writer, node: Node, outs: list[str]) -> None:
    """The operator of the same meaning, or a few of an older opset."""
    op, attrs = OP_OF.get(node.op), attributes(node)
    if op is None:
        writer.refuse(f"operator {node.op!r}")
        return
    inputs = [operand(writer, name) for name in node.inputs]
    older = OLDER.get(node.op)
    if older is not None and fitting(op, len(inputs), attrs, writer.options.opset) is None:
        older(writer, node, inputs, outs[0])
    else:
        writer.add(op, inputs, outs, **attrs)


# --------------------------------------------------------------------------------------------------- linear in a weight


def bias(writer: Writer, node: Node) -> str:
    """The bias of a weighted node: int32 codes in the unit of its integer sums where it has one, else reals."""
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    if not name:
        return ""
    w, encoding = writer.graph.constants.get(node.inputs[1]), writer.graph.encodings.get(node.inputs[0])
    together = None
    if isinstance(w, QTensor) and encoding is not None and name in writer.graph.constants:
        together = aligned(encoding, w, node.op, int(node.attrs.get("groups", 1)))
    if together is None:
        return operand(writer, name)
    unit = together[1]
    codes = bias_codes(writer.array(name), unit).astype(np.int32)
    key = ("bias", name, unit.tobytes())
    if key not in writer.memo:
        base = own(writer, name)
        inputs = (writer.tensor(base, codes), writer.tensor(writer.fresh(f"{base}.scale"), unit))
        writer.memo[key] = writer.add("DequantizeLinear", inputs, writer.fresh(f"{base}.real"), axis=0)
    return writer.memo[key]


def conv(writer: Writer, node: Node, outs: list[str]) -> None:
    """Conv and ConvTranspose, the bias as integers."""
    told = whole(writer, node)
    if told is None:
        inputs = [*(operand(writer, name) for name in node.inputs[:2]), bias(writer, node)]
        writer.add(OP_OF[node.op], inputs, outs, **attributes(node))
        return
    sums = writer.fresh(f"{outs[0]}.products")
    writer.add(OP_OF[node.op], operands(writer, node, told, transposed=False), sums, **attributes(node))
    scaled(writer, told, sums, outs[0], spatial=told.weights.ndim - 2)


def linear(writer: Writer, node: Node, outs: list[str]) -> None:
    """Gemm with the weight as it is for a matrix; a product with its transpose, and an addition, for any other rank."""
    x, w = node.inputs[:2]
    matrix, told = writer.rank(x) == 2, whole(writer, node)
    if told is None:
        inputs = [operand(writer, x), operand(writer, w) if matrix else turned(writer, w), bias(writer, node)]
        product(writer, inputs, outs[0], matrix)
    else:
        inputs = operands(writer, node, told, transposed=not matrix)
        sums = product(writer, inputs, writer.fresh(f"{outs[0]}.products"), matrix)
        scaled(writer, told, sums, outs[0], spatial=0)


def product(writer: Writer, inputs: list[str], out: str, matrix: bool) -> str:
    """The product of an activation with a weight, plus the bias if there is one."""
    if matrix:
        return writer.add("Gemm", inputs, out, transB=1)
    x, w, b = [*inputs, ""][:3]
    if not b:
        return writer.add("MatMul", (x, w), out)
    return writer.add("Add", (writer.add("MatMul", (x, w), writer.fresh(f"{out}.product")), b), out)


def turned(writer: Writer, name: str) -> str:
    """The transpose of a weight."""
    c = writer.graph.constants.get(name)
    if c is None:
        return writer.add("Transpose", (operand(writer, name),), writer.fresh(f"{name}.T"), perm=(1, 0))
    if isinstance(c, QTensor):
        return weight(writer, name, transposed=True)
    if ("turned", name) not in writer.memo:
        writer.memo["turned", name] = writer.tensor(own(writer, name), writer.array(name).T)
    return writer.memo["turned", name]


# ---------------------------------------------------------------------------------------------------------------- others


def recurrent(writer: Writer, node: Node, outs: list[str]) -> None:
    """LSTM, GRU and RNN, the hidden size always said, lengths as int32."""
    inputs = [operand(writer, name) for name in node.inputs]
    if len(inputs) > 4 and inputs[4]:
        inputs[4] = writer.add("Cast", (inputs[4],), writer.fresh(f"{node.name}.lengths"), to="int32")
    attrs, r = dict(node.attrs), writer.graph.constants.get(node.inputs[2])
    if attrs.get("hidden_size") is None and isinstance(r, np.ndarray | QTensor):
        attrs["hidden_size"] = r.shape[-1]
    writer.add(OP_OF[node.op], inputs, outs, **attrs)


def mod(writer: Writer, node: Node, outs: list[str]) -> None:
    """Mod; of reals, the one with the sign of the divisor is spelt out: x - floor(x / y) y."""
    x, y = (operand(writer, name) for name in node.inputs)
    if node.attrs.get("fmod", 0) or not writer.dtype(node.inputs[0]).startswith("float"):
        writer.add("Mod", (x, y), outs, **node.attrs)
        return
    ratio = writer.add("Div", (x, y), writer.fresh(f"{outs[0]}.ratio"))
    whole = writer.add("Floor", (ratio,), writer.fresh(f"{outs[0]}.floor"))
    writer.add("Sub", (x, writer.add("Mul", (whole, y), writer.fresh(f"{outs[0]}.whole"))), outs)


def constant_of_shape(writer: Writer, node: Node, outs: list[str]) -> None:
    """ConstantOfShape, whose value carries the type."""
    value = np.array([node.attrs.get("value", 0.0)], node.attrs.get("dtype", "float32"))
    writer.add("ConstantOfShape", [operand(writer, node.inputs[0])], outs, value=value)


def quantize_linear(writer: Writer, node: Node, outs: list[str]) -> None:
    """QuantizeLinear; the type is the zero point's where there is one."""
    attrs = {k: v for k, v in node.attrs.items() if k != "output_dtype" or len(node.inputs) < 3 or not node.inputs[2]}
    writer.add("QuantizeLinear", [operand(writer, name) for name in node.inputs], outs, **attrs)


def global_avg_pool(writer: Writer, node: Node, outs: list[str]) -> None:
    """GlobalAveragePool; a ReduceMean where codes have a scale per channel, which ONNX Runtime would take for one."""
    names = (node.inputs[0], node.outputs[0])
    x, rank = operand(writer, names[0]), writer.rank(names[0])
    if rank > 2 and any(name in writer.graph.encodings and writer.graph.encodings[name].axes for name in names):
        axes = list(range(2, rank))
        inputs = (x, writer.ints(axes)) if writer.options.opset >= 18 else (x,)
        writer.add("ReduceMean", inputs, outs, axes=axes if len(inputs) == 1 else None)
    else:
        writer.add("GlobalAveragePool", (x,), outs)


def reduction(writer: Writer, node: Node, outs: list[str]) -> None:
    """A reduction; its axes are an attribute where the opset has them there."""
    if node.op == "reduce_mean" and (space := spatial(writer, node)) is not None:
        global_mean(writer, node, outs, space)
        return
    inputs, attrs, op = [operand(writer, node.inputs[0])], attributes(node), OP_OF[node.op]
    axes = writer.graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if isinstance(axes, np.ndarray) and fitting(op, 2, attrs, writer.options.opset) is None:
        attrs = {k: v for k, v in attrs.items() if k != "noop_with_empty_axes"} | {"axes": axes.reshape(-1).tolist() or None}
    else:
        inputs += [operand(writer, name) for name in node.inputs[1:]]
    writer.add(op, inputs, outs, **attrs)


def spatial(writer: Writer, node: Node) -> tuple[int, ...] | None:
    """The axes of a mean over all spatial axes between integers, else None: runtimes know it as a global pool only."""
    axes = writer.graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = writer.rank(node.inputs[0])
    if not (isinstance(axes, np.ndarray) and rank > 2 and {node.inputs[0], node.outputs[0]} <= set(writer.graph.encodings)):
        return None
    over = tuple(sorted(int(a) % rank for a in axes.reshape(-1)))
    return over if over == tuple(range(2, rank)) else None


def global_mean(writer: Writer, node: Node, outs: list[str], axes: Sequence[int]) -> None:
    """GlobalAveragePool, and a Squeeze behind codes of its own where the axes go."""
    x, name = operand(writer, node.inputs[0]), node.outputs[0]
    if node.attrs.get("keepdims", 1):
        writer.add("GlobalAveragePool", (x,), outs)
        return
    mean = writer.add("GlobalAveragePool", (x,), writer.fresh(f"{name}.mean"))
    pair = pair_of(writer, name, writer.graph.encodings[name])
    if pair is not None:
        real = writer.fresh(f"{name}.mean.real")
        quantized(writer, pair, mean, f"{name}.mean", real)
        mean = real
    writer.add("Squeeze", (mean, writer.ints(axes)), outs)


# ------------------------------------------------------------------------------------------------- words of later opsets


def scalar(writer: Writer, node: Node, value: float) -> str:
    """A number of the type that a node computes in."""
    return writer.constant(value, writer.dtype(node.inputs[0]))


def swish(writer: Writer, node: Node, inputs: list[str], out: str) -> None:
    """x sigmoid(alpha x)."""
    alpha = float(node.attrs.get("alpha", 1.0))
    x = inputs[0]
    bent = x if alpha == 1 else writer.add("Mul", (x, scalar(writer, node, alpha)), writer.fresh(f"{out}.bent"))
    gate = writer.add("Sigmoid", (bent,), writer.fresh(f"{out}.gate"))
    writer.add("Mul", (x, gate), out)


def gelu(writer: Writer, node: Node, inputs: list[str], out: str) -> None:
    """x / 2 (1 + erf(x / sqrt(2))), or with tanh."""
    (x,) = inputs

    def step(op: str, *args: str) -> str:
        return writer.add(op, args, writer.fresh(f"{out}.{op.lower()}"))

    def number(value: float) -> str:
        return scalar(writer, node, value)

    if node.attrs.get("approximate", "none") == "tanh":
        cubed = step("Mul", step("Mul", step("Mul", x, x), x), number(0.044715))
        inner = step("Tanh", step("Mul", step("Add", x, cubed), number(math.sqrt(2 / math.pi))))
    else:
        inner = step("Erf", step("Mul", x, number(math.sqrt(0.5))))
    writer.add("Mul", (step("Mul", x, number(0.5)), step("Add", inner, number(1.0))), out)


def rms_norm(writer: Writer, node: Node, inputs: list[str], out: str) -> None:
    """x / sqrt(mean(x x) + epsilon) times the scale."""
    x, scale = inputs
    rank = writer.rank(node.inputs[0])
    first = int(node.attrs.get("axis", -1))
    axes = list(range(first, 0)) if first < 0 else list(range(first, rank))
    square = writer.add("Mul", (x, x), writer.fresh(f"{out}.square"))
    over = (square, writer.ints(axes)) if writer.options.opset >= 18 else (square,)
    mean = writer.add("ReduceMean", over, writer.fresh(f"{out}.mean"), axes=None if len(over) > 1 else axes, keepdims=1)
    epsilon = scalar(writer, node, float(node.attrs.get("epsilon", 1e-5)))
    root = writer.add("Sqrt", (writer.add("Add", (mean, epsilon), writer.fresh(f"{out}.sum")),), writer.fresh(f"{out}.root"))
    writer.add("Mul", (writer.add("Div", (x, root), writer.fresh(f"{out}.normal")), scale), out)


OLDER: dict[str, Callable[[Writer, Node, list[str], str], None]] = {"swish": swish, "gelu": gelu, "rms_norm": rms_norm}

SPELL: dict[str, Spell] = {
    "conv": conv,
    "conv_transpose": conv,
    "linear": linear,
    **dict.fromkeys(("lstm", "gru", "rnn"), recurrent),
    **{word: reduction for word in OP_OF if word.startswith("reduce_")},
    "constant_of_shape": constant_of_shape,
    "mod": mod,
    "global_avg_pool": global_avg_pool,
    "quantize_linear": quantize_linear,
}
