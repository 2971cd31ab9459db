"""How good a network is on evaluation data: a number that a search may trade bits for, higher is better.

With labels it is top-1 accuracy. Without, it is agreement with the float network: of the argmax where the output looks like
classes (samples, classes), else one minus the relative error of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.ir.graph import Graph
from bitladder.model import Model

Net = Callable[..., Any]
BATCH = 256

ACCURACY, AGREEMENT, CLOSENESS = "top-1 accuracy", "agreement with float", "1 - relative output error"


def share(rows: np.ndarray) -> float:
    """The score of rows that say right or wrong of each sample."""
    return float(rows.mean())


@dataclass(frozen=True)
class Score:
    """A function from a network to a number, with the name of what it measures and the samples it uses.

    each: what a network does on each sample, a row for each. whole: the score of such rows. truth: the rows of the float
    network, where it is what others are measured by.
    """

    metric: str
    samples: int
    each: Callable[[Net], np.ndarray]
    whole: Callable[[np.ndarray], float] = share
    truth: np.ndarray | None = None

    def __call__(self, net: Net) -> float:
        return self.whole(self.each(net))


def runner(graph: Graph) -> Net:
    """A graph as a function of arrays: on torch where that is installed, which gives the same integers sooner."""
    try:
        from bitladder.convert.evaluate import Evaluator
    except ImportError:
        return Model(graph)
    return Evaluator(graph)


def batches(feeds: Mapping[str, np.ndarray], size: int = BATCH) -> Iterator[tuple[np.ndarray, ...]]:
    """The arrays of all inputs, in order, `size` samples at a time.

    >>> [b[0].shape for b in batches({"x": np.zeros((5, 2))}, 3)]
    [(3, 2), (2, 2)]
    """
    for at in range(0, len(next(iter(feeds.values()))), size):
        yield tuple(a[at : at + size] for a in feeds.values())


def first_output(net: Net, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """The first output of a network as a numpy array."""
    out = net(*arrays)
    out = next(iter(out.values())) if isinstance(out, Mapping) else out[0] if isinstance(out, tuple | list) else out
    return np.asarray(out.detach().cpu() if hasattr(out, "detach") else out)


def outputs(net: Net, feeds: Mapping[str, np.ndarray], size: int = BATCH) -> np.ndarray:
    """The first output of a network for all samples."""
    return np.concatenate([first_output(net, arrays) for arrays in batches(feeds, size)])


def class_like(out: np.ndarray) -> bool:
    """Whether an output looks like one number per class.

    >>> class_like(np.zeros((8, 10))), class_like(np.zeros((8, 1))), class_like(np.zeros((8, 3, 4)))
    (True, False, False)
    """
    return out.ndim == 2 and out.shape[1] > 1


def accuracy(feeds: Mapping[str, np.ndarray], labels: np.ndarray, size: int = BATCH) -> Score:
    """The share of samples whose largest output is the one of their label."""

    def each(net: Net) -> np.ndarray:
        right = np.empty(len(labels), bool)
        for at, arrays in zip(range(0, len(labels), size), batches(feeds, size), strict=True):
            out = first_output(net, arrays)
            check_classes(out, labels)
            right[at : at + size] = out.argmax(1) == labels[at : at + size]
        return right

    return Score(ACCURACY, len(labels), each)


def check_classes(out: np.ndarray, labels: np.ndarray) -> None:
    """Return if `labels` can be classes of the output `out`."""
    if not class_like(out):
        raise ValueError(
            f"score: with labels, the output must be (samples, classes), got {out.shape}; leave out the labels 'y'"
        )
    if labels.min() < 0 or labels.max() >= out.shape[1]:
        span = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"score: labels 'y' must be 0..{out.shape[1] - 1}, got {span}; number classes from 0")


def likeness(feeds: Mapping[str, np.ndarray], plain: Net, size: int = BATCH) -> Score:
    """How much a network answers like `plain`, the float network, which is run at once."""
    wanted = outputs(plain, feeds, size)
    if class_like(wanted):
        chosen = wanted.argmax(1)
        return Score(
            AGREEMENT, len(wanted), lambda net: outputs(net, feeds, size).argmax(1) == chosen, truth=np.ones(len(wanted), bool)
        )
    lengths = squares(wanted)

    def each(net: Net) -> np.ndarray:
        return np.stack([squares(outputs(net, feeds, size).astype(np.float64) - wanted), lengths], axis=1)

    return Score(CLOSENESS, len(wanted), each, closeness, np.stack([0 * lengths, lengths], axis=1))


def squares(outputs: np.ndarray) -> np.ndarray:
    """The sum of squares of each sample's output."""
    return np.square(outputs.reshape(len(outputs), -1), dtype=np.float64).sum(1)


def closeness(rows: np.ndarray) -> float:
    """One minus the relative error, of rows that hold squared errors and squared outputs."""
    error, length = rows.sum(0)
    return 1.0 - float(np.sqrt(error / max(length, 1e-60)))
