"""The native core. Its source is csrc/bind.cc."""

import numpy as np
from typing_extensions import Buffer

def isas() -> list[str]:
    """The instruction sets of this machine that the core has kernels for, best first."""

def unsupported(data: Buffer) -> list[tuple[str, str]]:
    """The nodes of the network in a file's bytes that the core cannot run, each with the reason."""

def trim() -> None:
    """Gives memory that is free back to the system; does nothing where the C library cannot."""

# Codings of parts, by number: what docs/coding.md says. None where a coding does not apply, or bytes are not what it makes.
# Codes to encode are 32-bit integers, those that come back of `width` bytes, those of planes 8-bit, all little-endian.

def codec_encode_codes(coding: int, codes: bytes, rows: int, cols: int, bits: int, low: int, high: int) -> bytes | None: ...
def codec_decode_codes(
    coding: int, body: bytes, rows: int, cols: int, bits: int, low: int, high: int, width: int
) -> bytes | None: ...
def codec_encode_plane(coding: int, codes: bytes, rows: int, cols: int, bits: int, number: int, sign: bool) -> bytes | None: ...
def codec_decode_planes(
    parts: list[tuple[int, bytes]], before: bytes, rows: int, cols: int, sign: bool, known: int
) -> bytes | None: ...
def codec_encode_numbers(coding: int, dtype: str, values: bytes, before: bytes | None) -> bytes | None: ...
def codec_decode_numbers(coding: int, body: bytes, dtype: str, count: int, before: bytes | None) -> bytes | None: ...

# Fake quantization of dense float32 values: `levels` are step, low, high, floor and ceiling (csrc/kernels/straight.h).

Levels = tuple[float, ...]

def straight_rounded(x: np.ndarray, y: np.ndarray, levels: Levels, threads: int, isa: str) -> None:
    """Fills y with the values of x, each at its level; y may be x."""

def straight_back(x: np.ndarray, gradient: np.ndarray, to_x: np.ndarray, levels: Levels, threads: int, isa: str) -> float:
    """Fills to_x with the gradient of x, and gives that of the step times the step; the same for any threads."""

class Text:
    """The headers of a file so far, as the adaptive coder sees them."""

    def __init__(self) -> None:
        """No header so far."""

    def learn(self, text: bytes) -> None:
        """Takes in a text that is known."""

    def encode(self, text: bytes) -> bytes:
        """The bytes of the next text."""

    def decode(self, body: bytes, length: int) -> bytes | None:
        """The next text, of `length` bytes."""

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
