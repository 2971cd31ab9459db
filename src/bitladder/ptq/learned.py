"""Rounding that learns: all codes of a network move together until its outputs are those of the float network again.

Feedback looks at one layer at a time. Here every weight has a latent number that begins at its code; the network runs on the
codes nearest to the latents, what it answers is compared with the float network's answers on calibration samples (no labels),
and the gradient moves the latents as if rounding were not there (Bengio et al., 2013). Only weights that are pulled the same
way again and again change their codes, so a few hundred samples do not lead astray. Layers' outputs are compared, too.

The network runs on codes all the time, so it is complete after every step: time may run out at any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.errors import require
from bitladder.formats import Nested, QTensor
from bitladder.formats.tensor import store
from bitladder.ir.graph import Graph
from bitladder.ptq.calibrate import Progress
from bitladder.ptq.clock import ENDLESS, Clock
from bitladder.runtime.reference import run

NEAR = 0.45  # how far from its code, in codes, a latent number begins at most, and may go beyond the outermost code


@dataclass(frozen=True)
class Learning:
    """How codes learn. rate: of latents, in codes a step, falling to nothing.

    layers: how much errors of layers' outputs count beside the network's.
    """

    steps: int = 400
    batch: int = 32
    rate: float = 0.02
    layers: float = 0.1


def learned(
    plain: Graph,
    made: Graph,
    weights: Mapping[str, QTensor],
    samples: Mapping[str, np.ndarray],
    how: Learning,
    *,
    parents: Mapping[str, QTensor] | None = None,
    starts: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    clock: Clock = ENDLESS,
    progress: Progress | None = None,
) -> dict[str, QTensor]:
    """Better codes for `weights` of the network `made`; `plain` is the float network.

    parents: tensors of fewer bits of which codes must stay children. Without torch, or time, codes stay as they are.
    """
    torch = require("torch", "torch", "quantize: rounding learned")
    from bitladder.convert.torch_ops import TORCH_OPS, tensor

    parents, starts = parents or {}, starts or {}
    latents = {n: Latent(torch, q, parents.get(n), starts.get(n)) for n, q in weights.items() if movable(q)}
    if not latents:
        return dict(weights)
    teacher = {name: tensor(c) for name, c in plain.constants.items() if isinstance(c, np.ndarray)}
    fixed = {name: tensor(decoded(c)) for name, c in made.constants.items() if isinstance(c, np.ndarray | QTensor)}
    shown = {node.outputs[0] for name, node in plain.weights() if name in latents}
    adam = torch.optim.Adam([t.x for t in latents.values()], lr=how.rate, betas=(0.9, 0.99))
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(adam, how.steps)
    with one_thread(torch):
        for done, batch in enumerate(batches(torch, samples, how, seed)):
            if clock.over():
                break
            true: dict[str, Any] = {}
            got: dict[str, Any] = {}
            with torch.no_grad():
                wanted = run(plain, batch, ops=TORCH_OPS, known=teacher, watch=keeper(true, shown))
            now = fixed | {name: t.value() for name, t in latents.items()}
            outputs = run(plain, batch, ops=TORCH_OPS, known=now, watch=keeper(got, shown))
            loss = sum(divergence(torch, outputs[name], wanted[name]) for name in plain.outputs)
            loss = loss + how.layers / len(shown) * sum(relative(got[name], true[name]) for name in sorted(shown))
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
            for t in latents.values():
                t.stay()
            if progress:
                progress("learn rounding", done + 1, how.steps)
    return {**weights, **{name: t.tensor() for name, t in latents.items()}}


def batches(torch: Any, samples: Mapping[str, np.ndarray], how: Learning, seed: int) -> Iterator[dict[str, Any]]:
    """So many batches of a seeded shuffle of the samples, epoch after epoch."""
    draw, count = np.random.default_rng(seed), len(next(iter(samples.values())))
    size, order = min(how.batch, count), np.empty(0, np.int64)
    for _ in range(how.steps):
        if len(order) < size:
            order = draw.permutation(count)
        some, order = order[:size], order[size:]
        yield {k: torch.from_numpy(np.ascontiguousarray(v[some])) for k, v in samples.items()}


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """One thread while it lasts: gradients are sums whose order depends on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def decoded(c: np.ndarray | QTensor) -> np.ndarray:
    """The reals of a constant."""
    return c.decode() if isinstance(c, QTensor) else c


def movable(q: QTensor) -> bool:
    """Whether codes of a tensor are in the order of what they stand for, so that they can move up and down."""
    return not (isinstance(q.format, Nested) and q.format.scheme == "sign")


def keeper(into: dict[str, Any], names: set[str]) -> Any:
    """A watch that keeps the values of these names."""
    return lambda name, value: into.update({name: value} if name in names else {})


def divergence(torch: Any, out: Any, wanted: Any) -> Any:
    """How far outputs are from those wanted: in nats for classes (samples, classes), else as a share of their power."""
    if out.ndim == 2 and out.shape[1] > 1:
        log = torch.log_softmax
        return torch.nn.functional.kl_div(log(out, 1), log(wanted, 1), log_target=True, reduction="batchmean")
    return relative(out, wanted)


def relative(out: Any, wanted: Any) -> Any:
    """Squared error as a share of the power."""
    return (out - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


class Latent:
    """The latent numbers of one weight, in units of codes, and what their codes decode to."""

    def __init__(self, torch: Any, q: QTensor, parent: QTensor | None, start: np.ndarray | None):
        self.torch, self.q = torch, q
        low, high = q.format.span()
        codes = q.codes.astype(np.int64)
        if parent is None:
            self.low, self.high = torch.tensor(float(low)), torch.tensor(float(high))
        else:
            spread = 2 ** (q.format.bits - parent.format.bits)
            first = torch.from_numpy(parent.codes.astype(np.float32)) * spread
            self.low, self.high = first, first + (spread - 1)
        reach = [q.encoding.decode(np.full(q.shape, end, np.float32)) for end in (low, high)]
        self.slope = torch.from_numpy(np.ascontiguousarray((reach[1] - reach[0]) / (high - low), np.float32))
        near = codes if start is None else codes + start.clip(-NEAR, NEAR)
        self.x = torch.from_numpy(near.astype(np.float32)).requires_grad_(True)

    def value(self) -> Any:
        """What the codes decode to, whose gradient passes to the latents."""
        hard = self.q.encoding.decode(self.x.detach().round())
        return hard + self.slope * (self.x - self.x.detach())

    def stay(self) -> None:
        """Keep the latents among the codes that may be."""
        with self.torch.no_grad():
            self.x.copy_(self.torch.minimum(self.torch.maximum(self.x, self.low - NEAR), self.high + NEAR))

    def tensor(self) -> QTensor:
        """The codes as they are now."""
        return QTensor(self.q.encoding, store(self.x.detach().round().numpy(), self.q.format))
