"""Networks to save, damage and kill: made from a seed, so that a trial needs no data."""

from __future__ import annotations

import numpy as np

from bitladder.formats import Encoding, Fixed, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, PerWidth, Value


def coded(text: str, shape: tuple[int, ...], rng: np.random.Generator) -> QTensor:
    """Random weights in the format of `text`."""
    w = rng.normal(size=shape).astype(np.float32)
    return QTensor.of(w, fit(parse(text), w))


def heavy(seed: int, width: int = 640) -> Graph:
    """A chain of three products with a megabyte of codes, so that writing it takes a while."""
    rng = np.random.default_rng(seed)
    names = [("x", "h0"), ("h0", "h1"), ("h1", "y")]
    return Graph(
        inputs=(Value("x", "float32", ("n", width)),),
        outputs=("y",),
        nodes=tuple(Node("linear", (a, f"w{i}"), (b,)) for i, (a, b) in enumerate(names)),
        constants={f"w{i}": coded("nested8", (width, width), rng) for i in range(3)},
        meta={"name": f"heavy {seed}"},
    )


def small(seed: int = 3, formats: tuple[str, str, str] = ("nested8", "nested8:tree", "int4"), classes: int = 5) -> Graph:
    """A convolution, a strided convolution and a classifier of a few hundred codes, biases per width."""
    rng = np.random.default_rng(seed)
    first, second, third = formats
    return Graph(
        inputs=(Value("image", "float32", ("batch", 2, 6, 6)),),
        outputs=("scores",),
        nodes=(
            Node("conv", ("image", "w1", "b1"), ("h1",), {"pads": ((1, 1), (1, 1)), "strides": (1, 1)}, (0.0, None)),
            Node("conv", ("h1", "w2"), ("h2",), {"pads": ((1, 1), (1, 1)), "strides": (2, 2)}, (0.0, 6.0)),
            Node("global_avg_pool", ("h2",), ("h3",)),
            Node("flatten", ("h3",), ("h4",), {"axis": 1}),
            Node("linear", ("h4", "w3", "b3"), ("scores",)),
        ),
        constants={
            "w1": coded(first, (4, 2, 3, 3), rng),
            "b1": PerWidth("w1", {b: rng.normal(size=4).astype(np.float32) for b in (2, 4, 8)}),
            "w2": coded(second, (6, 4, 3, 3), rng),
            "w3": coded(third, (classes, 6), rng),
            "b3": rng.normal(size=classes).astype(np.float32),
        },
        encodings={"image": fit_fixed(5), "h1": fit_fixed(3), "h2": fit_fixed(4), "h4": fit_fixed(4)},
        meta={"name": f"small {seed}"},
    )


def in_floats(graph: Graph) -> Graph:
    """The same network with nothing quantized."""
    constants = {
        name: c.decode() if isinstance(c, QTensor) else c.arrays[max(c.arrays)] if isinstance(c, PerWidth) else c
        for name, c in graph.constants.items()
    }
    return graph.with_(constants=constants, encodings={})


def fit_fixed(fraction: int) -> Encoding:
    """An encoding of activations in 8 bits with so many of them after the point."""
    return Encoding(Fixed(8, per="tensor"), {"fl": np.float32(fraction).reshape(())})
