"""Training of integer weights with finer accumulators (S4, US11544549, US20230102087).

An optimizer of torch makes a step of floats; the step goes to an accumulator, and what has gathered there in multiples of
the weight's last bit (or of a higher one) goes to the weight every so many steps. The network only ever sees the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from bitladder.train.carry import settle
from bitladder.train.floats import FloatWord, Minifloat
from bitladder.train.words import ROUNDINGS, Word, rounded

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
        self.words: dict[Tensor, Word | FloatWord] = {}
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"] if group["format"] is not None else ():
                    self.words[p] = word(p, group)
                    p.copy_(self.words[p].value())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the rule into the accumulators and, every `period` steps, from them into the weights."""
        loss = self.inner.step(closure)
        self.steps += 1
        due = self.steps % self.period == 0
        groups = [(p, group) for group in self.param_groups for p in group["params"] if p in self.words]
        for place, (p, group) in enumerate(groups):
            held = self.words[p]
            wish = p.double() - held.value().double()
            if isinstance(held, Word):
                gather(held, rounded(wish / held.unit(), self.rounding, (self.seed, self.steps, place)), group, due)
            else:
                held.gather(wish, due)
            p.copy_(held.value())
        return loss

    def counters(self) -> dict[str, int]:
        """Over all weights: codes changed, codes that would have left their format, accumulators that overflowed."""
        return {name: sum(getattr(held, name) for held in self.words.values()) for name in ("updates", "clipped", "lost")}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes: the rule's state, the weights and the accumulators."""
        rule = self.inner.state_dict()
        rule["param_groups"] = [{k: v for k, v in group.items() if k not in OURS} for group in rule["param_groups"]]
        return {"rule": rule, "words": [held.state() for held in self.words.values()], "steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; the parameters become what the kept weights say."""
        if len(state_dict["words"]) != len(self.words):
            raise ValueError(
                f"Accumulated: the state must be of {len(self.words)} tensors, got {len(state_dict['words'])}; "
                "make the optimizer with the same groups"
            )
        ours = [{k: group[k] for k in OURS} for group in self.param_groups]
        self.inner.load_state_dict(state_dict["rule"])
        self.param_groups, self.steps = self.inner.param_groups, int(state_dict["steps"])
        for group, own in zip(self.param_groups, ours, strict=True):
            group.update(own)
        with torch.no_grad():
            for (p, held), kept in zip(self.words.items(), state_dict["words"], strict=True):
                held.restore(kept)
                p.copy_(held.value())


def word(p: Tensor, group: Mapping[str, Any]) -> Word | FloatWord:
    """A parameter as the word its group asks for."""
    if isinstance(group["format"], Minifloat):
        return FloatWord.of(p, group["format"])
    held = Word.of(p, group["format"], finer=group["finer"], wide=group["wide"])
    n = group["n_update"]
    if not 0 <= n < held.bits - 1 or (1 << (held.finer + n)) - 1 > held.most():
        raise ValueError(
            f"Accumulated: n_update must be 0 to {held.bits - 2} and finer + n_update below {group['wide']}, "
            f"got n_update {n}, finer {held.finer}"
        )
    return held


def gather(held: Word, units: Tensor, group: Mapping[str, Any], due: bool) -> None:
    """Add fine units to a word's accumulator; when due, move what is due to its codes."""
    codes, memory = held.codes.long(), held.rest.long() + units
    lost, clipped = held.lost, held.clipped
    if due:
        codes, memory, moved, full = settle(codes, memory, finer=held.finer, bits=held.bits, n=group["n_update"])
        held.updates += int(moved.count_nonzero())
        held.clipped += int(full.sum())
    held.put(codes, memory)
    if group["follow"] and held.finer > 0:
        adjust(held, group["n_update"], held.too_full(held.clipped - clipped), held.lost > lost)


def adjust(held: Word, n: int, full: bool, overflowed: bool) -> None:
    """Move binary points: of the weights when codes are full, of the accumulator when it overflowed or was long small."""
    if full:
        held.coarser()
        while (1 << (held.finer + n)) - 1 > held.most():
            held.point(-1)
        return
    if overflowed:
        held.point(-1)
        return
    largest = int(held.rest.long().abs().max()) if held.rest.numel() else 0
    held.calm = held.calm + 1 if largest < (held.most() + 1) >> QUIET else 0
    if held.calm >= PATIENCE and (2 << (held.finer + n)) - 1 <= held.most():
        held.point(1)
