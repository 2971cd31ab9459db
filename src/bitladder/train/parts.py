"""Gradients of the parts of a batch, over any number of processes, summed without error and so in any order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from bitladder.train.group import Group

Tensor = Any


class Parts:
    """Sums in 64-bit fixed point, `digits` after the binary point: rounding happens once per part, before the sum.

    For any optimizer: `take(share)` after each backward pass, `give()` before `optimizer.step()`,
    and `zero_grad()` after it. As long as every part is
    computed alike, results are identical however the parts are shared out among processes.
    """

    def __init__(self, params: Iterable[Tensor], group: Group | None = None, digits: int = 32):
        self.params = [p for p in params if p.requires_grad]
        self.sums = [torch.zeros(p.shape, dtype=torch.int64, device=p.device) for p in self.params]
        self.group, self.digits = group or Group(), digits

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def take(self, share: float = 1.0) -> None:
        """Add every parameter's gradient, times `share`, and clear it."""
        for p, total in zip(self.params, self.sums, strict=True):
            if p.grad is not None:
                total += (p.grad.double() * (share * 2.0**self.digits)).round().long()
                p.grad = None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def give(self) -> None:
        """Make the sum over all parts and processes every parameter's gradient, and start anew."""
        for p, total in zip(self.params, self.sums, strict=True):
            p.grad = (self.group.add(total).double() * 2.0**-self.digits).to(p.dtype)
            total.zero_()
