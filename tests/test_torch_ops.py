# ruff: noqa: E501 - one case a line reads better than one argument a line
"""The two halves of the table of operators hold the same words and mean the same by them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitladder.convert.torch_ops import BORROWED, TORCH_OPS  # noqa: E402
from bitladder.ir.ops import OPS  # noqa: E402

torch.set_num_threads(1)
rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def i(*shape: int, low: int = -3, high: int = 4, dtype: str = "int64") -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def n(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def b(*shape: int) -> np.ndarray:
    return rng.random(shape) < 0.5


def s(value: float) -> np.ndarray:
    return np.array(value, np.float32)


X, IMAGE, LINE, CUBE = f(2, 3, 4), f(2, 4, 7, 6), f(2, 4, 9), f(1, 2, 4, 5, 4)
UNIT = (rng.random((2, 3, 4)) * 1.8 - 0.9).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.1)
SEQ = f(5, 2, 3)


def recurrent(gates: int, ways: int = 1) -> tuple:
    return f(ways, gates * 4, 3), f(ways, gates * 4, 4), f(ways, 2 * gates * 4)


W4, W3, W1 = recurrent(4, 2), recurrent(3, 2), recurrent(1, 2)

# Inputs and attributes on which both halves must agree, several for an operator with several ways to behave.
CASES: list[tuple[str, tuple, dict]] = [
    *[(op, (X,), {}) for op in ("abs", "neg", "sign", "ceil", "floor", "round", "exp", "erf", "sin", "cos", "tan", "atan")],
    *[(op, (X,), {}) for op in ("sinh", "cosh", "tanh", "asinh", "relu", "sigmoid", "softplus", "softsign", "elu", "celu")],
    *[(op, (X,), {}) for op in ("selu", "gelu", "mish", "swish", "leaky_relu", "hard_sigmoid", "hard_swish", "identity")],
    *[(op, (X,), {}) for op in ("thresholded_relu", "shrink", "is_nan", "is_inf", "size", "shape", "softmax", "hardmax")],
    *[(op, (UNIT,), {}) for op in ("asin", "acos", "atanh")],
    *[(op, (POSITIVE,), {}) for op in ("sqrt", "log", "reciprocal")],
    ("acosh", (POSITIVE + 1,), {}), ("round", (np.array([0.5, 1.5, -2.5], np.float32),), {}),
    ("gelu", (X,), {"approximate": "tanh"}), ("elu", (X,), {"alpha": 0.3}), ("swish", (X,), {"alpha": 2.0}),
    ("prelu", (X, f(3, 1)), {}), ("clip", (X, s(-0.5), s(0.5)), {}), ("clip", (X, None, s(0.1)), {}), ("clip", (i(5), n(0), None), {}),
    *[(op, (X, f(3, 1)), {}) for op in ("add", "sub", "mul", "div", "mod", "max", "min", "less", "greater")],
    *[(op, (i(4, 3), i(4, 3)), {}) for op in ("equal", "greater_or_equal", "less_or_equal", "bitwise_and", "bitwise_or", "bitwise_xor")],
    ("div", (i(20), i(20, low=1)), {}), ("mod", (i(20), i(20, low=1)), {}), ("mod", (i(20), i(20, low=1)), {"fmod": 1}),
    ("max", (X, X + 1, f(4)), {}), ("pow", (POSITIVE, f(4)), {}), ("pow", (X, n(2)), {}),
    *[(op, (b(3, 4), b(4)), {}) for op in ("and_", "or_", "xor")], ("not_", (b(3),), {}), ("bitwise_not", (i(5),), {}),
    ("bit_shift", (i(4, low=1, dtype="int32"), n(1, 2, 0, 3).astype("int32")), {"direction": "LEFT"}),
    ("bit_shift", (i(4, low=1, dtype="int32"), n(1, 2, 0, 3).astype("int32")), {"direction": "RIGHT"}),
    ("is_inf", (np.array([1, np.inf, -np.inf], np.float32),), {"detect_negative": 0}),
    ("where", (b(3, 4), f(3, 4), f(4)), {}), ("bit_cast", (f(4),), {"to": "int32"}),
    *[("cast", (X * 9,), {"to": to}) for to in ("int32", "int64", "bool", "float64", "int4", "uint2")],
    *[(f"reduce_{op}", (X, axes), {"keepdims": k}) for op in ("sum", "mean", "max", "min", "l2", "log_sum_exp", "prod")
      for axes, k in ((n(1), 0), (n(0, -1), 1), (None, 0))],
    ("reduce_sum", (X, n()), {"noop_with_empty_axes": 1}), ("reduce_mean", (i(3, 4), n(1)), {}), ("reduce_max", (i(3, 4), n(1)), {}),
    *[(op, (i(3, 8),), {"axis": 1, **a}) for op in ("arg_max", "arg_min") for a in ({}, {"keepdims": 0}, {"select_last_index": 1})],
    *[(op, (X, n(1)), a) for op in ("cum_sum", "cum_prod") for a in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1})],
    ("softmax", (X,), {"axis": 1}), ("hardmax", (i(3, 8).astype("float32"),), {"axis": 0}),
    ("top_k", (i(3, 8), n(4)), {}), ("top_k", (f(3, 8), n(2)), {"axis": 0, "largest": 0}),
    ("batch_norm", (IMAGE, f(4), f(4), f(4), np.abs(f(4))), {}), ("batch_norm", (f(3, 4), f(4), f(4), f(4), np.abs(f(4))), {"epsilon": 0.1}),
    ("layer_norm", (X, f(4), f(4)), {}), ("layer_norm", (X, f(3, 4)), {"axis": 1}), ("layer_norm", (X, f(1), f(4)), {}),
    ("rms_norm", (X, f(4)), {}), ("instance_norm", (IMAGE, f(4), f(4)), {}), ("group_norm", (IMAGE, f(4), f(4)), {"num_groups": 2}),
    ("lrn", (IMAGE,), {"size": 4, "alpha": 0.1}), ("lp_normalization", (X,), {"axis": 1, "p": 1}),
    ("linear", (X, f(5, 4), f(5)), {}), ("linear", (X, f(5, 4)), {}), ("matmul", (X, f(4, 2)), {}), ("matmul", (f(4), f(4)), {}),
    ("einsum", (X, f(4, 5)), {"equation": "bij, jk -> bki"}), ("embedding", (f(6, 3), i(2, 2, low=0)), {}), ("det", (f(2, 3, 3),), {}),
    ("conv", (IMAGE, f(6, 4, 3, 3), f(6)), {"pads": ((1, 1), (1, 1))}), ("conv", (IMAGE, f(6, 2, 3, 2)), {"groups": 2, "strides": (2, 1)}),
    ("conv", (IMAGE, f(4, 1, 2, 2)), {"groups": 4, "dilations": (2, 3), "pads": ((0, 1), (2, 0))}),
    ("conv", (IMAGE, f(2, 4, 3, 2)), {"auto_pad": "SAME_LOWER"}), ("conv", (LINE, f(3, 4, 3)), {}), ("conv", (CUBE, f(3, 2, 2, 3, 2)), {}),
    ("conv_transpose", (IMAGE, f(4, 3, 3, 2), f(3)), {"strides": (2, 3), "pads": ((1, 0), (0, 2)), "output_padding": (1, 0)}),
    ("conv_transpose", (IMAGE, f(4, 2, 3, 3)), {"groups": 2, "dilations": (2, 1), "strides": (3, 3), "output_padding": (2, 2)}),
    ("conv_transpose", (LINE, f(4, 3, 2), f(3)), {"strides": (2,)}),
    *[(op, (x,), {"kernel_shape": (3, 2)[:k] + (2,) * (k - 2), **a}) for op in ("max_pool", "avg_pool", "lp_pool")
      for x, k, a in ((IMAGE, 2, {}), (IMAGE, 2, {"strides": (2, 2), "pads": ((1, 1), (0, 1)), "ceil_mode": 1}), (LINE, 1, {}), (CUBE, 3, {}))],
    ("avg_pool", (IMAGE,), {"kernel_shape": (3, 2), "pads": ((1, 1), (0, 1)), "count_include_pad": 1, "strides": (2, 2), "ceil_mode": 1}),
    ("avg_pool", (IMAGE,), {"kernel_shape": (3, 2), "dilations": (2, 2)}), ("max_pool", (IMAGE,), {"kernel_shape": (3, 2), "dilations": (2, 2)}),
    ("max_pool", (i(1, 2, 4, 4, dtype="int8"),), {"kernel_shape": (2, 2)}), ("max_pool", (IMAGE,), {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER"}),
    ("max_pool_indices", (IMAGE,), {"kernel_shape": (2, 2)}), ("max_unpool", (f(1, 1, 2, 2), n(5, 7, 13, 15).reshape(1, 1, 2, 2)), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    ("global_avg_pool", (IMAGE,), {}), ("global_max_pool", (CUBE,), {}),
    ("reshape", (X, n(0, -1)), {}), ("flatten", (X,), {"axis": 2}), ("squeeze", (f(2, 1, 3, 1), n(-1)), {}), ("squeeze", (f(2, 1, 3, 1),), {}),
    ("unsqueeze", (X, n(-1, 0)), {}), ("transpose", (X,), {"perm": (2, 0, 1)}), ("transpose", (X,), {}), ("concat", (X, f(2, 1, 4)), {"axis": 1}),
    ("split", (X, n(1, 3)), {"axis": 2}), ("split", (f(7, 2),), {"num_outputs": 3}),
    ("slice", (X, n(1, 0), n(2**63 - 1, -1), n(1, 2), n(1, 2)), {}), ("slice", (X, n(-1), n(-(2**63)), n(2), n(-2)), {}), ("slice", (X, n(0), n(9)), {}),
    ("slice", (X, n(3), n(0), n(2), n(-1)), {}), ("slice", (X, n(2), n(1), n(1)), {}), ("slice", (X, n(-9), n(-1), n(2), n(2)), {}),
    ("expand", (f(3, 1), n(2, 1, 4)), {}), ("tile", (X, n(1, 2, 3)), {}), ("shape", (X,), {"start": 1, "end": -1}),
    ("pad", (X, n(0, 1, 2, 0, 0, 1), s(1.5)), {}), ("pad", (X, n(0, -1, 2, 0, 0, -1)), {}), ("pad", (X, n(1, 2), None, n(2)), {"mode": "reflect"}),
    ("pad", (X, n(3, 2), None, n(-1)), {"mode": "edge"}), ("pad", (X, n(0, 1, 2, 0, 2, 1)), {"mode": "wrap"}),
    ("constant_of_shape", (n(2, 3),), {"value": 4, "dtype": "int64"}), ("eye_like", (f(3, 4),), {"k": 1}), ("range", (s(1), s(4), s(0.5)), {}),
    ("one_hot", (i(2, 3, low=-5, high=5), n(4), f(2)), {"axis": 1}), ("trilu", (X,), {}), ("trilu", (X, n(-1)), {"upper": 0}),
    *[(op, (f(1, 8, 4, 6),), {"blocksize": 2, "mode": m}) for op in ("depth_to_space", "space_to_depth") for m in ("DCR", "CRD")],
    ("gather", (X, n(1, -1, 0)), {"axis": 2}), ("gather", (X, np.array(-1)), {"axis": 1}), ("gather", (X, i(2, 2, low=0, high=2)), {}),
    ("gather_elements", (X, i(2, 3, 2, low=-4, high=4)), {"axis": 2}), ("gather_nd", (X, i(2, 2, low=0, high=2)), {}),
    ("gather_nd", (X, i(2, 1, low=0, high=3)), {"batch_dims": 1}), ("scatter_elements", (X, n(0, 2, 1).reshape(1, 1, 3), f(1, 1, 3)), {"axis": 2}),
    *[("scatter_nd", (X, n(1, 1, 0).reshape(3, 1), f(3, 3, 4)), {"reduction": r}) for r in ("add", "mul", "max", "min")],
    ("scatter_nd", (X, n(0, 1, 1, 2).reshape(2, 2), f(2, 4)), {}), ("compress", (X, b(3)), {"axis": 1}), ("non_zero", (b(3, 4),), {}),
    ("unique", (i(9),), {}), ("tensor_scatter", (f(2, 3, 5, 2), f(2, 3, 2, 2), n(1, 3)), {}), ("center_crop_pad", (X, n(4, 2)), {"axes": (1, 2)}),
    ("reverse_sequence", (SEQ, n(2, 5)), {}), ("col2im", (f(1, 8, 12), n(4, 5), n(2, 2)), {}),
    ("affine_grid", (f(2, 2, 3), n(2, 4, 3, 5)), {}), ("grid_sample", (IMAGE, UNIT[:, :2, :2][..., None].repeat(2, -1)), {}),
    *[("resize", (IMAGE, None, np.array([1, 1, 2, 1.5], np.float32)), {"mode": m}) for m in ("nearest", "linear", "cubic")],
    ("resize", (IMAGE, None, None, n(3, 4)), {"mode": "linear", "axes": (2, 3), "antialias": 1}),
    ("resize", (IMAGE, None, None, n(2, 4, 9, 3)), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("attention", (f(2, 2, 3, 4), f(2, 2, 5, 4), f(2, 2, 5, 4)), {}), ("attention", (f(2, 4, 3, 4), f(2, 2, 3, 4), f(2, 2, 3, 4), b(3, 3)), {"is_causal": 1}),
    ("attention", (f(2, 3, 8), f(2, 5, 8), f(2, 5, 8), f(3, 5)), {"q_num_heads": 2, "kv_num_heads": 2, "softcap": 2.0}),
    ("rotary_embedding", (f(2, 3, 4, 6), f(9, 3), f(9, 3), i(2, 4, low=0)), {}), ("rotary_embedding", (f(2, 3, 4, 6), f(2, 4, 2), f(2, 4, 2)), {"interleaved": 1, "rotary_embedding_dim": 4}),
    ("linear_attention", (f(2, 3, 8), f(2, 3, 8), f(2, 3, 8)), {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}),
    ("causal_conv_with_state", (LINE, f(4, 1, 3), f(4)), {"activation": "silu"}),
    ("lstm", (SEQ, *W4), {"direction": "bidirectional"}), ("lstm", (SEQ, *(w[:1] for w in W4), n(2, 5), f(1, 2, 4), f(1, 2, 4), f(1, 12)), {"direction": "reverse", "clip": 0.5}),
    ("lstm", (SEQ.swapaxes(0, 1), *(w[:1] for w in W4)), {"layout": 1, "input_forget": 1}),
    ("gru", (SEQ, *W3), {"direction": "bidirectional"}), ("gru", (SEQ, *(w[:1] for w in W3), n(2, 5)), {"linear_before_reset": 1}),
    ("rnn", (SEQ, *W1), {"direction": "bidirectional"}), ("rnn", (SEQ, *(w[:1] for w in W1)), {"activations": ("Relu",), "direction": "reverse"}),
    ("quantize_linear", (IMAGE, np.abs(f(4)), i(4, dtype="int8")), {}), ("quantize_linear", (X, s(0.25)), {}), ("quantize_linear", (X, s(0.25)), {"output_dtype": "int4"}),
    ("dequantize_linear", (i(2, 4, 3, dtype="int8"), np.abs(f(4)), i(4, dtype="int8")), {}), ("dequantize_linear", (i(2, 4, dtype="int32"), np.abs(f(2, 2))), {"block_size": 2}),
    ("dynamic_quantize_linear", (X,), {}),
]  # fmt: skip


def both(name: str, args: tuple, attrs: dict) -> list[tuple]:
    """What numpy and torch make of the same inputs, output by output."""
    tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in args]
    one, two = OPS[name](*args, **attrs), TORCH_OPS[name](*tensors, **attrs)
    pairs = zip(one, two, strict=True) if isinstance(one, tuple | list) else [(one, two)]
    return [(np.asarray(x), y.numpy()) for x, y in pairs]


def test_same_words():
    """Both tables have the same keys, and every word has a case here."""
    assert set(TORCH_OPS) == set(OPS)
    assert {name for name, _, _ in CASES} == set(OPS)


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda k: f"{CASES[k][0]}-{k}")
def test_same_meaning(case):
    """Shape, dtype and values agree; whole numbers exactly, floats to 1e-5."""
    for one, two in both(*CASES[case]):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        if one.dtype.kind == "f":
            np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(two, one)


CONVS = [  # batch, channels in and out, kernel, groups, stride, size: with those for which libraries switch algorithm
    (1, 3, 8, 3, 1, 1, 16), (20, 16, 32, 3, 1, 1, 16), (64, 32, 32, 3, 1, 1, 8), (2, 64, 64, 3, 1, 1, 14), (4, 16, 16, 3, 16, 1, 12),
    (4, 32, 64, 1, 1, 2, 15), (2, 8, 8, 7, 1, 2, 30), (3, 8, 12, 5, 4, 1, 9), (1, 128, 128, 3, 1, 1, 28),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "cin", "cout", "k", "groups", "stride", "size"), CONVS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integer_convolutions_are_exact(batch, cin, cout, k, groups, stride, size, dtype):
    """Sums of integers come out exact: no Winograd, no Fourier transform, whatever the shape (sums below 2^24 in float32)."""
    top = 127 if dtype == "float64" else max(1, min(127, int((2**24 / (cin // groups * k * k)) ** 0.5) - 1))
    x = i(batch, cin, size, size, low=-top, high=top + 1, dtype=dtype)
    w = i(cout, cin // groups, k, k, low=-top, high=top + 1, dtype=dtype)
    attrs = {"strides": (stride, stride), "pads": ((k // 2, k // 2),) * 2, "groups": groups}
    ((one, two),) = both("conv", (x.astype(np.float64), w.astype(np.float64)), attrs)
    got = TORCH_OPS["conv"](torch.from_numpy(x), torch.from_numpy(w), None, **attrs).numpy()
    np.testing.assert_array_equal(got, one)
    np.testing.assert_array_equal(two, one)


def test_gradients_flow():
    """Every operator that takes and gives floats can be trained through, except the borrowed ones."""
    flat = {"sign", "ceil", "floor", "round", "hardmax", "quantize_linear", "dequantize_linear", "eye_like", "range", "cast"}
    for name, args, attrs in CASES:
        tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in args]
        floats = [t.requires_grad_() for t in tensors if t is not None and t.is_floating_point()]
        if not floats or name in BORROWED or name in flat:
            continue
        made = TORCH_OPS[name](*tensors, **attrs)
        first = made[0] if isinstance(made, tuple | list) else made
        if first.is_floating_point():
            assert first.requires_grad, name
            grads = torch.autograd.grad(first.sum(), floats, allow_unused=True)
            assert any(g is not None for g in grads), name
