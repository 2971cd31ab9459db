"""Networks of one layer with random codes, for timing a kernel alone; and layers of real networks from bench/shapes/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitladder.formats import Encoding, Int, QTensor, fit, parse
from bitladder.formats.tensor import store
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node, Value

SHAPES = Path(__file__).parent / "shapes"
f32 = np.float32


@dataclass(frozen=True)
class Layer:
    """A layer of a network. `size` is height and width of its input; a product of rows has as many rows as height."""

    name: str
    op: str
    inputs: int
    size: tuple[int, int]
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def outer(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = ((n + 2 * self.pad - self.kernel) // self.stride + 1 for n in self.size)
        return height, width

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return self.outer[0] * self.outer[1] * self.outputs * self.inputs // self.groups * self.kernel**2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        inner = self.inputs // self.groups
        return (self.outputs, inner) if self.op == "linear" else (self.outputs, inner, self.kernel, self.kernel)

    def graph(self, text: str = "int8") -> Graph:
        """A network of this layer alone, weights in the format of `text`, input and output 8-bit integers."""
        linear = self.op == "linear"
        x = (1, self.size[0], self.inputs) if linear else (1, self.inputs, *self.size)
        attrs = {"strides": (self.stride,) * 2, "pads": ((self.pad,) * 2,) * 2, "groups": self.groups}
        return one(self.op, x, coded(text, self.shape), {} if linear else attrs, coarse=True)


def layers(net: str) -> list[Layer]:
    """The layers of a network, a line each: name, operator, inputs, height, width, outputs, kernel, stride, groups."""
    lines = (SHAPES / f"{net}.txt").read_text(encoding="ascii").splitlines()
    return [parsed(line) for line in lines if line.strip() and not line.startswith("#")]


def parsed(line: str) -> Layer:
    """The layer of a line.

    >>> parsed("conv1 conv 3 32 32 16 3 1 1").macs
    442368
    """
    name, op, *numbers = line.split()
    inputs, height, width, outputs, kernel, stride, groups = map(int, numbers)
    return Layer(name, op, inputs, (height, width), outputs, kernel, stride, groups)


def spelt(layer: Layer) -> str:
    """The line of a layer."""
    numbers = (layer.inputs, *layer.size, layer.outputs, layer.kernel, layer.stride, layer.groups)
    return " ".join(map(str, (layer.name, layer.op, *numbers)))


def distinct(found: list[Layer]) -> Iterator[tuple[Layer, int]]:
    """Each shape once, under its first name, and how many layers have it."""
    same: dict[Layer, list[Layer]] = {}
    for layer in found:
        same.setdefault(replace(layer, name=""), []).append(layer)
    return ((each[0], len(each)) for each in same.values())


# ------------------------------------------------------------------------------------------------------------ graphs


def coded(text: str, shape: tuple[int, ...], axis: int = 0, seed: int = 0) -> QTensor:
    """A tensor of random codes. Its parameters are fitted to a few numbers a channel: large ones would take minutes."""
    draw, fmt = np.random.default_rng(seed), parse(text)
    low, high = fmt.span()
    codes = store(draw.integers(low, high, shape, np.int16, endpoint=True), fmt)
    inner = int(np.prod(shape, dtype=np.int64)) // shape[axis]
    few = draw.normal(size=(shape[axis], fmt.group or min(inner, 64))).astype(f32)
    params = dict(fit(fmt, few).params)
    if fmt.group:
        params = {k: np.repeat(p, -(-inner // fmt.group), axis=1) for k, p in params.items()}
    return QTensor(Encoding(fmt, params, () if fmt.per == "tensor" else (axis,)), codes)


def bytewise(scale: float) -> Encoding:
    """An activation in 8 bits of one scale."""
    return Encoding(Int(8, per="tensor", unsigned=True), {"scale": f32(scale).reshape(()), "zero_point": f32(128).reshape(())})


def one(op: str, x: tuple[int, ...], weight: QTensor, attrs: dict[str, object] | None = None, coarse: bool = False) -> Graph:
    """A network of one weighted node and a bias; its output is integer as well if `coarse`."""
    bias = np.linspace(-1, 1, weight.shape[CHANNEL_AXIS[op]], dtype=f32)
    return Graph(
        inputs=(Value("x", "float32", x),),
        outputs=("y",),
        nodes=(Node(op, ("x", "w", "b"), ("y",), attrs or {}),),
        constants={"w": weight, "b": bias},
        encodings={"x": bytewise(0.02)} | ({"y": bytewise(0.2)} if coarse else {}),
    )


def transposed(channels: int, outputs: int, size: int, kernel: int, text: str = "int8") -> Graph:
    """A transposed convolution of stride 2 that doubles height and width."""
    weight = coded(text, (channels, outputs, kernel, kernel), axis=1)
    attrs = {"strides": (2, 2), "pads": ((1, 1), (1, 1)), "output_padding": (kernel % 2,) * 2}
    return one("conv_transpose", (1, channels, size, size), weight, attrs, coarse=True)


def stuffed(graph: Graph) -> Graph:
    """The dense convolution that gives the same outputs from an input with a zero between any two of its numbers."""
    (node,), w, x = graph.nodes, graph.constants["w"], graph.inputs[0]
    assert isinstance(w, QTensor)
    assert x.shape is not None
    sizes = [2 * int(n) - 1 for n in x.shape[2:]]
    pads = [
        (k - 1 - low, k - 1 - high + extra)
        for k, (low, high), extra in zip(w.shape[2:], node.attrs["pads"], node.attrs["output_padding"], strict=True)
    ]
    codes = np.ascontiguousarray(w.codes[:, :, ::-1, ::-1].swapaxes(0, 1))
    return graph.with_(
        inputs=(Value("x", "float32", (*x.shape[:2], *sizes)),),
        nodes=(Node("conv", node.inputs, node.outputs, {"strides": (1, 1), "pads": tuple(pads)}),),
        constants={**graph.constants, "w": QTensor(Encoding(w.format, w.encoding.params, (0,)), codes)},
    )


def stuffing(x: np.ndarray) -> np.ndarray:
    """x (batch, channels, height, width) with zeros between its rows and columns."""
    out = np.zeros((*x.shape[:2], *(2 * n - 1 for n in x.shape[2:])), x.dtype)
    out[:, :, ::2, ::2] = x
    return out
