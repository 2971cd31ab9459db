"""Which layers can do with fewer bits: each criterion gives a number per layer, the low ones to be quantized first (S2).

The weight difference is the patent's (US12393828 FIG 8); the others are what it is compared with (FIG 17).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from bitladder.formats import Format, QTensor
from bitladder.formats import fit as fit_format
from bitladder.ir.graph import CHANNEL_AXIS, Graph
from bitladder.stats.differences import Learned

Values = dict[str, float]


def weight_difference(
    learned: Learned, *, statistic: str = "mean_square", normalize: str = "none", steps: Mapping[str, Any] | None = None
) -> Values:
    """How far each layer's weights moved while learning; 0 means that nothing is known (frozen, or no gradient).

    `steps`: the low-precision step of each layer, for normalize="step"; `low_steps` has them. Where learning rates differ
    between layers, each layer's lengths are divided by its own.
    """
    differ = len(set(learned.rates.values())) > 1
    return {
        name: moved.value(
            statistic,
            normalize=normalize,
            w0=learned.initial[name],
            step=None if steps is None else steps[name],
            rate=learned.rates[name] if differ and learned.rates[name] else 1.0,
        )
        for name, moved in learned.differences.items()
    }


def weights_of(graph: Graph) -> dict[str, tuple[np.ndarray, int]]:
    """Every weight of the graph as reals, with the axis of its output channels."""
    out = {}
    for name, node in graph.weights():
        constant = graph.constants[name]
        reals = constant.decode() if isinstance(constant, QTensor) else np.asarray(constant)
        out[name] = reals, CHANNEL_AXIS[node.op]
    return out


def low_steps(graph: Graph, low: Format) -> dict[str, np.ndarray]:
    """What one integer of the low format is worth in each layer, broadcastable over its weights."""
    return {name: fit_format(low, w, axis=axis).step(w.shape) for name, (w, axis) in weights_of(graph).items()}


def weight_range(graph: Graph) -> Values:
    """Largest weight minus smallest."""
    return {name: float(w.max() - w.min()) for name, (w, _) in weights_of(graph).items()}


def quantization_error(graph: Graph, low: Format) -> Values:
    """Mean square error of the weights in the low format, relative to their mean square; 0 for an all-zero layer."""
    out = {}
    for name, (w, axis) in weights_of(graph).items():
        encoding = fit_format(low, w, axis=axis)
        error = np.square(encoding.decode(encoding.encode(w)).astype(np.float64) - w).mean()
        size = np.square(w.astype(np.float64)).mean()
        out[name] = float(error / size) if size > 0 else 0.0
    return out


def measured_accuracy(names: Sequence[str], loss: Callable[[Sequence[str]], float]) -> Values:
    """What each layer alone at low precision loses: one evaluation for each."""
    return {name: float(loss((name,))) for name in names}


def fisher(graph: Graph, codes: Mapping[str, QTensor], samples: Mapping[str, np.ndarray], seed: int) -> Values:
    """What each layer alone loses at low precision by the Fisher form of the loss: mean squared gradient along its rounding
    error, halved. Layers that no gradient reaches are absent."""
    from bitladder.assign.gradient import losses, pulls

    found = pulls(graph, {name: [q] for name, q in codes.items()}, [samples], seed=seed)
    return {name: float(losses(v).mean()) for name, v in found.items()}


def random_order(names: Sequence[str], seed: int = 0) -> Values:
    """Each layer's place in a random order that the seed gives."""
    places = np.random.Generator(np.random.Philox(key=seed)).permutation(len(names))
    return {name: float(place) for name, place in zip(names, places, strict=True)}


@dataclass(frozen=True)
class Order:
    """Layers with the one to quantize first in front: those that are `ranked`, and those set aside.

    `silent` layers have no value (they did not learn): lower them only if they pass an accuracy test (`search.also`).
    `skipped` is the one with the smallest value where that was asked for.
    """

    ranked: tuple[str, ...]
    silent: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def order(
    values: Mapping[str, float], *, skip_smallest: bool = False, only: Iterable[str] | None = None, zero_is_silence: bool = True
) -> Order:
    """Layers by rising value, ties in the order of `values`; layers without information apart.

    skip_smallest: leave out the layer with the smallest value, whose low-bit version may not be able to tell enough
    classes apart (US12393828 claim 6). only: names or shell patterns of the layers to consider.
    zero_is_silence: a value of exactly 0 is no information; so for weight differences, not for measured losses.

    >>> order({"a": 2.0, "b": 0.0, "c": 1.0, "d": float("nan")})
    Order(ranked=('c', 'a'), silent=('b', 'd'), skipped=())
    """
    names = matching(tuple(values), only)
    silent = tuple(n for n in names if math.isnan(values[n]) or (zero_is_silence and values[n] == 0))
    ranked = tuple(sorted((n for n in names if n not in silent), key=values.__getitem__))
    skip = 1 if skip_smallest else 0
    return Order(ranked[skip:], silent, ranked[:skip])


