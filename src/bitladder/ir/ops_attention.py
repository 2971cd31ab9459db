"""Operators of transformers: attention, rotary positions, and the recurrent relatives of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_elementwise import quiet, sigmoid
from bitladder.ir.ops_linear import conv

Array = Any


def heads(x: Array, count: int | None) -> Array:
    """x (batch, length, heads * width) as (batch, heads, length, width); four axes stay as they are."""
    if x.ndim == 4:
        return x
    assert count is not None
    return x.reshape(*x.shape[:2], count, x.shape[2] // count).swapaxes(1, 2)


def joined(x: Array) -> Array:
    """The opposite of `heads`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def allowed(q: Array, k: Array, offset: Array, *, is_causal: int, left: int, right: int) -> Array:
    """Which keys a query may see by position alone; query i stands at i + offset."""
    ahead = np.arange(k.shape[2]) - (np.arange(q.shape[2])[:, None] + offset)  # (..., queries, keys)
    see = np.full(ahead.shape, True)
    for limited, inside in ((is_causal, ahead <= 0), (left >= 0, -ahead <= left), (right >= 0, ahead <= right)):
        see = see & inside if limited else see
    return see


def mask_bias(mask: Array, keys: int, dtype: np.dtype) -> Array:
    """A mask as something to add: true is 0, false and what is missing at the end is minus infinity."""
    bias = np.where(mask, 0, -np.inf).astype(dtype) if mask.dtype == bool else mask
    return np.pad(bias, (*[(0, 0)] * (bias.ndim - 1), (0, keys - bias.shape[-1])), constant_values=-np.inf)


@quiet
def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: str | None = None,
    qk_matmul_output_mode: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Array, Array, Array, Array]:
    """Scaled dot-product attention; the keys and values so far; the scores (raw, capped, masked or after softmax).

    A query that may see no key at all gives zeros. Fewer heads of k and v than of q are shared by neighbouring ones.
    """
    flat, dtype = q.ndim == 3, q.dtype
    q, k, v = heads(q, q_num_heads), heads(k, kv_num_heads), heads(v, kv_num_heads)
    offset: Array = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        k, v = np.concatenate((past_key, k), 2), np.concatenate((past_value, v), 2)
    elif nonpad_kv_seqlen is not None:
        offset = nonpad_kv_seqlen.reshape(-1, 1, 1, 1) - q.shape[2]
    see = allowed(q, k, offset, is_causal=is_causal, left=left_window_size, right=right_window_size)
    if nonpad_kv_seqlen is not None:
        see = see & (np.arange(k.shape[2]) < nonpad_kv_seqlen.reshape(-1, 1, 1, 1))
    bias = np.where(see, 0, -np.inf).astype(dtype)
    if attn_mask is not None:
        bias = bias + mask_bias(attn_mask, k.shape[2], dtype)
    root = np.sqrt(1 / np.sqrt(q.shape[-1]) if scale is None else scale).astype(dtype)
    share = q.shape[1] // k.shape[1]
    raw = (q * root) @ (np.repeat(k, share, 1).swapaxes(2, 3) * root)
    capped = softcap * np.tanh(raw / softcap) if softcap > 0 else raw
    masked = capped + bias
    wide = masked.astype(softmax_precision or dtype)
    e = np.where(np.isneginf(bias.max(-1, keepdims=True)), 0, np.exp(wide - wide.max(-1, keepdims=True)))
    weights = (e / np.maximum(e.sum(-1, keepdims=True), np.finfo(wide.dtype).tiny)).astype(dtype)
    y = weights @ np.repeat(v, share, 1)
    return (joined(y) if flat else y), k, v, (raw, capped, masked, weights)[qk_matmul_output_mode].astype(dtype)


def rotary_embedding(
    x: Array,
    cos: Array,
    sin: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Array:
    """x (batch, heads, length, width) with pairs of its first entries turned by the angles of their positions."""
    y = heads(x, num_heads)
    size = rotary_embedding_dim or y.shape[-1]
    cos, sin = (c if position_ids is None else c[position_ids] for c in (cos, sin))
    cos, sin = cos[:, None], sin[:, None]  # (batch, 1, length, size / 2)
    turn, rest = y[..., :size], y[..., size:]
    a, b = (turn[..., 0::2], turn[..., 1::2]) if interleaved else np.split(turn, 2, -1)
    pair = (cos * a - sin * b, sin * a + cos * b)
    turned = np.stack(pair, -1).reshape(turn.shape) if interleaved else np.concatenate(pair, -1)
    y = np.concatenate((turned, rest), -1)
    return joined(y) if x.ndim == 3 else y


def linear_attention(
    q: Array,
    k: Array,
    v: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    chunk_size: int = 64,
) -> tuple[Array, Array]:
    """Attention as a matrix per head that forgets (decay), corrects itself (beta) and is read by queries; its last value."""
    dtype = q.dtype
    q, k, v = heads(q, q_num_heads), heads(k, kv_num_heads), heads(v, kv_num_heads)
    q, k, v = (a.astype(np.float32) for a in (q, k, v))
    start = np.zeros((*k.shape[:2], k.shape[3], v.shape[3]), dtype) if past_state is None else past_state
    state = start.astype(np.float32)
    keep = None if decay is None else np.exp(heads(decay, kv_num_heads).astype(np.float32))[..., None]
    gain = None if beta is None else beta.astype(np.float32).swapaxes(1, 2)[..., None]  # (batch, heads, length, 1)
    out = []
    for t in range(q.shape[2]):
        key, value = k[:, :, t, :, None], v[:, :, t, None]
        state = state if keep is None else state * keep[:, :, t]
        value = value if gain is None else gain[:, :, t, None] * (value - (state * key).sum(2, keepdims=True))
        state = state + key * value
        out.append(q[:, :, t, None] @ np.repeat(state, q.shape[1] // k.shape[1], 1))
    y = np.concatenate(out, 2) * (scale or 1 / np.sqrt(k.shape[3]))
    return joined(y).astype(dtype), state.astype(start.dtype)


def causal_conv_with_state(
    x: Array, w: Array, b: Array | None = None, past_state: Array | None = None, *, activation: str = "none"
) -> tuple[Array, Array]:
    """A depthwise convolution over the past, and the inputs that the next piece will need."""
    reach = w.shape[2] - 1
    past = np.zeros((*x.shape[:2], reach), x.dtype) if past_state is None else past_state
    padded = np.concatenate((past, x), 2)
    y = conv(padded, w, b, groups=x.shape[1]).astype(x.dtype)
    if activation != "none":
        y = (y * sigmoid(y.astype(np.float32))).astype(x.dtype)
    return y, padded[:, :, padded.shape[2] - reach :]


ATTENTION: dict[str, Callable[..., Any]] = {
    "attention": attention,
    "rotary_embedding": rotary_embedding,
    "linear_attention": linear_attention,
    "causal_conv_with_state": causal_conv_with_state,
}
