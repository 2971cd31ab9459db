"""One nested network trained at all widths at once, against networks trained at just one width for the same epochs.

ResNet-20 from its trained floats on CIFAR-10, images flipped, shifted and mixed in pairs. Every run starts from quantization
after training for its own widths, has the same batches and rate, and learns at each width what the float network answers. Of
mixed images that says more: of those that it was trained on it is mostly sure (Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", 2022). A run keeps its state, so it goes on where it was stopped. Means stay as they are
meanwhile: those of small batches cost a trained network more than they teach it. Accuracies are those of the finished files,
run by the native core. First and last layer have six planes at least, in every network. Ranges begin where low widths want
them: what is cut off at 8 bits for that, training makes up for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench import cifar, resnet
from bench.options import Options, tell
from bench.result import Figure, Result, Row
from bench.training import alone, cost
from bench.work import FOLDER, Work
from bitladder.formats import Int, Nested
from bitladder.train.nested import Batch, train_nested
from bitladder.train.prepared import in_pixels
from bitladder.training import finish, prepare

RATE, BATCH, THREADS = 1e-3, 128, 1
WIDTHS = (8, 4, 3, 2)
PLANES = 8
MATTER = {8: 1.0, 4: 2.0, 3: 4.0, 2: 8.0}  # when ranges are chosen; found on turned training images with i % 10 == 5
ALONE = (4, 2)  # widths that have a dedicated network
OFF = {4: 0.2, 2: 0.8}  # points that these widths may lose against float,
BEHIND = 0.5  # and against the dedicated network


@dataclass(frozen=True)
class Size:
    """How much is learned: images, epochs, seeds, and images to report on."""

    images: int | None
    epochs: float
    seeds: tuple[int, ...]
    test: int
    effort: str = "best"  # of quantization before training


@dataclass(frozen=True)
class Run:
    """One network to train: the widths it learns at, whether activations have the width of the weights.

    at_once: so many widths a step, drawn at random, in place of all. share: of the epochs that there are.
    """

    widths: tuple[int, ...]
    follow: bool = False
    at_once: int | None = None
    share: float = 1.0


QUICK, FULL = Size(10_000, 1, (0,), 2_000, "fast"), Size(None, 4, (0,), 10_000)
RUNS = {"nested": Run(WIDTHS), **{f"{b} bits alone": Run((b,)) for b in ALONE}}


def rows(data: Path, quick: bool) -> list[Row]:
    """Accuracies in per cent, each beside what it is compared with; spread in points."""
    size = QUICK if quick else FULL
    plain, hits = measured(data, RUNS, size)
    ours = dict(zip(WIDTHS, hits["nested"], strict=True))
    alone = {b: hits[f"{b} bits alone"][0] for b in ALONE}
    found = [row(f"nested at {b} bits", ours[b], plain, "float") for b in WIDTHS]
    found += [row(f"nested at {b} bits", ours[b], alone[b], f"{b} bits alone") for b in ALONE]
    return [*found, cost_row(data, size)]


def measured(data: Path, runs: Mapping[str, Run], size: Size) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hits of the float network, and of each run at its widths, means over seeds."""
    torch.set_num_threads(THREADS)
    learn, test, calib = splits(data, size)
    work = Work.of("train_nested", replace(size, seeds=()), RATE, BATCH, MATTER)

    def hits(name: str, run: Run, seed: int) -> np.ndarray:
        return work(f"{name} {run} {seed}", lambda: trained(data, name, run, learn, test, calib, size, seed)).value

    plain = work("float", lambda: right(resnet.load(data, 20), test)).value
    return plain, {name: np.mean([hits(name, run, seed) for seed in size.seeds], 0) for name, run in runs.items()}


def row(what: str, ours: np.ndarray, peer: np.ndarray, name: str) -> Row:
    """One comparison of hits."""
    return Row.hits(f"ResNet-20 trained on: {what}", ours, peer, name)


def figures(found: list[Row]) -> Mapping[str, Figure]:
    """What was asked for: points lost against float, and against a network of that width alone."""

    def lost(bits: int, peer: str) -> float:
        r = next(r for r in found if f": nested at {bits} bits," in r.what and r.peer_name == peer)
        return r.peer - r.ours  # type: ignore[operator]  # measured, both

    peers = [(b, f"{b} bits alone") for b in ALONE]
    out = {f"nested training: points lost at {b} bits": Figure.at_most(lost(b, "float"), most) for b, most in OFF.items()}
    return out | {f"nested training: points behind {name}": Figure.at_most(lost(b, name), BEHIND) for b, name in peers}


