"""Why a network is big: bits that say little, planes that nothing reads, headers."""

from __future__ import annotations

import os

import numpy as np

from bitladder import file
from bitladder.doctor.finding import Finding, Patient
from bitladder.formats import QTensor

SPARE = 1.0  # bits of a code that carry nothing
LITTLE = 0.01  # share of a file that is not worth a word
HEADER = 0.1  # share of a file


def entropy(codes: np.ndarray) -> float:
    """Bits that a code carries on average if each is drawn for itself.

    >>> entropy(np.array([0, 0, 1, 1]))
    1.0
    """
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / max(codes.size, 1)
    return float(-(shares * np.log2(shares)).sum())


def idle_bits(patient: Patient) -> list[Finding]:
    """Weights whose codes carry at least a bit less than they take."""
    found = {}
    for name, _ in patient.graph.weights():
        c = patient.graph.constants[name]
        if isinstance(c, QTensor) and c.format.bits - entropy(c.codes) >= SPARE:
            found[name] = c.codes.size * (c.format.bits - entropy(c.codes)) / 8
    if sum(found.values()) < LITTLE * os.path.getsize(patient.path):
        return []
    names = tuple(sorted(found, key=lambda n: -found[n]))
    what = "codes carry at least a bit less than they take"
    fix = "let a search lower them: bitladder quantize ... --budget avg_bits=6, or a compressed file system"
    return [Finding("size", what, names, fix, bytes=int(sum(found.values())))]


def idle_planes(patient: Patient) -> list[Finding]:
    """Planes that are stored and that the plan of the file does not read."""
    whole, marked = patient.model.whole, patient.model.whole.meta.get("default_bits") or {}
    spare = {
        name: c.codes.size * (c.format.bits - marked[name]) // 8
        for name, c in whole.constants.items()
        if isinstance(c, QTensor) and marked.get(name, c.format.bits) < c.format.bits
    }
    if not spare:
        return []
    names = tuple(sorted(spare, key=lambda n: -spare[n]))
    fix = "quantize without --keep if no one widens the network; reading it at its plan skips them anyway"
    return [Finding("size", "planes are stored that the plan does not read", names, fix, bytes=sum(spare.values()))]


def header(patient: Patient) -> list[Finding]:
    """A header that is a good part of the file."""
    size = os.path.getsize(patient.path)
    stored, _ = file.sizes(patient.path)
    rest = size - sum(stored.values())
    if rest < HEADER * size:
        return []
    what = "header, parameters and float constants are a good part of the file"
    fix = "nothing for a small network; else fewer scales (int8/tensor) or no labels and results in its meta"
    return [Finding("size", what, fix=fix, bytes=rest, share=rest / size)]


def largest(patient: Patient, count: int) -> list[tuple[str, str, int, float]]:
    """The tensors that take most of the file: name, format, bytes, share."""
    stored, _ = file.sizes(patient.path)
    size = os.path.getsize(patient.path)
    top = sorted(stored.items(), key=lambda s: -s[1])[:count]
    plan = patient.model.plan
    return [(name, plan.get(name, "float"), n, n / size) for name, n in top]
