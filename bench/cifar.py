"""CIFAR-10 as JPEG files in class folders, and the splits that every benchmark uses."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


@dataclass(frozen=True)
class Split:
    """Images (n, 3, 32, 32) float32, normalised, and labels (n,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def __getitem__(self, which: slice | np.ndarray) -> Split:
        return Split(self.images[which], self.labels[which])

    def __len__(self) -> int:
        return len(self.labels)


def read(path: Path) -> Split:
    """Every image of one archive, in the order of their sorted names."""
    from PIL import Image

    with tarfile.open(path) as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".jpg")), key=lambda m: m.name)
        classes = sorted({Path(m.name).parent.name for m in members})
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
    """Calibrate on `calibration` (training images i % 97 == 0, the first 512), choose on `choose` (i % 10 == 5), report on `test`.

    `learn` is what remains of the training images.
    """

    calibration: Split
    choose: Split
    learn: Split
    test: Split


def load(folder: Path) -> Data:
    """The splits, from DIR/cifar10/{train,test}.tar."""
    root = folder / "cifar10"
    for name in ("train.tar", "test.tar"):
        if not (root / name).exists():
            raise FileNotFoundError(f"bench: {root / name} is missing; give the folder that holds cifar10/ with --data-dir")
    train, test = read(root / "train.tar"), read(root / "test.tar")
    i = np.arange(len(train))
    calibration = i % 97 == 0
    choose = (i % 10 == 5) & ~calibration
    return Data(train[np.flatnonzero(calibration)[:512]], train[choose], train[~calibration & ~choose], test)
