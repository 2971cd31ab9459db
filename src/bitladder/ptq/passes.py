"""Codes for the inputs that they will get: one pass over the network for each width, from the lowest up.

In the pass of a width every layer runs on codes of that width, and a layer's codes are rounded with error feedback for what
the layers before it give at that width. Codes of the next width are children of these, rounded in a pass of their own. So one
nested file holds networks each of which was rounded as a whole; other formats take the last pass alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bitladder.formats import Encoding, Format, Nested, Product, QTensor
from bitladder.formats.tensor import store
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node
from bitladder.ptq import blocks
from bitladder.ptq.bake import check_blocks, check_finite, weight_encoding
from bitladder.ptq.feedback import HOLD, ROWS, climbed, damped, fits, stages
from bitladder.ptq.groups import refitted
from bitladder.ptq.importance import Importance
from bitladder.ptq.moments import settled
from bitladder.ptq.ranges import by_error
from bitladder.ptq.sequence import Inputs


@dataclass
class Codes:
    """The weights of a network while they are rounded, each at the width that it has reached.

    activations: their encodings, which fixed-point weights align with. minds: what the loss minds of outputs, where that is to
    count. made: tensors of the widths reached so far.
    """

    plain: Graph
    formats: Mapping[str, Format | None]
    activations: Mapping[str, Encoding]
    cover: str = "mse"
    align: str = "weights"
    minds: Mapping[str, Importance] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    made: dict[str, QTensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes: dict[str, Node] = {
            name: node for name, node in self.plain.weights() if sequential(self.plain, name, node, self.formats.get(name))
        }

    def widths(self) -> list[int]:
        """The passes to make, lowest first: the widths of those nested weights that begin lowest, which all others join.

        The last one takes every weight to its own width.
        """
        formats = [fmt for name in self.nodes if (fmt := self.formats[name]) is not None]
        nested = [stages(fmt) for fmt in formats if isinstance(fmt, Nested)]
        lowest = min((each[0] for each in nested), default=0)
        low = {bits for each in nested if each[0] == lowest for bits in each[:-1]}
        return [*sorted(low), max((fmt.bits for fmt in formats), default=8)]

    def reach(self, name: str, inputs: Inputs | None, *, bits: int) -> QTensor | None:
        """A weight as codes of the width that it runs on in the pass of `bits`; without inputs, as the nearest of them."""
        if name not in self.nodes:
            return None
        fmt = self.formats[name]
        assert fmt is not None
        width = next((b for b in stages(fmt) if b >= bits), fmt.bits)
        before = self.made.get(name)
        if before is None or before.format.bits < width:
            rounded = self.nearest if inputs is None else partial(self.fed, inputs)
            codes, encoding = rounded(name, fmt, width, before)
            self.made[name] = QTensor(encoding, store(codes, encoding.format))
        return self.made[name]

    def complete(self, bits: int) -> None:
        """Bring the weights that no pass has reached to their width for `bits`, in the quickest way."""
        for name in self.nodes:
            self.reach(name, None, bits=bits)

    def fed(self, inputs: Inputs, name: str, fmt: Format, width: int, before: QTensor | None) -> tuple[np.ndarray, Encoding]:
        """Codes with error feedback, children of those `before`, and their encoding."""
        moved, gram = inputs()
        if name not in self.encodings:
            self.encodings[name] = self.encoding(name, moved, fmt, gram)
        encoding = self.encodings[name]
        if isinstance(fmt, Product):
            return blocks.rounded(moved, encoding, gram).codes, encoding
        each, last = len(moved) // len(gram), 0 if before is None else before.format.bits
        flat, codes = moved.reshape(len(moved), -1), np.empty((len(moved), moved[0].size), np.int64)
        for g, matrix in enumerate(gram):
            rows = slice(g * each, (g + 1) * each)
            parent = None if before is None else before.codes.reshape(codes.shape)[rows].astype(np.int64)
            made = climbed(flat[rows], encoding, moved.shape, rows, matrix, widths=(width,), parent=parent, last=last)
            codes[rows] = made[width]
        if fmt.group is not None:
            codes, self.encodings[name] = refitted(moved, codes, encoding, gram)
            return codes.reshape(moved.shape), self.encodings[name]
        narrow, codes = encoding.at(width) if width < fmt.bits else encoding, codes.reshape(moved.shape)
        if name in self.minds:
            held = np.stack([damped(matrix, HOLD if width < fmt.bits else 0.0) for matrix in gram])
            codes = settled(moved, codes, narrow, held, self.minds[name], before)
        return codes, narrow

    def nearest(self, name: str, fmt: Format, width: int, before: QTensor | None) -> tuple[np.ndarray, Encoding]:
        """The nearest codes, children of those `before`, and their encoding."""
        w = self.plain.constants[name]
        assert isinstance(w, np.ndarray)
        if name not in self.encodings:
            self.encodings[name] = self.encoding(name, w, fmt, None)
        encoding = self.encodings[name].at(width) if width < fmt.bits else self.encodings[name]
        codes = encoding.encode(w)
        if before is not None:
            assert isinstance(encoding.format, Nested)
            codes = encoding.format.child(codes, before.codes.astype(np.float32), width - before.format.bits)
        return codes, encoding

    def encoding(self, name: str, w: np.ndarray, fmt: Format, gram: np.ndarray | None) -> Encoding:
        """The encoding of one weight: ranges by error, unless kernel slices have lengths that agree with their inputs'."""
        node = self.nodes[name]
        x = self.activations.get(node.inputs[0])
        fitted = weight_encoding(node, w, fmt, x, cover=self.cover, align=self.align, gram=gram)
        if gram is None or self.cover != "mse" or len(fitted.axes) > 1:
            return fitted
        return by_error(w, fmt, gram, axis=CHANNEL_AXIS[node.op])

    def graph(self, base: Graph) -> Graph:
        """`base` with all weights that were made, at the widths that they have reached."""
        return base.with_(constants={**base.constants, **self.made})


def sequential(plain: Graph, name: str, node: Node, fmt: Format | None) -> bool:
    """Whether a weight is rounded in passes: it is an array, and there is room for the gram matrix of its inputs."""
    w = plain.constants[name]
    if fmt is None or node.op not in ROWS or not isinstance(w, np.ndarray) or not fits(w):
        return False
    check_finite(name, w)
    check_blocks(name, w, fmt, CHANNEL_AXIS[node.op])
    return True