def matching(names: tuple[str, ...], only: Iterable[str] | None) -> tuple[str, ...]:
    """The names that a pattern of `only` matches, all if there is none; a pattern without any is an error."""
    if only is None:
        return names
    patterns = tuple(only)
    for pattern in patterns:
        if not any(n == pattern or fnmatchcase(n, pattern) for n in names):
            raise ValueError(f"order: {pattern!r} must match a layer, and none does; the layers are {', '.join(names)}")
    return tuple(n for n in names if any(n == p or fnmatchcase(n, p) for p in patterns))


@dataclass(frozen=True)
class Criterion:
    """A criterion by name: what gives the values, what it must be given, and a sentence about it."""

    values: Callable[..., Values]
    needs: tuple[str, ...]
    says: str
    zero_is_silence: bool = False

    def order(self, values: Mapping[str, float], *, skip_smallest: bool = False, only: Iterable[str] | None = None) -> Order:
        """The layers in this criterion's order."""
        return order(values, skip_smallest=skip_smallest, only=only, zero_is_silence=self.zero_is_silence)


def parts(criterion: str) -> list[tuple[str, float]]:
    """The criteria that a text names, with their weights.

    >>> parts("gradient"), parts("gradient+0.5*range")
    ([('gradient', 1.0)], [('gradient', 1.0), ('range', 0.5)])
    """
    out = []
    for part in criterion.split("+"):
        weight, star, name = part.strip().rpartition("*")
        if name not in CRITERIA:
            raise ValueError(
                f"quantize: criterion must be one of {', '.join(CRITERIA)}, or a sum such as gradient+0.5*range, "
                f"got {criterion!r}"
            )
        try:
            out.append((name, float(weight) if star else 1.0))
        except ValueError:
            raise ValueError(f"quantize: criterion {criterion!r} must have numbers before *, got {weight!r}") from None
    return out


def averaged(values: Sequence[tuple[Mapping[str, float], float]]) -> Values:
    """The weighted mean of the ranks that each layer has by several criteria, from 0 to 1; layers that one does not know go
    by the others.

    >>> averaged([({"a": 1.0, "b": 5.0, "c": 5.0}, 1.0), ({"a": 9.0, "b": 2.0}, 1.0)])
    {'a': 0.5, 'b': 0.375, 'c': 0.75}
    """
    sums: dict[str, tuple[float, float]] = {}
    for each, weight in values:
        for name, rank in ranks(each).items():
            total, weights = sums.get(name, (0.0, 0.0))
            sums[name] = total + weight * rank, weights + weight
    return {name: total / weights if weights else 0.0 for name, (total, weights) in sums.items()}


def ranks(values: Mapping[str, float]) -> Values:
    """The place of each layer between the lowest value, 0, and the highest, 1; equal ones share theirs. NaN has none."""
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    row = np.sort(np.array(list(known.values())))
    last = max(len(row) - 1, 1)
    return {
        name: float(np.searchsorted(row, value) + np.searchsorted(row, value, side="right") - 1) / 2 / last
        for name, value in known.items()
    }


CRITERIA = {
    "weight_difference": Criterion(
        weight_difference, ("learned",), "how far the weights move in a few cycles of learning", True
    ),
    "range": Criterion(weight_range, ("graph",), "largest weight minus smallest"),
    "accuracy": Criterion(measured_accuracy, ("names", "loss"), "what each layer alone at low precision loses, measured"),
    "error": Criterion(quantization_error, ("graph", "low"), "error of the weights at low precision, relative to their size"),
    "gradient": Criterion(
        fisher, ("graph", "codes", "samples", "seed"), "what each layer alone at low precision loses, by gradients"
    ),
    "divergence": Criterion(
        measured_accuracy, ("names", "apart"), "how far each layer alone at low precision moves the outputs, measured"
    ),
    "random": Criterion(random_order, ("names", "seed"), "an order drawn from the seed, to compare with"),
}

SEVERAL = Criterion(lambda: {}, (), "the mean of the ranks that layers have by several criteria")
