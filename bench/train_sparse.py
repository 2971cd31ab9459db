"""A sparse student of two teachers (S18) against its dense teacher, and against pruning while a task is learned.

ResNet-20 learns six classes of CIFAR-10 and becomes sparse on them. Two tasks follow: the other four classes, and the digits of
scikit-learn, enlarged to 32x32. For each the dense network is fine-tuned, the student learns with its zeros locked, and the
dense network is pruned as far within the same steps; these two have the same teacher and the same loss. The student is
finished in int8 and int4, its file coded at best. The rate was chosen after four epochs of pretraining at half the pixels, the
epochs of tasks after that of FULL, on training images with i % 10 == 5, of digits on those with i % 5 == 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import cifar
from bench.options import Options, tell
from bench.resnet import ResNet
from bench.result import Figure, Result, Row
from bench.train_nested import flipped, right
from bench.training import alone
from bench.work import FOLDER, Work
from bitladder.train.sparse import Schedule, Sparse
from bitladder.train.student import train_student
from bitladder.training import finish, prepare

SPARSITY, BATCH, EVERY = 0.85, 128, 20
SIX = 6  # classes to pretrain on; the rest are a task
FOUR, DIGITS = "four other classes", "digits"
RATE, FINISH = 0.1, 1e-3  # of descent, and of Adam for finishing
LOST, GAINED = 1.0, 2.0  # points: at most against the dense network, at least over pruning while fine-tuning
BITS = (8, 4)
DENSE, PRUNED = "dense, fine-tuned", "pruned while fine-tuning"
LOCKED = "sparse student"


@dataclass(frozen=True)
class Size:
    """How much is learned: images a class, epochs of both pretrainings, of tasks and of finishing, seeds, test images."""

    images: int | None
    dense: int
    sparse: int
    tasks: Mapping[str, float]
    finish: Mapping[str, float]
    seeds: Mapping[str, int]
    test: int


QUICK = Size(600, 2, 2, {FOUR: 2, DIGITS: 4}, {FOUR: 1, DIGITS: 2}, {FOUR: 1, DIGITS: 1}, 1_000)
FULL = Size(None, 12, 12, {FOUR: 0.3, DIGITS: 8}, {FOUR: 0.5, DIGITS: 4}, {FOUR: 3, DIGITS: 3}, 10_000)


@dataclass(frozen=True)
class Task:
    """Images and labels from 0, to learn, to calibrate formats on, and to report on; whether they may be flipped and moved."""

    name: str
    learn: cifar.Split
    calib: np.ndarray
    test: cifar.Split
    photos: bool = True

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.learn.labels.max()) + 1


# ---------------------------------------------------------------------------------------------------------- networks


def fresh(classes: int, seed: int) -> ResNet:
    """ResNet-20 with random weights, in the order of memory that convolutions are fastest in."""
    torch.manual_seed(seed)
    net = ResNet(3)
    net.linear = torch.nn.Linear(64, classes)
    return net.to(memory_format=torch.channels_last)


def headed(net: ResNet, classes: int, seed: int) -> ResNet:
    """A copy with a new head for so many classes."""
    made = copy.deepcopy(net)
    torch.manual_seed(seed)
    made.linear = torch.nn.Linear(64, classes)
    return made


def flat(net: ResNet, masks: Mapping[str, torch.Tensor] | None = None) -> np.ndarray:
    """All that a network and its masks hold, as one array."""
    parts = [*net.state_dict().values(), *(masks or {}).values()]
    return np.concatenate([x.detach().double().reshape(-1).numpy() for x in parts])


def unflat(array: np.ndarray, net: ResNet) -> tuple[ResNet, dict[str, torch.Tensor]]:
    """What `flat` was of, in a network of that shape; masks are of what is pruned by default."""
    at, state, masks = 0, {}, {}
    for name, x in net.state_dict().items():
        state[name] = torch.from_numpy(array[at : at + x.numel()].reshape(x.shape)).to(x.dtype)
        at += x.numel()
    net.load_state_dict(state)
    for name, w in Sparse(copy.deepcopy(net), schedule=Schedule(0, 0)).weights.items():
        if at < len(array):
            masks[name] = torch.from_numpy(array[at : at + w.numel()].reshape(w.shape)) != 0
            at += w.numel()
    return net, masks


def ramp(samples: int, epochs: float) -> Schedule:
    """Sparse after half of the steps, masks fixed after three quarters."""
    steps = math.ceil(epochs * samples / BATCH)
    return Schedule(SPARSITY, until=steps // 2, every=min(EVERY, max(steps // 16, 1)), last=steps * 3 // 4)


def learned(net: Any, task: Task, epochs: float, name: str, seed: int, rate: float = RATE, **how: Any) -> Any:
    """`net`, trained; its state is kept until it is."""
    folder = FOLDER / "train_sparse" / f"{task.name} {name} {seed} {len(task.learn)} {epochs}".replace(" ", "_")

    def progress(step: int, steps: int, word: str) -> None:
        if step % 20 == 0:
            tell(f"{task.name}, {name}, seed {seed}: step {step} of {steps}, {word}")

    augment = flipped if task.photos else None
    train_student(net, task.learn.images, task.learn.labels, epochs=epochs, batch=BATCH, rate=rate, seed=seed, work=folder,
                  augment=augment, progress=progress, **how)  # fmt: skip
    (folder / "student.pt").unlink(missing_ok=True)
    return net


def checked(sparse: Sparse, *held: Any) -> None:
    """Nothing, if every dead weight is zero in all of these."""
    bad = [name for thing in held for name in sparse.broken(thing)]
    if bad:
        raise RuntimeError(f"train_sparse: dead weights must be zero, got others in {', '.join(bad)}")


# ---------------------------------------------------------------------------------------------------------- the runs


def pretrained(six: Task, size: Size) -> np.ndarray:
    """Teacher 1."""
    net = learned(fresh(SIX, 0), six, size.dense, "dense", 0, warm=50)
    return flat(net)


def pruned(teacher: ResNet, six: Task, size: Size) -> np.ndarray:
    """Stage 1: the student and its masks."""
    net = copy.deepcopy(teacher)
    sparse = Sparse(net, schedule=ramp(len(six.learn), size.sparse))
    learned(net, six, size.sparse, "sparse", 0, sparse=sparse, teacher=teacher)
    checked(sparse, net)
    if min(sparse.sparsity().values()) < SPARSITY:
        raise RuntimeError(f"train_sparse: every layer must be {SPARSITY} sparse, got {sparse.sparsity()}")
    return flat(net, sparse.masks)


def dense(teacher: ResNet, task: Task, epochs: float, seed: int) -> ResNet:
    """Teacher 2: the dense network, fine-tuned."""
    return learned(headed(teacher, task.classes, seed), task, epochs, "fine-tuned", seed)


def locked(
    student: ResNet, masks: Mapping[str, torch.Tensor], teacher: ResNet, task: Task, epochs: float, seed: int
) -> tuple[ResNet, Sparse]:
    """Stage 2: the student's living weights learn the task."""
    net = headed(student, task.classes, seed)
    sparse = Sparse(net, masks=masks)
    learned(net, task, epochs, "student", seed, sparse=sparse, teacher=teacher)
    checked(sparse, net)
    return net, sparse


