"""How far the weights of a network under test move while it learns on training images: what orders of layers are taken from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench import cifar
from bench.options import tell
from bench.subject import Subject
from bench.work import Work
from bitladder.convert.to_torch import to_torch
from bitladder.stats.differences import Differences, Learned
from bitladder.train.learn import learn

CYCLES, SEED = 100, 0


def learned(on: Subject, split: cifar.Split, rate: float | None, work: Work, seed: int = SEED) -> tuple[Learned, float]:
    """How far the weights move in 100 cycles on training images, and the processor seconds that took."""
    module = to_torch(on.raw)
    watched = {n: p for n, p in module.weights().items() if n in on.names()}

    def go() -> np.ndarray:
        tell(f"learning {CYCLES} cycles")
        found = learn(module, split.images, split.labels, weights=watched, cycles=CYCLES, seed=seed, rate=rate)
        rows = [[*found.differences[n].mean.ravel(), *found.differences[n].deviations.ravel()] for n in on.names()]
        return np.array([v for row in rows for v in row] + [found.rates[on.names()[0]]])

    measured = work(f"learned {rate}" + (f", seed {seed}" if seed != SEED else ""), go)
    return unpacked(on, {n: p.detach().numpy() for n, p in watched.items()}, measured.value), measured.seconds


def unpacked(on: Subject, initial: Mapping[str, np.ndarray], flat: np.ndarray) -> Learned:
    """What learning left behind, from one flat array."""
    differences, at = {}, 0
    for name in on.names():
        w = initial[name]
        mean, deviations = flat[at : at + w.size].reshape(w.shape), flat[at + w.size : at + 2 * w.size].reshape(w.shape)
        differences[name], at = Differences(CYCLES, mean, deviations), at + 2 * w.size
    return Learned(differences, initial, dict.fromkeys(on.names(), float(flat[-1])))
