"""Watching a network: which activations become integers, what values they take, and the encodings that suit them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bitladder.formats import Encoding, Fixed, Format, Int, Log
from bitladder.ir.graph import Graph, Node
from bitladder.ir.ops import OPS
from bitladder.runtime.reference import run
from bitladder.stats.histogram import Histogram
from bitladder.stats.points import Points

Batches = Iterable[Mapping[str, Any]]
Progress = Callable[[str, int, int], None]

HEAVY = {"conv": (0,), "conv_transpose": (0,), "linear": (0,), "matmul": (0, 1)}  # inputs that are worth being integers
MOVES = (  # values pass through unchanged, so they keep their encoding
    "reshape", "transpose", "slice", "squeeze", "unsqueeze", "flatten", "max_pool", "global_max_pool", "split",
    "depth_to_space", "space_to_depth", "gather", "expand", "tile", "identity", "pad",
)  # fmt: skip
JOINS = ("add", "sub", "mul", "concat")  # all of their inputs are data
WINDOWS = ("conv", "conv_transpose", "max_pool", "avg_pool", "global_max_pool", "global_avg_pool")
STAYS = (  # axes stay where they are
    *JOINS, "identity", "pad", "slice", "resize", "relu", "clip", "leaky_relu", "prelu", "sigmoid", "hard_sigmoid",
    "hard_swish", "silu", "swish", "tanh", "gelu", "elu", "mish", "reduce_mean", "depth_to_space", "space_to_depth",
)  # fmt: skip
LIGHT = (  # computed on integers without loss of speed (small tables, sums), so their inputs become integers too
    *MOVES, "add", "sub", "mul", "concat", "avg_pool", "global_avg_pool", "reduce_mean", "relu", "clip", "leaky_relu", "prelu",
    "sigmoid", "hard_sigmoid", "hard_swish", "silu", "swish", "tanh", "gelu", "elu", "mish", "resize",
)  # fmt: skip


def placement(graph: Graph, quantized: Iterable[str]) -> list[str]:
    """The activations to encode, in the order they are made: inputs of heavy nodes, and what leads there through light ones.

    `quantized` are the weights that will be integers. Network outputs stay real.
    """
    weights = set(quantized)
    floats = {v.name for v in graph.inputs if v.dtype.startswith("float")} | {o for n in graph.nodes for o in n.outputs}
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in HEAVY and (node.op == "matmul" or node.inputs[1] in weights):
            wanted |= {node.inputs[i] for i in HEAVY[node.op] if node.inputs[i] in floats}
        elif node.op in LIGHT and node.outputs[0] in wanted:
            data = node.inputs if node.op in JOINS else node.inputs[:1]
            wanted |= {name for name in data if name in floats}
    wanted -= set(graph.outputs)
    made = [v.name for v in graph.inputs] + [o for n in graph.nodes for o in n.outputs]
    return [name for name in made if name in wanted]


def feature_maps(graph: Graph) -> set[str]:
    """Values whose axis 1 are channels: what goes into and comes out of windows, and whatever keeps its axes on the way."""
    maps: set[str] = set()
    for node in (*graph.nodes, *reversed(graph.nodes)):
        data = node.inputs if node.op in JOINS else node.inputs[:1]
        if node.op in WINDOWS or (node.op in STAYS and maps & {*data, *node.outputs}):
            maps |= {*data, *node.outputs}
    return maps


def channelwise(graph: Graph, maps: set[str], name: str, rank: int) -> bool:
    """Whether a value is a feature map whose channels (axis 1) may have fractional lengths of their own."""
    readers = [n for n in graph.nodes if name in n.inputs]
    light = all(n.op not in ("linear", "matmul") and n.op in (*HEAVY, *LIGHT) for n in readers)
    return rank >= 3 and name in maps and light


def torch_ops() -> Mapping[str, Callable[..., Any]]:
    """The torch operators where torch is installed, else the reference ones."""
    try:
        from bitladder.convert.torch_ops import TORCH_OPS
    except ImportError:
        return OPS
    return TORCH_OPS


def observe(
    graph: Graph,
    batches: Batches,
    names: Iterable[str],
    *,
    per_channel: bool,
    profiled: bool = False,
    progress: Progress | None = None,
) -> dict[str, Histogram]:
    """Histograms of the named values over all batches, per channel of feature maps if asked, else one a value.

    profiled: with the moments that the rule `pdf` goes by. Memory does not grow with the number of batches. Values that are
    not floats are left out.
    """
    wanted, seen = set(names), dict[str, Histogram]()
    maps = feature_maps(graph)

    def watch(name: str, value: Any) -> None:
        array = np.asarray(value)
        if name not in wanted or array.dtype.kind != "f" or array.size == 0:
            return
        rows = (
            array.swapaxes(0, 1).reshape(array.shape[1], -1)
            if per_channel and channelwise(graph, maps, name, array.ndim)
            else array.reshape(1, -1)
        )
        if not np.isfinite(rows).all():
            raise ValueError(
                f"calibrate: value {name!r} became NaN or infinite; must be finite; check the weights and the data"
            )
        seen[name] = seen[name].update(rows) if name in seen else Histogram.of(rows, profiled)

    ops, count = torch_ops(), 0
    for count, batch in enumerate(batches, 1):
        inputs = {k: as_kind(v, ops) for k, v in batch.items()}
        for name, value in inputs.items():
            watch(name, value)
        run(graph, inputs, ops=ops, watch=watch)
        if progress:
            progress("calibrate", count, 0)
    if not count:
        raise ValueError("calibrate: the calibration data has no batch; give at least one")
    return seen


def as_kind(x: Any, ops: Mapping[str, Callable[..., Any]]) -> Any:
    """`x` as the kind of array that a table of operators works on."""
    if ops is OPS:
        return np.asarray(x)
    import torch

    return x if isinstance(x, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(x))


def encodings(
    graph: Graph, seen: Mapping[str, Histogram], formats: Mapping[str, Format | None], *, cover: str = "mse"
) -> dict[str, Encoding]:
    """The encoding of every observed value; values that only move others about share theirs."""
    made: dict[str, Node] = {o: n for n in graph.nodes for o in n.outputs}
    out: dict[str, Encoding] = {}
    for name, histogram in seen.items():
        fmt = formats.get(name)
        if fmt is None:
            continue
        node = made.get(name)
        source = out.get(node.inputs[0]) if node is not None and node.op in MOVES else None
        if source is not None and node is not None and node.clip is None and (source.axes == () or node.op == "max_pool"):
            out[name] = source
        else:
            out[name] = fitted(fmt, histogram, cover)
    return out


def fitted(fmt: Format, histogram: Histogram, cover: str) -> Encoding:
    """`fmt` fitted to one observed value: unsigned where nothing is negative, integers and powers one set per tensor."""
    if isinstance(fmt, Int):
        histogram, fmt = histogram.pooled(), replace(fmt, per="tensor", group=None, unsigned=True)
    elif isinstance(fmt, Fixed):
        if fmt.per == "tensor" or len(histogram.exponent) == 1:
            histogram = histogram.pooled()
        fmt = replace(fmt, unsigned=fmt.unsigned or bool((histogram.low >= 0).all()))
    elif isinstance(fmt, Log):
        histogram = histogram.pooled()
        fmt = replace(fmt, per="tensor", unsigned=bool((histogram.low >= 0).all()))
    else:
        raise ValueError(f"calibrate: activations must be int, fixed or log formats, got {fmt}; write e.g. a=int8")
    points = histogram.points()
    if cover == "pdf" and points.kept is None:
        raise ValueError("calibrate: cover 'pdf' needs the moments of activations; observe them with profiled=True")
    params = fmt.fit(points, cover)
    if len(histogram.exponent) == 1:
        return Encoding(fmt, {k: v.reshape(()) for k, v in params.items()}, ())
    if isinstance(fmt, Fixed) and fmt.fl is None:
        params = {"fl": inherit(params["fl"], points)}
    return Encoding(fmt, params, (1,))


def inherit(fl: np.ndarray, points: Points) -> np.ndarray:
    """Fractional lengths in which a channel that was never seen active takes the coarsest of its layer."""
    silent = (points.low == 0) & (points.high == 0)
    return np.where(silent, fl[~silent].min(), fl) if (~silent).any() else fl