def late(start: ResNet, teacher: ResNet, task: Task, epochs: float, seed: int) -> ResNet:
    """The dense network pruned while it learns the task, in as many steps as the student had."""
    net = headed(start, task.classes, seed)
    sparse = Sparse(net, schedule=ramp(len(task.learn), epochs))
    learned(net, task, epochs, "pruned", seed, sparse=sparse, teacher=teacher)
    checked(sparse, net)
    return net


def finished(net: ResNet, sparse: Sparse, teacher: ResNet, task: Task, epochs: float, bits: int) -> tuple[Any, int]:
    """The student in a format, trained in it with its zeros locked; the model and the bytes of its coded file."""
    held = prepare(net, f"int{bits}", task.calib, start="float", rounding="nearest", effort="fast")
    zeros = Sparse(held, masks=sparse.masks)
    learned(held, task, epochs, f"int{bits}", 0, FINISH, sparse=zeros, teacher=teacher, optimizer=torch.optim.Adam)
    model = finish(held)
    checked(zeros, held, model)
    return model, coded(model, zeros)


def coded(model: Any, sparse: Sparse | None = None) -> int:
    """Bytes of the file at best; what is read from it is what was written."""
    import bitladder

    path = FOLDER / "train_sparse" / "coded.ladder"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path, coder="best")
    if sparse is not None:
        checked(sparse, bitladder.load(path))
    size = path.stat().st_size
    path.unlink()
    return size


