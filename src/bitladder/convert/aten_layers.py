"""Importing layers: convolutions, linear maps, attention, norms, pools, resizing and recurrent networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.convert.aten_math import Handler, finite
from bitladder.convert.aten_shapes import sliced, transpose
from bitladder.convert.build import Builder, Ref
from bitladder.errors import Unsupported

Pads = tuple[tuple[int, int], ...]


def each(value: Any, n: int, default: int = 1) -> tuple[int, ...]:
    """A number or list as one number per spatial axis (torch lets a single one stand for all)."""
    values = [default] if value in (None, []) else ([value] if isinstance(value, int) else list(value))
    return tuple(values * n if len(values) == 1 else values)


def both(padding: Sequence[int]) -> Pads:
    """The same padding at both ends of each axis."""
    return tuple((p, p) for p in padding)


# ------------------------------------------------------------------------------------------------- linear in a weight


def conv(g: Builder, a: Any) -> Ref:
    """conv1d, conv2d and conv3d, padded by numbers, "same" or "valid"."""
    x, w = a.input, a.weight
    n = w.rank - 2
    if x.rank != n + 2:
        raise Unsupported(f"must have a batch axis, got an input of rank {x.rank}; unsqueeze(0) it")
    dilations, strides = each(a.dilation, n), each(a.stride, n)
    if a.padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, w.shape[2:], strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in totals)
    else:
        pads = both(each(0 if a.padding == "valid" else a.padding, n, 0))
    return g.emit("conv", x, w, a.bias, strides=strides, dilations=dilations, pads=pads, groups=a.groups)


def conv_transpose(g: Builder, a: Any) -> Ref:
    n = a.weight.rank - 2
    return g.emit(
        "conv_transpose", a.input, a.weight, a.bias, strides=each(a.stride, n), dilations=each(a.dilation, n),
        pads=both(each(a.padding, n, 0)), output_padding=each(a.output_padding, n, 0), groups=a.groups,
    )  # fmt: skip


def convolution(g: Builder, a: Any) -> Ref:
    """The one node that decomposition makes of every convolution."""
    return conv_transpose(g, a) if a.transposed else conv(g, a)


def linear(g: Builder, a: Any) -> Ref:
    return g.emit("linear", a.input, a.weight, a.bias)


def matmul(g: Builder, a: Any) -> Ref:
    """matmul, mm, bmm and mv, whose second operand goes by different names."""
    return g.emit("matmul", a.self, next(r for r in (a.other, a.mat2, a.vec) if r is not None))


def addmm(g: Builder, a: Any) -> Ref:
    """beta * self + alpha * (mat1 @ mat2)."""
    left, right = (a.mat1, a.mat2) if a.mat1 is not None else (a.batch1, a.batch2)
    product = g.emit("matmul", left, right)
    if a.alpha not in (None, 1):
        product = g.emit("mul", product, g.const(a.alpha, "float32"))
    if a.beta == 0:
        return product
    rest = a.self if a.beta in (None, 1) else g.emit("mul", a.self, g.const(a.beta, "float32"))
    return g.emit("add", product, rest)


def einsum(g: Builder, a: Any) -> Ref:
    return g.emit("einsum", *a.tensors, equation=a.equation)


def embedding(g: Builder, a: Any) -> Ref:
    return g.emit("embedding", a.weight, a.indices, dtype="float32")


def attention(g: Builder, a: Any) -> Ref:
    """softmax(q k' / sqrt(width) + mask) v as the products it is made of, so that each can be quantized."""
    q, k, v = a.query, a.key, a.value
    if a.enable_gqa or a.dropout_p:
        raise Unsupported("must have as many key heads as query heads and no dropout; repeat the heads, call module.eval()")
    order = [*range(k.rank - 2), k.rank - 1, k.rank - 2]
    scale = 1 / math.sqrt(q.size(-1)) if a.scale is None else a.scale
    scores = g.emit("matmul", g.emit("mul", q, g.const(scale, "float32")), transpose(g, k, order))
    if a.is_causal:
        rows, columns = q.size(-2), k.size(-2)
        if rows is None or columns is None:
            raise Unsupported("must have a known sequence length to be causal, got a free one; pass the mask as an input")
        scores = masked(g, scores, g.const(np.tril(np.ones((rows, columns), bool)), "bool"))
    if a.attn_mask is not None:
        scores = masked(g, scores, a.attn_mask)
    return g.emit("matmul", g.emit("softmax", scores, axis=-1), v)


def masked(g: Builder, scores: Ref, mask: Ref) -> Ref:
    """Scores where a boolean mask says so, the least float elsewhere; other masks are added."""
    if mask.dtype == "bool":
        return g.emit("where", mask, scores, g.const(finite(-math.inf), "float32"), dtype="float32")
    return g.emit("add", scores, mask)


# ------------------------------------------------------------------------------------------------------------ norms


def per_channel(g: Builder, given: Ref | None, x: Ref, value: float) -> Ref:
    """A vector over channels, or a constant one where the layer has none."""
    if given is not None:
        return given
    channels = x.size(1)
    if channels is None:
        raise Unsupported("must have a known number of channels, got a free axis; fix all sizes but the batch")
    return g.const(np.full(channels, value), "float32")


def batch_norm(g: Builder, a: Any) -> Any:
    """With running statistics; in two dimensions the channels are the last axis, which is axis 1 too."""
    x = a.input
    if a.training or a.running_mean is None:
        raise Unsupported("must use running statistics, got batch statistics; call module.eval(), keep track_running_stats")
    ones, zeros = per_channel(g, a.weight, x, 1.0), per_channel(g, a.bias, x, 0.0)
    y = g.emit("batch_norm", x, ones, zeros, a.running_mean, a.running_var, epsilon=float(a.eps))
    return (y, None, None) if isinstance(a.out, tuple | list) else y


def layer_norm(g: Builder, a: Any) -> Any:
    x, shape = a.input, list(a.normalized_shape)
    scale = a.weight if a.weight is not None else g.const(np.ones(shape), "float32")
    y = g.emit("layer_norm", x, scale, a.bias, axis=-len(shape), epsilon=float(a.eps))
    return (y, None, None) if isinstance(a.out, tuple | list) else y


def rms_norm(g: Builder, a: Any) -> Ref:
    shape = list(a.normalized_shape)
    scale = a.weight if a.weight is not None else g.const(np.ones(shape), "float32")
    epsilon = np.finfo(np.float32).eps if a.eps is None else a.eps
    return g.emit("rms_norm", a.input, scale, axis=-len(shape), epsilon=float(epsilon))


def group_norm(g: Builder, a: Any) -> Ref:
    scale, b = per_channel(g, a.weight, a.input, 1.0), per_channel(g, a.bias, a.input, 0.0)
    return g.emit("group_norm", a.input, scale, b, num_groups=a.num_groups, epsilon=float(a.eps))


def instance_norm(g: Builder, a: Any) -> Ref:
    if not a.use_input_stats:
        return batch_norm(g, a)
    scale, b = per_channel(g, a.weight, a.input, 1.0), per_channel(g, a.bias, a.input, 0.0)
    return g.emit("instance_norm", a.input, scale, b, epsilon=float(a.eps))


# ------------------------------------------------------------------------------------------------------------ pools


def pool(op: str) -> Handler:
    """max_pool and avg_pool in one, two or three dimensions."""

    def handle(g: Builder, a: Any) -> Any:
        n = a.self.rank - 2
        kernel = each(a.kernel_size, n)
        frame: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": each(a.stride, n) if a.stride not in (None, []) else kernel,
            "pads": both(each(a.padding, n, 0)),
            "ceil_mode": int(a.ceil_mode or 0),
        }
        if op == "avg_pool":
            if a.divisor_override:
                raise Unsupported("must divide by the window's size, got divisor_override; multiply the result instead")
            if kernel == a.self.shape[2:] and not any(each(a.padding, n, 0)):
                return g.emit("global_avg_pool", a.self)
            return g.emit(op, a.self, **frame, count_include_pad=int(a.count_include_pad))
        frame["dilations"] = each(a.dilation, n)
        if isinstance(a.out, tuple | list):
            places = positions(g, a.self, frame)  # dropped if nothing reads them
            return g.emit(op, a.self, **frame), places
        return g.emit(op, a.self, **frame)

    return handle


