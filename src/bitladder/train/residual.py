"""Training in which what a gradient cannot change in a narrow weight stays as a residual (S5, US12511528).

Weight and residual are one long integer. The gradients of a batch's parts are tuned to the residual's digits, summed as
integers, and added in one pass: one write of the weights for any number of gradients, in any order, from any number of
processes, and always the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from bitladder.train.carry import carry, deployed, guard_bits
from bitladder.train.group import Group
from bitladder.train.words import ROUNDINGS, Word, rounded

Tensor = Any


def tune(
    gradient: Tensor, unit: Tensor | float, *, top: int, rounding: str = "rne", seed: tuple[int, ...] = ()
) -> tuple[Tensor, int]:
    """A gradient in the residual's digits, int64, and how many elements were beyond +-`top` and cut off there.

    >>> tune(torch.tensor([0.05, 0.03, -0.002]), 2**-10, top=2**15)[0].tolist()
    [51, 31, -2]
    """
    digits = rounded(gradient.double() / unit, rounding, seed)
    kept = digits.clip(-top, top)
    return kept, int((kept != digits).sum())


class Residual(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed by the checker
    """Stochastic gradient descent on integer weights with residuals, momentum and weight decay in integers too.

    params: parameters or groups with a "format" each, `fixedB` or `intB`; `by_shape(module)` makes the usual groups.
    `take()` after each backward pass tunes and sums that gradient; `step()` takes what is left and updates once.
    finer: digits of the residual, in integers of `wide` bits. A gradient's step is cut off at the whole span of the codes.
    aligned: residuals have the weight's sign, else they are never negative. The network sees the nearest code of both.
    follow: steps double for weights whose codes are full. group: the processes that sum their gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        format: str = "fixed8",
        wide: int = 16,
        finer: int = 15,
        rounding: str = "rne",
        aligned: bool = False,
        follow: bool = True,
        seed: int = 0,
        group: Group | None = None,
    ):
        if rounding not in ROUNDINGS:
            raise ValueError(f"Residual: rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
        ours = {"format": format, "wide": wide, "finer": finer, "follow": follow}
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **ours})
        self.rounding, self.aligned, self.seed = rounding, aligned, seed
        self.group = group or Group()
        self.steps, self.taken = 0, 0
        self.words: dict[Tensor, Word] = {}
        self.sums: dict[Tensor, Tensor] = {}
        self.speed: dict[Tensor, Tensor] = {}
        with torch.no_grad():
            for options in self.param_groups:
                for p in options["params"]:
                    self.words[p] = Word.of(p, options["format"], finer=options["finer"], wide=options["wide"])
                    self.sums[p] = torch.zeros(p.shape, dtype=torch.int64, device=p.device)
                    if options["momentum"]:
                        self.speed[p] = torch.zeros_like(self.sums[p])
                    p.copy_(self.seen(p))

    def seen(self, p: Tensor) -> Tensor:
        """What the network computes with in place of a parameter: the nearest code, not the one below."""
        held = self.words[p]
        return deployed(held.codes.long(), held.rest.long(), finer=held.finer, bits=held.bits) * held.step

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def take(self, share: float = 1.0, number: int | None = None) -> None:
        """Tune every parameter's gradient, times `share`, add it to the sums, and clear it.

        number: which gradient of the step this is; only stochastic rounding asks, and only where processes share a batch.
        """
        number = self.taken if number is None else number
        place = -1
        for options in self.param_groups:
            for p in options["params"]:
                place += 1
                if p.grad is None:
                    continue
                held = self.words[p]
                top = 1 << (held.finer + held.bits)
                seed = (self.seed, self.steps, number, place)
                step = p.grad.double() * (-options["lr"] * share)
                tuned, cut = tune(step, held.unit(), top=top, rounding=self.rounding, seed=seed)
                self.sums[p] += tuned
                held.lost += cut
                p.grad = None
        self.taken += 1

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Sum over the processes, and one pass of updates over all weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(p.grad is not None for p in self.words):
            self.take()
        for options in self.param_groups:
            for p in options["params"]:
                self.update(p, self.group.add(self.sums[p]), options)
                self.sums[p].zero_()
        self.steps, self.taken = self.steps + 1, 0
        return loss

    def update(self, p: Tensor, sums: Tensor, options: Mapping[str, Any]) -> None:
        """The one integer pass: weight decay and momentum, then weight, residual and sum are added and parted again."""
        held = self.words[p]
        codes, rest = held.codes.long(), held.rest.long()
        if options["weight_decay"]:
            sums = sums - rounded(held.totals().double() * (options["lr"] * options["weight_decay"]))
        if p in self.speed:
            sums = self.speed[p] = rounded(self.speed[p].double() * options["momentum"]) + sums
        made, left, full = carry(codes, rest, sums, finer=held.finer, bits=held.bits, aligned=self.aligned)
        cut = int(full.sum())
        held.updates += int((made != codes).sum())
        held.clipped += cut
        held.put(made, left)
        if options["follow"] and held.too_full(cut):
            coarser(held, self.speed.get(p))
        p.copy_(self.seen(p))

    def adder_bits(self, gradients: int) -> int:
        """The widest sum of so many gradients: digits of code and residual, a sign, and guard bits."""
        return max(held.finer + held.bits for held in self.words.values()) + 1 + guard_bits(gradients)

    def counters(self) -> dict[str, int]:
        """Over all weights: codes changed, codes that would have left their format, elements of gradients cut off."""
        return {name: sum(getattr(held, name) for held in self.words.values()) for name in ("updates", "clipped", "lost")}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes; also between the gradients of one step."""
        kept = [
            (self.words[p].state(), self.sums[p].clone(), self.speed[p].clone() if p in self.speed else None)
            for p in self.words
        ]
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        return {"words": kept, "steps": self.steps, "taken": self.taken, "groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; the parameters become what the kept weights say."""
        if len(state_dict["words"]) != len(self.words):
            raise ValueError(
                f"Residual: the state must be of {len(self.words)} tensors, got {len(state_dict['words'])}; "
                "make the optimizer with the same groups"
            )
        self.steps, self.taken = state_dict["steps"], state_dict["taken"]
        for now, then in zip(self.param_groups, state_dict["groups"], strict=True):
            now.update(then)
        with torch.no_grad():
            for p, (word, sums, speed) in zip(self.words, state_dict["words"], strict=True):
                self.words[p].restore(word)
                self.sums[p].copy_(sums)
                if speed is not None:
                    self.speed[p] = speed.clone()
                p.copy_(self.seen(p))


def coarser(held: Word, speed: Tensor | None) -> None:
    """Steps twice as large for a word whose codes are full, its momentum in the same units as its residual."""
    unit = held.finer
    held.coarser()
    lost = unit + 1 - held.finer  # digits that the residual had no room for
    if speed is not None and lost:
        speed.copy_(rounded(speed.double() * 2.0**-lost))
