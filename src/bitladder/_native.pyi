"""The native core. Its source is csrc/bind.cc."""

import numpy as np
from typing_extensions import Buffer

def isas() -> list[str]:
    """The instruction sets of this machine that the core has kernels for, best first."""

def unsupported(data: Buffer) -> list[tuple[str, str]]:
    """The nodes of the network in a file's bytes that the core cannot run, each with the reason."""

def trim() -> None:
    """Gives memory that is free back to the system; does nothing where the C library cannot."""

class Rung:
    """A network at chosen widths. Any number of threads may run it at once."""

    def prepare(self, shapes: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of each output for inputs of these shapes; makes and keeps what a run on them needs."""

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        """Fills `outputs`, which have the dtypes and shapes that `prepare` says. All arrays are dense, in C order."""

    def profile(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> list[tuple[str, str, int, int, int]]:
        """Runs, and for each step: node, kernel, nanoseconds, multiply-accumulates, bytes of weights read."""

    @property
    def arena_bytes(self) -> int:
        """Memory for values in between, of everything that was prepared so far."""

class Network:
    """The weights of a network, packed once and shared by its rungs."""

    def __init__(self, data: Buffer, threads: int, batch: int, isa: str) -> None:
        """From a file's bytes. `batch` is a hint; an empty `isa` takes the best."""

    def at(self, all: int, each: dict[str, int]) -> Rung:
        """The network with nested weights at `all` bits, 0 for as many as there are, and at those of `each` by name."""

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights with their tables."""
