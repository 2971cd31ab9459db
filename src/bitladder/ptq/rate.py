"""Rounding for rate: steps, codes and scales of all layers together, so that coded bytes buy the least loss.

A coder spends about log2(spread / step) bits on a weight, so what counts is how coarse steps may be, not how many levels
there are. Loss falls fastest for its bits when every weight costs the same share of it: one number, the divergence that is
allowed, sets the step of every output channel of every layer. What a weight costs is tr(S E G E') of `ptq.importance`, which
couples the inputs of a channel and also the channels of a layer. So errors are fed on both ways, to the inputs and to the
outputs that are still to be rounded: with S = A C A' and G = B D B' (A and B unit upper triangular, C and D diagonal) the
cost is the sum of C D times the square of A' E B, entry by entry, and each code is the one that makes its own entry least.

Two things were measured and left out. Zeros that are favoured for being cheap shrink the weights, and what shrinks in every
layer adds up; so do scales of least error. Channels that the loss does not mind much get coarse steps: codes far below the
format's largest are the rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitladder import file
from bitladder.codec.parts import Kind, encode_codes
from bitladder.formats import Encoding, Format, Int, Nested, QTensor
from bitladder.formats.tensor import store
from bitladder.ir.graph import Graph
from bitladder.ptq.feedback import damped
from bitladder.ptq.importance import Importance
from bitladder.ptq.trellis import Walk

DIVERGENCE = 0.01  # nats, or share of the outputs' power, that all weights together may cost, where nothing else is asked
MIND = 0.1  # share of the mean importance added to every output: moments of few samples are not all there is
SWEEPS = 2  # times that every code is chosen again
DIGITS = 3  # binary digits of a scale
FINER = 0.55  # steps of a trellis by steps without, at equal error
WHY_NOT_NESTED = {
    "rate": "widths of a nested code cannot all be the shortest",
    "trellis": "leading bits of a nested code do not tell the parities that a trellis goes by",
}
WHY_NOT_OTHERS = "what is chosen is the step of each channel"
PRICE = 0.4  # of a bit by the share of a weight, on a trellis; twice the logarithm of two would be the slope at high rates


@dataclass(frozen=True)
class Rate:
    """What all weights together may cost, and what each costs. Those that are not in `minds` are none of its business."""

    minds: Mapping[str, Importance]
    weights: int  # how many share the divergence
    divergence: float = DIVERGENCE
    dependent: bool = False  # codes are paths through the trellis of `ptq.trellis`

    @classmethod
    def of(cls, graph: Graph, minds: Mapping[str, Importance], *, dependent: bool = False) -> Rate:
        """The usual divergence for all weights that something is known of."""
        weights = sum(w.size for name in minds if isinstance(w := graph.constants[name], np.ndarray))
        return cls(minds, weights, dependent=dependent)

    @property
    def name(self) -> str:
        """What users call it."""
        return "trellis" if self.dependent else "rate"

    @property
    def share(self) -> float:
        """What the error of one weight may cost."""
        return self.divergence / max(self.weights, 1)

    def rounded(self, name: str, w: np.ndarray, fmt: Format, gram: np.ndarray) -> QTensor:
        """A weight (outputs, ...) as codes; `gram` (groups, inputs, inputs) is that of its inputs."""
        if not isinstance(fmt, Int) or fmt.unsigned or fmt.group or fmt.per != "channel":
            raise ValueError(
                f"quantize: weight {name!r} is rounded for {self.name}, so its format must have one scale a channel, such as "
                f"int8, got {fmt}; {WHY_NOT_NESTED[self.name] if isinstance(fmt, Nested) else WHY_NOT_OTHERS}"
            )
        moments, rows = self.minds[name]
        flat = w.reshape(len(gram), -1, gram.shape[-1]).astype(np.float64)
        made = [layer(*each, self.share, fmt, self.dependent) for each in zip(flat, moments, gram / rows, strict=True)]
        codes = np.concatenate([codes for codes, _ in made]).reshape(w.shape)
        scale = np.concatenate([scale for _, scale in made]).astype(np.float32)
        encoding = Encoding(fmt, {"scale": scale, "zero_point": np.zeros(len(scale), np.float32)}, (0,))
        return QTensor(encoding, store(codes, fmt))


def step_of(share: float, curvature: np.ndarray) -> np.ndarray:
    """The step whose rounding errors, evenly spread, cost so much."""
    return np.sqrt(12 * share / curvature)


def layer(
    w: np.ndarray, minds: np.ndarray, gram: np.ndarray, share: float, fmt: Format, dependent: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (outputs, inputs) and scales (outputs,) of one group; outputs and inputs that count most are rounded first.

    dependent: codes are a path through a trellis, and rounded in the order of its scan.
    """
    minds, gram = damped(minds, damp=MIND), damped(gram)
    outputs, inputs = (np.arange(len(m)) if dependent else np.argsort(-np.diag(m), kind="stable") for m in (minds, gram))
    minds, gram, w = minds[np.ix_(outputs, outputs)], gram[np.ix_(inputs, inputs)], w[np.ix_(outputs, inputs)]
    (rows, mind), (columns, energy) = factors(minds), factors(gram)
    low, high = fmt.span()
    step = step_of(share, mind * np.exp(np.log(energy).mean())) * (FINER if dependent else 1)
    step = np.maximum(short(step), short(np.abs(w).max(1) / high, up=True))
    if dependent:
        walk = Walk(w, step, rows, mind, share * PRICE, high)
        walk.feed(columns, energy)
        walk.settle(gram)
        found = walk.codes
    else:
        found = settle(w, feed(w, step, rows, columns, low, high), step, minds, gram, low, high)
    codes, scale = np.empty_like(found), np.empty_like(step)
    codes[np.ix_(outputs, inputs)], scale[outputs] = found, step
    return codes, scale


def factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(A, c) with matrix = A diag(c) A', A unit upper triangular."""
    lower = np.linalg.cholesky(matrix[::-1, ::-1])[::-1, ::-1]
    return lower / np.diag(lower), np.diag(lower) ** 2


def short(scale: np.ndarray, up: bool = False) -> np.ndarray:
    """Scales with few binary digits; `up`: none below what it was.

    >>> short(np.array([0.1, 3.0, 3.3])), short(np.array([3.3]), up=True)
    (array([0.09375, 3.     , 3.5    ]), array([3.5]))
    """
    fraction, exponent = np.frexp(scale)
    return np.asarray(np.ldexp((np.ceil if up else np.round)(fraction * 2**DIGITS) / 2**DIGITS, exponent), np.float64)


def feed(w: np.ndarray, step: np.ndarray, rows: np.ndarray, columns: np.ndarray, low: int, high: int) -> np.ndarray:
    """Codes of `w`, input after input and in each output after output, every one making up for the errors before it."""
    codes, errors = np.empty(w.shape), np.zeros(w.shape)
    before, steps = np.ascontiguousarray(rows.T), step.tolist()
    for k in range(w.shape[1]):
        owed = errors[:, :k] @ columns[:k, k]  # by the inputs before, for each output; then with this input's own error
        for i, (target, size) in enumerate(zip((w[:, k] + owed).tolist(), steps, strict=True)):
            codes[i, k] = code = min(max(round((target + float(before[i, :i] @ owed[:i])) / size), low), high)
            owed[i] = target - code * size
        errors[:, k] = w[:, k] - codes[:, k] * step
    return codes


def settle(
    w: np.ndarray,
    codes: np.ndarray,
    step: np.ndarray,
    minds: np.ndarray,
    gram: np.ndarray,
    low: np.ndarray | int,
    high: np.ndarray | int,
) -> np.ndarray:
    """`codes` after those that had a better choice, given all others, took it; the cost never rises.

    low, high: the codes that may be, for all or for each.
    """
    codes, low, high = codes.copy(), np.broadcast_to(low, codes.shape), np.broadcast_to(high, codes.shape)
    pull = minds @ (w - codes * step[:, None]) @ gram  # half of how fast the cost falls as a value grows
    for _ in range(SWEEPS):
        for k in range(w.shape[1]):
            near, moves, curvature = pull[:, k].copy(), np.zeros(len(w)), np.diag(minds) * gram[k, k] * step
            for i in np.flatnonzero(np.abs(near) > curvature / 2):
                code = min(max(round(codes[i, k] + near[i] / curvature[i]), low[i, k]), high[i, k])
                moves[i] = (code - codes[i, k]) * step[i]
                codes[i, k] = code
                near -= minds[:, i] * (moves[i] * gram[k, k])
            if moves.any():
                pull -= np.outer(minds @ moves, gram[k])
    return codes


def coded(graph: Graph, what: str) -> float:
    """The bytes of a network's file; or, for "avg_bits", the bits of a coded weight."""
    if what == "bytes":
        return len(file.to_bytes(graph, "best"))
    weights = [c for name, _ in graph.weights() if isinstance(c := graph.constants[name], QTensor)]
    return sum(code_bits(c.codes, c.format) for c in weights) / max(sum(math.prod(c.shape) for c in weights), 1)


def code_bits(codes: np.ndarray, fmt: Format) -> int:
    """How many bits codes (outputs, ...) take."""
    return 8 * len(encode_codes(codes.reshape(len(codes), -1), Kind(fmt.bits, *fmt.span()), "best").body)
