"""What a network is asked at each cycle and how its answer is judged. Nothing here depends on what was asked before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = Any
Loss = Callable[[Any, Any], Tensor]  # (the module's output, the batch's labels or None) -> a mean over the batch
Inputs = Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray

NOISE = 0.1  # of the standard deviation of floats, or of the number of integers
TINY = 1e-12


@dataclass(frozen=True)
class Lesson:
    """Samples, labels and a loss. `teacher` is the network as it was, where it makes the labels itself.

    own: the teacher's classes of all samples, where they are taken once and not batch by batch.
    """

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    loss: Loss
    batch: int
    seed: int
    kind: torch.dtype
    device: Any
    teacher: Any = None
    disturbed: bool = False
    own: Tensor = None

    @classmethod
    def of(cls, module: Any, inputs: Inputs, labels: Any, loss: Loss | None, batch: int, seed: int) -> Lesson:
        """A lesson on `inputs`. It looks once at what `module` answers to find out what the labels and the loss must be."""
        arrays = checked(inputs)
        samples = len(arrays[0])
        batch = min(batch, samples)
        parameter = next(module.parameters())
        plain = cls(arrays, None, loss or agreement(()), batch, seed, parameter.dtype, parameter.device)
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape[:1] != (samples,):
                raise ValueError(f"learn: labels must have one entry for each of {samples} samples, got shape {labels.shape}")
        if loss is not None:
            return replace(plain, labels=labels)
        with torch.no_grad():
            said = module(*plain.tensors(arrays, np.arange(batch)))
        if labels is not None:
            axis = class_axis(first(said), labels)
            check_labels(labels, first(said).shape[axis])
            return replace(plain, labels=labels, loss=cross_entropy(axis, probable(first(said), axis)))
        if scores_classes(said):
            return replace(plain, loss=cross_entropy(1, probable(first(said), 1)), teacher=module)
        sizes = tuple(float((y.double() ** 2).mean()) for y in flat(said))
        return replace(plain, loss=agreement(sizes), teacher=module, disturbed=True)

    def asked(self, cycles: int) -> Lesson:
        """This lesson for so many cycles: if they come to every sample, the teacher says its classes of all of them at once."""
        samples = len(self.arrays[0])
        if self.teacher is None or self.disturbed or cycles * self.batch < samples:
            return self
        parts = [np.arange(at, min(at + self.batch, samples)) for at in range(0, samples, self.batch)]
        return replace(self, own=torch.cat([self.classes(self.tensors(self.arrays, rows)) for rows in parts]))

    def classes(self, arguments: tuple[Tensor, ...]) -> Tensor:
        """What the teacher says of samples."""
        with torch.no_grad():
            return first(self.teacher(*arguments)).argmax(1)

    def rows(self, cycle: int) -> np.ndarray:
        """The samples of a cycle: the next `batch` of an endless run of shuffles, one per epoch."""
        samples = len(self.arrays[0])
        places = np.arange(cycle * self.batch, (cycle + 1) * self.batch)
        epochs = places // samples
        shuffled = {e: draw(self.seed, e).permutation(samples) for e in np.unique(epochs)}
        return np.array([shuffled[e][p % samples] for e, p in zip(epochs, places, strict=True)])

    def question(self, cycle: int, rows: np.ndarray, share: np.ndarray) -> tuple[tuple[Tensor, ...], Any]:
        """This process's share of a batch: arguments for the module and the labels to judge its answer by."""
        mine = rows[share]
        if self.labels is not None:
            return self.tensors(self.arrays, mine), torch.from_numpy(np.ascontiguousarray(self.labels[mine])).to(self.device)
        clean = self.tensors(self.arrays, mine)
        if self.teacher is None:
            return clean, None
        if not self.disturbed:
            return clean, self.classes(clean) if self.own is None else self.own[torch.from_numpy(mine).to(self.device)]
        with torch.no_grad():
            said = self.teacher(*clean)
        noisy = tuple(disturb(a[rows], draw(self.seed, cycle, 1 + i)) for i, a in enumerate(self.arrays))
        return self.tensors(noisy, share), said

    def tensors(self, arrays: tuple[np.ndarray, ...], rows: np.ndarray) -> tuple[Tensor, ...]:
        """Rows of arrays as the module takes them; floats in the precision of its weights."""
        picked = [torch.from_numpy(np.ascontiguousarray(a[rows])).to(self.device) for a in arrays]
        return tuple(x.to(self.kind) if x.is_floating_point() else x for x in picked)

    def known(self) -> list[np.ndarray]:
        """The arrays that make this lesson what it is."""
        return [*self.arrays, *([] if self.labels is None else [self.labels])]


