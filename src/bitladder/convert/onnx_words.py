"""What each ONNX operator becomes: a word of the same meaning, or a few simpler ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.convert import onnx_linear, onnx_quant
from bitladder.convert.onnx_draft import Call, Draft, type_name
from bitladder.errors import Unsupported
from bitladder.ir.windows import same_pads, spans

Write = Callable[[Draft, Call], None]

SAME_NAME = """
Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Compress Concat Cos Cosh Det Div Einsum
Elu Equal Erf Exp Expand Flatten Floor Gelu Greater Hardmax Log Max Min Mish Mod Mul Neg Pow Range Reciprocal Relu Reshape
Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign Sqrt Squeeze Sub Tan Tanh Tile Trilu
Unique Unsqueeze Where Xor Attention Pad Resize LSTM GRU RNN LRN
""".split()  # noqa: SIM905 - a paragraph of words reads better than sixty quoted ones
RENAMED = {
    "ArgMax": "arg_max", "ArgMin": "arg_min", "DynamicQuantizeLinear": "dynamic_quantize_linear",
    "And": "and_", "Or": "or_", "Not": "not_", "BitShift": "bit_shift", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor", "BitwiseNot": "bitwise_not", "CumSum": "cum_sum", "CumProd": "cum_prod",
    "GreaterOrEqual": "greater_or_equal", "LessOrEqual": "less_or_equal", "Less": "less", "IsNaN": "is_nan", "IsInf": "is_inf",
    "LeakyRelu": "leaky_relu", "PRelu": "prelu", "ThresholdedRelu": "thresholded_relu", "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish", "Swish": "swish", "Cast": "cast", "BitCast": "bit_cast", "EyeLike": "eye_like",
    "GatherElements": "gather_elements", "GatherND": "gather_nd", "Scatter": "scatter_elements",
    "ScatterElements": "scatter_elements", "ScatterND": "scatter_nd",
    "TensorScatter": "tensor_scatter", "NonZero": "non_zero", "OneHot": "one_hot", "TopK": "top_k",
    "DepthToSpace": "depth_to_space", "SpaceToDepth": "space_to_depth", "ReverseSequence": "reverse_sequence",
    "CenterCropPad": "center_crop_pad", "LpNormalization": "lp_normalization", "LayerNormalization": "layer_norm",
    "RMSNormalization": "rms_norm", "InstanceNormalization": "instance_norm", "GlobalAveragePool": "global_avg_pool",
    "GlobalMaxPool": "global_max_pool", "RotaryEmbedding": "rotary_embedding", "LinearAttention": "linear_attention",
    "CausalConvWithState": "causal_conv_with_state", "GridSample": "grid_sample", "AffineGrid": "affine_grid",
}  # fmt: skip
TYPE_ATTRS = ("to", "dtype", "output_dtype", "softmax_precision")  # attributes that name a type
IGNORED = ("saturate", "round_mode", "storage_order")  # nothing that our types can tell apart


def plain(word: str) -> Write:
    """An operator that is a word with the same inputs and attributes."""

    def write(draft: Draft, call: Call) -> None:
        attrs = {k: type_name(v) if k in TYPE_ATTRS else v for k, v in call.attrs.items() if k not in IGNORED}
        draft.add(word, call.inputs, call.outputs, **attrs)

    return write


def pairs(flat: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """All begins and all ends as (begin, end) per axis.

    >>> pairs((1, 2, 3, 4))
    ((1, 3), (2, 4))
    """
    half = len(flat) // 2
    return tuple(zip(flat[:half], flat[half:], strict=True))


def space_of(draft: Draft, call: Call) -> tuple[int, ...] | None:
    """The spatial size of the first input, if it is known."""
    shape = draft.shape(call.inputs[0])
    known = shape is not None and len(shape) > 2 and all(isinstance(n, int) for n in shape[2:])
    return tuple(int(n) for n in shape[2:]) if known and shape is not None else None


def frame(draft: Draft, call: Call, kernel: tuple[int, ...]) -> dict[str, Any]:
    """The attributes of a sliding window, pads in pairs, and resolved if that is possible."""
    attrs = {k: v for k, v in call.attrs.items() if k != "storage_order"}
    strides = attrs.get("strides") or (1,) * len(kernel)
    auto, reach = attrs.pop("auto_pad", "NOTSET"), spans(kernel, attrs.get("dilations"))
    flat = attrs.pop("pads", None)
    if auto in ("NOTSET", "VALID"):
        if flat and any(flat) and auto == "NOTSET":
            attrs["pads"] = pairs(flat)
        return attrs
    space = space_of(draft, call) or (None if any(s != 1 for s in strides) else tuple(10**6 for _ in kernel))
    if space is None:
        attrs["auto_pad"] = auto
    else:
        attrs["pads"] = same_pads(space, reach, strides, upper=auto == "SAME_UPPER")
        attrs.pop("ceil_mode", None)
    return attrs


def kernel_of(draft: Draft, call: Call) -> tuple[int, ...]:
    """The kernel of a convolution, which the weight or an attribute tells."""
    shape = draft.shape(call.inputs[1])
    if shape is not None and all(isinstance(n, int) for n in shape[2:]):
        return tuple(int(n) for n in shape[2:])
    if "kernel_shape" not in call.attrs:
        raise Unsupported("kernel of unknown size")
    return call.attrs["kernel_shape"]


def conv(draft: Draft, call: Call) -> None:
    """Conv, with pads in pairs."""
    attrs = frame(draft, call, kernel_of(draft, call))
    attrs.pop("kernel_shape", None)
    attrs["groups"] = attrs.pop("group", 1)
    draft.add("conv", call.inputs, call.outputs, **attrs)


def conv_transpose(draft: Draft, call: Call) -> None:
    """ConvTranspose, with whatever the output's shape or auto_pad ask for turned into pads."""
    kernel = kernel_of(draft, call)
    n = len(kernel)
    attrs = {k: v for k, v in call.attrs.items() if k not in ("auto_pad", "output_shape", "kernel_shape", "pads", "group")}
    strides, extra = attrs.get("strides") or (1,) * n, attrs.get("output_padding") or (0,) * n
    auto, wanted = call.attrs.get("auto_pad", "NOTSET"), call.attrs.get("output_shape")
    reach = spans(kernel, attrs.get("dilations"))
    if wanted or auto.startswith("SAME"):
        space = space_of(draft, call)
        if wanted and space is None:
            raise Unsupported("output_shape with an input of unknown size")
        size = space or (1,) * n
        wanted = wanted[-n:] if wanted else tuple(i * s for i, s in zip(size, strides, strict=True))
        totals = [s * (i - 1) + e + k - o for s, i, e, k, o in zip(strides, size, extra, reach, wanted, strict=True)]
        attrs["output_padding"] = tuple(e + max(-t, 0) for e, t in zip(extra, totals, strict=True))
        halves = [(max(t, 0) // 2, max(t, 0) - max(t, 0) // 2) for t in totals]
        attrs["pads"] = tuple(h if auto == "SAME_UPPER" else h[::-1] for h in halves)
    elif auto == "NOTSET" and call.attrs.get("pads"):
        attrs["pads"] = pairs(call.attrs["pads"])
    draft.add("conv_transpose", call.inputs, call.outputs, groups=call.attrs.get("group", 1), **attrs)


def pool(word: str) -> Write:
    """A pool, with pads in pairs."""

    def write(draft: Draft, call: Call) -> None:
        attrs = frame(draft, call, call.attrs["kernel_shape"])
        if word == "max_pool" and len(call.outputs) > 1 and call.outputs[1]:
            draft.add("max_pool_indices", call.inputs, call.outputs, storage_order=call.attrs.get("storage_order", 0), **attrs)
        else:
            draft.add(word, call.inputs, call.outputs[:1], **attrs)

    return write


def col2im(draft: Draft, call: Call) -> None:
    """Col2Im, with pads in pairs."""
    attrs = {k: pairs(v) if k == "pads" else v for k, v in call.attrs.items()}
    draft.add("col2im", call.inputs, call.outputs, **attrs)


def batch_norm(draft: Draft, call: Call) -> None:
    """BatchNormalization as it is after training."""
    if call.attrs.get("training_mode", 0) or len([name for name in call.outputs if name]) > 1:
        raise Unsupported("training_mode")
    draft.add("batch_norm", call.inputs, call.outputs[:1], epsilon=call.attrs.get("epsilon", 1e-5))


def group_norm(draft: Draft, call: Call) -> None:
    """GroupNormalization with a scale per channel, as it is since opset 21 (it was one per group before)."""
    inputs, shape = call.inputs, draft.shape(call.inputs[0])
    if call.opset < 21:
        if shape is None or not isinstance(shape[1], int):
            raise Unsupported("an unknown number of channels")
        groups = call.attrs["num_groups"]
        column, wide = draft.constant([groups, 1]), draft.constant([groups, shape[1] // groups])
        flat = draft.constant([shape[1]])
        each = [draft.add("expand", (draft.add("reshape", (p, column)), wide)) for p in inputs[1:]]
        inputs = (inputs[0], *(draft.add("reshape", (p, flat)) for p in each))
    draft.add("group_norm", inputs, call.outputs, **call.attrs)


def reduction(word: str, *, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Write:
    """A reduction with axes as an input, after and before functions of one value ("square" is one)."""

    def write(draft: Draft, call: Call) -> None:
        x, axes = call.inputs[0], call.input(1)
        if "axes" in call.attrs:
            axes = draft.constant(np.array(call.attrs["axes"], np.int64), "axes")
        for f in before:
            x = draft.add("mul", (x, x)) if f == "square" else draft.add(f, (x,))
        attrs = {k: v for k, v in call.attrs.items() if k != "axes"}
        y = draft.add(word, (x, axes), () if after else call.outputs, **attrs)
        for f in after:
            y = draft.add(f, (y,), call.outputs)

    return write


def chain(word: str, *, mean: bool = False) -> Write:
    """An operator of any number of inputs as one of two, applied again and again."""

    def write(draft: Draft, call: Call) -> None:
        total, *rest = call.inputs
        last = () if mean else call.outputs
        for i, name in enumerate(rest):
            total = draft.add(word, (total, name), last if i == len(rest) - 1 else ())
        if mean:
            count = draft.constant(np.asarray(len(call.inputs), type_name(draft.dtype(call.inputs[0]))), "count")
            draft.add("div", (total, count), call.outputs)
        elif not rest:
            draft.add("identity", (total,), call.outputs)

    return write


def log_softmax(draft: Draft, call: Call) -> None:
    """x - log(sum(exp(x)))."""
    axes = draft.constant(np.array([call.attrs.get("axis", -1)]), "axes")
    draft.add("sub", (call.inputs[0], draft.add("reduce_log_sum_exp", (call.inputs[0], axes), keepdims=1)), call.outputs)


def mean_variance(draft: Draft, call: Call) -> None:
    """(x - mean) / (deviation + 1e-9)."""
    (x,) = call.inputs
    axes = draft.constant(np.array(call.attrs.get("axes", (0, 2, 3))), "axes")
    tiny = draft.constant(np.asarray(1e-9, type_name(draft.dtype(x))), "epsilon")
    centred = draft.add("sub", (x, draft.add("reduce_mean", (x, axes), keepdims=1)))
    variance = draft.add("reduce_mean", (draft.add("mul", (centred, centred)), axes), keepdims=1)
    draft.add("div", (centred, draft.add("add", (draft.add("sqrt", (variance,)), tiny))), call.outputs)


def swiglu(draft: Draft, call: Call) -> None:
    """swish(a) b."""
    draft.add("mul", (draft.add("swish", call.inputs[:1], **call.attrs), call.inputs[1]), call.outputs)


def identity(draft: Draft, call: Call) -> None:
    """The input under another name."""
    if call.outputs[0] in draft.kept:
        draft.add("identity", call.inputs[:1], call.outputs[:1])
    else:
        draft.same(call.outputs[0], call.inputs[0])


def dropout(draft: Draft, call: Call) -> None:
    """The input: nothing is dropped after training; the mask is all true."""
    training = draft.array(call.input(2)) if call.input(2) else np.False_
    if training is None or bool(training):
        raise Unsupported("training_mode")
    identity(draft, call)
    if len(call.outputs) > 1 and call.outputs[1]:
        shape = draft.add("shape", call.inputs[:1])
        draft.add("constant_of_shape", (shape,), call.outputs[1:], value=True, dtype="bool")


def constant(draft: Draft, call: Call) -> None:
    """A constant, in whichever way it is spelt."""
    (kind, value), *_ = call.attrs.items()
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(kind)
    if dtype is None and kind != "value":
        raise Unsupported(f"attribute {kind}")
    draft.constants[call.outputs[0]] = np.asarray(value, dtype)


def constant_of_shape(draft: Draft, call: Call) -> None:
    """A constant if the shape is one, however big: it takes no space."""
    value = np.asarray(call.attrs.get("value", np.zeros(1, np.float32))).reshape(())
    shape = draft.array(call.inputs[0])
    if shape is not None:
        draft.constants[call.outputs[0]] = np.broadcast_to(value, [int(n) for n in shape])
    else:
        draft.add("constant_of_shape", call.inputs, call.outputs, value=value.item(), dtype=value.dtype.name)


def cast_like(draft: Draft, call: Call) -> None:
    """Cast to the type that the second input has."""
    draft.add("cast", call.inputs[:1], call.outputs, to=type_name(draft.dtype(call.inputs[1])))


def split(draft: Draft, call: Call) -> None:
    """Split; equal parts are counted."""
    attrs = dict(call.attrs)
    if not call.input(1):
        attrs.setdefault("num_outputs", len(call.outputs))
    draft.add("split", call.inputs, call.outputs, **attrs)


def centred(draft: Draft, x: str, zero: str, dtype: str) -> str:
    """Integers minus their zero point, as floats wide enough for exact sums."""
    wide = draft.add("cast", (x,), to=dtype)
    return draft.add("sub", (wide, draft.add("cast", (zero,), to=dtype))) if zero else wide


def integer_product(write: Write, op: str) -> Write:
    """ConvInteger and MatMulInteger: the product in float64, which is exact, cast to int32."""

    def wrapped(draft: Draft, call: Call) -> None:
        zero = call.input(3)
        if zero and op == "conv" and draft.shape(zero) != ():
            zero = draft.add("reshape", (zero, draft.constant([-1, *[1] * (draft.rank(call.inputs[1]) - 1)])))
        x, w = (centred(draft, name, z, "float64") for name, z in zip(call.inputs, (call.input(2), zero), strict=False))
        product = draft.fresh(op)
        draft.types.update({x: ("float64", draft.shape(call.inputs[0])), w: ("float64", draft.shape(call.inputs[1]))})
        write(draft, Call(call.op, call.name, (x, w), (product,), call.attrs, call.opset))
        draft.add("cast", (product,), call.outputs, to="int32")

    return wrapped


WORDS: dict[str, Write] = {
    **{op: plain(op.lower()) for op in SAME_NAME},
    **{op: plain(word) for op, word in RENAMED.items()},
    "MatMul": onnx_linear.matmul, "Gemm": onnx_linear.gemm, "Add": onnx_linear.add, "Gather": onnx_linear.gather,
    "Transpose": onnx_linear.transpose, "QuantizeLinear": onnx_quant.quantize, "DequantizeLinear": onnx_quant.dequantize,
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": pool("max_pool"), "AveragePool": pool("avg_pool"),
    "LpPool": pool("lp_pool"), "MaxUnpool": pool("max_unpool"), "Col2Im": col2im,
    "BatchNormalization": batch_norm, "GroupNormalization": group_norm, "MeanVarianceNormalization": mean_variance,
    "ReduceSum": reduction("reduce_sum"), "ReduceMean": reduction("reduce_mean"), "ReduceProd": reduction("reduce_prod"),
    "ReduceMax": reduction("reduce_max"), "ReduceMin": reduction("reduce_min"),
    "ReduceL1": reduction("reduce_sum", before=("abs",)), "ReduceL2": reduction("reduce_l2"),
    "ReduceSumSquare": reduction("reduce_sum", before=("square",)), "ReduceLogSum": reduction("reduce_sum", after=("log",)),
    "ReduceLogSumExp": reduction("reduce_log_sum_exp"), "LogSoftmax": log_softmax,
    "Sum": chain("add"), "Mean": chain("add", mean=True), "SwiGLU": swiglu, "Identity": identity, "Dropout": dropout,
    "Constant": constant, "ConstantOfShape": constant_of_shape, "CastLike": cast_like, "Split": split,
    "ConvInteger": integer_product(conv, "conv"), "MatMulInteger": integer_product(onnx_linear.matmul, "matmul"),
}  # fmt: skip
