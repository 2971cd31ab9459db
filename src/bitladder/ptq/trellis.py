"""Codes that depend on those before them: two sets of levels, of which the parities so far say which one is in use.

Codes are scanned column by column of the (outputs, inputs) matrix, outputs innermost. A machine of eight states walks along.
In even states a code is an even number, 2 l; in odd states it is 2 l - sign(l), that is 0, 1, 3, 5 and so on with signs. The
parity of the level l moves the machine on. A coder that walks along too writes l, whose steps are twice as wide; yet paths
together come as near to the weights as steps in between would: 0.8 dB less error at equal bits on the way (dependent
quantization; Fischer and Wang, 1992). The path is Viterbi's: that of least cost and bits, errors fed on along each survivor.
"""

from __future__ import annotations

import numpy as np

NEXT = np.array([[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]])  # by state and parity of the level
STATES = len(NEXT)
ODD = np.arange(STATES) % 2
CAME = np.array([[at for at in range(2 * STATES) if NEXT.flat[at] == state] for state in range(STATES)])  # 2 state + parity
FIRST = np.where(ODD[:, None] == 1, [-1, 1], [0, 2])  # (states, parities): their codes are this plus multiples of four
TABLE = 64  # codes from here on have the bits of the last one
LEAST, MOST = 1e-3, 20.0  # limits of how fast codes become rare


def levels(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Level and whether the state is odd, of every code (outputs, inputs); None if no path of the machine has these codes."""
    scanned = codes.T.ravel().tolist()
    found, odds, state, step = [], [], 0, NEXT.tolist()
    for v in scanned:
        odd = state & 1
        if v and (v & 1) != odd:
            return None
        level = (v + (odd if v > 0 else -odd if v < 0 else 0)) // 2
        found.append(level)
        odds.append(odd)
        state = step[state][level & 1]
    return tuple(np.array(x, np.int64).reshape(codes.T.shape).T for x in (found, odds))  # type: ignore[return-value]


def bits(rare: np.ndarray) -> np.ndarray:
    """About how many bits the codes 0, 1, 2... of either sign take, (outputs, even or odd, codes), for Laplace's distribution.

    rare: how much rarer each next code is, (outputs,): probabilities fall with exp(-rare).
    """
    r = rare[:, None, None].clip(LEAST, MOST)
    v = np.arange(TABLE)
    share = np.broadcast_to(np.sinh(r) * np.exp(-r * v), (len(rare), 2, TABLE)).copy()
    r = r[:, 0, 0]
    share[:, 0, 0], share[:, 1, 0] = 1 - np.exp(-r), 1 - np.exp(-r / 2)
    share[:, 1, 1] = (np.exp(-r / 2) - np.exp(-2 * r)) / 2
    return -np.log2(np.maximum(share, 1e-9))


def column(
    target: np.ndarray,
    before: np.ndarray,
    weight: np.ndarray,
    cost: np.ndarray,
    slope: np.ndarray,
    start: int,
    end: int | None,
    high: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and states of the cheapest path through one input, targets (outputs,) and all errors in steps.

    before (outputs, outputs): how much of each earlier output's error an output makes up for. weight (outputs,): what a
    squared error costs. cost (outputs, 2, codes): what codes cost for their bits; slope (outputs,): by how much more the next.
    The path begins in state `start` and ends in `end` if that is given.
    """
    count = len(target)
    total = np.where(np.arange(STATES) == start, 0.0, np.inf)
    errors = np.zeros((STATES, count))
    chosen, came = np.empty((count, STATES)), np.empty((count, STATES), np.int64)
    lean = slope / (2 * weight)
    for i in range(count):
        t = target[i] + errors[:, :i] @ before[i, :i]
        size = np.abs(t)[:, None]
        toward = np.maximum(size - lean[i], 0)  # what is cheaper to code is nearer than it seems
        v = FIRST + 4 * np.rint((toward - FIRST) / 4)
        v = np.where((FIRST < 0) & (toward < 1.5), 0, v)
        v -= 4 * np.ceil(np.maximum(v - high, 0) / 4)
        spent = weight[i] * (size - v) ** 2 + cost[i][ODD[:, None], np.minimum(v, TABLE - 1).astype(np.int64)]
        ways = (total[:, None] + spent).ravel()[CAME]
        way = CAME[np.arange(STATES), ways.argmin(1)]
        total, came[i] = ways.min(1), way >> 1
        chosen[i] = np.copysign(v, t[:, None]).ravel()[way]
        errors = errors[came[i]]
        errors[:, i] = target[i] - chosen[i]
    state = int(total.argmin()) if end is None else end
    codes, states = np.empty(count), np.empty(count + 1, np.int64)
    states[count] = state
    for i in range(count - 1, -1, -1):
        codes[i], state = chosen[i, state], came[i, state]
        states[i] = state
    return codes, states


class Walk:
    """The codes of one layer, found input by input; then found again, each input given all others."""

    def __init__(self, w: np.ndarray, step: np.ndarray, rows: np.ndarray, mind: np.ndarray, price: float, high: int):
        self.w, self.step, self.mind, self.price, self.high = w, step, mind, price, high
        self.before = np.ascontiguousarray((rows * step[:, None] / step).T)
        size = np.abs(w) / step[:, None]
        mean = max(float(size.mean()), 1e-9)
        self.rare = mean / np.maximum(size.mean(1)[:, None] * size.mean(0), 1e-9)
        self.codes = np.zeros(w.shape)
        self.ends = np.zeros(w.shape[1] + 1, np.int64)  # the states between inputs

    def at(self, k: int, target: np.ndarray, energy: float, end: int | None) -> None:
        """Find the codes of one input, whose `target` is in the units of weights."""
        table = self.price * bits(self.rare[:, k])
        slope = self.price * self.rare[:, k].clip(LEAST, MOST) / np.log(2)
        weight = self.mind * energy * self.step**2
        start = int(self.ends[k])
        codes, states = column(target / self.step, self.before, weight, table, slope, start, end, self.high)
        self.codes[:, k], self.ends[k + 1] = codes, states[-1]

    def feed(self, columns: np.ndarray, energy: np.ndarray) -> None:
        """All inputs from left to right, each making up for the errors of those before."""
        errors = np.zeros(self.w.shape)
        for k in range(self.w.shape[1]):
            self.at(k, self.w[:, k] + errors[:, :k] @ columns[:k, k], float(energy[k]), None)
            errors[:, k] = self.w[:, k] - self.codes[:, k] * self.step

    def settle(self, gram: np.ndarray) -> None:
        """All inputs again, each given all others, from and to the states that it had."""
        value = self.codes * self.step[:, None]
        pull = (self.w - value) @ gram
        for k in range(self.w.shape[1]):
            self.at(k, value[:, k] + pull[:, k] / gram[k, k], float(gram[k, k]), int(self.ends[k + 1]))
            moved = self.codes[:, k] * self.step - value[:, k]
            value[:, k] += moved
            if moved.any():
                pull -= np.outer(moved, gram[k])
