"""How our side is timed: a model opened for a number of threads and an instruction set, called like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitladder import Model, native
from bitladder.timing import Run


def isas() -> list[str]:
    """Instruction sets that there are kernels for on this machine, best first; empty without the compiled core."""
    return native.isas()


def opened(model: Model, threads: int = 1, isa: str = "") -> Model:
    """The model in an engine of its own, on so many threads and on an instruction set, the best unless one is named."""
    return model.with_(threads=threads, isa=isa)


def call(model: Model, feeds: Mapping[str, np.ndarray]) -> Run:
    """A call that runs an opened model on these inputs."""
    given = [np.ascontiguousarray(a) for a in feeds.values()]
    return lambda: model(*given)


def ours(model: Model, feeds: Mapping[str, np.ndarray], threads: int = 1, isa: str = "") -> Run:
    """A call that runs the model in an engine of its own."""
    return call(opened(model, threads, isa), feeds)


def steps(model: Model, feeds: Mapping[str, np.ndarray]) -> list[Any]:
    """What each step of one run of an opened model took: node, kernel, milliseconds, macs, nbytes."""
    return model.engine.profile(feeds, model.bits)
