"""Recurrent operators. Time comes first: x (time, batch, in), or second with layout 1; w (directions, gates, in)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitladder.ir.ops_elementwise import ELEMENTWISE

Array = Any
State = tuple[Array, ...]
Step = Callable[[Array, State], State]  # inputs (batch, in) and state to the next state, hidden first

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}  # is it backwards?
ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "tanh": np.tanh,
    "affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "scaledtanh": lambda x, alpha=1.0, beta=1.0: alpha * np.tanh(beta * x),
    "leakyrelu": ELEMENTWISE["leaky_relu"],
    "thresholdedrelu": ELEMENTWISE["thresholded_relu"],
    "hardsigmoid": ELEMENTWISE["hard_sigmoid"],
    **{name: ELEMENTWISE[name] for name in ("relu", "sigmoid", "elu", "softsign", "softplus")},
}


def activation(
    number: int, names: tuple[str, ...], alphas: tuple[float, ...] | None, betas: tuple[float, ...] | None
) -> Callable[[Array], Array]:
    """The number-th activation of a node, with its constants."""
    f = ACTIVATIONS[names[number].lower()]
    given = (("alpha", alphas), ("beta", betas))
    options = {name: values[number] for name, values in given if values is not None and number < len(values)}
    return lambda x: f(x, **options)


def scan(x: Array, state: State, step: Step, lens: Array | None, backwards: bool) -> tuple[Array, State]:
    """Hidden states of all times, and the last state; past the end of a sequence they are zero, and it stays."""
    time, batch = x.shape[:2]
    steps = np.arange(time)[:, None]
    ends = np.full(batch, time) if lens is None else lens
    order = np.where(steps < ends, ends - 1 - steps, steps)[..., None] if backwards else None
    x = x if order is None else np.take_along_axis(x, order, 0)
    out = []
    for t in range(time):
        alive = (t < ends)[:, None]
        state = tuple(np.where(alive, new, old) for new, old in zip(step(x[t], state), state, strict=True))
        out.append(np.where(alive, state[0], 0))
    y = np.stack(out).astype(x.dtype)
    return (y if order is None else np.take_along_axis(y, order, 0)), state


def over_directions(
    x: Array, w: Array, r: Array, initial: State, lens: Array | None, direction: str, layout: int, make: Callable[[int], Step]
) -> tuple[Array, ...]:
    """The outputs of a recurrent node: all hidden states (time, directions, batch, hidden), and the last of each state.

    make: the step of a direction, given its number.
    """
    x = x.swapaxes(0, 1) if layout else x
    empty = np.zeros((w.shape[0], x.shape[1], r.shape[-1]), x.dtype)
    first = [empty if s is None else (s.swapaxes(0, 1) if layout else s) for s in initial]
    ways = [scan(x, tuple(s[d] for s in first), make(d), lens, back) for d, back in enumerate(DIRECTIONS[direction])]
    y = np.stack([hidden for hidden, _ in ways], 1)
    last = [np.stack([state[i] for _, state in ways]).astype(x.dtype) for i in range(len(first))]
    if layout:
        return (y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in last))
    return (y, *last)


def limit(x: Array, clip: float | None) -> Array:
    """x between -clip and clip."""
    return x if clip is None else np.clip(x, -clip, clip)


def lstm(
    x: Array, w: Array, r: Array, b: Array | None = None, sequence_lens: Array | None = None,
    initial_h: Array | None = None, initial_c: Array | None = None, p: Array | None = None,
    *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0, clip: float | None = None,
    input_forget: int = 0,
    activations: tuple[str, ...] = ("Sigmoid", "Tanh", "Tanh") * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Long short-term memory; gates in the order input, output, forget, cell; p are peepholes (input, output, forget)."""

    def make(d: int) -> Step:
        f, g, h = (activation(3 * d + i, activations, activation_alpha, activation_beta) for i in range(3))
        bias = 0 if b is None else np.add(*np.split(b[d], 2))
        peep_i, peep_o, peep_f = (0, 0, 0) if p is None else np.split(p[d], 3)

        def step(x: Array, state: State) -> State:
            hidden, cell = state
            i, o, forget, c = np.split(x @ w[d].T + hidden @ r[d].T + bias, 4, -1)
            i = f(limit(i + peep_i * cell, clip))
            forget = 1 - i if input_forget else f(limit(forget + peep_f * cell, clip))
            cell = forget * cell + i * g(limit(c, clip))
            return f(limit(o + peep_o * cell, clip)) * h(cell), cell

        return step

    return over_directions(x, w, r, (initial_h, initial_c), sequence_lens, direction, layout, make)


def gru(
    x: Array, w: Array, r: Array, b: Array | None = None, sequence_lens: Array | None = None, initial_h: Array | None = None,
    *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0, clip: float | None = None,
    linear_before_reset: int = 0,
    activations: tuple[str, ...] = ("Sigmoid", "Tanh") * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Gated recurrent units; gates in the order update, reset, hidden."""

    def make(d: int) -> Step:
        f, g = (activation(2 * d + i, activations, activation_alpha, activation_beta) for i in range(2))
        size = r.shape[-1]
        wb, rb = np.split(np.zeros(6 * size, x.dtype) if b is None else b[d], 2)

        def step(x: Array, state: State) -> State:
            (hidden,) = state
            at_x, at_h = x @ w[d].T + wb, hidden @ r[d, : 2 * size].T + rb[: 2 * size]
            update, reset = np.split(f(limit(at_x[:, : 2 * size] + at_h, clip)), 2, -1)
            if linear_before_reset:
                past = reset * (hidden @ r[d, 2 * size :].T + rb[2 * size :])
            else:
                past = (reset * hidden) @ r[d, 2 * size :].T + rb[2 * size :]
            new = g(limit(at_x[:, 2 * size :] + past, clip))
            return ((1 - update) * new + update * hidden,)

        return step

    return over_directions(x, w, r, (initial_h,), sequence_lens, direction, layout, make)


def rnn(
    x: Array, w: Array, r: Array, b: Array | None = None, sequence_lens: Array | None = None, initial_h: Array | None = None,
    *, hidden_size: int | None = None, direction: str = "forward", layout: int = 0, clip: float | None = None,
    activations: tuple[str, ...] = ("Tanh",) * 2,
    activation_alpha: tuple[float, ...] | None = None, activation_beta: tuple[float, ...] | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """The plain recurrent network: activation(x w' + h r' + b)."""

    def make(d: int) -> Step:
        f = activation(d, activations, activation_alpha, activation_beta)
        bias = 0 if b is None else np.add(*np.split(b[d], 2))
        return lambda x, state: (f(limit(x @ w[d].T + state[0] @ r[d].T + bias, clip)),)

    return over_directions(x, w, r, (initial_h,), sequence_lens, direction, layout, make)


RECURRENT: dict[str, Callable[..., Any]] = {"lstm": lstm, "gru": gru, "rnn": rnn}
