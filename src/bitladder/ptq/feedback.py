"""Rounding with error feedback: what one weight loses, the weights not yet rounded make up for (GPTQ; Frantar et al., 2023).

A layer's output error is (w - q) G (w - q)^T with G the gram matrix of its (unfolded) inputs. Weights are rounded one input
at a time, the most energetic first, and each error is spread over the inputs still to come by the Cholesky factor of the
inverse of G. Then every code is moved to the best one given all others, a few times over, which never adds error.

Nested codes are rounded from the lowest width that matters up: each further one may only choose among the children of the
code before it, so at every width that matters the prefix is a code that was itself rounded with feedback. A code far from its
weight has no child near it; so at widths to be refined, each weight's own deviation counts a little too (`HOLD`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bitladder.formats import Encoding, Format, Nested, QTensor
from bitladder.formats.tensor import SPREAD, spread, store
from bitladder.ir.graph import Graph, Node, PerWidth
from bitladder.ptq.calibrate import Progress, as_kind, torch_ops
from bitladder.runtime.reference import real, run

DAMP = 0.01  # share of the mean energy added to every input, so that the inverse exists
BLOCK = 64  # inputs rounded before their errors are spread over all that remain
HOLD = 0.3  # share of its energy added to every input at widths to be refined, so that codes stay near their weights
SWEEPS = 2  # times that every code is chosen again
LARGEST = 8192  # weights with more inputs than this go to the nearest code: their gram matrix would fill the memory
POSITIONS = 64  # at most so many positions of a feature map are looked at per sample


def grams(graph: Graph, batches: Iterable[Mapping[str, Any]], progress: Progress | None = None) -> dict[str, np.ndarray]:
    """Gram matrices (groups, inputs, inputs) of the unfolded inputs of every convolution and linear weight, float64.

    A fold over batches: memory does not grow with their number. Positions are an even selection of each feature map.
    """
    from bitladder.ir.windows import resolve

    users: dict[str, list[tuple[str, Node]]] = {}
    for name, node in graph.weights():
        if node.op in ROWS and fits(graph.constants[name]):
            users.setdefault(node.inputs[0], []).append((name, node))
    out: dict[str, np.ndarray] = {}

    def watch(value_name: str, value: Any) -> None:
        for name, node in users.get(value_name, ()):
            w = graph.constants[name]
            assert not isinstance(w, PerWidth)
            rows = ROWS[node.op](np.asarray(real(value), np.float32), node, tuple(w.shape), resolve)
            gram = products(rows, rows)
            out[name] = out[name] + gram if name in out else gram

    ops = torch_ops()
    for done, batch in enumerate(batches, 1):
        inputs = {k: as_kind(v, ops) for k, v in batch.items()}
        for name, value in inputs.items():
            watch(name, value)
        run(graph, inputs, ops=ops, watch=watch)
        if progress:
            progress("measure inputs", done, 0)
    return out


def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over rows of products of the columns of `a` and `b` (groups, rows, columns), the same whatever order they have.

    Numbers are rounded to multiples of a power of two, 2^16 of them, so that a float64 holds every sum of up to 2^21 products.

    >>> products(np.ones((1, 3, 2), np.float32), np.ones((1, 3, 2), np.float32))[0]
    array([[3., 3.],
           [3., 3.]])
    """
    (a, up), (b, along) = (whole(x) for x in (a, b))
    return np.asarray(np.matmul(a.swapaxes(1, 2), b) * (up * along))