def task_runs(
    task: Task, teacher: ResNet, student: ResNet, masks: Mapping[str, torch.Tensor], size: Size, seed: int
) -> np.ndarray:
    """Hits on the test images of all networks of a task, one row each; for the first seed those in formats too, and bytes."""
    epochs = size.tasks[task.name]
    second = dense(teacher, task, epochs, seed)
    net, sparse = locked(student, masks, second, task, epochs, seed)
    other = late(teacher, second, task, epochs, seed)
    found = [right(one, task.test) for one in (second, net, other)]
    sizes: list[float] = []
    if seed == 0:
        for bits in BITS:
            model, nbytes = finished(net, sparse, second, task, size.finish[task.name], bits)
            plain = finish(prepare(second, f"int{bits}", task.calib, start="float", rounding="nearest", effort="fast"))
            found.append(right(model.with_(threads=1, batch=200), task.test))
            sizes += [nbytes, coded(plain)]
    return np.concatenate([np.stack(found).astype(np.float64).reshape(-1), sizes])


# ---------------------------------------------------------------------------------------------------------- results


def rows(data: Path, quick: bool) -> list[Row]:
    """Accuracies in per cent and bytes, each beside what it is compared with; spread in points."""
    size = QUICK if quick else FULL
    torch.set_num_threads(1)
    six, tasks = splits(data, size)
    work = Work.of("train_sparse", size.images, size.dense, size.sparse, size.test, RATE, FINISH, SPARSITY, BATCH, EVERY)
    teacher, _ = unflat(work("teacher 1", lambda: pretrained(six, size)).value, fresh(SIX, 0))
    student, masks = unflat(work("student", lambda: pruned(teacher, six, size)).value, fresh(SIX, 0))
    ours, peer = right(student.eval(), six.test), right(teacher.eval(), six.test)
    found = [row("six classes", LOCKED, ours, peer, "dense")]
    for task in tasks:
        runs = [
            work(about, lambda t=task, s=seed: task_runs(t, teacher, student, masks, size, s)).value
            for seed in range(size.seeds[task.name])
            for about in [f"{task.name} {seed} {size.tasks[task.name]} {size.finish[task.name]}"]
        ]
        found += task_rows(task, runs)
    return found


def task_rows(task: Task, runs: list[np.ndarray]) -> list[Row]:
    """The comparisons of a task; accuracies in formats are of the first seed."""
    n = len(task.test)
    second, net, other = (np.mean([run[i * n : (i + 1) * n] for run in runs], 0) for i in range(3))
    found = [row(task.name, LOCKED, net, second, DENSE), row(task.name, LOCKED, net, other, PRUNED)]
    weights = sum(w.numel() for w in Sparse(fresh(2, 0), schedule=Schedule(0, 0)).weights.values())
    for i, bits in enumerate(BITS):
        hits = runs[0][(3 + i) * n : (4 + i) * n]
        ours, peer = runs[0][(3 + len(BITS)) * n :][2 * i : 2 * i + 2]
        found.append(row(task.name, f"{LOCKED} in int{bits}", hits, runs[0][n : 2 * n], "in floats"))
        found.append(Row.of(f"{task.name}: {LOCKED} in int{bits}, bytes of file, index included", ours, peer, "dense file"))
        found.append(
            Row.of(f"{task.name}: {LOCKED} in int{bits}, times smaller than float weights", 4 * weights / ours,
                   32 / bits_of(SPARSITY, bits), "arithmetic of an entropy-coded index")
        )  # fmt: skip
    return found


