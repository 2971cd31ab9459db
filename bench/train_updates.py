"""Integer weights that learn: 8 bits with 16-bit accumulators (S4) or residuals (S5) against float SGD on one task.

ResNet-20 from scratch on CIFAR-10, flips and shifts, a rate that falls linearly to zero; every method sees the same batches
from the same start. Each run keeps its state after every epoch, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bench import cifar
from bench.options import Options, tell
from bench.resnet import ResNet
from bench.result import Figure, Result, Row
from bench.train_nested import flipped, right
from bench.training import alone, cost
from bench.work import FOLDER, Work
from bitladder.train import integers
from bitladder.train.accumulate import Accumulated
from bitladder.train.prepared import in_pixels
from bitladder.train.residual import Residual
from bitladder.train.words import by_shape

RATE, MOMENTUM, DECAY, BATCH = 0.03, 0.9, 5e-4, 128  # the best for floats of 0.1, 0.03 and 0.01, on images with i % 10 == 5
PEER, BARE = "float SGD", "8-bit weights alone"
BAR, GAP = 0.3, 5.0  # points


@dataclass(frozen=True)
class Size:
    """How much is learned: images, epochs, seeds, and images to report on."""

    images: int | None
    epochs: int
    seeds: tuple[int, ...]
    test: int


DIGITS = {"rate": 0.005, "epochs": 12, "batch": 32, "seeds": 5}  # a perceptron on scikit-learn's digits, in seconds
QUICK, FULL = Size(10_000, 1, (0,), 2_000), Size(None, 4, (0,), 10_000)  # a seed more is an hour of a core


def in_floats(net: Any, rate: float) -> Any:
    return torch.optim.SGD(net.parameters(), rate, MOMENTUM, weight_decay=DECAY)


def accumulated(net: Any, rate: float) -> Any:
    """Seen at the nearest code: weights that lag by up to one learn more slowly in the first epochs."""
    sgd = {"lr": rate, "momentum": MOMENTUM, "weight_decay": DECAY}
    return Accumulated(by_shape(net), torch.optim.SGD, nearest=True, **sgd)


def residual(net: Any, rate: float) -> Any:
    return Residual(by_shape(net), rate, momentum=MOMENTUM, weight_decay=DECAY)


def bare(net: Any, rate: float) -> Any:
    """Steps rounded to whole codes, nothing kept; biases and norms learn as floats, so that only the weights differ."""
    sgd = {"lr": rate, "momentum": MOMENTUM, "weight_decay": DECAY}
    return Accumulated(by_shape(net, rest=None), torch.optim.SGD, finer=0, follow=False, **sgd)


Method = Callable[[Any, float], Any]  # (network, rate) -> optimizer
METHODS: dict[str, Method] = {
    PEER: in_floats,
    "8-bit weights, 16-bit accumulators": accumulated,
    "8-bit weights, 15-bit residuals": residual,
    BARE: bare,
}


def rows(data: Path, quick: bool) -> list[Row]:
    """Accuracy in per cent of each method beside float SGD's, the mean over seeds; spread in points.

    What has no memory runs with the first seed alone: its row is beside float SGD's with that seed.
    """
    size = QUICK if quick else FULL
    learn, test = splits(data, size)
    work = Work.of("train_updates", replace(size, seeds=()), RATE, MOMENTUM, DECAY, BATCH)
    hits = {
        name: [work(f"{name} {seed}", lambda m=make, s=seed, n=name: trained(m, n, learn, test, size, s)).value
               for seed in (size.seeds[:1] if name == BARE else size.seeds)]
        for name, make in METHODS.items()
    }  # fmt: skip
    pairs = {name: (np.concatenate(got), np.concatenate(hits[PEER][: len(got)])) for name, got in hits.items() if name != PEER}
    return [row("ResNet-20 from scratch", name, *pair) for name, pair in pairs.items()] + digits_rows() + cost_rows()


def row(task: str, name: str, ours: np.ndarray, peer: np.ndarray) -> Row:
    """One comparison of hits."""
    return Row.hits(f"{task}: {name}", ours, peer, PEER)


def figures(found: list[Row]) -> Mapping[str, Figure]:
    """What was asked for: how many points are lost with a memory, and without one."""
    lost = [r.peer - r.ours for r in found]  # type: ignore[operator]  # measured, both
    return {
        "updates: points lost with accumulators": Figure.at_most(lost[0], BAR),
        "updates: points lost with residuals": Figure.at_most(lost[1], BAR),
        "updates: points off without a memory": Figure.at_least(lost[2], GAP),
    }


def digits_rows() -> list[Row]:
    """The same methods on small images of digits, and training in integers alone: five seeds, the same rate for all."""
    from sklearn.datasets import load_digits

    held = load_digits()
    learning = np.arange(len(held.target)) % 5 != 0
    x, y = torch.tensor(held.data / 16, dtype=torch.float32), torch.tensor(held.target)
    seeds = range(int(DIGITS["seeds"]))

    def hits(make: Method, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
        optimizer = make(net, DIGITS["rate"])
        for epoch in range(int(DIGITS["epochs"])):
            for rows in integers.batches(int(learning.sum()), int(DIGITS["batch"]), epoch, seed):
                optimizer.zero_grad()
                F.cross_entropy(net(x[learning][rows]), y[learning][rows]).backward()
                optimizer.step()
        with torch.no_grad():
            return (net(x[~learning]).argmax(1) == y[~learning]).numpy()

    def whole(keep: str, seed: int) -> np.ndarray:
        pixels, rule = (held.data * 7).astype(np.int64), integers.Rule(keep)
        layers = integers.network((64, 48, 10), seed)
        epochs = range(int(DIGITS["epochs"]))
        integers.train(layers, pixels[learning], held.target[learning], rule, epochs=epochs, seed=seed)
        return integers.classes(layers, pixels[~learning], rule) == held.target[~learning]

    found = {name: np.concatenate([hits(make, seed) for seed in seeds]) for name, make in METHODS.items()}
    for keep in ("accumulator", "residual"):
        found[f"integers alone, {keep}s"] = np.concatenate([whole(keep, seed) for seed in seeds])
    return [row("perceptron on digits", name, ours, found[PEER]) for name, ours in found.items() if name != PEER]


def cost_rows(steps: int = 20) -> list[Row]:
    """Processor milliseconds of each method's step on ResNet-20, beside those of a forward and a backward pass."""
    net = ResNet(3)
    x = torch.randn(BATCH, 3, 32, 32)
    passes = min(cost(lambda: net(x).sum().backward()) for _ in range(4))
    found = []
    for name, make in METHODS.items():
        optimizer, took = make(net, 1e-6), []
        for _ in range(steps):
            for p in net.parameters():
                p.grad = torch.full_like(p, 1e-3)
            took.append(cost(optimizer.step))
        found.append(Row.of(f"ResNet-20, one step: {name}, ms", min(took), passes, f"forward and backward, {BATCH} images"))
    return found


