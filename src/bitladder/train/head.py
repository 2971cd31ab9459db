"""The gradients of a classifier's last layer in as many bits as its classes ask for (S6, US11875251).

`assign.classes.head_of(classes)` says how many; here they are rounded while a network trains, and what vanishes is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Tensor = Any


@dataclass
class Count:
    """Elements of gradients that were not zero before rounding, and how many of those are after."""

    elements: int = 0
    vanished: int = 0

    @property
    def kept(self) -> float:
        """The part that is still not zero."""
        return 1 - self.vanished / self.elements if self.elements else 1.0


@dataclass
class Narrowed:
    """The counts of one layer: of the gradient of its outputs and of its weight. `remove()` ends the rounding."""

    bits: int
    outputs: Count = field(default_factory=Count)
    weight: Count = field(default_factory=Count)
    hooks: list[Any] = field(default_factory=list)

    def remove(self) -> None:
        """Gradients are floats again."""
        for hook in self.hooks:
            hook.remove()


def narrow(gradient: Tensor, bits: int, count: Count | None = None) -> Tensor:
    """A gradient rounded to `bits`, its largest magnitude at the top code; zeros that this makes are counted.

    >>> import torch
    >>> narrow(torch.tensor([1.0, 0.001, -0.5]), 2).tolist()
    [1.0, 0.0, -0.0]
    """
    exact = gradient.double()
    step = exact.abs().max() / (2 ** (bits - 1) - 1) if gradient.numel() else exact.new_zeros(())
    made = (exact / step).round() * step if float(step) > 0 else exact
    if count is not None:
        count.elements += int(gradient.count_nonzero())
        count.vanished += int(((made == 0) & (gradient != 0)).sum())
    return made.to(gradient.dtype)


def narrow_head(layer: Any, bits: int) -> Narrowed:
    """Round the gradients that reach `layer` and those of its weight to `bits` from now on; the answer counts and ends it.

    The loss's gradient is rounded before the layer's backward pass, so all that lies before it learns from the rounded one.
    """
    if bits < 2:
        raise ValueError(f"narrow_head: bits must be at least 2, got {bits}")
    counts = Narrowed(bits)

    def outputs(_: Any, __: Any, said: Tensor) -> None:
        if said.requires_grad:
            said.register_hook(lambda gradient: narrow(gradient, bits, counts.outputs))

    def weight(gradient: Tensor) -> Tensor:
        return narrow(gradient, bits, counts.weight)

    counts.hooks += [layer.register_forward_hook(outputs), layer.weight.register_hook(weight)]
    return counts