def cost_row(data: Path, size: Size, times: int = 4) -> Row:
    """Processor milliseconds of the gradients at all widths, beside those of as many passes of the float network."""
    learn, _, calib = splits(data, replace(size, images=BATCH, test=1))
    x, y = in_pixels(torch.from_numpy(learn.images[:BATCH])), torch.from_numpy(learn.labels[:BATCH])
    ask = torch.nn.functional.cross_entropy
    net = prepare(
        resnet.load(data, 20), "nested8", calib, widths=WIDTHS, start="float", rounding="nearest", centre=False
    ).train()
    plain, batch = resnet.load(data, 20).train(), Batch(net)

    def in_floats() -> None:
        for _ in WIDTHS:
            ask(plain(x), y).backward()

    def at_all_widths() -> None:
        batch.take(x, y, ask, distill=False)
        batch.give()

    took = [(cost(at_all_widths), cost(in_floats)) for _ in range(times)]
    ours, peer = (min(each) for each in zip(*took, strict=True))
    name = f"{len(WIDTHS)} forward and backward passes in floats, {BATCH} images"
    return Row.of(f"ResNet-20, gradients at {len(WIDTHS)} widths, ms", ours, peer, name)


def splits(data: Path, size: Size) -> tuple[cifar.Split, cifar.Split, np.ndarray]:
    """Images to learn from, test images, and the images to calibrate on."""
    train, test = cifar.archives(data)

    def learning(n: int) -> np.ndarray:
        i = np.arange(n)
        free = i[(i % 97 >= cifar.DRAWS) & (i % 10 != 5)]
        return free if size.images is None else free[np.linspace(0, len(free) - 1, size.images).round().astype(int)]

    calib = cifar.read(train, lambda n: np.arange(0, n, 97)[:512]).images
    some = cifar.read(test, lambda n: np.linspace(0, n - 1, size.test).round().astype(int))
    return cifar.read(train, learning), some, calib


def trained(
    data: Path, name: str, run: Run, learn: cifar.Split, test: cifar.Split, calib: np.ndarray, size: Size, seed: int
) -> np.ndarray:
    """Which test images one trained network gets right, at each of its widths."""
    epochs = size.epochs * run.share
    matter = {b: MATTER[b] for b in run.widths if b in MATTER}
    plan = {"*": Nested(PLANES, matter=matter), "a=*": Int(8)}
    net = prepare(
        resnet.load(data, 20), plan, calib, widths=run.widths, follow=run.follow, centre=False, effort=size.effort, seed=seed
    )
    folder = FOLDER / "train_nested" / f"{name.replace(' ', '_')}_{seed}_{size.images}_{epochs}"

    def progress(step: int, steps: int, word: str) -> None:
        if step % 20 == 0:
            tell(f"{name}, seed {seed}: step {step} of {steps}, {word}")

    train_nested(
        net, learn.images, learn.labels, epochs=epochs, batch=BATCH, rate=RATE, augment=mixed, seed=seed,
        teacher=resnet.load(data, 20).to(memory_format=torch.channels_last), taught=1, distill=False, at_once=run.at_once,
        parts=1, work=folder, progress=progress,
    )  # fmt: skip
    models = {b: finish(net, b).with_(threads=1, batch=200) for b in run.widths}
    found = np.stack([right(models[b].at(b), test) for b in run.widths])
    (folder / "nested.pt").unlink(missing_ok=True)
    return found


def flipped(arrays: tuple[np.ndarray, ...], random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Images flipped and shifted by up to four pixels."""
    (images,) = arrays
    x = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    flips, moves = random.random(len(x)) < 0.5, random.integers(0, 9, (len(x), 2))
    drawn = zip(x, moves, flips, strict=True)
    return (np.stack([a[:, i : i + 32, j : j + 32][:, :, :: -1 if flip else 1] for a, (i, j), flip in drawn]),)


def mixed(arrays: tuple[np.ndarray, ...], random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Images flipped, shifted, and each mixed with another one of the batch (Zhang et al., "mixup", 2018)."""
    (images,) = flipped(arrays, random)
    share = random.random((len(images), 1, 1, 1), dtype=np.float32)
    return (share * images + (1 - share) * images[random.permutation(len(images))],)


def right(net: object, test: cifar.Split) -> np.ndarray:
    """Hits, one per image."""
    with torch.no_grad():
        said = [np.asarray(net(torch.from_numpy(test.images[i : i + 200]))) for i in range(0, len(test), 200)]  # type: ignore[operator]
    return np.concatenate(said).argmax(1) == test.labels


def bench(options: Options) -> Result:
    """Rows and figures of this method."""
    return alone("train_nested", options, rows, figures)
