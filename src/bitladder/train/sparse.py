"""Sparse networks whose zeros stay: masks that grow by a schedule, are locked, and outlast every later step (S18).

Weights of least magnitude go first, layer by layer (Zhu and Gupta, 2017, for the schedule). A mask says which weights live. It
is kept beside them: a living weight that happens to be zero still learns, a dead one stays zero whatever the optimizer does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from bitladder.formats import QTensor
from bitladder.train.group import Group
from bitladder.train.prepared import Prepared

Tensor = Any
Score = Callable[[str, Tensor], Tensor]  # (name, weight) -> how much each element of it matters

ZEROS = "intB, fixedB, ternary, nestedB:sign or a codebook with an odd number of levels"


@dataclass(frozen=True)
class Schedule:
    """How sparse pruned weights are after so many steps: from `start` to `sparsity` between `begin` and `until`, fast at first.

    Masks are chosen anew every `every` steps from `begin` on, for the last time at `last` (`until`, if not said).

    >>> ramp = Schedule(0.9, until=50_000, every=1000)
    >>> [round(ramp(step), 12) for step in (0, 25_000, 50_000, 80_000)]
    [0.0, 0.7875, 0.9, 0.9]
    """

    sparsity: float
    until: int
    every: int = 1
    begin: int = 0
    last: int | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.sparsity < 1:
            raise ValueError(f"schedule: must be 0 <= start <= sparsity < 1, got {self.start} and {self.sparsity}")
        if not 0 <= self.begin <= self.until <= self.end:
            raise ValueError(f"schedule: must be 0 <= begin <= until <= last, got {self.begin}, {self.until}, {self.end}")
        if self.every < 1:
            raise ValueError(f"schedule: every must be at least 1 step, got {self.every}")

    @property
    def end(self) -> int:
        """The step after which masks are fixed."""
        return self.until if self.last is None else self.last

    def __call__(self, step: int) -> float:
        """The part of a weight's elements that should be zero."""
        if step >= self.until:
            return self.sparsity
        left = 1 - max(step - self.begin, 0) / (self.until - self.begin)
        return self.sparsity + (self.start - self.sparsity) * left**3

    def due(self, step: int) -> bool:
        """Whether masks are chosen anew after so many steps."""
        return step == self.end or (self.begin <= step < self.end and (step - self.begin) % self.every == 0)

    def rate(self, step: int, steps: int, warm: int = 0) -> float:
        """The factor of the learning rate: it falls linearly to zero, but while the sparsity rises it goes back at each mask.

        A function of the step alone, as `torch.optim.lr_scheduler.LambdaLR` takes it. warm: first steps, in which it rises.

        >>> ramp = Schedule(0.9, until=100, every=50)
        >>> [ramp.rate(step, 300) for step in (0, 25, 49, 50, 99, 100, 200, 300)]
        [1.0, 0.875, 0.755, 1.0, 0.755, 1.0, 0.5, 0.0]
        """
        rising = self.until - self.begin
        if step < self.begin:
            spent = step
        elif step < self.until:
            spent = self.begin + (step - self.begin) % self.every
        else:
            spent = step - rising
        return min(linear(spent, steps - rising), linear(step, steps, warm) if step < warm else 1.0)


def linear(step: int, steps: int, warm: int = 0) -> float:
    """The factor of a learning rate that falls to zero in so many steps, after a rise over the first few.

    >>> [linear(step, 100, warm=4) for step in (0, 3, 50, 100, 120)]
    [0.25, 0.97, 0.5, 0.0, 0.0]
    """
    return max(0.0, min(1 - step / max(steps, 1), (step + 1) / warm if warm else 1.0))


# -------------------------------------------------------------------------------------------------------- masks


def dead(sparsity: float, count: int) -> int:
    """The fewest of `count` that are no less than this part of them.

    >>> dead(0.85, 20), dead(0.85, 21), dead(0.0, 7)
    (17, 18, 0)
    """
    n = max(math.ceil(sparsity * count) - 1, 0)
    while n / count < sparsity:
        n += 1
    return n


def magnitude(name: str, weight: Tensor) -> Tensor:
    """The usual score: weights of least magnitude matter least."""
    return weight.abs()


