"""Learning for a few cycles, to see which weights move (S2, US12393828 FIG 7, 8, 13 and 14).

A cycle is one batch: forward, backward, one step of stochastic gradient descent. The network given is never changed.
Any module will do; under torchrun every process learns on its share of each batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from bitladder.formats import Encoding, fit, parse
from bitladder.stats.differences import Learned
from bitladder.train.group import Group, agree_on, joined
from bitladder.train.lesson import Inputs, Lesson, Loss
from bitladder.train.state import Checkpoint, State, fingerprint

Progress = Callable[[int, int, str], None]  # cycles done, of how many, a word on how it goes
Tensor = Any

RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)


def learn(
    module: Any,
    inputs: Inputs,
    labels: np.ndarray | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    cycles: int = 100,
    batch: int = 128,
    rate: float | Mapping[str, float] | None = None,
    momentum: float = 0.9,
    seed: int = 0,
    start: str = "float",
    encodings: Mapping[str, Encoding] | None = None,
    on_codes: bool = False,
    loss: Loss | None = None,
    frozen: Collection[str] = (),
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Learned:
    """How far every weight of `module` moves in so many cycles of learning; the module itself stays as it is.

    inputs: one array per argument of the module's forward, samples along the first axis; of a dict, the values in order.
    labels: class numbers, one per output position. Without labels the network learns what it already says: its own
    classes where the output is one score per class, else its own outputs, asked for at slightly disturbed inputs (noise of
    a tenth of the batch's deviation; a tenth of integers taken from another sample), so that there is a gradient.
    weights: the parameters to watch, by the names the answer uses; else those of `module.weights()`, or of the module, that
    have two axes or more. A parameter under two names counts once, under the first. All other parameters learn too.
    rate: one learning rate, or rates by shell pattern over the watched names, the last match winning; "*" is for the rest.
    Without one it is the highest of `RATES` at which the first batch's loss does not rise (`steady_rate`): what suits a
    network with batch norm makes the same network with batch norm folded into its weights diverge.
    start: "float" learns the network as it is (FIG 13). A format such as "fixed8" learns it with its watched weights in
    that format (FIG 14), fitted along axis 0 where `encodings` has no entry; gradients pass straight through to float
    weights behind the codes, and those are what is watched, since codes may not move at all; `on_codes` watches what the
    codes decode to instead. Activations are the module's business.
    frozen: names or shell patterns of weights that stay; their differences are 0.
    loss: a function of the module's output and the labels of a batch, to be a mean over it; cross-entropy if absent.
    work: a folder; the state goes to work/learn every few seconds, when interrupted and at the end, and the same call goes
    on from there with results identical to the bit. The state of another call is not used, and `notes` says so.

    Batch normalisation and dropout stay in evaluation mode, so their statistics do not move. Batches are a seeded shuffle
    of the samples, epoch after epoch; cycle c needs no history.
    """
    limits: dict[str, tuple[float, float]] = {"cycles": (cycles, 1), "batch": (batch, 1), "momentum": (momentum, 0)}
    for name, (got, least) in limits.items():
        if not got >= least:
            raise ValueError(f"learn: {name} must be at least {least}, got {got}")
    if momentum >= 1:
        raise ValueError(f"learn: momentum must be below 1, got {momentum}")
    with joined() as group:
        pupil = Pupil.of(module, weights, RATES[0] if rate is None else rate, frozen, start, encodings, on_codes, group)
        lesson = Lesson.of(copy.deepcopy(pupil.module), inputs, labels, loss, batch, seed).asked(cycles)
        if rate is None:
            pupil = replace(pupil, rates=dict.fromkeys(pupil.rates, steady_rate(pupil, lesson, group, momentum)))
        state = State.of(pupil.trained, pupil.watched)
        about: dict[str, Any] = {
            "batch": lesson.batch,
            "momentum": momentum,
            "seed": seed,
            "on_codes": on_codes,
            "processes": group.size,
        }
        about |= {"loss": getattr(loss, "__qualname__", None), "torch": torch.__version__, **pupil.about()}
        kept = Checkpoint(work if group.rank == 0 else None, lambda: fingerprint(about, [*lesson.known(), *pupil.arrays()]))
        notes = kept.resume(state, cycles)
        state.reached(agree_on(group, state.losses), state.seconds)
        group.agree(state.tensors().values())
        tell = progress if progress is not None and group.rank == 0 else lambda done, total, word: None
        for note in notes:
            tell(state.cycle, cycles, note)
        try:
            while state.cycle < cycles:
                run_cycle(pupil, lesson, state, group, momentum)
                kept.now_and_then(state)
                tell(state.cycle, cycles, f"loss {state.losses[-1]:.4g}")
        except KeyboardInterrupt:
            kept.save(state)
            raise
        kept.save(state)
    return Learned(
        differences={name: moved.numpy() for name, moved in state.differences.items()},
        initial={name: w.cpu().numpy() for name, w in pupil.initial.items()},
        rates=pupil.watched_rates(),
        losses=tuple(state.losses),
        seconds=state.seconds,
        frozen=pupil.frozen,
        notes=notes,
    )


def run_cycle(pupil: Pupil, lesson: Lesson, state: State, group: Group, momentum: float) -> None:
    """Forward, backward, one step, and the differences taken in."""
    began = time.monotonic()
    *gradients, loss = pupil.gradients(lesson, state.cycle, group)
    check_finite(state.cycle, float(loss), gradients, max(pupil.rates.values()))
    state.whole = False
    with torch.no_grad():
        for (name, w), gradient in zip(pupil.trained.items(), gradients, strict=True):
            state.speed[name].mul_(momentum).add_(gradient)
            w.sub_(state.speed[name], alpha=pupil.rates[name])
        for name, moved in state.differences.items():
            moved.update(pupil.now(name).double() - pupil.initial[name].double())
    state.losses.append(float(loss))
    state.seconds += time.monotonic() - began
    state.whole = True


def steady_rate(pupil: Pupil, lesson: Lesson, group: Group, momentum: float) -> float:
    """The highest of `RATES` at which the step that momentum makes of the first gradient does not raise the first loss."""
    learning = list(pupil.trained.values())
    first = [w.detach().clone() for w in learning]
    *gradients, loss = pupil.gradients(lesson, 0, group)
    with torch.no_grad():
        for rate in RATES:
            for w, w0, gradient in zip(learning, first, gradients, strict=True):
                w.copy_(w0 - rate / (1 - momentum) * gradient)
            after = group.add(pupil.loss(lesson, 0, group))
            for w, w0 in zip(learning, first, strict=True):
                w.copy_(w0)
            if float(after) <= float(loss):
                return rate
    return RATES[-1]


def check_finite(cycle: int, loss: float, gradients: Iterable[Tensor], rate: float) -> None:
    """Nothing, if the loss and all gradients are numbers."""
    if math.isfinite(loss) and all(bool(g.isfinite().all()) for g in gradients):
        return
    what, got = ("the gradients", "NaN or infinity") if math.isfinite(loss) else ("the loss", loss)
    advice = f"lower the rate (now {rate:g})" if cycle else "look for NaN, infinity or a division by zero in the network"
    raise ValueError(f"learn: cycle {cycle + 1}: {what} must be finite, got {got}; {advice}")


@dataclass(frozen=True)
class Pupil:
    """A copy of the module that learns. `trained`, `rates` go by parameter names, the rest by the names the user gave."""

    module: Any
    trained: Mapping[str, Tensor]
    rates: Mapping[str, float]
    watched: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    encodings: Mapping[str, Encoding]
    frozen: tuple[str, ...]
    start: str
    on_codes: bool

    @classmethod
    def of(
        cls,
        module: Any,
        weights: Mapping[str, Any] | None,
        rate: float | Mapping[str, float],
        frozen: Collection[str],
        start: str,
        encodings: Mapping[str, Encoding] | None,
        on_codes: bool,
        group: Group,
    ) -> Pupil:
        """A pupil that has learned nothing yet."""
        copied: dict[int, Any] = {}
        given = weights if weights is not None else own_weights(module)
        pupil = copy.deepcopy(module, copied).eval()
        watched = once({name: belongs(name, copied.get(id(w))) for name, w in given.items()})
        group.agree([*pupil.parameters(), *pupil.buffers()])
        parameters = dict(pupil.named_parameters())
        name_of = {id(w): name for name, w in watched.items()}
        still = matched("frozen", frozen, watched) | {n for n, w in watched.items() if not w.requires_grad}
        trained = {n: w for n, w in parameters.items() if w.requires_grad and name_of.get(id(w)) not in still}
        if not trained:
            raise ValueError("learn: at least one parameter must be free to move, got none; freeze fewer")
        for name, w in parameters.items():
            if not bool(w.isfinite().all()):
                raise ValueError(
                    f"learn: weight {name_of.get(id(w), name)!r} must be finite, got NaN or infinity; repair the network"
                )
        coded = fitted(watched, start, encodings or {})
        rates = rates_of({n: name_of.get(id(w), n) for n, w in trained.items()}, rate)
        bare = cls(pupil, trained, rates, watched, {}, coded, tuple(n for n in watched if n in still), start, on_codes)
        return replace(bare, initial={name: bare.now(name).clone() for name in watched})

    def now(self, name: str) -> Tensor:
        """What is watched of a weight: the weight, or what its code decodes to."""
        w = self.watched[name].detach()
        return quantized(w, self.encodings[name]) if self.on_codes and name in self.encodings else w

    def answer(self, arguments: tuple[Tensor, ...]) -> Any:
        """What the module says, its weights in their formats, gradients passing straight through."""
        if not self.encodings:
            return self.module(*arguments)
        qualified = {id(w): name for name, w in self.module.named_parameters()}
        through = {}
        for name, encoding in self.encodings.items():
            w = self.watched[name]
            through[qualified[id(w)]] = w + (quantized(w.detach(), encoding) - w.detach())
        return functional_call(self.module, through, arguments)

    def loss(self, lesson: Lesson, cycle: int, group: Group) -> Tensor:
        """This process's part of the loss of a cycle's batch; the parts of all processes add up to its mean."""
        rows = lesson.rows(cycle)
        share = group.share(len(rows))
        if not len(share):
            return next(iter(self.trained.values())).new_zeros(())
        arguments, labels = lesson.question(cycle, rows, share)
        loss = lesson.loss(self.answer(arguments), labels) * (len(share) / len(rows))
        if loss.ndim or (torch.is_grad_enabled() and not loss.requires_grad):
            raise ValueError("learn: the loss must be one number that depends on the weights; give a mean over the batch")
        return loss

    def gradients(self, lesson: Lesson, cycle: int, group: Group) -> list[Tensor]:
        """The gradients of a whole batch in the order of `trained`, and then its loss, the same in every process."""
        learning = list(self.trained.values())
        parts: list[Tensor] = [torch.zeros_like(w) for w in learning]
        loss = self.loss(lesson, cycle, group)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, learning, allow_unused=True)
            parts = [zero if g is None else g for g, zero in zip(found, parts, strict=True)]
        parts.append(loss.detach())
        if group.size == 1:
            return parts
        sums = group.add(torch.cat([p.reshape(-1) for p in parts]))
        return [s.view(p.shape) for s, p in zip(sums.split([p.numel() for p in parts]), parts, strict=True)]

    def watched_rates(self) -> dict[str, float]:
        """The learning rate of every watched weight; 0 for one that stays."""
        by_id = {id(w): self.rates[name] for name, w in self.trained.items()}
        return {name: by_id.get(id(w), 0.0) for name, w in self.watched.items()}

    def about(self) -> dict[str, Any]:
        """The settings that results depend on."""
        coded = {name: [str(e.format), e.axes, sorted(e.params)] for name, e in self.encodings.items()}
        return {
            "start": self.start,
            "rates": dict(self.rates),
            "watched": list(self.watched),
            "frozen": self.frozen,
            "coded": coded,
        }

    def arrays(self) -> list[np.ndarray]:
        """The numbers that results depend on."""
        own = [x.detach().cpu().numpy() for x in (*self.module.parameters(), *self.module.buffers())]
        return own + [np.asarray(e.params[key]) for e in self.encodings.values() for key in sorted(e.params)]


def own_weights(module: Any) -> Mapping[str, Any]:
    """The parameters worth watching, if nobody says which."""
    named = module.weights() if callable(getattr(module, "weights", None)) else dict(module.named_parameters())
    return {name: w for name, w in named.items() if w.ndim >= 2}


def belongs(name: str, w: Any) -> Tensor:
    """The parameter, if the module has it."""
    if w is None:
        raise ValueError(f"learn: weight {name!r} must be a parameter of the module, got another tensor; pass the module's own")
    return w


def once(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every parameter under its first name; there must be one."""
    names = {id(w): name for name, w in reversed(list(weights.items()))}
    if not names:
        raise ValueError("learn: at least one weight must be watched, got none; pass `weights`")
    return {name: w for name, w in weights.items() if names[id(w)] == name}


def matched(what: str, patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that patterns match; a pattern that matches none is an error."""
    found = {p: {n for n in names if n == p or fnmatchcase(n, p)} for p in patterns}
    for pattern, hits in found.items():
        if not hits:
            raise ValueError(
                f"learn: {what} {pattern!r} must match a weight, and none does; the weights are {', '.join(names)}"
            )
    return set().union(*found.values())


def rates_of(names: Mapping[str, str], rate: float | Mapping[str, float]) -> dict[str, float]:
    """The learning rate of every trained parameter, by the last pattern that matches its name."""
    table = rate if isinstance(rate, Mapping) else {"*": rate}
    matched("rate", table, names.values())
    out = {}
    for parameter, name in names.items():
        hits = [r for pattern, r in table.items() if name == pattern or fnmatchcase(name, pattern)]
        if not hits or not 0 < hits[-1] < math.inf:
            got = f"got {hits[-1]}" if hits else 'none matches; add "*"'
            raise ValueError(f"learn: the rate of {name!r} must be above 0, {got}")
        out[parameter] = float(hits[-1])
    return out


def fitted(watched: Mapping[str, Tensor], start: str, given: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """The encoding of every watched weight; none for a float start."""
    fmt = parse(start)
    if fmt is None:
        if given:
            raise ValueError('learn: encodings need a start such as "fixed8", got start "float"')
        return {}
    matched("encoding", given, watched)
    return {name: given[name] if name in given else fit(fmt, w.detach().cpu().numpy()) for name, w in watched.items()}


def quantized(w: Tensor, encoding: Encoding) -> Tensor:
    """`w` rounded to its format."""
    return encoding.decode(encoding.encode(w)).to(w.dtype)
