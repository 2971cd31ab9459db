"""Every aten operator that a graph has words for, by name without overload: what to write down for it."""

from __future__ import annotations

from bitladder.convert.aten_layers import LAYERS
from bitladder.convert.aten_math import MATH, Handler
from bitladder.convert.aten_reduce import REDUCE
from bitladder.convert.aten_shapes import SHAPES

ATEN: dict[str, Handler] = {**MATH, **REDUCE, **SHAPES, **LAYERS}