def whole(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Numbers as integers (float64) of 16 bits and a sign at most, and what one is worth."""
    largest = float(np.abs(x).max(initial=0.0))
    step = 2.0 ** (np.ceil(np.log2(largest)) - 16) if largest > 0 else 1.0
    return np.round(x.astype(np.float64) / step), step


def fits(w: Any) -> bool:
    """Whether there is room for the gram matrix of a weight's inputs."""
    return math.prod(w.shape[1:]) <= LARGEST


def conv_rows(x: np.ndarray, node: Node, shape: tuple[int, ...], resolve: Any) -> np.ndarray:
    """The inputs of every output position as rows (groups, positions, inputs): some positions, all taps."""
    kernel, groups = shape[2:], int(node.attrs.get("groups", 1))
    attrs = {k: node.attrs.get(k) for k in ("strides", "dilations", "pads")}
    steps, pads = resolve(x.shape[2:], kernel, *attrs.values(), node.attrs.get("auto_pad", "NOTSET"))
    dilations = attrs["dilations"] or (1,) * len(kernel)
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    axes = tuple(range(2, 2 + len(kernel)))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    view = view[(slice(None), slice(None), *(slice(None, None, s) for s in steps), *(slice(None, None, d) for d in dilations))]
    space = view.shape[2 : 2 + len(kernel)]
    view = view[(slice(None), slice(None), *(slice(None, None, apart(space)) for _ in kernel))]
    order = (1, 0, *range(2, 2 + len(kernel)), *range(2 + len(kernel), 2 + 2 * len(kernel)))
    rows = view.transpose(order).reshape(groups, x.shape[1] // groups, -1, int(np.prod(kernel)))
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(groups, rows.shape[2], -1)


def apart(space: Sequence[int]) -> int:
    """How far apart the positions of a feature map are that are looked at."""
    return max(1, int(np.ceil((np.prod(space) / POSITIONS) ** (1 / len(space)))))


def looked_at(space: Sequence[int]) -> int:
    """How many positions of a feature map are looked at.

    >>> looked_at((32, 32)), looked_at((5,))
    (64, 5)
    """
    return math.prod(-(-n // apart(space)) for n in space)


def linear_rows(x: np.ndarray, node: Node, shape: tuple[int, ...], resolve: Any) -> np.ndarray:
    """The inputs of a linear layer as rows (1, positions, inputs)."""
    return x.reshape(1, -1, x.shape[-1])


ROWS = {"conv": conv_rows, "linear": linear_rows}


def rounded(w: np.ndarray, encoding: Encoding, gram: np.ndarray) -> QTensor:
    """`w` (outputs, ...) as codes of `encoding`, rounded with error feedback under gram matrices (groups, inputs, inputs)."""
    flat = w.reshape(w.shape[0], -1).astype(np.float64)
    each = w.shape[0] // len(gram)
    codes = np.empty(flat.shape, np.int64)
    for g, matrix in enumerate(gram):
        rows = slice(g * each, (g + 1) * each)
        codes[rows] = climb(flat[rows], encoding, w.shape, rows, matrix)
    return QTensor(encoding, store(codes.reshape(w.shape), encoding.format))


def climb(w: np.ndarray, encoding: Encoding, shape: tuple[int, ...], rows: slice, gram: np.ndarray) -> np.ndarray:
    """Codes (outputs, inputs) of one group: width after width for nested formats, once for all others."""
    return climbed(w, encoding, shape, rows, gram)[encoding.format.bits]


def climbed(
    w: np.ndarray,
    encoding: Encoding,
    shape: tuple[int, ...],
    rows: slice,
    gram: np.ndarray,
    *,
    widths: Sequence[int] | None = None,
    parent: np.ndarray | None = None,
    last: int = 0,
    sweeps: int | None = None,
) -> dict[int, np.ndarray]:
    """Codes (outputs, inputs) of one group by width, each a child of the one before.

    widths: those to be rounded, all that matter by default. parent: codes of `last` bits to go on from. sweeps: how often
    codes are chosen again, `SWEEPS` times by default.
    """
    order = np.argsort(-np.diag(gram), kind="stable")
    w, gram = w[:, order], gram[np.ix_(order, order)]
    fmt, out = encoding.format, dict[int, np.ndarray]()
    if parent is not None:
        parent = parent[:, order]
    for bits in stages(fmt) if widths is None else widths:
        narrow = encoding.at(bits) if bits < fmt.bits else encoding
        p, held = columns(narrow, shape, rows, order), damped(gram, HOLD if bits < fmt.bits else 0.0)
        codes = feed(w, narrow.format, p, spread_factor(held), parent, bits - last)
        parent, last = settle(w, codes, narrow.format, p, held, parent, bits - last, sweeps), bits
        out[bits] = np.empty_like(parent)
        out[bits][:, order] = parent
    return out


def stages(fmt: Format) -> tuple[int, ...]:
    """The widths that codes are rounded at, one after another: those of a nested format that matter, and its own.

    >>> stages(Nested(4)), stages(Nested(8, matter={6: 1.0}))
    ((2, 3, 4), (6, 8))
    """
    below = sorted(b for b in fmt.matter if b < fmt.bits) if isinstance(fmt, Nested) else []
    return (*below, fmt.bits)


def error_of(w: np.ndarray, codes: np.ndarray, encoding: Encoding, shape: tuple[int, ...], gram: np.ndarray) -> np.ndarray:
    """The output errors (outputs,) of codes (outputs, inputs) under a gram matrix."""
    e = w - decoded(codes, encoding.format, columns(encoding, shape, slice(0, len(w)), np.arange(w.shape[1])))
    return np.einsum("oi,oi->o", e @ damped(gram), e)


def damped(gram: np.ndarray, hold: float = 0.0, damp: float = DAMP) -> np.ndarray:
    """A gram matrix with more energy in each input: `hold` of its own, and a little of the mean, so that it has an inverse."""
    energy = np.diag(gram)
    return gram + np.diag(hold * energy + max(damp * energy.mean(), 1e-12))


def spread_factor(gram: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor of the inverse of a gram matrix, rows divided by their diagonal."""
    inverse = np.linalg.inv(gram)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    return upper / np.diag(upper)[:, None]


def columns(encoding: Encoding, shape: tuple[int, ...], rows: slice, order: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters laid out (outputs of a group, inputs in order), so that one column can be cut from them."""
    out = {}
    for name, p in encoding.params.items():
        if name in SPREAD:
            wide = np.broadcast_to(spread(p, shape, encoding.axes, encoding.format.group), shape)
            p = wide.reshape(shape[0], -1)[rows][:, order]
        out[name] = p
    return out


def column(p: Mapping[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """The parameters of one input."""
    return {name: v[:, k] if name in SPREAD else v for name, v in p.items()}


def chosen(
    w: np.ndarray, fmt: Format, p: Mapping[str, np.ndarray], parent: np.ndarray | None, deeper: int
) -> tuple[np.ndarray, np.ndarray]:
    """The codes nearest to the weights of one input, among the children of `parent` if given, and what they decode to."""
    code = fmt.encode(w.astype(np.float32), p)
    if parent is not None:
        assert isinstance(fmt, Nested)
        code = fmt.child(code, parent, deeper)
    return code, decoded(code, fmt, p)


def decoded(codes: np.ndarray, fmt: Format, p: Mapping[str, np.ndarray]) -> np.ndarray:
    """Reals (float64) of codes."""
    return (fmt.integers(codes.astype(np.float32), p) * fmt.step(p)).astype(np.float64)


def feed(
    w: np.ndarray, fmt: Format, p: Mapping[str, np.ndarray], factor: np.ndarray, parent: np.ndarray | None, deeper: int
) -> np.ndarray:
    """Codes of `w`, columns left to right, each error spread over the columns to its right; children of `parent` if given."""
    w = w.copy()
    codes = np.empty(w.shape, np.int64)
    for start in range(0, w.shape[1], BLOCK):
        stop = min(start + BLOCK, w.shape[1])
        errors = np.empty((w.shape[0], stop - start))
        for k in range(start, stop):
            codes[:, k], value = chosen(w[:, k], fmt, column(p, k), None if parent is None else parent[:, k], deeper)
            error = w[:, k] - value
            w[:, k + 1 : stop] -= error[:, None] * factor[k, k + 1 : stop]
            errors[:, k - start] = error
        w[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes


def settle(
    w: np.ndarray,
    codes: np.ndarray,
    fmt: Format,
    p: Mapping[str, np.ndarray],
    gram: np.ndarray,
    parent: np.ndarray | None,
    deeper: int,
    sweeps: int | None = None,
) -> np.ndarray:
    """`codes` after every one was chosen again, given all others, so that the error under `gram` is least; it never rises."""
    codes, value = codes.copy(), decoded(codes, fmt, p)
    pull = (w - value) @ gram  # half of how fast the error falls as a value grows
    for _ in range(SWEEPS if sweeps is None else sweeps):
        for start in range(0, w.shape[1], BLOCK):
            block = slice(start, min(start + BLOCK, w.shape[1]))
            near, before = pull[:, block].copy(), value[:, block].copy()
            for k in range(block.start, block.stop):
                best = value[:, k] + near[:, k - start] / gram[k, k]
                codes[:, k], new = chosen(best, fmt, column(p, k), None if parent is None else parent[:, k], deeper)
                near -= (new - value[:, k])[:, None] * gram[k, block]
                value[:, k] = new
            pull -= (value[:, block] - before) @ gram[block]
    return codes
