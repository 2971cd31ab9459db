"""`python -m bitladder.stats.train_types [FOLDER]`: the table of steps, and the network that tells types, made anew (S7).

The same seed gives the same bytes. Both files go into FOLDER, by default the package's own.

What an answer costs is known exactly: the decibels by which the step, or the power of two, that follows from it misses the best
one on the sample. The network learns from these prices, not from where a sample came from.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitladder.stats import types
from bitladder.stats.densities import DENSITIES, Density, error
from bitladder.stats.profile import Profile
from bitladder.stats.synthetic import channel
from bitladder.stats.types import BORDER, COUNTS, LEARNT, OPTIMUM, PARTS, TYPES, features, forward

BITS = 12  # magnitude bits in the table; with more, a channel is covered whole anyway
OCTAVES = 8  # of steps that are tried on a sample, from half of what suits even values on
WIDTHS_EACH = 3  # widths that each channel is shown at
HIDDEN = (32, 32)
BATCH, RATE = 256, 4e-3
NAMING, TEMPERATURE = 0.3, 0.1  # how much naming the type counts beside the price of the border, and decibels that are a tie
FREE = 0.3  # how much the price of steps that need not be powers of two counts
STEEPEST = 40.0  # decibels an octave


@dataclass(frozen=True)
class Lesson:
    """How much is learnt, and from which random numbers."""

    channels: int = 20_000
    epochs: int = 60
    seed: int = 0


# ----------------------------------------------------------------------------------------------------- the table


def decibels(e: float) -> float:
    return -10 * math.log10(max(e, 1e-300))


def best_steps(density: Density, below: int, above: int) -> list[float]:
    """One entry of the table: log2 of the best step and of the border, and decibels along the octave from the border on.

    The border is the step that errs as much as twice itself, so between the two lies the best power of two.
    """

    def at(log: float) -> float:
        return error(density, 2.0**log, below, above)

    grid = np.arange(-math.log2(above) - 1.5, 6.5, 1 / 16)
    best = float(grid[np.argmin([at(log) for log in grid])])
    low, high = best - 1 / 16, best + 1 / 16
    for _ in range(40):
        a, b = low + (high - low) * 0.382, low + (high - low) * 0.618
        low, high = (low, b) if at(a) < at(b) else (a, high)
    best, (low, high) = (low + high) / 2, (best - 1, best)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle + 1) >= at(middle) else (middle, high)
    return [best, high, *(decibels(at(high + k / PARTS)) for k in range(PARTS + 1))]


def steps(bits: int = BITS) -> np.ndarray:
    """The table for so many magnitude bits, as its file has it (float32): two's complement, whose negative side has one level
    more, and half-waves."""
    kinds = [[(2**b - (half or 0), 2**b - 1) for b in range(1, bits + 1)] for half in (False, True)]
    return np.array([[[best_steps(DENSITIES[t], *sides) for t in TYPES] for sides in kind] for kind in kinds], np.float32)


# ---------------------------------------------------------------------------------------------------- the lessons


def errors(x: np.ndarray, levels: int, logs: np.ndarray) -> np.ndarray:
    """Mean square error of rising magnitudes `x` at each step 2^log, as `densities.error` computes it, of the sample."""
    borders = (np.arange(levels)[:, None] + 0.5) * np.exp2(logs)
    above = np.searchsorted(x, borders)
    sums = np.concatenate([np.cumsum(x[::-1])[::-1], [0.0]])[above]
    rest = (sums - borders * (len(x) - above)).sum(0) / len(x)
    return np.maximum((x * x).mean() - 2 * np.exp2(logs) * rest, 1e-12)


def decibels_lost(x: np.ndarray, bits: int, first: float) -> tuple[np.ndarray, np.ndarray]:
    """What sorted magnitudes lose against their best at `first` + k / PARTS (log2), k = 0, 1, ..

    By a power of two in the octave that begins there, averaged over all scales; and by a step of that size.
    """
    logs = first + (np.arange(OCTAVES * PARTS) + 0.5) / PARTS  # each stands for its part of an octave
    noise = 10 * np.log10(errors(x, 2**bits - 1, logs)).reshape(OCTAVES, PARTS)
    octave = np.convolve((noise - noise.min(0)).ravel(), np.full(PARTS, 1 / PARTS), "valid")
    between = (noise.ravel()[1:] + noise.ravel()[:-1]) / 2
    return octave, between - noise.min()


@dataclass(frozen=True)
class Price:
    """What a step or a border costs at each place, row by row; the types' own places are `of_types` (rows, types), log2."""

    of_types: np.ndarray
    first: np.ndarray
    costs: np.ndarray

    def at(self, places: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cost of a place in each row, and its slope, by interpolation."""
        part = np.clip((places - self.first[rows]) * PARTS, 0, self.costs.shape[1] - 1.001)
        k = part.astype(int)
        here, there = self.costs[rows, k], self.costs[rows, k + 1]
        return here + (part - k) * (there - here), np.clip((there - here) * PARTS, -STEEPEST, STEEPEST)


def examples(lesson: Lesson, table: np.ndarray) -> tuple[np.ndarray, tuple[Price, Price]]:
    """What the network sees of random channels at some widths, and the prices of borders and of steps."""
    rng, seen, rows, octaves, plain = np.random.default_rng(lesson.seed), [], [], [], []
    for _ in range(lesson.channels):
        x = channel(rng, *COUNTS)
        profile = Profile.of(x[None])
        unit = np.sort(x / profile.deviation)
        for bits in rng.permutation(np.arange(LEARNT[0], LEARNT[1] + 1))[:WIDTHS_EACH]:
            rows.append(table[1, bits - 1].astype(np.float64))
            octave, step = decibels_lost(unit, int(bits), rows[-1][0, BORDER] - 1)
            octaves.append(octave)
            plain.append(step)
            seen.append(features(profile, np.array([bits]))[0])
    places = np.array(rows)
    first = places[:, 0, BORDER] - 1
    borders = Price(places[..., BORDER], first, np.array(octaves))
    return np.array(seen), (borders, Price(places[..., OPTIMUM], first + 1 / PARTS, FREE * np.array(plain)))


# ---------------------------------------------------------------------------------------------------- the learning


def gradients(layers: list[np.ndarray], values: list[np.ndarray], logits: np.ndarray) -> list[np.ndarray]:
    """Of all matrices and biases, from that of the logits."""
    found: list[np.ndarray] = []
    for at in range(len(layers) - 2, -1, -2):
        found[:0] = [values[at // 2].T @ logits, logits.sum(0)]
        logits = (logits @ layers[at].T) * (values[at // 2] > 0)
    return found


def learnt(seen: np.ndarray, prices: Sequence[Price], lesson: Lesson) -> list[np.ndarray]:
    """Matrices and biases after Adam (Kingma and Ba, 2015), with a rate that falls to zero.

    The loss is the price of the border and of the step that the shares make together, and the divergence of the shares from
    those that are exp(-price) of each type alone.
    """
    rng = np.random.default_rng(lesson.seed + 1)
    mean, deviation = seen.mean(0), seen.std(0)
    x, every = (seen - mean) / deviation, np.arange(len(seen))
    alone = np.stack([sum(p.at(p.of_types[:, t], every)[0] for p in prices) for t in range(len(TYPES))], 1)
    wanted = np.exp((alone.min(1, keepdims=True) - alone) / TEMPERATURE)
    wanted /= wanted.sum(1, keepdims=True)
    sizes = (x.shape[1], *HIDDEN, len(TYPES))
    layers: list[np.ndarray] = []
    for a, b in itertools.pairwise(sizes):
        layers += [rng.normal(size=(a, b)) * math.sqrt(2 / a), np.zeros(b)]
    first, second = [p * 0 for p in layers], [p * 0 for p in layers]
    batches = max(len(x) // BATCH, 1)
    for turn in range(lesson.epochs * batches):
        if turn % batches == 0:
            order = rng.permutation(len(x))
        rows = order[turn % batches * BATCH :][:BATCH]
        values = forward(layers, x[rows])
        share = values[-1]
        logits = NAMING * (share - wanted[rows])
        for price in prices:
            places = price.of_types[rows]
            place = (share * places).sum(1)
            logits += price.at(place, rows)[1][:, None] * (places - place[:, None]) * share
        rate = RATE * 0.5 * (1 + math.cos(math.pi * turn / (lesson.epochs * batches)))
        for k, g in enumerate(gradients(layers, values, logits / len(rows))):
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g * g
            unbiased = first[k] / (1 - 0.9 ** (turn + 1)), second[k] / (1 - 0.999 ** (turn + 1))
            layers[k] = layers[k] - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    layers[0] = layers[0] / deviation[:, None]
    layers[1] = layers[1] - mean @ layers[0]
    return layers


def write(folder: Path, lesson: Lesson, table: np.ndarray) -> None:
    """Both files: the table, and the network that learns with it."""
    layers = learnt(*examples(lesson, table), lesson)
    np.save(folder / types.TABLE.name, table.astype(np.float32))
    np.savez(folder / types.WEIGHTS.name, **{f"layer{k}": p.astype(np.float32) for k, p in enumerate(layers)})  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    folder = Path(given[0]) if given else types.TABLE.parent
    write(folder, Lesson(), steps())
    print(f"wrote {folder / types.TABLE.name} and {folder / types.WEIGHTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
