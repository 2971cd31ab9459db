"""Why a network is wrong: values beyond their range, ranges too wide, sums too long, channels without weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bitladder.doctor.finding import Finding, Patient
from bitladder.formats import QTensor
from bitladder.ir.graph import CHANNEL_AXIS, Node
from bitladder.runtime.integer import Coded, accumulators

BEYOND = 0.01  # share of numbers from which a range is too narrow
UNUSED = 0.5  # of a range, at most so much of it is used where a bit is spare
ACCUMULATOR = 32  # bits
FLOAT_EXACT = 25  # bits of sums, sign included, that float32 holds exactly


def coded(patient: Patient) -> Iterator[tuple[str, Coded, Node | None]]:
    """Every activation made of codes, with the node that makes it."""
    made = {name: node for node in patient.graph.nodes for name in node.outputs}
    for name, value in patient.truth.values.items():
        if isinstance(value, Coded):
            yield name, value, made.get(name)


def saturated(patient: Patient) -> list[Finding]:
    """Activations that lie beyond their range, so that many become its ends."""
    if not patient.real:
        return []
    shares = {name: beyond(patient, name, value, node) for name, value, node in coded(patient)}
    bad = {name: share for name, share in sorted(shares.items(), key=lambda s: -s[1]) if share > BEYOND}
    if not bad:
        return []
    worst = max(bad.values())
    fix = "calibrate on data like these, more of it, or with --cover max"
    what = f"values lie beyond their range and stand at its ends, up to {100 * worst:.1f} % of them"
    return [Finding("values", what, tuple(bad), fix, share=worst, wrong=True)]


def beyond(patient: Patient, name: str, value: Coded, node: Node | None) -> float:
    """The share of numbers that were more than a step outside before they were encoded."""
    low, high = value.encoding.format.span()
    if np.isin(value.codes, (low, high)).mean() <= BEYOND:
        return 0.0
    reals = np.asarray(patient.feeds[name] if node is None else patient.truth.unencoded(node)[name], np.float32)
    ends = [value.encoding.decode(np.full(reals.shape, end, np.float32)) for end in (low, high)]
    step = value.encoding.step(reals.shape)
    return float(((reals < ends[0] - step) | (reals > ends[1] + step)).mean())


def unused_range(patient: Patient) -> list[Finding]:
    """Activations that use no more than half of their range, so that a bit of each code is idle."""
    if not patient.real:
        return []
    names = []
    for name, value, _ in coded(patient):
        low, high = value.encoding.format.span()
        used = float(np.ptp(value.codes)) / (high - low) if value.codes.size else 1.0
        if used <= UNUSED and value.encoding.axes == ():
            names.append(name)
    if not names:
        return []
    fix = "calibrate on data like these; more samples of them here may show that all is used"
    return [Finding("values", "at most half of the range of these values is used on these data", tuple(names), fix)]


def wide_sums(patient: Patient) -> list[Finding]:
    """Layers whose sums may need more bits than an accumulator has, or than float32 holds exactly."""
    sums = {name: bits for name, bits in accumulators(patient.graph).items() if bits is not None}
    over = tuple(name for name, bits in sums.items() if bits > ACCUMULATOR)
    inexact = tuple(name for name, bits in sums.items() if FLOAT_EXACT < bits <= ACCUMULATOR)
    found = []
    if over:
        what = f"sums may need {max(sums[n] for n in over)} bits, and an accumulator has {ACCUMULATOR}"
        fix = "fewer bits for these weights or their inputs in the plan"
        found.append(Finding("values", what, over, fix, wrong=True))
    if inexact:
        what = f"sums may need {max(sums[n] for n in inexact)} bits: exact here, not in runtimes that add in float32"
        fix = "nothing here; elsewhere, fewer bits for these weights, or to_onnx(graph, exact=True)"
        found.append(Finding("values", what, inexact, fix))
    return found


def dead_channels(patient: Patient) -> list[Finding]:
    """Output channels all of whose weights are zero."""
    dead = {name: n for name, node in patient.graph.weights() if (n := zeros(patient, name, node))}
    if not dead:
        return []
    what = f"{sum(dead.values())} output channels have no weight but zero"
    return [Finding("size", what, tuple(dead), "remove them from the network before it is quantized")]


def zeros(patient: Patient, name: str, node: Node) -> int:
    """How many channels of a weight are zero."""
    c = patient.graph.constants[name]
    values = c.integers() if isinstance(c, QTensor) else np.asarray(c)
    axis = CHANNEL_AXIS[node.op]
    return int((~np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).any(axis=1)).sum())
