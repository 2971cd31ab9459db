"""A sparse student and its teachers (S18): one loop for pretraining while pruning, for tasks on locked masks, and in formats.

Stage 1: `net` becomes sparse on the first data, taught by the dense network it began as. Stage 2: its living weights learn a
task, taught by a dense network that has learned it. Loss: alpha * cross-entropy + (1 - alpha) * T^2 * KL(teacher, student)
at temperature T (Hinton et al., 2015).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bitladder.train.group import joined
from bitladder.train.kept import Kept
from bitladder.train.lesson import Inputs, Lesson, Loss, first
from bitladder.train.nested import Augment, Progress, augmented
from bitladder.train.parts import Buffers, Parts, parts_of, split
from bitladder.train.prepared import Prepared
from bitladder.train.running import taken_anew
from bitladder.train.sparse import Sparse, linear
from bitladder.train.state import fingerprint

Tensor = Any
Optimizer = Callable[[list[dict[str, Any]]], Any]


def distilled(said: Tensor, taught: Tensor, temperature: float = 2.0, axis: int = 1) -> Tensor:
    """T^2 * KL(softmax(taught / T) || softmax(said / T)) along the classes, a mean over everything else."""
    ours, theirs = (F.log_softmax(x / temperature, axis) for x in (said, taught))
    return (theirs.exp() * (theirs - ours)).sum(axis).mean() * temperature**2


def sgd(groups: list[dict[str, Any]]) -> Any:
    """Momentum and a little weight decay, as convolutional networks like them."""
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)


def train_student(
    net: Any,
    inputs: Inputs,
    labels: np.ndarray,
    *,
    sparse: Sparse | None = None,
    teacher: Callable[..., Any] | None = None,
    alpha: float = 0.5,
    temperature: float = 2.0,
    epochs: float = 4,
    batch: int = 128,
    rate: float = 0.05,
    warm: int = 0,
    optimizer: Optimizer = sgd,
    loss: Loss | None = None,
    parts: int = 4,
    augment: Augment | None = None,
    seed: int = 0,
    every: int = 50,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Any:
    """`net`, trained in place for so many epochs, its masks kept by `sparse`, and in evaluation mode.

    net: a torch module, or one of `bl.prepare`, whose zeros then stay in its formats. Without `sparse` it stays dense, without
    a `teacher` it learns from labels alone; so teachers can be made with the same call.
    inputs, labels: arrays, samples along the first axis. teacher: a module, put into evaluation mode and never changed.
    rate: at the start, falling to zero linearly after `warm` steps of rising; while masks change it goes back with each of them
    (`Schedule.rate`). For a prepared network it is relative to the size of tensors, and suits Adam (`Prepared.groups`).
    optimizer: what makes one of parameter groups. loss: in place of cross-entropy. parts, augment: as for
    `train_nested`; norms see the samples of a part. Once trained, running statistics are taken anew (`running.py`).
    work: a folder; the state goes to work/student.pt every so many steps and when interrupted, and the same call goes on from
    there, with results identical to the bit for the same threads. The state of another call is refused.
    Under torchrun each process takes its share of every batch's parts.
    """
    if not 0 <= alpha <= 1 or temperature <= 0:
        raise ValueError(f"student: alpha must be 0 to 1 and temperature above 0, got {alpha} and {temperature}")
    if sparse is not None and sparse.module is not net:
        raise ValueError("student: `sparse` must be of the network that learns, got another's; make it with Sparse(net, ...)")
    if labels is None:
        raise ValueError("student: labels are needed, got none; pass the teacher's classes, and alpha=0 to learn from it alone")
    if isinstance(teacher, torch.nn.Module):
        teacher.eval()
    with joined() as group:
        if sparse is not None:
            sparse.group = group
        group.agree([*net.parameters(), *net.buffers()])
        net.eval()
        lesson = Lesson.of(copy.deepcopy(net), inputs, labels, loss, batch, seed)
        parts = parts_of("student", parts, lesson.batch, group)
        steps = math.ceil(epochs * len(lesson.arrays[0]) / lesson.batch)
        learning = [p for p in net.parameters() if p.requires_grad]
        adapt = optimizer(net.groups(rate) if isinstance(net, Prepared) else [{"params": learning, "lr": rate}])
        base = [g["lr"] for g in adapt.param_groups]
        schedule = None if sparse is None else sparse.schedule
        about = {
            "steps": steps, "batch": lesson.batch, "rate": rate, "warm": warm, "alpha": alpha, "temperature": temperature,
            "seed": seed, "sparse": None if sparse is None else sparse.about(), "parts": parts,
            "torch": torch.__version__, "optimizer": [type(adapt).__name__, adapt.defaults],
            "loss": getattr(loss, "__qualname__", None), "augment": getattr(augment, "__qualname__", None),
        }  # fmt: skip
        held = {"net": net, "optimizer": adapt} | ({} if sparse is None else {"sparse": sparse})
        kept = Kept(None if work is None else Path(work) / "student.pt", "", group, held)
        if kept.path is not None:
            kept.key = fingerprint(about, [*lesson.known(), *arrays(net), *arrays(teacher), *arrays(sparse)])
        step = kept.resume()
        tell = progress if progress is not None and group.rank == 0 else lambda done, total, word: None
        judge = Judge(lesson, teacher, alpha, temperature)
        sums, buffers = Parts(net.parameters(), group), Buffers(net, group)
        try:
            while step < steps:
                factor = linear(step, steps, warm) if schedule is None else schedule.rate(step, steps, warm)
                for g, first_rate in zip(adapt.param_groups, base, strict=True):
                    g["lr"] = first_rate * factor
                kept.whole = False
                found = run_step(net, lesson, judge, step, parts, adapt, augment, sums, buffers)
                if sparse is not None:
                    sparse.step(adapt)
                step, kept.whole = step + 1, True
                if step % every == 0 or step == steps:
                    kept.save(step)
                tell(step, steps, f"loss {found:.3g}")
        except KeyboardInterrupt:
            kept.save(step)
            raise
        taken_anew(net, lesson, parts, group)
    return net


class Judge:
    """The loss of answers: labels' and teacher's parts."""

    def __init__(self, lesson: Lesson, teacher: Callable[..., Any] | None, alpha: float, temperature: float):
        self.lesson, self.teacher, self.alpha, self.temperature = lesson, teacher, alpha, temperature

    def __call__(self, said: Any, labels: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        """A mean over the samples."""
        if self.teacher is None:
            return self.lesson.loss(said, labels)
        with torch.no_grad():
            taught = first(self.teacher(*arguments))
        axis = 1 if labels.ndim == 1 or tuple(taught.shape[2:]) == tuple(labels.shape[1:]) else -1
        soft = distilled(first(said), taught, self.temperature, axis) * (1 - self.alpha)
        return soft + self.lesson.loss(said, labels) * self.alpha if self.alpha else soft


def run_step(
    net: Any,
    lesson: Lesson,
    judge: Judge,
    step: int,
    parts: int,
    adapt: Any,
    augment: Augment | None,
    sums: Parts,
    buffers: Buffers,
) -> float:
    """One batch in parts and one step of the optimizer; the loss, of all processes."""
    rows, total = lesson.rows(step), torch.zeros((), dtype=torch.float64)
    changed = augmented(lesson, step, rows, augment)
    net.train()
    for mine in split(len(rows), parts, sums.group):
        arguments, labels = lesson.question(step, rows, mine)
        if changed is not None:
            arguments = lesson.tensors(changed, mine)
        share = len(mine) / len(rows)
        adapt.zero_grad()
        with buffers.part(share):
            loss = judge(net(*arguments), labels, arguments)
            loss.backward()
        sums.take(share)
        total += share * loss.detach().double().cpu()
    found = float(sums.group.add(total))
    if not math.isfinite(found):
        raise ValueError(f"student: step {step + 1}: the loss must be finite, got {found}; lower the rate")
    sums.give()
    adapt.step()
    buffers.give()
    return found


def arrays(thing: Any) -> list[np.ndarray]:
    """The numbers that a module or masks hold."""
    if isinstance(thing, Sparse):
        return [mask.cpu().numpy() for mask in thing.masks.values()]
    if isinstance(thing, torch.nn.Module):
        return [x.detach().cpu().numpy() for x in (*thing.parameters(), *thing.buffers())]
    return []
