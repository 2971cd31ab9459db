"""Damage to golden files: every flipped bit is noticed, every cut runs by the rule or is refused, every extension is refused.

`python -m bench.robust.damage SERIES...` makes the trials of some series in a process that may not have much memory.
"""

from __future__ import annotations

import random
import resource
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

from bench.robust.count import ROOT, Count, counted, tell_count
from bench.robust.subjects import alike
from bitladder import file, native
from bitladder.errors import Malformed, Truncated, Unsupported
from bitladder.file.container import PRELUDE, Reader
from bitladder.file.contents import contents
from bitladder.file.reading import Wish
from bitladder.file.source import of_bytes
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph

GOLDEN = ROOT / "tests" / "golden"
THREE = ("plane-best", "importance-best", "uniform-fast")
MEMORY = 2 << 30  # bytes of address space
SLOW = 2.0  # seconds in which a small file must be loaded or refused


def golden(names: Iterable[str] = THREE) -> dict[str, bytes]:
    """Golden files by name."""
    return {name: (GOLDEN / f"{name}.ladder").read_bytes() for name in names}


def outcome(data: bytes) -> tuple[Graph | None, str | None]:
    """The network of some bytes, None if they are refused; and what is wrong with how the two readers take or refuse them."""
    began, graph, refusal = time.process_time(), None, None
    try:
        graph = file.load(data)
    except (Malformed, Unsupported) as error:
        refusal = error
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error)[:200]}"
    took = time.process_time() - began
    if took > SLOW:
        return graph, f"took {took:.1f} s"
    return graph, unclear(refusal, data) or unlike(refusal, data)


def unclear(refusal: ValueError | None, data: bytes) -> str | None:
    """What is wrong with an error of a reader."""
    if refusal is None:
        return None
    text = str(refusal)
    if not text.startswith("load: ") or "\n" in text:
        return f"an error that is not clear: {text[:200]!r}"
    if isinstance(refusal, Truncated) and refusal.needed <= len(data):
        return f"{refusal.needed} bytes are needed, and {len(data)} are there"
    return None


def unlike(refusal: ValueError | None, data: bytes) -> str | None:
    """In what the compiled reader, if there is one, differs from the definition, which refused the bytes so or took them."""
    if native.core is None:
        return None
    other: ValueError | None = None
    try:
        native.core.unsupported(data)
    except (Malformed, Unsupported) as error:
        other = error
    same = type(other) is type(refusal) and getattr(other, "needed", 0) == getattr(refusal, "needed", 0)
    return unclear(other, data) if same else f"the readers differ: {str(refusal)[:120]!r}, compiled {str(other)[:120]!r}"


# ------------------------------------------------------------------------------------------------ flips and extensions


def flips(every: int = 1) -> Iterator[str | None]:
    """Every bit of three files, or one in so many, flipped."""
    for name, data in golden().items():
        for at in range(0, 8 * len(data), every):
            hurt = bytearray(data)
            hurt[at // 8] ^= 1 << at % 8
            graph, wrong = outcome(bytes(hurt))
            yield wrong or (f"{name}: bit {at} flipped is not noticed" if graph is not None else None)


def extensions() -> Iterator[str | None]:
    """Bytes after the end of a file: zeros, noise, the file once more."""
    rng = random.Random(0)
    for name, data in golden().items():
        for size in range(1, 65):
            for more in (bytes(size), rng.randbytes(size), data[:size]):
                try:
                    file.load(data + more)
                    yield f"{name}: {size} bytes after its end are not noticed"
                except Truncated:
                    yield f"{name}: {size} bytes after its end, and it says that some are missing"
                except Malformed:
                    yield None


# ---------------------------------------------------------------------------------------------------------------- cuts


def planes_within(reader: Reader, size: int) -> dict[str, int] | None:
    """By the rule: the planes of each nested weight in the first `size` bytes; None if they are no network."""
    wish = Wish.of(None, reader.network["meta"])
    out: dict[str, int] = {}
    for layer in contents(reader, wish.floors).layers:
        ends = [s.end for s in reader.segments[layer.number]]
        whole = next((k for k, end in enumerate(ends) if end > size), len(ends))
        if whole == 0 or reader.prelude.headers > size:
            return None
        out |= {name: layer.steps.planes(name, whole) for name in layer.steps.spans}
    return out


def shortest(reader: Reader) -> int:
    """The length of the shortest prefix that is a network."""
    return max([reader.prelude.headers, *(rows[0].end for rows in reader.segments if rows)])


def cuts() -> Iterator[str | None]:
    """Every prefix of three files."""
    for name, data in golden().items():
        reader, whole = Reader(of_bytes(data)), file.load(data)
        known: dict[str, Graph] = {}
        for size in range(len(data)):
            planes = planes_within(reader, size)
            graph, wrong = outcome(data[:size])
            where = f"{name}: its first {size} bytes"
            if wrong:
                yield f"{where}: {wrong}"
            elif planes is None:
                yield f"{where} run, and are no network" if graph is not None else told(reader, data, size, where)
            elif graph is None:
                yield f"{where} are a network, and are refused"
            else:
                want = known.setdefault(repr(planes), whole.at(planes))
                has = {k: c.format.bits for k in planes if isinstance(c := graph.constants[k], QTensor)}
                yield None if has == planes and alike(graph.at(planes), want) else f"{where} run as another network"


def told(reader: Reader, data: bytes, size: int, where: str) -> str | None:
    """What is wrong with what a prefix that is no network says of how many bytes it needs."""
    try:
        file.load(data[:size])
    except Truncated as error:
        known = PRELUDE if size < PRELUDE else reader.prelude.headers if size < reader.prelude.headers else shortest(reader)
        return None if error.needed == known else f"{where} need {known} bytes, and say {error.needed}"
    except Malformed as error:
        return None if size == 0 else f"{where}: {error}"
    return f"{where} run"


# -------------------------------------------------------------------------------------------------------------- series

Series = Callable[[], Iterable[str | None]]
SERIES: dict[str, Series] = {"flips": flips, "extensions": extensions, "cuts": cuts}


def trials(series: dict[str, Series], arguments: Sequence[str]) -> Count:
    """All trials of the series that are named."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error")
    return Count.of(problem for name in arguments for problem in series[name]())


def damage(*names: str) -> Count:
    """The trials of some series, in a process of their own."""
    return counted("bench.robust.damage", *names)


if __name__ == "__main__":
    tell_count(lambda arguments: trials(SERIES, arguments))
