"""Fractional lengths of a convolution whose input channels have lengths of their own (S3).

Input channel j has length a_j, the kernel slice (o, j) length f_oj, their products p_oj = a_j + f_oj. Products can only be
added at one length F_o. Two modes: "weights" gives every slice the length F_o - a_j, so that all products of an output
channel agree and no shifter is needed; "sums" leaves each slice its best length and shifts its partial sums left by
F_o - p_oj, F_o being the largest p_oj. (US 11,588,496 claim 4.)
"""

from __future__ import annotations

import numpy as np

from bitladder.formats import Encoding, Fixed, fit

MODES = ("weights", "sums")
SPILL = 0.001  # share of a slice's weights that may overflow before F_o slides down


def aligned_weights(
    fmt: Fixed, w: np.ndarray, a: np.ndarray, *, mode: str = "weights", cover: str = "mse", groups: int = 1
) -> Encoding:
    """The encoding of weights `w` (outputs, inputs / groups, ...) whose inputs have fractional lengths `a` (inputs,).

    One fractional length per slice; in mode "weights" they are F_o - a_j with F_o of least weighted squared error among
    those that overflow at most 0.1 % of a slice.
    """
    own = fit(fmt, w, slices=True, cover=cover)
    if mode == "sums":
        return own
    if mode not in MODES:
        raise ValueError(f"align: mode must be one of {', '.join(MODES)}, got {mode!r}")
    outs = w.shape[0]
    per_out = a.reshape(groups, -1).repeat(outs // groups, axis=0)  # (outputs, inputs of its group)
    low, high = fmt.span()
    flat = w.reshape(*w.shape[:2], -1).astype(np.float64)
    best, chosen = np.full(outs, np.inf), np.zeros(outs)
    products = own.params["fl"] + per_out
    top, bottom = products.max(1), products.min(1)
    for slide in range(int((top - bottom).max()) + 2):
        f = np.maximum(top - slide, bottom - 1)[:, None] - per_out
        scaled = np.round(flat * np.exp2(f)[..., None])
        spilt = ((scaled < low) | (scaled > high)).mean(2).max(1)
        error = (((np.clip(scaled, low, high) * np.exp2(-f)[..., None] - flat) ** 2).sum(2) * np.exp2(-2 * per_out)).sum(1)
        error = np.where(spilt > SPILL, error * 1e6, error)  # taken only if nothing spills less
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, np.maximum(top - slide, bottom - 1), chosen)
    return Encoding(fmt, {"fl": np.clip(chosen[:, None] - per_out, -96, 96).astype(np.float32)}, (0, 1))
