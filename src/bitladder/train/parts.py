"""Batches in parts, shared out over any number of processes: sums without error, in any order, and so the same bits.

What a part adds is rounded to 64-bit fixed point once, before it is summed; integers commute. As long as every part is computed
alike, everything is identical however the parts are shared out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bitladder.train.group import Group

Tensor = Any
DIGITS = 36  # after the binary point of sums


class Sums:
    """The sums over parts and processes of tensors shaped as those of `like`, with `digits` after the binary point.

    Where no part of any process had a tensor, there is no sum.

    >>> sums = Sums([torch.zeros(2), torch.zeros(1)])
    >>> sums.add([torch.tensor([1.0, 2.0]), None], 0.5); sums.add([torch.tensor([3.0, 0.0]), None], 0.5)
    >>> sums.total()
    [tensor([2., 1.]), None]
    """

    def __init__(self, like: Iterable[Tensor], group: Group | None = None, digits: int = DIGITS):
        self.like, self.group, self.digits = list(like), group or Group(), digits
        self.sums = [torch.zeros(x.shape, dtype=torch.int64, device=x.device) for x in self.like]
        self.added = torch.zeros(len(self.like), dtype=torch.int64)  # how many parts had each tensor

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add(self, values: Sequence[Tensor | None], share: float = 1.0) -> None:
        """Add `share` times each tensor; None adds nothing."""
        self.added += torch.tensor([x is not None for x in values], dtype=torch.int64)
        for x, total in zip(values, self.sums, strict=True):
            if x is not None:
                total += (x.double() * (share * 2.0**self.digits)).round().long()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def total(self) -> list[Tensor | None]:
        """The sums over all parts and processes, in the types of `like`; from then on they start anew."""
        out = []
        for x, total, parts in zip(self.like, self.sums, self.group.add(self.added).tolist(), strict=True):
            out.append((self.group.add(total).double() * 2.0**-self.digits).to(x.dtype) if parts else None)
            total.zero_()
        self.added.zero_()
        return out


class Parts:
    """Gradients, for any optimizer: `take(share)` after a backward pass, `give()` before the step, `zero_grad()` after it."""

    def __init__(self, params: Iterable[Tensor], group: Group | None = None, digits: int = DIGITS):
        self.params = [p for p in params if p.requires_grad]
        self.sums, self.group = Sums(self.params, group, digits), group or Group()

    def take(self, share: float = 1.0) -> None:
        """Add every parameter's gradient, times `share`, and clear it."""
        self.sums.add([p.grad for p in self.params], share)
        for p in self.params:
            p.grad = None

    def give(self) -> None:
        """Make the sum over all parts and processes every parameter's gradient, and start anew."""
        for p, g in zip(self.params, self.sums.total(), strict=True):
            p.grad = g


class Buffers:
    """What the parts of a batch do to a module's buffers, such as running means: every part begins from the same, and their
    changes are averaged."""

    def __init__(self, module: Any, group: Group | None = None):
        self.held = [b for b in module.buffers() if b.dtype != torch.bool]
        self.sums = Sums(self.held, group)

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """One part of the batch, which counts for `share` of it."""
        before = [b.clone() for b in self.held]
        yield
        with torch.no_grad():
            self.sums.add([now - b for now, b in zip(self.held, before, strict=True)], share)
            for now, b in zip(self.held, before, strict=True):
                now.copy_(b)

    def give(self) -> None:
        """Change the buffers by the mean of what all parts of all processes did."""
        with torch.no_grad():
            for b, change in zip(self.held, self.sums.total(), strict=True):
                if change is not None:
                    b.add_(change)


def split(count: int, parts: int, group: Group) -> list[np.ndarray]:
    """The parts of a batch of `count` samples that are this process's, as places in the batch.

    >>> split(10, 4, Group(1, 2))
    [array([6, 7]), array([8, 9])]
    """
    return [part for i, part in enumerate(np.array_split(np.arange(count), parts)) if i in group.share(parts)]


def parts_of(method: str, parts: int, batch: int, group: Group) -> int:
    """Into how many parts batches of `batch` samples go; every process must have one."""
    if parts < 1:
        raise ValueError(f"{method}: parts must be at least 1, got {parts}")
    found = min(parts, batch)
    if group.size > found:
        raise ValueError(f"{method}: {found} parts of a batch cannot be shared by {group.size} processes; pass more `parts`")
    return found
