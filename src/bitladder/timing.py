"""Times of several calls, measured in turns so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[], Any]
ROUNDS = 30
LEAST = 1e-3  # seconds that a sample lasts: short calls are repeated
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Times:
    """Seconds of one call, sample by sample."""

    samples: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def best(self) -> float:
        return float(self.samples.min())


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the 95 % interval of it."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def ratio(ours: Times, peer: Times, seed: int = 0) -> Ratio:
    """Our median over the peer's. The bootstrap draws rounds, so that what a round met stays with both.

    >>> ratio(Times(np.array([2.0, 2.0, 2.0])), Times(np.array([4.0, 4.0, 4.0])))
    Ratio(value=0.5, low=0.5, high=0.5)
    """
    n = len(ours.samples)
    drawn = np.random.default_rng(seed).integers(0, n, (DRAWS, n))
    ratios = np.median(ours.samples[drawn], axis=1) / np.median(peer.samples[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(ours.median / peer.median, float(low), float(high))


def seconds(call: Run, repeats: int) -> float:
    """Seconds of one of so many calls."""
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def repeats(call: Run, least: float = LEAST) -> int:
    """How many calls last `least` seconds."""
    call()
    took = min(seconds(call, 1) for _ in range(3))
    return max(1, int(np.ceil(least / max(took, 1e-7))))


def interleaved(
    calls: Mapping[str, Run], rounds: int = ROUNDS, *, lasting: float = 0.0, settle: bool = True, pause: float = 0.0
) -> dict[str, Times]:
    """Times of every call, round by round, in an order that turns by one each round.

    rounds, lasting: at least so many rounds, and as many as last so many seconds: what disturbs a machine for a moment then
    meets few of them.
    settle: an untimed call goes before each sample, so that a network finds its weights where its own last run left them.
    pause: seconds to wait before that, until the threads of the call before have gone to sleep.
    """
    names = list(calls)
    counts = {name: repeats(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + lasting
    for i in itertools.count():
        if i >= rounds and time.perf_counter() >= end:
            break
        for name in [*names[i % len(names) :], *names[: i % len(names)]]:
            if pause:
                time.sleep(pause)
            if settle:
                calls[name]()
            found[name].append(seconds(calls[name], counts[name]))
    return {name: Times(np.array(samples)) for name, samples in found.items()}


def fastest(times: Mapping[str, Times]) -> str:
    """The name of the least median."""
    return min(times, key=lambda name: times[name].median)
