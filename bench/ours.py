"""How our side is timed: a model opened for a number of threads and an instruction set, called like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.timing import Run
from bitladder import Model


def isas() -> list[str]:
    """Instruction sets that there are kernels for on this machine, best first; empty without the compiled core."""
    try:
        from bitladder import native
    except ImportError:
        return []
    return list(native.isas()) if native.core is not None else []


def opened(model: Model, threads: int = 1, isa: str | None = None) -> Model:
    """The model on so many threads and on an instruction set, the best if None."""
    change = getattr(model, "with_", None)
    if change is None:
        return model
    return change(threads=threads) if isa is None else change(threads=threads, isa=isa)


def ours(model: Model, feeds: Mapping[str, np.ndarray], threads: int = 1, isa: str | None = None) -> Run:
    """A call that runs the model on these inputs."""
    ready, given = opened(model, threads, isa), [np.ascontiguousarray(a) for a in feeds.values()]
    return lambda: ready(*given)


def profile(model: Model, feeds: Mapping[str, np.ndarray], isa: str | None = None) -> list[dict[str, Any]]:
    """What each step of one run took: name, kernel, nanoseconds, macs, bytes; empty where the model cannot say."""
    say = getattr(opened(model, 1, isa), "profile", None)
    return list(say(*feeds.values())) if say else []