def bits_of(sparsity: float, bits: int) -> float:
    """Bits a weight of living codes and an index of them, entropy coded.

    >>> [round(32 / bits_of(0.9, 8), 1), round(32 / (0.1 * 8 + 1), 1)]
    [25.2, 17.8]
    """
    live = 1 - sparsity
    return live * bits - live * math.log2(live) - sparsity * math.log2(sparsity)


def row(task: str, what: str, ours: np.ndarray, peer: np.ndarray, name: str) -> Row:
    """One comparison of hits."""
    return Row.hits(f"{task}: {what}", ours, peer, name)


def figures(found: list[Row]) -> Mapping[str, Figure]:
    """What was asked for: points lost against the dense network, and gained over pruning while fine-tuning, in each task."""
    out = {}
    for task in (FOUR, DIGITS):
        lost = next(r for r in found if r.what.startswith(f"{task}: {LOCKED},") and r.peer_name == DENSE)
        gain = next(r for r in found if r.what.startswith(f"{task}: {LOCKED},") and r.peer_name == PRUNED)
        drop = lost.peer - lost.ours  # type: ignore[operator]  # measured, both
        out[f"sparse: points lost by the student, {task}"] = Figure.at_most(drop, LOST)
        gained = gain.ours - gain.peer  # type: ignore[operator]
        out[f"sparse: points over pruning while fine-tuning, {task}"] = Figure.at_least(gained, GAINED)
    return out


# ---------------------------------------------------------------------------------------------------------- data


def splits(data: Path, size: Size, choosing: bool = False) -> tuple[Task, list[Task]]:
    """Six classes, and the two tasks. choosing: what settings are chosen on stands where test images are."""
    train, test = cifar.archives(data)
    i = np.arange(50_000)
    free = i[(i % 97 >= cifar.DRAWS) & (i % 10 != 5)]
    if size.images is not None:
        free = free[np.linspace(0, len(free) - 1, 10 * size.images).round().astype(int)]
    learn = cifar.read(train, lambda n: free)
    calib = cifar.read(train, lambda n: np.arange(0, n, 97)[:512])
    if choosing:
        held = cifar.read(train, lambda n: i[(i % 10 == 5) & (i % 97 >= cifar.DRAWS)])
    else:
        held = cifar.read(test, lambda n: np.linspace(0, n - 1, size.test).round().astype(int))
    six, four = (photos(name, learn, calib, held, low) for name, low in (("six classes", 0), (FOUR, SIX)))
    return six, [four, digits(choosing)]


def photos(name: str, learn: cifar.Split, calib: cifar.Split, held: cifar.Split, low: int) -> Task:
    """The classes from `low` on, up to six of them."""

    def some(split: cifar.Split) -> cifar.Split:
        mine = split[(split.labels >= low) & (split.labels < low + SIX)]
        return cifar.Split(mine.images, mine.labels - low)

    return Task(name, some(learn), some(calib).images, some(held))


def digits(choosing: bool = False) -> Task:
    """Images of digits with i % 5 == 0 are for reports, those with i % 5 == 1 for choosing, the rest to learn from."""
    from sklearn.datasets import load_digits

    known = load_digits()
    large = np.kron(known.images / 16, np.ones((4, 4)))[:, None]
    whole = cifar.Split(((large - cifar.MEAN) / cifar.STD).astype(np.float32), known.target.astype(np.int64))
    i = np.arange(len(whole)) % 5
    learn = whole[i > 1]
    return Task(DIGITS, learn, learn.images[:512], whole[i == int(choosing)], photos=False)


def bench(options: Options) -> Result:
    """Rows and figures of this method."""
    return alone("train_sparse", options, rows, figures)
