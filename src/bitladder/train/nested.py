"""Nested training: one set of masters learns at every width at once (S1; EP3671575, US12443829).

In a step the network answers at each width, widest first. The widest learns from labels; every other from the answers of the
next wider one (recursive distillation; Yu et al., 2021), or from a loss of its own, which may be another task's. The gradients
of all widths become one by a rule, and one step of any optimizer follows. The cheap variant takes a few widths at random.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bitladder.train.group import Group, joined
from bitladder.train.kept import Kept
from bitladder.train.lesson import Inputs, Lesson, Loss, draw, first
from bitladder.train.parts import Buffers, Sums, parts_of, split
from bitladder.train.prepared import Prepared
from bitladder.train.running import taken_anew
from bitladder.train.state import fingerprint

Tensor = Any
Gradients = Sequence["Tensor | None"]
Progress = Callable[[int, int, str], None]
Augment = Callable[[tuple[np.ndarray, ...], np.random.Generator], tuple[np.ndarray, ...]]
Losses = Mapping[int, Loss]

WIDTHS_STREAM, AUGMENT_STREAM = 8, 9  # of randomness, beside those of lessons


# ------------------------------------------------------------------------------------------------ gradients to one


def mean(found: Tensor, shares: Tensor) -> Tensor:
    return found.mean(0)


def weighted(found: Tensor, shares: Tensor) -> Tensor:
    return torch.tensordot(shares, found, 1)


def median(found: Tensor, shares: Tensor) -> Tensor:
    """The middle one; of an even number, the mean of the two in the middle."""
    ordered, half = found.sort(0).values, (len(found) - 1) // 2
    return (ordered[half] + ordered[len(found) - 1 - half]) / 2


def majority(found: Tensor, shares: Tensor) -> Tensor:
    """The weighted sum of those that go the way most of them go; nothing where as many go either way."""
    way = found.sign().sum(0).sign()
    return torch.tensordot(shares, found * (found.sign() == way), 1) * (way != 0)


TAUGHT = 0.5  # of what is learned: the teacher's answers, the rest being labels
RULES = {"mean": mean, "weighted": weighted, "median": median, "majority": majority}


def combine(by_width: Mapping[int, Gradients], rule: str = "weighted", weights: Mapping[int, float] | None = None) -> list[Any]:
    """One gradient for each parameter, of those that the widths have for it; None where none has.

    rule: "mean", "weighted" (by `weights`, 1 where they do not say), "median" or "majority" (of signs, element by element).
    A parameter of fewer widths, such as a bias of one, is ruled by those widths alone, its share as if all had one.

    >>> g = {8: [torch.tensor([1.0, -1.0])], 4: [torch.tensor([3.0, 2.0])], 2: [torch.tensor([2.0, 3.0])]}
    >>> [combine(g, rule)[0].tolist() for rule in RULES]
    [[2.0, 1.3333333730697632], [2.0, 1.3333333730697632], [2.0, 2.0], [2.0, 1.6666667461395264]]
    """
    if rule not in RULES:
        raise ValueError(f"combine: rule must be one of {', '.join(RULES)}, got {rule!r}")
    lambdas = {b: 1.0 if weights is None else float(weights.get(b, 1.0)) for b in by_width}
    total = sum(lambdas.values())
    out: list[Any] = []
    for each in zip(*by_width.values(), strict=True):
        held = [(lambdas[b], g) for b, g in zip(by_width, each, strict=True) if g is not None]
        if len(held) < 2:
            out.append(held[0][1] if held else None)
            continue
        found = torch.stack([g for _, g in held])
        out.append(RULES[rule](found, found.new_tensor([share / total for share, _ in held])))
    return out


# ------------------------------------------------------------------------------------------------------- one step


def soft(said: Any, teacher: Any) -> Tensor:
    """Cross-entropy of class scores against the classes' probabilities by the teacher's; of other outputs the squared error."""
    student, wanted = first(said), first(teacher).detach()
    if student.ndim != 2:
        return F.mse_loss(student, wanted)
    return F.cross_entropy(student, wanted.softmax(1))


def drawn(widths: Sequence[int], step: int, *, count: int = 1, seed: int = 0) -> tuple[int, ...]:
    """So many of the widths, widest first, by a draw of this step: what the cheap variant trains at.

    >>> drawn((8, 4, 3, 2), 0, count=2), drawn((8, 4, 3, 2), 1, count=2)
    ((8, 4), (8, 2))
    """
    chosen = draw(seed, step, WIDTHS_STREAM).choice(len(widths), min(count, len(widths)), replace=False)
    return tuple(sorted((widths[i] for i in chosen), reverse=True))


def gradients(
    net: Prepared,
    inputs: Any,
    labels: Any,
    loss: Loss | Losses,
    *,
    widths: Sequence[int] | None = None,
    distill: bool = True,
    teacher: Any = None,
    taught: float = TAUGHT,
) -> tuple[dict[int, Gradients], dict[int, Tensor]]:
    """The gradients of the parameters that learn, and the losses, at every width; arguments as for `nested_backward`."""
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    if not 0 <= taught <= 1:
        raise ValueError(f"nested: taught must be from 0 (labels alone) to 1 (the teacher alone), got {taught}")
    if taught == 1 and teacher is None:
        raise ValueError("nested: taught=1 means to learn from the teacher alone, got none; give a teacher, or less of it")
    parameters = learning(net)
    found: dict[int, Gradients] = {}
    losses: dict[int, Tensor] = {}
    wider = None
    for bits in sorted(widths or net.widths, reverse=True):
        with net.at(bits):
            said = net(*arguments)
        own = loss.get(bits) if isinstance(loss, Mapping) else loss if wider is None or not distill else None
        if own is None and wider is None:
            raise ValueError(f"nested: the widest width ({bits}) has nobody to learn from; give it a loss")
        here = soft(said, wider) if own is None else own(said, labels)
        if teacher is not None and (wider is None or not (distill or isinstance(loss, Mapping))):
            here = (1 - taught) * here + taught * soft(said, teacher)
        found[bits] = torch.autograd.grad(here, parameters, allow_unused=True)
        losses[bits] = here.detach()
        wider = first(said).detach()
    return found, losses


def nested_backward(
    net: Prepared,
    inputs: Any,
    labels: Any,
    loss: Loss | Losses,
    *,
    widths: Sequence[int] | None = None,
    distill: bool = True,
    rule: str = "weighted",
    weights: Mapping[int, float] | None = None,
    teacher: Any = None,
    taught: float = TAUGHT,
) -> dict[int, float]:
    """The loss of a batch at every width; the gradients, made one by `rule`, are added to the parameters' `grad`.

    inputs: a tensor or a tuple of them. loss: (output, labels) -> a mean over the batch, for all widths, or one for each width
    of a mapping; widths that are not in it, and with `distill` all but the widest of a single loss, learn from the next wider
    width's answers. weights: how much widths count, lower ones no less than higher ones if in doubt. teacher: the answers
    of another network, which are as much as `taught` says of what the widest learns from, without `distill` of what all do.
    For batches in parts, or several processes, see `Batch`.
    """
    how: dict[str, Any] = {"widths": widths, "distill": distill, "teacher": teacher, "taught": taught}
    found, losses = gradients(net, inputs, labels, loss, **how)
    for p, g in zip(learning(net), combine(found, rule, weights), strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g
    return {bits: float(value) for bits, value in losses.items()}


def learning(net: Prepared) -> list[Any]:
    """The parameters that learn."""
    return [p for p in net.parameters() if p.requires_grad]


class Batch:
    """One batch in parts, over any number of processes: `take` each part, then `give` makes the gradients (see `parts.py`).

    Gradients are summed for every width before they become one, so rules see the batch's. Running means move by the mean of
    what the parts see; a batch's means are those of a part.
    """

    def __init__(
        self, net: Prepared, group: Group | None = None, rule: str = "weighted", weights: Mapping[int, float] | None = None
    ):
        self.net, self.group, self.rule, self.weights = net, group or Group(), rule, weights
        self.sums = {bits: Sums(learning(net), self.group) for bits in net.widths}
        self.buffers = Buffers(net, self.group)
        self.losses: dict[int, float] = {}

    def take(self, inputs: Any, labels: Any, loss: Loss | Losses, share: float = 1.0, **how: Any) -> None:
        """Add a part that is `share` of the batch; `how` as for `nested_backward`."""
        with self.buffers.part(share):
            found, losses = gradients(self.net, inputs, labels, loss, **how)
        for bits, each in found.items():
            self.sums[bits].add(each, share)
            self.losses[bits] = self.losses.get(bits, 0.0) + share * float(losses[bits])

    def give(self) -> dict[int, float]:
        """The batch's losses by width; parameters get its gradients, all starts anew. Every process must have had a part.

        A loss that is not finite is refused: parameters and running means stay, and the batch is forgotten.
        """
        losses = dict(zip(self.losses, self.group.add(torch.tensor([*self.losses.values()]).double()).tolist(), strict=True))
        found, self.losses = {bits: self.sums[bits].total() for bits in losses}, {}
        if not all(map(math.isfinite, losses.values())):
            self.buffers.sums.total()
            raise ValueError(f"nested: the loss must be finite, got {losses}; lower the rate")
        for p, g in zip(learning(self.net), combine(found, self.rule, self.weights), strict=True):
            p.grad = g
        self.buffers.give()
        return losses


# ----------------------------------------------------------------------------------------------------- a whole run


def train_nested(
    net: Prepared,
    inputs: Inputs,
    labels: np.ndarray | None,
    *,
    epochs: float = 4,
    batch: int = 128,
    rate: float = 5e-3,
    optimizer: Callable[[list[dict[str, Any]]], Any] = torch.optim.Adam,
    loss: Loss | Losses | None = None,
    distill: bool = True,
    rule: str = "weighted",
    weights: Mapping[int, float] | None = None,
    teacher: Callable[..., Any] | None = None,
    taught: float = TAUGHT,
    at_once: int | None = None,
    parts: int = 4,
    augment: Augment | None = None,
    seed: int = 0,
    every: int = 50,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """`net`, trained in place for so many epochs at all of its widths, and in evaluation mode.

    inputs, labels: arrays, samples along the first axis; without labels the network learns what it says at its widest.
    rate: at the start, falling to zero along a cosine, as `Prepared.groups` takes it; optimizer: what makes one of such groups.
    teacher: a module, such as the float network, whose answers are as much as `taught` says of what the widest learns from, the
    rest being labels. The other widths learn from the next wider one, without `distill` from what the widest does.
    at_once: so many widths a step, drawn at random, in place of all. parts: into how many a batch is split, each with
    means of its own; results are identical to the bit for any number of processes up to it.
    augment: changes the arrays of a batch, by a generator. Once trained, running means are taken anew from samples as they are.
    work: a folder; the state goes to work/nested.pt every so many steps and when interrupted, and the same call goes on from
    there, with results identical to the bit for the same threads. The state of another call is refused.
    Under torchrun each process takes its share of every batch's parts.
    """
    with joined() as group:
        group.agree([*net.parameters(), *net.buffers()])
        net.eval()
        net.at(net.widths[0])
        lesson = Lesson.of(copy.deepcopy(net), inputs, labels, None if isinstance(loss, Mapping) else loss, batch, seed)
        parts = parts_of("nested", parts, lesson.batch, group)
        rule_of = loss if isinstance(loss, Mapping) else lesson.loss
        steps = math.ceil(epochs * len(lesson.arrays[0]) / lesson.batch)
        adapt = optimizer(net.groups(rate))
        about = {
            "steps": steps, "batch": lesson.batch, "rate": rate, "distill": distill, "rule": rule, "weights": weights,
            "taught": taught, "at_once": at_once, "seed": seed, "widths": net.widths, "parts": parts,
            "torch": torch.__version__, "optimizer": type(adapt).__name__, "augment": getattr(augment, "__qualname__", None),
            "teacher": type(teacher).__name__,
        }  # fmt: skip
        start = [x.detach().cpu().numpy() for x in (*net.parameters(), *net.buffers())]
        path = None if work is None else Path(work) / "nested.pt"
        key = "" if path is None else fingerprint(about, [*lesson.known(), *start])
        kept = Kept(path, key, group, {"net": net, "optimizer": adapt})
        base = [g["lr"] for g in adapt.param_groups]
        whole = Batch(net, group, rule, weights)
        step = kept.resume()
        tell = progress if progress is not None and group.rank == 0 else lambda done, total, word: None
        try:
            while step < steps:
                for g, first_rate in zip(adapt.param_groups, base, strict=True):
                    g["lr"] = first_rate * (1 + math.cos(math.pi * step / steps)) / 2
                widths = net.widths if at_once is None else drawn(net.widths, step, count=at_once, seed=seed)
                kept.whole = False
                how = {"widths": widths, "distill": distill, "taught": taught}
                losses = run_step(whole, lesson, step, parts, adapt, rule_of, augment, teacher, how)
                step, kept.whole = step + 1, True
                if step % every == 0 or step == steps:
                    kept.save(step)
                tell(step, steps, "loss " + ", ".join(f"{b}: {value:.3g}" for b, value in losses.items()))
        except KeyboardInterrupt:
            kept.save(step)
            raise
        taken_anew(net, lesson, parts, group)
    return net


def run_step(
    whole: Batch,
    lesson: Lesson,
    step: int,
    parts: int,
    adapt: Any,
    loss: Loss | Losses,
    augment: Augment | None,
    teacher: Callable[..., Any] | None,
    how: Mapping[str, Any],
) -> dict[int, float]:
    """One batch in parts, all widths, one step of the optimizer; the losses by width."""
    rows = lesson.rows(step)
    changed = augmented(lesson, step, rows, augment)
    whole.net.train()
    for mine in split(len(rows), parts, whole.group):
        arguments, labels = lesson.question(step, rows, mine)
        if changed is not None:
            arguments = lesson.tensors(changed, mine)
        with torch.no_grad():
            answers = None if teacher is None else teacher(*arguments)
        whole.take(arguments, labels, loss, len(mine) / len(rows), teacher=answers, **how)
    losses = whole.give()
    adapt.step()
    return losses


def augmented(lesson: Lesson, step: int, rows: np.ndarray, augment: Augment | None) -> tuple[np.ndarray, ...] | None:
    """The arrays of a batch as `augment` changes them, the same whichever process asks; None without it."""
    return None if augment is None else augment(tuple(a[rows] for a in lesson.arrays), draw(lesson.seed, step, AUGMENT_STREAM))
