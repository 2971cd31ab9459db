"""CIFAR-10 as JPEG files in class folders, and the splits that every benchmark uses."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
DRAWS = 3  # of calibration images


@dataclass(frozen=True)
class Split:
    """Images (n, 3, 32, 32) float32, normalised, and labels (n,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def __getitem__(self, which: slice | np.ndarray) -> Split:
        return Split(self.images[which], self.labels[which])

    def __len__(self) -> int:
        return len(self.labels)


def read(path: Path, which: Callable[[int], np.ndarray] | None = None) -> Split:
    """Every image of one archive, in the order of their sorted names, or those that `which` picks of so many."""
    from PIL import Image

    with tarfile.open(path) as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".jpg")), key=lambda m: m.name)
        classes = sorted({Path(m.name).parent.name for m in members})
        members = members if which is None else [members[i] for i in which(len(members))]
        images = np.empty((len(members), 3, 32, 32), np.float32)
        labels = np.empty(len(members), np.int64)
        for i, member in enumerate(members):
            file = tar.extractfile(member)
            assert file is not None
            pixels = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            images[i] = pixels.transpose(2, 0, 1)
            labels[i] = classes.index(Path(member.name).parent.name)
    images /= 255.0
    images -= MEAN
    images /= STD
    return Split(images, labels)


@dataclass(frozen=True)
class Data:
    """The splits: calibrate on a draw, choose on training images with i % 10 == 5, report on `test`.

    Draw d is the first 512 training images with i % 97 == d. `learn` is what remains of the training images.
    """

    draws: tuple[Split, ...]
    choose: Split
    learn: Split
    test: Split


def archives(folder: Path) -> list[Path]:
    """DIR/cifar10/train.tar and test.tar, which must be there."""
    paths = [folder / "cifar10" / name for name in ("train.tar", "test.tar")]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"bench: {path} is missing; give the folder that holds cifar10/ with --data-dir")
    return paths


def some(folder: Path, count: int) -> tuple[Split, Split]:
    """The first draw of calibration images, and so many test images at even distances: no other is read."""
    train, test = archives(folder)
    return read(train, lambda n: np.arange(0, n, 97)[:512]), read(
        test, lambda n: np.linspace(0, n - 1, count).round().astype(int)
    )


def load(folder: Path) -> Data:
    """The splits, from DIR/cifar10/{train,test}.tar."""
    train, test = map(read, archives(folder))
    i = np.arange(len(train))
    drawn = i % 97 < DRAWS
    choose = (i % 10 == 5) & ~drawn
    draws = tuple(train[np.flatnonzero(i % 97 == d)[:512]] for d in range(DRAWS))
    return Data(draws, train[choose], train[~drawn & ~choose], test)
