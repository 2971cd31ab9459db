"""Networks to save, damage and kill: made from a seed, so that a trial needs no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitladder.formats import Encoding, Fixed, QTensor, fit, parse
from bitladder.ir.graph import Constant, Graph, Node, PerWidth, Value

WIDTH = 8  # of a small chain


def coded(text: str, shape: tuple[int, ...], rng: np.random.Generator) -> Constant:
    """Random weights in the format of `text`."""
    w = rng.normal(size=shape).astype(np.float32)
    fmt = parse(text)
    return w if fmt is None else QTensor.of(w, fit(fmt, w))


def fixed_points(fraction: int) -> Encoding:
    """An encoding of activations in 8 bits with so many of them after the point."""
    return Encoding(Fixed(8, per="tensor"), {"fl": np.float32(fraction).reshape(())})


def chain(formats: Sequence[str], width: int = WIDTH, seed: int = 0, meta: Mapping[str, object] | None = None) -> Graph:
    """Products one after the other, each weight in one of the formats."""
    rng = np.random.default_rng(seed)
    names = ["x", *(f"h{i}" for i in range(1, len(formats))), "y"]
    return Graph(
        inputs=(Value("x", "float32", ("n", width)),),
        outputs=("y",),
        nodes=tuple(Node("linear", (names[i], f"w{i}"), (names[i + 1],)) for i in range(len(formats))),
        constants={f"w{i}": coded(text, (width, width), rng) for i, text in enumerate(formats)},
        encodings={name: fixed_points(4) for name in names[:-1]},
        meta=dict(meta or {}),
    )


def heavy(seed: int, width: int = 640) -> Graph:
    """A chain with a megabyte of codes, so that writing it takes a while."""
    return chain(["nested8"] * 3, width, seed, {"name": f"heavy {seed}"})


def small(seed: int = 3, formats: Sequence[str] = ("nested8", "nested8:tree", "int4"), least: int = 1) -> Graph:
    """A convolution, a strided convolution and a classifier of a few hundred codes; the first biases differ by width."""
    rng = np.random.default_rng(seed)
    first, second, third = formats
    padded = {"pads": ((1, 1), (1, 1))}
    return Graph(
        inputs=(Value("image", "float32", ("batch", 2, 6, 6)),),
        outputs=("scores",),
        nodes=(
            Node("conv", ("image", "w1", "b1"), ("h1",), {**padded, "strides": (1, 1)}, (0.0, None)),
            Node("conv", ("h1", "w2"), ("h2",), {**padded, "strides": (2, 2)}, (0.0, 6.0)),
            Node("global_avg_pool", ("h2",), ("h3",)),
            Node("flatten", ("h3",), ("h4",), {"axis": 1}),
            Node("linear", ("h4", "w3", "b3"), ("scores",)),
        ),
        constants={
            "w1": coded(first, (4, 2, 3, 3), rng),
            "b1": PerWidth("w1", {b: rng.normal(size=4).astype(np.float32) for b in (2, 4, 8)}),
            "w2": coded(second, (6, 4, 3, 3), rng),
            "w3": coded(third, (5, 6), rng),
            "b3": rng.normal(size=5).astype(np.float32),
        },
        encodings={name: fixed_points(fl) for name, fl in (("image", 5), ("h1", 3), ("h2", 4), ("h4", 4))},
        meta={
            "name": f"small {seed}",
            "labels": ["a", "b", "c", "d", "e"],
            **({"min_bits": {"w1": least}} if least > 1 else {}),
        },
    )


def in_floats(graph: Graph) -> Graph:
    """The same network with nothing quantized."""
    constants = {
        name: c.decode() if isinstance(c, QTensor) else c.arrays[max(c.arrays)] if isinstance(c, PerWidth) else c
        for name, c in graph.constants.items()
    }
    return graph.with_(constants=constants, encodings={})


# ------------------------------------------------------------------------------------------------------ comparison


def alike(a: Graph, b: Graph) -> bool:
    """Whether two networks are the same in everything, constants to the bit."""
    words = (a.inputs, a.outputs, repr(a.meta), list(a.constants), set(a.encodings)) == (
        b.inputs, b.outputs, repr(b.meta), list(b.constants), set(b.encodings)
    )  # fmt: skip
    return (
        words
        and repr(a.nodes) == repr(b.nodes)
        and all(alike_constants(a.constants[k], b.constants[k]) for k in a.constants)
        and all(alike_encodings(a.encodings[k], b.encodings[k]) for k in a.encodings)
    )


def alike_constants(a: Constant, b: Constant) -> bool:
    if isinstance(a, QTensor) and isinstance(b, QTensor):
        return alike_encodings(a.encoding, b.encoding) and equal(a.codes, b.codes)
    if isinstance(a, PerWidth) and isinstance(b, PerWidth):
        return (a.of, set(a.arrays)) == (b.of, set(b.arrays)) and all(equal(a.arrays[k], b.arrays[k]) for k in a.arrays)
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and equal(a, b)


def alike_encodings(a: Encoding, b: Encoding) -> bool:
    same = (a.format, a.axes, set(a.params)) == (b.format, b.axes, set(b.params))
    return same and all(equal(np.asarray(a.params[k]), np.asarray(b.params[k])) for k in a.params)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal types, shapes and bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