def positions(g: Builder, x: Ref, frame: Mapping[str, Any]) -> Ref | None:
    """Where each maximum was: torch counts in its own plane, a graph in the whole tensor."""
    plane = [x.size(k) for k in range(2, x.rank)]
    if None in plane:
        return None
    places = replace(g.emits(2, "max_pool_indices", x, **frame)[1], dtype="int64")
    return g.emit("mod", places, g.const(math.prod(n for n in plane if n is not None), "int64"))


def adaptive(op: str, whole: str) -> Handler:
    """A pool to a given size, which must divide the input's; size 1 is a global pool."""

    def handle(g: Builder, a: Any) -> Any:
        x, n = a.self, a.self.rank - 2
        made = a.out if not isinstance(a.out, tuple | list) else a.out[0]
        target = tuple(made.shape)[2:]
        if all(t == 1 for t in target):
            y = g.emit(whole, x)
        else:
            space = [x.size(2 + k) for k in range(n)]
            if any(s is None or s % t for s, t in zip(space, target, strict=True)):
                raise Unsupported(f"must pool to a size that divides the input's, got {x.shape[2:]} to {target}; resize before")
            kernel = tuple(s // t for s, t in zip(space, target, strict=True))
            y = x if set(kernel) == {1} else g.emit(op, x, kernel_shape=kernel, strides=kernel)
        return (y, None) if isinstance(a.out, tuple | list) else y

    return handle


def resize(mode: str) -> Handler:
    """Interpolation to the size that the exporter saw."""

    def handle(g: Builder, a: Any) -> Ref:
        x = a.input if a.input is not None else a.self
        target = tuple(a.out.shape)[2:]
        if any(not isinstance(t, int) for t in target) or any(x.size(2 + k) is None for k in range(x.rank - 2)):
            raise Unsupported("must resize between known sizes, got a free axis; fix all sizes but the batch")
        where = "align_corners" if a.align_corners else ("asymmetric" if mode == "nearest" else "half_pixel")
        extra = {"nearest_mode": "floor"} if mode == "nearest" else {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
        spatial = tuple(range(2, x.rank))
        frame: dict[str, Any] = {"mode": mode, "axes": spatial, "coordinate_transformation_mode": where, **extra}
        if (scales := factors(a)) is None:
            return g.emit("resize", x, None, None, g.ints(target), **frame)
        made = [int(float(np.float32(s)) * n) for s, n in zip(scales, x.shape[2:], strict=True)]
        if made != list(target):
            raise Unsupported(f"must resize by factors that give {target} in single precision, got {scales}; pass size=")
        return g.emit("resize", x, None, g.const(scales, "float32"), **frame)

    return handle


def factors(a: Any) -> list[float] | None:
    """The factors a resize was given (they decide where pixels lie), None where it was given a size."""
    if a.scale_factors is not None:
        return list(a.scale_factors)
    return [s for s in (a.scales, a.scales_d, a.scales_h, a.scales_w) if s is not None] or None


# -------------------------------------------------------------------------------------------------------- recurrent

# Where ONNX's gates (input output forget cell; update reset hidden) stand in torch's (i f g o; r z n).
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def reordered(array: np.ndarray, kind: str) -> np.ndarray:
    """Gate blocks along axis 0 in ONNX order."""
    blocks = np.split(array, len(GATES[kind]))
    return np.concatenate([blocks[k] for k in GATES[kind]])


def recurrent(kind: str, **attrs: Any) -> Handler:
    """nn.LSTM, nn.GRU and nn.RNN: one node per layer, both directions in it, weights stacked over directions."""

    def handle(g: Builder, a: Any) -> tuple[Ref, ...]:
        if a.data is not None or a.input.rank != 3:
            raise Unsupported("must have a batch axis and no packed sequences; pad the sequences instead")
        if a.train and a.dropout:
            raise Unsupported("must be in eval mode, got dropout between layers; call module.eval() before torch.export")
        ways, per = 1 + bool(a.bidirectional), 4 if a.has_biases else 2
        if len(a.params) != a.num_layers * ways * per:
            raise Unsupported("must have no projection (proj_size), got one; use a linear layer behind it")
        states = list(a.hx) if isinstance(a.hx, list | tuple) else [a.hx]
        x = transpose(g, a.input, (1, 0, 2)) if a.batch_first else a.input
        ends: list[list[Ref]] = []
        for layer in range(a.num_layers):
            sets = [a.params[(layer * ways + w) * per :][:per] for w in range(ways)]
            x, *last = one_layer(g, kind, x, sets, [part(g, s, layer, ways, a.num_layers) for s in states], attrs)
            ends.append(last)
        joined = [column[0] if len(column) == 1 else g.emit("concat", *column, axis=0) for column in zip(*ends, strict=True)]
        return (transpose(g, x, (1, 0, 2)) if a.batch_first else x, *joined)

    return handle


def part(g: Builder, state: Ref, layer: int, ways: int, layers: int) -> Ref | None:
    """The rows of an initial state that belong to one layer; None for zeros."""
    if state.fill == 0:
        return None
    return state if layers == 1 else sliced(g, state, 0, layer * ways, (layer + 1) * ways)


def one_layer(
    g: Builder, kind: str, x: Ref, sets: Sequence[Sequence[Ref]], states: Sequence[Ref | None], attrs: Mapping[str, Any]
) -> list[Ref]:
    """The output (time, batch, directions * hidden) of one layer, and its last states."""
    hidden = known(sets[0][1]).shape[1]
    w, r = (stacked(g, kind, [s[k] for s in sets]) for k in (0, 1))
    b = biases(g, kind, sets) if len(sets[0]) == 4 else None
    count = 3 if kind == "lstm" else 2
    direction = "bidirectional" if len(sets) == 2 else "forward"
    per_way: dict[str, Any] = {k: v * len(sets) if isinstance(v, tuple) else v for k, v in attrs.items()}
    made = g.emits(count, kind, x, w, r, b, None, *states, hidden_size=hidden, direction=direction, **per_way)
    y, *last = made  # (time, directions, batch, hidden)
    if len(sets) == 1:
        flat = g.emit("squeeze", y, g.ints([1]))
    else:
        flat = g.emit("reshape", g.emit("transpose", y, perm=(0, 2, 1, 3)), g.ints([0, 0, -1]))
    assert x.shape is not None
    return [Ref(flat.name, (*x.shape[:2], len(sets) * hidden)), *last]


def known(ref: Ref) -> np.ndarray:
    if ref.array is None:
        raise Unsupported(f"must have constant weights, got {ref.name!r}, which is computed; store the product as a parameter")
    return ref.array


def stacked(g: Builder, kind: str, refs: Sequence[Ref]) -> Ref:
    """The weights of all directions in ONNX order, under the name of the first."""
    array = np.stack([reordered(known(r), kind) for r in refs])
    return derived(g, refs[0].name, array)


def biases(g: Builder, kind: str, sets: Sequence[Sequence[Ref]]) -> Ref:
    """Input and hidden biases one behind the other, for all directions."""
    array = np.stack([np.concatenate([reordered(known(s[2]), kind), reordered(known(s[3]), kind)]) for s in sets])
    return derived(g, sets[0][2].name, array)


def derived(g: Builder, name: str, array: np.ndarray) -> Ref:
    """A constant that takes the place (and the name) of the module's own."""
    g.constants[name] = array
    return Ref(name, array.shape, str(array.dtype), array)


LAYERS: dict[str, Handler] = {
    **{op: conv for op in ("conv1d", "conv2d", "conv3d")},
    **{op: conv_transpose for op in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")},
    "convolution": convolution,
    "linear": linear,
    **{op: matmul for op in ("matmul", "mm", "bmm", "mv")},
    "addmm": addmm,
    "baddbmm": addmm,
    "einsum": einsum,
    "embedding": embedding,
    "scaled_dot_product_attention": attention,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "layer_norm": layer_norm,
    "native_layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    **{f"max_pool{n}d": pool("max_pool") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": pool("max_pool") for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pool("avg_pool") for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive("avg_pool", "global_avg_pool") for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": adaptive("max_pool", "global_max_pool") for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": resize("nearest") for n in (1, 2, 3)},
    "upsample_linear1d": resize("linear"),
    "upsample_bilinear2d": resize("linear"),
    "upsample_trilinear3d": resize("linear"),
    "upsample_bicubic2d": resize("cubic"),
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru", linear_before_reset=1),
    "rnn_tanh": recurrent("rnn", activations=("Tanh",)),
    "rnn_relu": recurrent("rnn", activations=("Relu",)),
}
