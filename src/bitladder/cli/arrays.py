"""Arrays in `.npz` files: one per input by name, or `x` where there is one input, and `y` for integer labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitladder.disk import replacing
from bitladder.ir.graph import Value
from bitladder.ptq import data

BATCH = 256
BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Samples:
    """Checked arrays by input name, in the order of the inputs, labels if there are any, and how many samples fit a batch."""

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None
    batch: int
    fixed: bool = False  # whether the network takes no other number

    def batches(self) -> list[dict[str, np.ndarray]]:
        """The arrays, as many samples at a time as the network takes."""
        count = max((len(a) for a in self.feeds.values() if a.ndim), default=1)
        return [
            {k: a[at : at + self.batch] if a.ndim else a for k, a in self.feeds.items()} for at in range(0, count, self.batch)
        ]


def read(path: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; anything else, and arrays of Python objects, are refused."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"data: {path!r} does not exist; give an .npz file with one array per input")
    with open(path, "rb") as f:
        try:
            archive = np.load(f, allow_pickle=False)
        except BROKEN:
            raise ValueError(f"data: {path!r} is damaged or no .npz file; write it again with numpy.savez") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(
                f"data: {path!r} must be an .npz file, got a single array; write it with numpy.savez(path, x=array)"
            )
        arrays = {name: member(archive, name, path) for name in archive.files}
    if not arrays:
        raise ValueError(f"data: {path!r} holds no array; give one per input")
    return arrays


def member(archive: Mapping[str, np.ndarray], name: str, path: str) -> np.ndarray:
    """One array of an archive."""
    try:
        return archive[name]
    except BROKEN as error:
        must = "hold plain numbers" if isinstance(error, ValueError) else "be whole, and its bytes are damaged"
        raise ValueError(f"data: array {name!r} of {path!r} must {must}; write it again with numpy.savez") from None


def samples(path: str, inputs: Sequence[Value], classes: int | None = None) -> Samples:
    """What `path` holds for a network with these inputs, every array checked; errors name the file."""
    arrays = read(path)
    try:
        named, labels = data.named(arrays, inputs)
        step = batch_size(inputs)
        free = [replace(v, shape=("samples", *v.shape[1:])) if step and v.shape else v for v in inputs]
        feeds = data.checked({v.name: named[v.name] for v in inputs}, free)
        count = samples_in(feeds, step)
        labels = None if labels is None else data.checked_labels(labels, count, classes)
    except ValueError as error:
        raise ValueError(str(error).replace("data:", f"data {path}:", 1)) from None
    return Samples(feeds, labels, step or BATCH, step is not None)


def batch_size(inputs: Sequence[Value]) -> int | None:
    """How many samples a network takes at a time, if it takes no other number."""
    sizes = {v.shape[0] if v.shape else None for v in inputs}
    only = sizes.pop() if len(sizes) == 1 else None
    return only if isinstance(only, int) and only > 0 else None


def samples_in(feeds: Mapping[str, np.ndarray], step: int | None) -> int:
    """The number of samples in arrays that must agree about it."""
    lengths = {name: len(a) for name, a in feeds.items() if a.ndim}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"data: arrays must have the same number of samples, got {lengths}; cut them to one length")
    count = next(iter(lengths.values()), 1)
    if step and count % step:
        raise ValueError(f"data: samples must be a multiple of {step}, the network's fixed batch, got {count}; cut them")
    return count


def write(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an `.npz` file, whole or not at all."""
    with replacing(path) as f:
        np.savez(f, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})
