"""Why a network is slow, wrong or big: findings, each with its place, its size and what to do about it.

>>> from bitladder.doctor import examine
>>> findings, _ = examine("net.ladder", feeds)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from bitladder import native
from bitladder.doctor import size, speed, values
from bitladder.doctor.finding import Finding, Patient
from bitladder.file import to_bytes
from bitladder.ir.graph import Graph
from bitladder.model import load

__all__ = ["Finding", "Patient", "examine", "foreseen"]

FINDERS: tuple[Callable[[Patient], list[Finding]], ...] = (
    speed.core,
    speed.fallback,
    speed.in_float,
    speed.between,
    speed.conversions,
    speed.far_from_peak,
    speed.widths,
    values.saturated,
    values.unused_range,
    values.wide_sums,
    values.dead_channels,
    size.idle_bits,
    size.idle_planes,
    size.header,
)


def examine(
    path: str | os.PathLike[str],
    feeds: Mapping[str, np.ndarray] | Callable[[Graph], Mapping[str, np.ndarray]],
    *,
    real: bool = True,
    bits: int | str = "auto",
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> tuple[list[Finding], Patient]:
    """All findings about a file, what is wrong first, and what they rest on.

    feeds: inputs by name, or a function that makes them for a graph. real: whether they are data such as the network is meant
    for; random numbers say nothing of ranges.
    """
    model = load(path, None if bits == "auto" else bits, threads=threads)
    given = feeds(model.whole) if callable(feeds) else feeds
    patient = Patient.of(os.fspath(path), model, given, real, threads, progress)
    found: list[Finding] = []
    for i, finder in enumerate(FINDERS):
        progress("look", i, len(FINDERS))
        found += finder(patient)
    return sorted(found, key=lambda f: not f.wrong), patient


def foreseen(graph: Graph, net: str) -> list[Finding]:
    """What is to be expected of a float network, before anything is quantized."""
    found = [] if native.core else speed.missing_core()
    foreign = dict(native.core.unsupported(to_bytes(graph))) if native.core else {}
    for why, names in speed.by_reason(foreign).items():
        text = f"{len(names)} nodes would run on the reference: {why}"
        fix = "replace the operator before export, or expect it to be slow; a plan does not change it"
        found.append(Finding("speed", text, names, fix=fix, wrong=True))
    weights = [name for name, _ in graph.weights()]
    nbytes = sum(c.nbytes for c in graph.constants.values() if isinstance(c, np.ndarray))
    fix = f"bitladder quantize {net} --data CALIB.npz -o OUT.ladder"
    found.append(
        Finding(
            "size",
            f"all {len(weights)} weights are float; at 8 bits they take a quarter",
            tuple(weights),
            bytes=nbytes,
            fix=fix,
        )
    )
    return sorted(found, key=lambda f: not f.wrong)
