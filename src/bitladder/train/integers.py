"""Training a small network in integers alone: no float anywhere, weights and their finer digits are all there is.

A multilayer perceptron of 8-bit weights and activations. Products add up in wide integers; every layer ends in a shift. The
loss's gradient is that of a softmax to the base 2, by a table of sixteen integers. The gradient of a batch is the exact sum
of its samples' gradients, so it is one integer matrix product, and processes may share the samples out in any way. Runs on
numpy alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from bitladder.formats.uniform import code_span
from bitladder.train.carry import carry, deployed, nearest, settle

# round(2^15 * 2^(-j / 16)): the powers of two between 1 and 1/2.
POWERS = np.array([32768, 31379, 30048, 28774, 27554, 26386, 25268, 24196,
                   23170, 22188, 21247, 20347, 19484, 18658, 17867, 17109], np.int64)  # fmt: skip
ONE = 1 << 12  # a probability of 1
TOP = 127  # of activations
KEEPS = ("accumulator", "residual")


@dataclass(frozen=True)
class Rule:
    """How gradients become steps: shifted right by `rate`, momentum in eighths, all below the code's last bit by `finer`.

    keep: "accumulator" (S4: signed, codes lag by less than one) or "residual" (S5: never negative, the nearest code is seen).
    rate: bits; one more halves the steps. The sum over a batch of 2^b samples is worth b bits more than one gradient.
    """

    keep: str = "accumulator"
    bits: int = 8
    finer: int = 12
    rate: int = 8
    momentum: int = 7

    def __post_init__(self) -> None:
        if self.keep not in KEEPS or not 2 <= self.bits <= 16 or not 0 <= self.finer <= 15 or not 0 <= self.momentum < 8:
            raise ValueError(
                f"integers: keep must be one of {', '.join(KEEPS)}, bits 2 to 16, finer 0 to 15, momentum 0 to 7, got {self}"
            )


@dataclass
class Layer:
    """Integers of one layer, shaped (outputs, inputs + 1): the last column is the bias. `shift` brings sums to 8 bits."""

    codes: np.ndarray
    rest: np.ndarray
    speed: np.ndarray
    shift: int
    clipped: int = field(default=0)

    def seen(self, rule: Rule) -> np.ndarray:
        """The codes that the network computes with."""
        if rule.keep == "accumulator":
            return self.codes
        return deployed(self.codes, self.rest, finer=rule.finer, bits=rule.bits)

    def totals(self, rule: Rule) -> np.ndarray:
        """Codes and rests as one integer."""
        return (self.codes << rule.finer) + self.rest

    def learn(self, gradient: np.ndarray, rule: Rule) -> None:
        """One step against an integer gradient."""
        self.speed = nearest(self.speed * rule.momentum, 3) - nearest(gradient, rule.rate)
        if rule.keep == "accumulator":
            memory = self.rest + self.speed
            self.codes, self.rest, _, full = settle(self.codes, memory, finer=rule.finer, bits=rule.bits)
        else:
            self.codes, self.rest, full = carry(self.codes, self.rest, self.speed, finer=rule.finer, bits=rule.bits)
        self.clipped += int(full.sum())


def network(sizes: tuple[int, ...], seed: int = 0) -> list[Layer]:
    """Layers of random codes; shifts keep sums of random inputs within 8 bits."""
    draw = np.random.Generator(np.random.Philox(seed))
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        codes = draw.integers(-32, 33, (outputs, inputs + 1))
        codes[:, -1] = 0
        zero = np.zeros_like(codes)
        layers.append(Layer(codes, zero, zero.copy(), 4 + inputs.bit_length() // 2))
    return layers


def widened(x: np.ndarray) -> np.ndarray:
    """Activations with a column for the bias."""
    return np.concatenate([x, np.full((len(x), 1), TOP, np.int64)], 1)


def forward(layers: list[Layer], x: np.ndarray, rule: Rule) -> list[np.ndarray]:
    """The activations before each layer, and the scores last; `x` holds integers 0 to 127."""
    made = [x.astype(np.int64)]
    for i, layer in enumerate(layers):
        y = nearest(widened(made[-1]) @ layer.seen(rule).T, layer.shift)
        made.append(y.clip(0, TOP) if i + 1 < len(layers) else y)
    return made


def loss_gradient(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities less the truth, `ONE` being 1, for scores in sixteenths of a doubling."""
    below = scores.max(1, keepdims=True) - scores
    weight = POWERS[below & 15] >> np.minimum(below >> 4, 16)
    gradient = (weight * ONE) // weight.sum(1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= ONE
    return gradient


def gradients(layers: list[Layer], x: np.ndarray, labels: np.ndarray, rule: Rule) -> list[np.ndarray]:
    """The exact sum of the samples' integer gradients for each layer."""
    made = forward(layers, x, rule)
    back = loss_gradient(made[-1], labels)
    found = []
    for i in reversed(range(len(layers))):
        found.append(back.T @ widened(made[i]))
        through = back @ layers[i].seen(rule)[:, :-1]
        open_ = (made[i] > 0) & (made[i] < TOP)
        back = nearest(through, layers[i].shift) * open_
    return found[::-1]


def batches(samples: int, batch: int, epoch: int, seed: int) -> Iterator[np.ndarray]:
    """An epoch's shuffle in batches; epoch e needs no history."""
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(samples)
    return (order[i : i + batch] for i in range(0, samples - batch + 1, batch))


def train(
    layers: list[Layer],
    x: np.ndarray,
    labels: np.ndarray,
    rule: Rule,
    *,
    epochs: range,
    batch: int = 32,
    seed: int = 0,
    rank: int = 0,
    size: int = 1,
    add: Callable[[np.ndarray], np.ndarray] = lambda gradient: gradient,
) -> None:
    """Learn in place for some epochs. Of each batch a process takes every `size`-th sample, and `add` sums over processes."""
    for epoch in epochs:
        for rows in batches(len(x), batch, epoch, seed):
            mine = rows[rank::size]
            for layer, gradient in zip(layers, gradients(layers, x[mine], labels[mine], rule), strict=True):
                layer.learn(add(gradient), rule)


def classes(layers: list[Layer], x: np.ndarray, rule: Rule) -> np.ndarray:
    """The class of each sample."""
    return forward(layers, x, rule)[-1].argmax(1)


def arrays(layers: list[Layer], rule: Rule) -> dict[str, np.ndarray]:
    """Everything that training changes, in the narrowest integers: what a checkpoint holds."""
    low, high = code_span(rule.bits, False)
    kind = np.int8 if high <= TOP and low >= -TOP - 1 else np.int16
    held: dict[str, np.ndarray] = {}
    for i, layer in enumerate(layers):
        held |= {f"{i}/codes": layer.codes.astype(kind), f"{i}/rest": layer.rest.astype(np.int16)}
        held |= {f"{i}/speed": layer.speed.astype(np.int32), f"{i}/shift": np.array(layer.shift)}
    return held


def restored(held: dict[str, np.ndarray]) -> list[Layer]:
    """The layers that `arrays` kept."""
    layers = []
    for i in range(sum(name.endswith("/codes") for name in held)):
        codes, rest, speed = (held[f"{i}/{part}"].astype(np.int64) for part in ("codes", "rest", "speed"))
        layers.append(Layer(codes, rest, speed, int(held[f"{i}/shift"])))
    return layers
