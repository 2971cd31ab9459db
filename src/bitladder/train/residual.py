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
from bitladder.train.words import ROUNDINGS, Word, Words, rounded, run

Tensor = Any


def tune(
    gradient: Tensor, unit: Tensor | float, *, top: Tensor | int, rounding: str = "rne", seed: tuple[int, ...] = ()
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
        self.runs = [
            Words([Word.of(p, g["format"], finer=g["finer"], wide=g["wide"]) for p in g["params"]]) for g in self.param_groups
        ]
        self.sums = [torch.zeros_like(held.finer) for held in self.runs]
        self.speed = [torch.zeros_like(held.finer) for held in self.runs]
        self.show()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def show(self) -> None:
        """Parameters become what the network computes with: the nearest codes, not those below."""
        for options, held in zip(self.param_groups, self.runs, strict=True):
            seen = deployed(held.codes(), held.rest(), finer=held.finer, bits=held.bits)
            torch._foreach_copy_(options["params"], held.parts(seen * held.step))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def take(self, share: float = 1.0, number: int | None = None) -> None:
        """Tune every parameter's gradient, times `share`, add it to the sums, and clear it.

        number: which gradient of the step this is; only stochastic rounding asks, and only where processes share a batch.
        """
        number = self.taken if number is None else number
        for place, (options, held, sums) in enumerate(zip(self.param_groups, self.runs, self.sums, strict=True)):
            gradient = run([torch.zeros_like(p) if p.grad is None else p.grad for p in options["params"]])
            step = gradient.double() * (-options["lr"] * share)
            top = 1 << (held.finer + held.bits)
            tuned, cut = tune(step, held.unit(), top=top, rounding=self.rounding, seed=(self.seed, self.steps, number, place))
            sums += tuned
            held.lost += cut
            for p in options["params"]:
                p.grad = None
        self.taken += 1

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Sum over the processes, and one pass of updates over all weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(p.grad is not None for options in self.param_groups for p in options["params"]):
            self.take()
        for options, held, sums, speed in zip(self.param_groups, self.runs, self.sums, self.speed, strict=True):
            update(held, self.group.add(sums), speed, options, self.aligned)
            sums.zero_()
        self.show()
        self.steps, self.taken = self.steps + 1, 0
        return loss

    @property
    def words(self) -> dict[Tensor, Word]:
        """The word of each parameter."""
        pairs = zip(self.param_groups, self.runs, strict=True)
        return {p: word for options, held in pairs for p, word in zip(options["params"], held.words, strict=True)}

    def adder_bits(self, gradients: int) -> int:
        """The widest sum of so many gradients: digits of code and residual, a sign, and guard bits."""
        return max(int(held.finer.max()) + held.bits for held in self.runs) + 1 + guard_bits(gradients)

    def counters(self) -> dict[str, int]:
        """Over all weights: codes changed, codes that would have left their format, elements of gradients cut off."""
        return {name: sum(getattr(held, name) for held in self.runs) for name in ("updates", "clipped", "lost")}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes; also between the gradients of one step."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        kept = {name: [x.clone() for x in held] for name, held in (("sums", self.sums), ("speed", self.speed))}
        runs = [held.state() for held in self.runs]
        return {"runs": runs, "steps": self.steps, "taken": self.taken, "groups": groups, **kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; the parameters become what the kept weights say."""
        for held, kept in zip(self.runs, state_dict["runs"], strict=True):
            held.restore(kept)
        for now, then in zip(self.param_groups, state_dict["groups"], strict=True):
            now.update(then)
        for name in ("sums", "speed"):
            for x, y in zip(getattr(self, name), state_dict[name], strict=True):
                x.copy_(y)
        self.steps, self.taken = state_dict["steps"], state_dict["taken"]
        self.show()


def update(held: Words, sums: Tensor, speed: Tensor, options: Mapping[str, Any], aligned: bool) -> None:
    """The one integer pass: weight decay and momentum, then weight, residual and sum are added and parted again."""
    codes, rest = held.codes(), held.rest()
    if options["weight_decay"]:
        totals = (codes << held.finer) + rest
        sums = sums - rounded(totals.double() * (options["lr"] * options["weight_decay"]))
    speed.copy_(rounded(speed.double() * options["momentum"]) + sums if options["momentum"] else sums)
    made, left, full = carry(codes, rest, speed, finer=held.finer, bits=held.bits, aligned=aligned)
    clipped = held.count(full)
    held.updates += int((made != codes).sum())
    held.clipped += sum(clipped)
    held.put(made, left)
    grown = [word.too_full(cut) for word, cut in zip(held.words, clipped, strict=True)]
    if options["follow"] and any(grown):
        for word, part, grows in zip(held.words, held.parts(speed), grown, strict=True):
            if grows:
                coarser(word, part)
        held.measure()


def coarser(held: Word, speed: Tensor) -> None:
    """Steps twice as large for a word whose codes are full, its momentum in the same units as its residual."""
    before = held.finer
    held.coarser()
    if lost := before + 1 - held.finer:  # digits that the residual had no room for
        speed.copy_(rounded(speed.double() * 2.0**-lost))
