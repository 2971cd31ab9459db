"""The words of a graph: what every operator means, in numpy. This table is the definition of them all.

`OPS[name](*inputs, **attrs)` returns one array, or a tuple of them where a node has several outputs. An absent optional
input is None. Arrays are numpy; operators that move data about keep its dtype. The torch half of the same table
is `bitladder.convert.torch_ops.TORCH_OPS`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPS: dict[str, Callable[..., Any]] = {}
