"""The precision of a classifier's last layer, from its number of classes (S6, US11875251, EP3564868).

Near initialisation a softmax over C classes gives 1/C each, and all gradients but the target's are about that size: below
half a step of a narrow format they all round to zero and the layer stops learning. So bits grow with log2 C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.formats.tensor import Array, ns
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node, PerWidth

FREE = 16  # so many classes cost nothing extra
MANY = 100  # from here on `mode="threshold"` raises the precision
WEIGHTS = {"base": 8, "most": 16}
GRADIENTS = {"base": 16, "most": 32}
HEADS = ("conv", "conv_transpose", "linear")  # layers with one output channel per class
# What lies before one of these is not what the output's classes come from.
WALLS = ("matmul", "einsum", "attention", "linear_attention", "shape", "size", "layer_norm", "rms_norm", "group_norm",
         "instance_norm", "lp_normalization")  # fmt: skip

Table = Sequence[tuple[int, int]]  # (fewest classes, bits), rising


def class_bits(
    classes: int,
    *,
    mode: str = "log2",
    base: int = 8,
    most: int = 16,
    free: int = FREE,
    threshold: int = MANY,
    high: int | None = None,
    slope: float | None = None,
    table: Table | None = None,
) -> int:
    """Bits for the layer that tells `classes` classes apart, between `base` and `most`.

    mode: "log2": base + ceil(log2(classes / free)). "threshold": `high` (else `most`) from `threshold` classes on.
    "linear": slope * classes, literally proportional; the slope is base / free if none is given. "table": the bits of
    the last row of `table` that asks for at most so many classes, as stored with the network.

    >>> [class_bits(c) for c in (2, 16, 32, 64, 100, 1000)], class_bits(1000, **GRADIENTS)
    ([8, 8, 9, 10, 11, 14], 22)
    """
    if mode not in MODES:
        raise ValueError(f"class_bits: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if classes < 1 or not 1 <= base <= most:
        raise ValueError(
            f"class_bits: needs classes >= 1 and 1 <= base <= most, got classes {classes}, base {base}, most {most}"
        )
    options = {"free": free, "threshold": threshold, "high": most if high is None else high, "slope": slope, "table": table}
    return min(max(MODES[mode](classes, base, options), base), most)


def by_log2(classes: int, base: int, options: Mapping[str, Any]) -> int:
    """One bit more for every doubling beyond the free classes."""
    return base + (-(-classes // options["free"]) - 1).bit_length()


def by_threshold(classes: int, base: int, options: Mapping[str, Any]) -> int:
    """Few bits or many."""
    return int(options["high"]) if classes >= options["threshold"] else base


def by_slope(classes: int, base: int, options: Mapping[str, Any]) -> int:
    """In proportion, to the letter."""
    slope = base / options["free"] if options["slope"] is None else options["slope"]
    return round(slope * classes)


def by_table(classes: int, base: int, options: Mapping[str, Any]) -> int:
    """What the stored table says."""
    rows = sorted((int(fewest), int(bits)) for fewest, bits in options["table"] or ())
    if not rows:
        raise ValueError('class_bits: mode "table" needs rows of (fewest classes, bits), got none; pass table')
    return next((bits for fewest, bits in reversed(rows) if fewest <= classes), base)


MODES: dict[str, Callable[[int, int, Mapping[str, Any]], int]] = {
    "log2": by_log2,
    "threshold": by_threshold,
    "linear": by_slope,
    "table": by_table,
}


@dataclass(frozen=True)
class Head:
    """The plan entry of a classifier layer: its classes, and bits for its weights, its activations and its gradients."""

    classes: int
    weight: int
    activation: int
    gradient: int

    def extra_bytes(self, elements: int, other: int = 8) -> int:
        """What its weights cost more than at the other layers' bits.

        >>> head_of(1000).extra_bytes(2048 * 1000)
        1536000
        """
        return elements * (self.weight - other) // 8


def head_of(classes: int, *, activation: int = 8, **rule: Any) -> Head:
    """The plan entry for a head with so many classes; `rule` goes to `class_bits`, for weights and for gradients.

    >>> head_of(1000)
    Head(classes=1000, weight=14, activation=8, gradient=22)
    """
    return Head(classes, class_bits(classes, **{**WEIGHTS, **rule}), activation, class_bits(classes, **{**GRADIENTS, **rule}))


# ------------------------------------------------------------------------------------------------ heads of a graph


def heads(graph: Graph) -> dict[str, int]:
    """The last weighted layers before each output, and how many classes each tells apart.

    The way back leads through additions, softmax, reshapes and whatever else has no weight of its own. Classes are the
    layer's output channels, or the length of the softmax axis where a reshape makes groups (anchors times classes), or
    what the graph says in meta["classes"].
    """
    maker = {name: node for node in graph.nodes for name in node.outputs}
    stored = graph.meta.get("classes", {})
    found: dict[str, int] = {}
    for output in graph.outputs:
        group = softmax_group(graph, maker, output)
        for name, channels in last_weighted(graph, maker, output).items():
            split = group if group and channels % group == 0 else channels
            found.setdefault(name, int(stored.get(name, split)))
    return found


def last_weighted(graph: Graph, maker: Mapping[str, Node], output: str) -> dict[str, int]:
    """The weights nearest before `output`, with their output channels."""
    found: dict[str, int] = {}
    waiting, seen = [output], set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        weight = graph.constants.get(node.inputs[1]) if node.op in HEADS else None
        if weight is not None and not isinstance(weight, PerWidth):
            groups = int(node.attrs.get("groups", 1)) if node.op == "conv_transpose" else 1
            found.setdefault(node.inputs[1], weight.shape[CHANNEL_AXIS[node.op]] * groups)
        elif node.op not in CHANNEL_AXIS and node.op not in WALLS:
            waiting += [name for name in node.inputs if name]
    return found


def softmax_group(graph: Graph, maker: Mapping[str, Node], output: str) -> int | None:
    """The length of the axis over which a softmax before `output` runs, where a reshape right before it says so."""
    node = maker.get(output)
    while node is not None and node.op not in ("softmax", "log_softmax"):
        made = [name for name in node.inputs if name in maker]
        node = maker[made[0]] if len(made) == 1 and node.op not in CHANNEL_AXIS else None
    before = maker.get(node.inputs[0]) if node is not None else None
    if node is None or before is None or before.op != "reshape" or len(before.inputs) < 2:
        return None
    target, axis = graph.constants.get(before.inputs[1]), int(node.attrs.get("axis", -1))
    sizes = [int(n) for n in target] if isinstance(target, np.ndarray) else []
    return sizes[axis] if -len(sizes) <= axis < len(sizes) and sizes[axis] > 0 else None


def floors(classes: Mapping[str, int], *, above: int = 0, **rule: Any) -> dict[str, int]:
    """The fewest bits of each head with more than `above` classes: no search goes below them (`budget` takes them as they are).

    >>> floors({"fc.weight": 1000, "few.weight": 10}, above=100)
    {'fc.weight': 14}
    """
    return {name: class_bits(c, **{**WEIGHTS, **rule}) for name, c in classes.items() if c > above}


def searchable(names: Sequence[str], floors: Mapping[str, int], low: int) -> tuple[str, ...]:
    """The names that may go down to `low` bits; the heads whose rule asks for more are kept out."""
    return tuple(n for n in names if floors.get(n, 0) <= low)


def lifted(plan: Mapping[str, int], floors: Mapping[str, int]) -> dict[str, int]:
    """`plan` with every head at its floor at least, heads that the plan does not name included.

    >>> lifted({"fc.weight": 4, "conv.weight": 4}, {"fc.weight": 8})
    {'fc.weight': 8, 'conv.weight': 4}
    """
    return {name: max(plan.get(name, 0), floors.get(name, 0)) for name in dict.fromkeys([*plan, *floors])}


def nonzero_fraction(gradient: Array, bits: int) -> float:
    """The part of a gradient's elements that is not zero after rounding to `bits`, the largest magnitude at the top code.

    >>> nonzero_fraction(np.array([1.0, 0.001, 0.01, -0.5]), 8)
    0.75
    """
    largest = float(abs(gradient).max())
    if largest == 0:
        return 0.0
    codes = (gradient / largest * (2 ** (bits - 1) - 1)).round()
    return float(ns(codes).count_nonzero(codes)) / math.prod(gradient.shape)