def splits(data: Path, size: Size) -> tuple[cifar.Split, cifar.Split]:
    """Images to learn from, and test images."""
    if size.images is None:
        whole = cifar.load(data)
        return whole.learn, whole.test
    train, test = cifar.archives(data)
    few = size.images

    def learning(n: int) -> np.ndarray:
        i = np.arange(n)
        free = i[(i % 97 >= cifar.DRAWS) & (i % 10 != 5)]
        return free[np.linspace(0, len(free) - 1, few).round().astype(int)]

    return cifar.read(train, learning), cifar.read(test, lambda n: np.linspace(0, n - 1, size.test).round().astype(int))


def trained(make: Method, name: str, learn: cifar.Split, test: cifar.Split, size: Size, seed: int) -> np.ndarray:
    """Which test images the network trained by one method gets right."""
    torch.manual_seed(seed)
    net = ResNet(3)
    optimizer = make(net, RATE)
    path = FOLDER / "train_updates" / f"{name.replace(' ', '_')}_{seed}_{size.images}_{size.epochs}.pt"
    done = resume(path, net, optimizer)
    total, step = size.epochs * (len(learn) // BATCH), done * (len(learn) // BATCH)
    for epoch in range(done, size.epochs):
        net.train()
        for x, y in batches(learn, epoch, seed):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / total)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 50 == 0:
                tell(f"{name}, seed {seed}: step {step} of {total}, loss {loss.item():.3f}")
        keep(path, net, optimizer, epoch + 1)
    path.unlink(missing_ok=True)
    return right(net.eval(), test)


def batches(data: cifar.Split, epoch: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """An epoch's batches, flipped and shifted by up to four pixels; epoch e needs no history."""
    draw = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = draw.permutation(len(data))
    for rows in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
        (x,) = flipped((data.images[rows],), draw)
        yield in_pixels(torch.from_numpy(x)), torch.from_numpy(data.labels[rows])


def keep(path: Path, net: Any, optimizer: Any, epochs: int) -> None:
    """Write where a run stands, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs}, part)
    part.replace(path)


def resume(path: Path, net: Any, optimizer: Any) -> int:
    """How many epochs were done before, with net and optimizer as they were then."""
    if not path.exists():
        return 0
    kept = torch.load(path, weights_only=True)
    net.load_state_dict(kept["net"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["epochs"])


def bench(options: Options) -> Result:
    """Rows and figures of this method."""
    return alone("train_updates", options, rows, figures)