def narrowed(mask: Tensor, score: Tensor, sparsity: float, block: int = 1) -> Tensor:
    """`mask` with the elements of least score dead too, exactly as many as `sparsity` asks for; the dead stay dead.

    Of equal scores the one that comes first in memory goes first. block: so many adjacent inputs live and die together, and
    their scores add up.

    >>> narrowed(torch.ones(1, 4, dtype=torch.bool), torch.tensor([[3.0, 1.0, 1.0, 2.0]]), 0.25)
    tensor([[ True, False,  True,  True]])
    """
    rows, inputs, *taps = score.shape
    blocks = score.double().reshape(rows, inputs // block, block, *taps).sum(2)
    alive = mask.reshape(rows, inputs // block, block, *taps).any(2)
    order = torch.where(alive, blocks, -math.inf).reshape(-1).sort(stable=True).indices
    kept = torch.ones(order.numel(), dtype=torch.bool, device=mask.device)
    kept[order[: max(dead(sparsity, order.numel()), int((~alive).sum()))]] = False
    return kept.reshape(blocks.shape).repeat_interleave(block, 1)


def prunable(module: Any, names: str | Iterable[str] | None = None) -> dict[str, Tensor]:
    """The weights that patterns name, tied ones once; by default all matrices but embeddings and the last one, the head."""
    named = module.weights() if isinstance(module, Prepared) else dict(module.named_parameters())
    matrices = {name: w for name, w in named.items() if w.ndim > 1}
    if names is None:
        tables = torch.nn.Embedding, torch.nn.EmbeddingBag
        looked_up = {id(m.weight) for m in module.modules() if isinstance(m, tables)}
        usual = {n: w for n, w in matrices.items() if "weight" in n.rpartition(".")[2] and id(w) not in looked_up}
        found = dict(list(usual.items())[:-1])
    else:
        patterns = [names] if isinstance(names, str) else list(names)
        for pattern in patterns:
            if not any(fnmatchcase(n, pattern) for n in matrices):
                raise ValueError(f"sparse: {pattern!r} must name a weight of two axes or more, there are {', '.join(matrices)}")
        found = {n: w for n, w in matrices.items() if any(fnmatchcase(n, p) for p in patterns)}
    if not found:
        raise ValueError("sparse: there must be a weight to prune, got none beside embeddings and the head; give names")
    return found


def broken(masks: Mapping[str, Tensor], held: Any) -> list[str]:
    """The weights of a module, a `Model`, a graph or a mapping in which a dead element is not exactly zero.

    Of a `Prepared` module what counts is what it computes with, at each of its widths.
    """
    if isinstance(held, Prepared):
        seen = set()
        for bits in held.widths:
            with held.at(bits), torch.no_grad():
                seen |= set(broken(masks, {name: held.weight(name) for name in masks}))
        return [name for name in masks if name in seen]
    if isinstance(held, torch.nn.Module):
        held = dict(held.named_parameters())
    if not isinstance(held, Mapping):
        held = getattr(held, "whole", held).constants
    return [name for name, mask in masks.items() if bool((values(held[name])[~mask.cpu()] != 0).any())]


def values(weight: Any) -> Tensor:
    """A weight of any kind as a tensor of reals."""
    if isinstance(weight, QTensor):
        weight = weight.decode()
    return weight.detach().cpu() if isinstance(weight, torch.Tensor) else torch.from_numpy(weight)


class Sparse:
    """Weights of a module that become sparse by a schedule, or stay as sparse as they are.

    names: patterns of the weights to prune (`prunable` without). schedule: when, and how sparse; without one the masks never
    change. masks: those of an earlier stage, True where a weight lives: its zeros are put into `module` now, and stay. block:
    so many adjacent inputs live and die together. score: what weights are pruned by.

    Dead weights get no gradient. Call `step(optimizer)` after each step of the optimizer: it chooses masks when they are due,
    and clears dead weights and their moments, so that neither momentum nor weight decay acts through a mask. `on(optimizer)`
    makes an optimizer do so by itself. A `Prepared` module whose formats cannot hold zero is refused.
    """

    def __init__(
        self,
        module: Any,
        names: str | Iterable[str] | None = None,
        schedule: Schedule | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
        block: int = 1,
        score: Score = magnitude,
        group: Group | None = None,
    ):
        if schedule is None and masks is None:
            raise ValueError("sparse: a schedule is needed, or masks of an earlier stage; give one of them")
        asked = list(masks) if names is None and masks is not None else names
        self.module, self.schedule, self.block, self.score, self.group = module, schedule, block, score, group or Group()
        self.weights = prunable(module, asked)
        self.steps = 0
        self.masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in self.weights.items()}
        for name, w in self.weights.items():
            if block < 1 or w.shape[1] % block:
                raise ValueError(f"sparse: block must divide the {w.shape[1]} inputs of {name!r}, got {block}")
        if masks is not None:
            self._take(masks)
        self._hooks = [w.register_hook(self._masked(name)) for name, w in self.weights.items() if w.requires_grad]
        if schedule is not None and schedule.due(0):
            self.choose()
        self.clear()
        if isinstance(module, Prepared) and (bad := broken(self.masks, module)):
            held = getattr(module.graph.constants[bad[0]], "format", "float")
            raise ValueError(f"sparse: zeros of {bad[0]!r} must stay zero, got {held}, which has none; take {ZEROS}")

    def _masked(self, name: str) -> Callable[[Tensor], Tensor]:
        """What takes the gradient from dead weights."""
        return lambda gradient: gradient.masked_fill(~self.mask(name), 0)

    def mask(self, name: str) -> Tensor:
        """Which elements of a weight live, where the weight is."""
        self.masks[name] = self.masks[name].to(self.weights[name].device)
        return self.masks[name]

    def step(self, *optimizers: Any) -> None:
        """A step was made: choose masks if they are due, and clear what is dead, also in these optimizers' moments."""
        self.steps += 1
        if self.schedule is not None and self.schedule.due(self.steps):
            self.choose()
        self.clear(*optimizers)

    def on(self, optimizer: Any) -> Any:
        """`optimizer`, which from now on calls `step` by itself, as loops that are not yours need it."""
        optimizer.register_step_post_hook(lambda own, *_: self.step(own))
        return optimizer

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def choose(self) -> None:
        """Masks for the sparsity of this step, the same in every process."""
        assert self.schedule is not None
        wanted = self.schedule(self.steps)
        for name, w in self.weights.items():
            mask = narrowed(self.mask(name), self.score(name, w.detach()), wanted, self.block)
            shared = mask.to(torch.uint8)
            self.group.agree([shared])
            self.masks[name] = shared.bool()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def clear(self, *optimizers: Any) -> None:
        """Zero, exactly, in all dead weights and in what optimizers hold for them."""
        for name, w in self.weights.items():
            mask = ~self.mask(name)
            w.masked_fill_(mask, 0)
            for optimizer in optimizers:
                for held in optimizer.state.get(w, {}).values():
                    if isinstance(held, torch.Tensor) and held.shape == w.shape:
                        held.masked_fill_(mask, 0)

    def remove(self) -> None:
        """Let gradients reach all weights again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def sparsity(self) -> dict[str, float]:
        """The dead part of each weight."""
        return {name: int((~mask).sum()) / mask.numel() for name, mask in self.masks.items()}

    def broken(self, held: Any = None) -> list[str]:
        """The weights in which a dead element is not zero, of the module, or of another that came of it: a `Model`, a graph."""
        return broken(self.masks, self.module if held is None else held)

    def about(self) -> list[Any]:
        """What decides on masks, beside the weights."""
        return [self.schedule, self.block, getattr(self.score, "__qualname__", None), list(self.masks)]

    def state_dict(self) -> dict[str, Any]:
        """What steps change here; the weights are the module's."""
        return {"steps": self.steps, "masks": {name: mask.clone() for name, mask in self.masks.items()}}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.steps = int(kept["steps"])
        self._take(kept["masks"])
        self.clear()

    def _take(self, masks: Mapping[str, Tensor]) -> None:
        """Have the masks that are given for the weights here."""
        for name, w in self.weights.items():
            if name not in masks or masks[name].shape != w.shape:
                got = f"shape {tuple(masks[name].shape)}" if name in masks else "none"
                raise ValueError(
                    f"sparse: the mask of {name!r} must have shape {tuple(w.shape)}, got {got}; give that module's"
                )
            self.masks[name] = masks[name].detach().to(w.device, torch.bool).clone()
