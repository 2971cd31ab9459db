"""Weights as 8-bit floats with 16-bit floats as accumulators (S4): the exponent biases of both follow what they hold.

A stored float `x` stands for `x * 2^-bias`. Sums round here, unlike those of integers: totals are near, not exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

Tensor = Any
TOP, SMALLEST, MANTISSA = 448.0, -6, 3  # of float8_e4m3fn: largest value, least exponent, digits below the leading one
RANGE = 65504.0  # of float16


@dataclass(frozen=True)
class Minifloat:
    """8-bit floats of 4 exponent and 3 mantissa bits, with half-precision accumulators.

    quiet, patience: an accumulator below 2^-quiet of its range at `patience` checks in a row gets a higher bias.
    """

    quiet: int = 4
    patience: int = 100


def last_bit(x: Tensor) -> Tensor:
    """What the last bit of each stored weight is worth.

    >>> last_bit(torch.tensor([0.0, 1.0, 1.5, -448.0])).tolist()
    [0.001953125, 0.125, 0.125, 32.0]
    """
    exponent = torch.frexp(x.double()).exponent - 1
    return torch.exp2((exponent.clip(min=SMALLEST) * (x != 0) + SMALLEST * (x == 0) - MANTISSA).double())


@dataclass
class FloatWord:
    """One tensor as stored weights and accumulators; `lost` counts accumulators that overflowed."""

    form: Minifloat
    codes: Tensor
    rest: Tensor
    bias: int
    fine_bias: int
    calm: int = 0
    updates: int = 0
    clipped: int = 0
    lost: int = 0

    @classmethod
    def of(cls, x: Tensor, form: Minifloat) -> FloatWord:
        """The word nearest to `x`, with a factor of two or more to spare above the largest weight."""
        largest = float(x.detach().abs().max()) or 1.0
        bias = math.floor(math.log2(TOP / 2 / largest))
        codes = (x.detach() * 2.0**bias).to(torch.float8_e4m3fn)
        return cls(form, codes, torch.zeros_like(x, dtype=torch.float16), bias, bias + 8)

    def value(self) -> Tensor:
        """What the network computes with."""
        return self.codes.float() * 2.0**-self.bias

    def totals(self) -> Tensor:
        """Weights and accumulators together."""
        return self.value().double() + self.rest.double() * 2.0**-self.fine_bias

    def gather(self, wish: Tensor, due: bool) -> None:
        """Add a step to the accumulators; when due, whole last bits move to the weights."""
        total = self.rest.double() * 2.0**-self.fine_bias + wish
        if due:
            now = self.codes.double()
            bit = last_bit(now)
            whole = (total * 2.0**self.bias / bit).trunc() * bit
            wanted = (now + whole).clip(-TOP, TOP)
            made = wanted.float().to(torch.float8_e4m3fn)
            moved = made.double() - now
            full = (now + whole).abs() > TOP
            self.updates += int(moved.count_nonzero())
            self.clipped += int(full.sum())
            total = total - moved * 2.0**-self.bias
            limit = bit * 2.0**-self.bias
            total = torch.where(full, total.maximum(-limit).minimum(limit), total)
            self.codes = made
            if bool(full.any()):
                total = self.coarser(total)
        self.keep(total)

    def coarser(self, rest: Tensor) -> Tensor:
        """The accumulators after the weights' bias went down by one, for weights that are full."""
        before = self.value().double()
        self.codes, self.bias = (self.codes.float() / 2).to(torch.float8_e4m3fn), self.bias - 1
        return rest + before - self.value().double()

    def keep(self, total: Tensor) -> None:
        """Store accumulators; an overflow lowers their bias, long smallness raises it."""
        largest = float(total.abs().max()) * 2.0**self.fine_bias
        while largest > RANGE:
            self.lost += 1
            self.fine_bias, self.calm, largest = self.fine_bias - 1, 0, largest / 2
        self.rest = (total * 2.0**self.fine_bias).to(torch.float16)
        self.calm = self.calm + 1 if 0 < largest < RANGE * 2.0**-self.form.quiet else 0
        if self.calm >= self.form.patience:
            self.rest, self.fine_bias, self.calm = self.rest * 2, self.fine_bias + 1, 0

    def state(self) -> dict[str, Any]:
        """Everything, to be kept; tensors are copies."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "form"}
        return {name: x.clone() if name in ("codes", "rest") else x for name, x in held.items()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Become what was kept."""
        for name, x in kept.items():
            setattr(self, name, x.clone() if name in ("codes", "rest") else x)


@dataclass
class FloatWords:
    """The words of a group of parameters."""

    words: list[FloatWord]

    updates = property(lambda self: sum(word.updates for word in self.words))
    clipped = property(lambda self: sum(word.clipped for word in self.words))
    lost = property(lambda self: sum(word.lost for word in self.words))

    def gather(self, params: list[Tensor], due: bool) -> None:
        """What the rule made of the parameters goes to their accumulators and, when due, on to the weights."""
        for p, word in zip(params, self.words, strict=True):
            word.gather(p.double() - word.value().double(), due)
            p.copy_(word.value())

    def state(self) -> dict[str, Any]:
        """Everything, to be kept."""
        return {"words": [word.state() for word in self.words]}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Become what was kept."""
        for word, then in zip(self.words, kept["words"], strict=True):
            word.restore(then)
