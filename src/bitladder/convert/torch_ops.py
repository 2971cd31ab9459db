"""The torch half of the table of operators: the same names and signatures as `bitladder.ir.ops.OPS`, on tensors.

Gradients flow through everything that has them, except the operators of `BORROWED`: those go through numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bitladder.convert.torch_elementwise import ELEMENTWISE
from bitladder.convert.torch_layers import LAYERS, as_numpy
from bitladder.convert.torch_shapes import SHAPES
from bitladder.convert.torch_windows import WINDOWS
from bitladder.ir.ops import OPS

# Rare in networks, or without a gradient anyway; their definition in numpy serves both halves.
BORROWED = (
    "affine_grid", "causal_conv_with_state", "center_crop_pad", "col2im", "compress", "grid_sample", "linear_attention",
    "max_pool_indices", "max_unpool", "non_zero", "reverse_sequence", "tensor_scatter", "unique",
)  # fmt: skip


def borrowed(meaning: Callable[..., Any]) -> Callable[..., Any]:
    """An operator on tensors that is computed by its definition in numpy; nothing can be trained through it."""

    def through_numpy(*args: torch.Tensor | None, **attrs: Any) -> Any:
        made = meaning(*(as_numpy(a) for a in args), **attrs)
        return tuple(map(tensor, made)) if isinstance(made, tuple | list) else tensor(made)

    return through_numpy


def tensor(a: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(a))


TORCH_OPS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    **WINDOWS,
    **SHAPES,
    **LAYERS,
    **{name: borrowed(OPS[name]) for name in BORROWED},
}
