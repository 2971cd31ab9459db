"""The words of a graph: what every operator means, in numpy. This table is the definition of them all.

`OPS[name](*inputs, **attrs)` returns one array, or a tuple of them where a node has several outputs. An absent optional
input is None. Arrays are numpy; operators that move data about keep its dtype. The torch half of the same table
is `bitladder.convert.torch_ops.TORCH_OPS`; a test holds the two together.

A word is the ONNX operator of the newest opset in snake_case, with its inputs in their order and its attributes as plain
values. What differs: `linear`, `embedding` and `max_pool_indices` are ours; pads of `conv`, `conv_transpose`, the pools and
`col2im` are (begin, end) per spatial axis; types are numpy names, and int4, uint4, int2, uint2 live in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitladder.ir.ops_attention import ATTENTION
from bitladder.ir.ops_elementwise import ELEMENTWISE
from bitladder.ir.ops_index import INDEX
from bitladder.ir.ops_linear import LINEAR
from bitladder.ir.ops_norm import NORM
from bitladder.ir.ops_pool import POOL
from bitladder.ir.ops_quant import QUANT
from bitladder.ir.ops_recurrent import RECURRENT
from bitladder.ir.ops_reduce import REDUCE
from bitladder.ir.ops_resize import RESIZE
from bitladder.ir.ops_shape import SHAPE

OPS: dict[str, Callable[..., Any]] = {
    **LINEAR,
    **ELEMENTWISE,
    **REDUCE,
    **NORM,
    **POOL,
    **SHAPE,
    **INDEX,
    **RESIZE,
    **ATTENTION,
    **RECURRENT,
    **QUANT,
}