def draw(seed: int, number: int, stream: int = 0) -> np.random.Generator:
    """Randomness for one number, the same whatever was drawn before (Philox; Salmon et al., 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, int(number)], counter=[0, 0, 0, stream]))


def disturb(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`x` with a little noise: floats by a tenth of their deviation, a tenth of the integers replaced by another sample's."""
    if x.dtype.kind == "f":
        return (x + NOISE * x.std() * random.standard_normal(x.shape)).astype(x.dtype)
    other = x[random.permutation(len(x))]
    return np.where(random.random(x.shape) < NOISE, other, x)


def checked(inputs: Inputs) -> tuple[np.ndarray, ...]:
    """The input arrays in order, all numbers, all finite, with the same number of samples."""
    if isinstance(inputs, np.ndarray):
        inputs = (inputs,)
    named = dict(inputs) if isinstance(inputs, Mapping) else {str(i): x for i, x in enumerate(inputs)}
    if not named:
        raise ValueError("learn: at least one input array is needed, got none")
    arrays = {name: np.asarray(x) for name, x in named.items()}
    samples = {name: a.shape[0] if a.ndim else 0 for name, a in arrays.items()}
    for name, a in arrays.items():
        if a.dtype.kind not in "fiub":
            raise ValueError(f"learn: input {name!r} must hold numbers, got {a.dtype}")
        if samples[name] == 0:
            raise ValueError(f"learn: input {name!r} must have at least one sample along its first axis, got shape {a.shape}")
        if a.dtype.kind == "f" and not np.isfinite(a).all():
            raise ValueError(f"learn: input {name!r} must be finite, got NaN or infinity; clean the data")
    if len(set(samples.values())) > 1:
        raise ValueError(f"learn: all inputs must have the same number of samples, got {samples}")
    return tuple(arrays.values())


def flat(said: Any) -> list[Tensor]:
    """The float tensors of whatever a module returned, in order."""
    if isinstance(said, torch.Tensor):
        return [said] if said.is_floating_point() else []
    parts = said.values() if isinstance(said, Mapping) else said
    return [y for part in parts if part is not None for y in flat(part)]


def first(said: Any) -> Tensor:
    """The first float tensor of whatever a module returned."""
    found = flat(said)
    if not found:
        raise ValueError(
            "learn: the module must return at least one float tensor, got none; pass a module that does, or `loss`"
        )
    return found[0]


def scores_classes(said: Any) -> bool:
    """Whether an output looks like one score per class: one float matrix, at least two columns, rows not of unit length."""
    found = flat(said)
    if len(found) != 1 or found[0].ndim != 2 or found[0].shape[1] < 2:
        return False
    lengths = found[0].double().norm(dim=1)
    return probable(found[0], 1) or not bool(((lengths - 1).abs() < 1e-3).all())


def class_axis(said: Tensor, labels: np.ndarray) -> int:
    """The axis of the classes: the one whose removal leaves the shape of the labels."""
    want = tuple(labels.shape[1:])
    if said.ndim > 1 and tuple(said.shape[2:]) == want:
        return 1
    if said.ndim > 1 and tuple(said.shape[1:-1]) == want:
        return said.ndim - 1
    raise ValueError(
        f"learn: labels must have one class number per output position; the output has shape {tuple(said.shape)}, "
        f"the labels of a sample have {want}; pass `loss` for other kinds of labels"
    )


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Nothing, if every label is a class."""
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"learn: labels must be whole class numbers, got {labels.dtype}; pass `loss` for other kinds of labels"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"learn: labels must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}; number classes from 0"
        )


def probable(said: Tensor, axis: int) -> bool:
    """Whether the network ends in a softmax: nothing negative, and sums of 1."""
    return bool((said >= 0).all()) and bool(((said.double().sum(axis) - 1).abs() < 1e-3).all())


def cross_entropy(axis: int, probabilities: bool) -> Loss:
    """The loss of class scores, or of probabilities, along an axis."""

    def loss(said: Any, labels: Tensor) -> Tensor:
        scores = first(said).movedim(axis, 1)
        return F.cross_entropy((scores + TINY).log() if probabilities else scores, labels.long())

    return loss


def agreement(sizes: tuple[float, ...]) -> Loss:
    """The loss of outputs that should be others: squared error relative to each output's mean square, summed."""

    def loss(said: Any, wanted: Any) -> Tensor:
        pairs = zip(flat(said), flat(wanted), sizes, strict=True)
        return sum(((y - w) ** 2).mean() / max(size, TINY) for y, w, size in pairs)

    return loss
