"""Small runs of `bitladder quantize` that together take every way through it: a network and data from a seed, and words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bitladder.assign import times
from bitladder.assign.criteria import CRITERIA
from bitladder.convert.to_onnx import to_onnx
from bitladder.formats.uniform import COVERS
from bitladder.ir.graph import Graph, Node, Value
from bitladder.ptq.align import MODES
from bitladder.recipe import ROUNDINGS
from bitladder.runtime.reference import run

OUT = "out.ladder"
TABLE = "out.table"
GIVEN = ["net.onnx", "--data", "calib.npz", "--effort", "fast", "--cycles", "4", "--quiet", "-o", OUT]
SCORED = ["--eval", "eval.npz", "--max-drop", "0.1"]
TABLED = ["--table", TABLE, "--levels", "8,4,2"]


def net(seed: int = 0) -> Graph:
    """A convolution and four products, in floats."""
    rng = np.random.default_rng(seed)
    shapes = {"w0": (4, 2, 3, 3), "w1": (8, 4), "w2": (8, 8), "w3": (8, 8), "w4": (5, 8)}
    constants = {name: rng.normal(0, (2 / np.prod(s[1:])) ** 0.5, s).astype(np.float32) for name, s in shapes.items()}
    constants |= {f"b{name[1]}": rng.normal(0, 0.1, s[0]).astype(np.float32) for name, s in shapes.items()}
    nodes = [
        Node("conv", ("image", "w0", "b0"), ("h0",), {"pads": ((1, 1), (1, 1)), "strides": (1, 1)}, (0.0, None)),
        Node("global_avg_pool", ("h0",), ("pooled",)),
        Node("flatten", ("pooled",), ("flat",), {"axis": 1}),
    ]
    names = ["flat", "h1", "h2", "h3", "scores"]
    nodes += [
        Node("linear", (a, f"w{i}", f"b{i}"), (b,), {}, (0.0, None) if b != "scores" else None)
        for i, (a, b) in enumerate(itertools.pairwise(names), 1)
    ]
    return Graph((Value("image", "float32", ("n", 2, 6, 6)),), ("scores",), tuple(nodes), constants)


def prepare(folder: Path) -> None:
    """Write the network and its data into a folder; labels are the network's own answers, one in eight another class."""
    graph, rng = net(), np.random.default_rng(1)
    to_onnx(graph, folder / "net.onnx")
    for name, samples in (("calib", 48), ("eval", 40), ("test", 40)):
        x = (
            rng.normal(size=(samples, 2, 6, 6)).astype(np.float32)
            * np.linspace(0.5, 3, samples, dtype=np.float32)[:, None, None, None]
        )
        answers = run(graph, {"image": x})["scores"]
        labels = np.where(rng.random(samples) < 0.125, rng.integers(0, 5, samples), answers.argmax(1))
        np.savez(folder / f"{name}.npz", image=x, y=labels)


def untimed() -> None:
    """Measure no milliseconds, of which no two runs have the same."""
    times.TIMES[times.NATIVE] = lambda *given: ({}, 0.0)


# The ways through `quantize` that keep a state, or do not: runs that are ended and started again.
JOBS: Mapping[str, Sequence[str]] = {
    "default": SCORED,
    "plan": ["--plan", "nested6,a=fixed8", "--test", "test.npz"],
    "budget": ["--budget", "avg_bits=4"],
    "table": [*TABLED, "--budget", "avg_bits=4", "--eval", "eval.npz"],
    "table, drop": [*TABLED, *SCORED, "--criterion", "gradient"],
    **{f"rounding {name}": [*SCORED, "--rounding", name] for name in ROUNDINGS},
}

# One of every kind that there is: runs that must not depend on anything else.
FAMILIES = (
    "nested8",
    "nested6:tree",
    "nested5:sign",
    "int4",
    "int8/4",
    "fixed6,a=fixed8",
    "ternary",
    "codebook4",
    "log4,a=log5",
)
FAMILIES += ("product2x8", "codebook3:7/tensor", "q2.5")
KINDS: Mapping[str, Sequence[str]] = {
    **JOBS,
    "exact": [*TABLED, "--budget", "avg_bits=4", "--search", "exact"],
    "bytes": ["--budget", "1600B"],
    **{f"criterion {name}": ["--eval", "eval.npz", "--count", "2", "--criterion", name] for name in CRITERIA},
    **{f"search {name}": [*SCORED, "--search", name] for name in ("halving", "multi_level")},
    **{f"cover {name}": ["--plan", "fixed6,a=fixed8", "--cover", name] for name in COVERS},
    **{f"align {name}": ["--plan", "fixed6,a=fixed8", "--align", name] for name in MODES},
    **{f"format {name}": ["--plan", name] for name in FAMILIES},
    "equalize": ["--plan", "int6", "--equalize"],
}
