"""Training of integer weights with finer accumulators (S4, US11544549, US20230102087).

An optimizer of torch makes a step of floats; the step goes to an accumulator, and what has gathered there in multiples of
the weight's last bit (or of a higher one) goes to the weight every so many steps. The network only ever sees the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from bitladder.train.carry import deployed, settle
from bitladder.train.floats import FloatWord, FloatWords, Minifloat
from bitladder.train.words import ROUNDINGS, Word, Words, rounded, run

Tensor = Any
QUIET = 2  # rests below 2^-QUIET of their range ...
PATIENCE = 100  # ... at so many checks get a digit more
OURS = ("format", "wide", "finer", "n_update", "follow")


class Accumulated(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed by the checker
    """Any rule of torch.optim with weights in few bits and a memory of what those cannot show.

    params: parameters or groups. A group's "format" is `fixedB` or `intB` (signed, per tensor or channel), a `Minifloat`,
    or None for floats that the rule changes alone; `by_shape(module)` makes the usual groups.
    rule, options: the optimizer that makes the steps: momentum, weight decay and all else act before the accumulator.
    wide: bits of the accumulator; finer: its digits below the weight's last (0: none, so steps round to whole codes).
    n_update: bits above the last one from which on a weight changes. period: steps between updates of the weights.
    follow: accumulators gain a digit when they have been small for long, and give one back when they overflow; the
    weights' own steps double once codes are full. Off, the exact total is kept but for what is counted as clipped or lost.
    nearest: the network sees the code nearest to weight and accumulator, half a code off at most, instead of the weight, which
    lags by up to one; what is kept, and when it moves, stays the same.
    """

    param_groups: list[dict[str, Any]]

    def __init__(
        self,
        params: Iterable[Any],
        rule: Callable[..., Any] = torch.optim.SGD,
        *,
        format: str | Minifloat | None = "fixed8",
        wide: int = 16,
        finer: int = 13,
        n_update: int = 0,
        period: int = 1,
        rounding: str = "rne",
        follow: bool = True,
        nearest: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        if rounding not in ROUNDINGS:
            raise ValueError(f"Accumulated: rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
        if period < 1:
            raise ValueError(f"Accumulated: period must be at least 1, got {period}")
        ours = {"format": format, "wide": wide, "finer": finer, "n_update": n_update, "follow": follow}
        self.inner = rule(params, **options)
        super().__init__(self.inner.param_groups, ours)
        self.inner.param_groups = self.param_groups  # one list, so that schedulers of the rate reach the rule
        self.period, self.rounding, self.seed, self.steps = period, rounding, seed, 0
        self.nearest = nearest
        self.runs = [run_of(group) for group in self.param_groups]
        with torch.no_grad():
            self.show()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the rule into the accumulators and, every `period` steps, from them into the weights."""
        loss = self.inner.step(closure)
        self.steps += 1
        due = self.steps % self.period == 0
        for place, (group, held) in enumerate(zip(self.param_groups, self.runs, strict=True)):
            if isinstance(held, Words):
                self.gather(held, group, due, place)
            elif held is not None:
                held.gather(group["params"], due)
        return loss

    def gather(self, held: Words, group: Mapping[str, Any], due: bool, place: int) -> None:
        """What the rule made of the parameters goes to their accumulators; when due, what is due goes on to the codes."""
        codes = held.codes()
        wish = run(group["params"]).double() - self.seen(held) * held.step.double()
        memory = held.rest() + rounded(wish / held.unit(), self.rounding, (self.seed, self.steps, place))
        clipped = [0] * len(held.words)
        if due:
            codes, memory, moved, full = settle(codes, memory, finer=held.finer, bits=held.bits, n=group["n_update"])
            clipped = held.count(full)
            held.updates += int(moved.count_nonzero())
            held.clipped += sum(clipped)
        lost = held.put(codes, memory)
        if group["follow"] and sum(
            [adjust(*of, group["n_update"]) for of in zip(held.words, clipped, lost, strict=True)],
        ):
            held.measure()
        torch._foreach_copy_(group["params"], held.parts(self.seen(held) * held.step))

    def seen(self, held: Words) -> Tensor:
        """The codes that the network computes with."""
        return deployed(held.codes(), held.rest(), finer=held.finer, bits=held.bits) if self.nearest else held.codes()

    def show(self) -> None:
        """Parameters become what the network sees."""
        for group, held in zip(self.param_groups, self.runs, strict=True):
            if isinstance(held, Words):
                torch._foreach_copy_(group["params"], held.parts(self.seen(held) * held.step))
            elif held is not None:
                torch._foreach_copy_(group["params"], [word.value() for word in held.words])

    @property
    def words(self) -> dict[Tensor, Word | FloatWord]:
        """The word of each parameter that has one."""
        found: dict[Tensor, Word | FloatWord] = {}
        for group, held in zip(self.param_groups, self.runs, strict=True):
            if held is not None:
                found |= dict(zip(group["params"], held.words, strict=True))
        return found

    def counters(self) -> dict[str, int]:
        """Over all weights: codes changed, codes that would have left their format, accumulators that overflowed."""
        return {name: sum(getattr(held, name) for held in self.runs if held) for name in ("updates", "clipped", "lost")}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes: the rule's state, the weights and the accumulators."""
        rule = self.inner.state_dict()
        rule["param_groups"] = [{k: v for k, v in group.items() if k not in OURS} for group in rule["param_groups"]]
        return {"rule": rule, "runs": [held and held.state() for held in self.runs], "steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; the parameters become what the kept weights say."""
        ours = [{k: group[k] for k in OURS} for group in self.param_groups]
        self.inner.load_state_dict(state_dict["rule"])
        self.param_groups, self.steps = self.inner.param_groups, int(state_dict["steps"])
        for group, own, held, kept in zip(self.param_groups, ours, self.runs, state_dict["runs"], strict=True):
            group.update(own)
            if held is not None:
                held.restore(kept)
        with torch.no_grad():
            self.show()


def run_of(group: Mapping[str, Any]) -> Words | FloatWords | None:
    """The words of a group of parameters; None where they stay floats."""
    form, n, params = group["format"], group["n_update"], group["params"]
    if form is None:
        return None
    if isinstance(form, Minifloat):
        return FloatWords([FloatWord.of(p, form) for p in params])
    words = [Word.of(p, form, finer=group["finer"], wide=group["wide"]) for p in params]
    if not 0 <= n < words[0].bits - 1 or not words[0].fits(group["finer"] + n):
        raise ValueError(
            f"Accumulated: n_update must be 0 to {words[0].bits - 2} and finer + n_update below {group['wide']}, "
            f"got n_update {n}, finer {group['finer']}"
        )
    return Words(words)


def adjust(held: Word, clipped: int, lost: int, n: int) -> bool:
    """Move binary points: of the weights when codes are full, of the accumulator when it overflowed or was long small.

    Whether one has moved is the answer.
    """
    if held.too_full(clipped) and held.finer > 0:
        held.coarser(n)
        return True
    if lost and held.finer > 0:
        held.point(-1)
        return True
    if not held.fits(held.finer + n + 1) or held.finer == 0:
        return False
    largest = int(held.rest.long().abs().max()) if held.rest.numel() else 0
    held.calm = held.calm + 1 if largest < (held.most() + 1) >> QUIET else 0
    if held.calm >= PATIENCE:
        held.point(1)
        return True
    return False
