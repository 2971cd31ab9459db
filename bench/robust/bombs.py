"""Files of a few kilobytes that claim gigabytes and more: each is refused at once, before anything is reserved for it.

`python -m bench.robust.bombs` reads each in a child that has little memory, and measures time and memory.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.robust.count import Count, counted, tell_count
from bench.robust.fields import bodies, with_fields
from bench.robust.subjects import chain
from bitladder import file, native
from bitladder.codec.parts import BEST
from bitladder.errors import Malformed, Unsupported
from bitladder.file.container import PRELUDE, Reader, seal, texts
from bitladder.file.source import of_bytes
from bitladder.file.words import LIST, MAP, table, varint

MOST_MS, MOST_MIB, MOST_FILE = 50, 16, 8192
ROOM = 256 << 20  # bytes of address space that a child may take beyond what it has
TIMES = 5

Tree = dict[str, Any]
PLAIN = file.to_bytes(chain(["nested3", "int4"]))
FAR, HUGE = 2**40, 2**62
PARAMS = {"int4/tensor": ("scale", "zero_point"), "int8/tensor": ("scale", "zero_point"), "nested3/tensor": ("range",)}


def changed(change: Callable[[Tree, list[Tree]], None]) -> bytes:
    """A small file with its trees changed, checksums made good."""
    reader = Reader(of_bytes(PLAIN))
    network, layers = copy.deepcopy((reader.network, reader.layers))
    change(network, layers)
    return seal(*texts(network, layers), bodies(reader, PLAIN))


def spelled(network: bytes) -> bytes:
    """A file whose network header is this text."""
    return seal(network, [], [])


def tensor(layer: int = 1, segments: list[list[int]] | None = None, **entry: Any) -> bytes:
    """A small file, one tensor of which says something else, and the segments of its layer, if given."""

    def change(network: Tree, layers: list[Tree]) -> None:
        layers[layer]["tensors"][0].update(entry)
        layers[layer].update({"segments": segments} if segments else {})

    return changed(change)


def longer(data: bytes, more: int) -> bytes:
    """A file that says it has so many bytes more."""
    return with_fields(data, total=len(data) + more)


def codes(fmt: str, **entry: Any) -> bytes:
    """A small file with codes that have one scale in all, whatever their shape."""
    one = {key: {"dtype": "float32", "shape": [], "bytes": b"\0\0\x80?"} for key in PARAMS[fmt]}
    return tensor(0 if fmt.startswith("nested") else 1, format=fmt, axes=[], params=one, **entry)


def array(**entry: Any) -> bytes:
    """A small file with an array in place of a tensor of codes."""
    whole = {"kind": "array", "name": "w1", "dtype": "float64", "shape": [8], **entry}
    return changed(lambda network, layers: layers[1].update(tensors=[whole]))


def many(entry: Tree, count: int) -> bytes:
    """A small file with an array many times over, under names of its own."""
    return changed(lambda network, layers: layers[1].update(tensors=[{**entry, "name": f"{i:x}"} for i in range(count)]))


def versions(count: int) -> bytes:
    """A small file with biases of many widths, each a terabyte."""
    entry = {"kind": "widths", "name": "b", "of": "w1", "bits": list(range(1, count + 1)), "dtype": "float64", "shape": [FAR]}
    parts = [{"part": [0, BEST, 8]}] * count
    return changed(lambda network, layers: layers[1]["tensors"].append({**entry, "versions": parts}))


def shared(length: int, count: int) -> bytes:
    """A table of strings that share nearly all of a long one."""
    out = varint(count + 1) + varint(0) + varint(length) + b"a" * length
    return out + b"".join(varint(length - k) + varint(1) + (b"c" if k else b"b") for k in range(count))


def nested(tag: int, depth: int) -> bytes:
    """Lists in lists, or maps in maps."""
    inner = bytes([tag]) + varint(1) + (b"" if tag == LIST else varint(0))
    return table(["a"]) + inner * depth + b"\0"


def params(**entry: Any) -> bytes:
    """A small file with another scale."""

    def change(network: Tree, layers: list[Tree]) -> None:
        layers[1]["tensors"][0]["params"]["scale"] = {"dtype": "float32", "shape": [8], **entry}

    return changed(change)


def networks(**entry: Any) -> bytes:
    """A small file whose network header says something else."""
    return changed(lambda network, layers: network.update(entry))


def segments(rows: list[list[int]]) -> bytes:
    """A small file whose last layer has other segments."""
    return changed(lambda network, layers: layers[1].update(segments=rows))


BOMBS: dict[str, Callable[[], bytes]] = {
    "a network header of 16 MiB": lambda: with_fields(PLAIN, network=2**24),
    "a network header of 4 GiB": lambda: with_fields(PLAIN, network=2**32 - 1),
    "a decoded network header of 16 MiB": lambda: with_fields(PLAIN, decoded=2**24),
    "a coded network header of 16 MiB": lambda: with_fields(
        PLAIN[:PRELUDE] + bytes([BEST]) + PLAIN[PRELUDE + 1 :], decoded=2**24
    ),
    "65,535 layers": lambda: with_fields(PLAIN, layers=65_535),
    "4 billion layers": lambda: with_fields(PLAIN, layers=2**32 - 1),
    "a table of 4 GiB": lambda: with_fields(PLAIN, table=2**32 - 1),
    "headers of layers of 16 MiB": lambda: with_fields(PLAIN, records=2**24),
    "a file of 2^62 bytes": lambda: with_fields(PLAIN, total=HUGE),
    "a file of 2^64 - 1 bytes": lambda: with_fields(PLAIN, total=2**64 - 1),
    "a million strings": lambda: spelled(varint(2**20)),
    "2^64 - 1 strings": lambda: spelled(varint(2**64 - 1)),
    "a string of 2^62 bytes": lambda: spelled(varint(1) + varint(0) + varint(HUGE) + b"a"),
    "strings that share 4 kB each": lambda: spelled(shared(4000, 1000)),
    "a list of 2^63 values": lambda: spelled(table([]) + bytes([LIST]) + varint(2**63)),
    "a map of 2^40 keys": lambda: spelled(table(["a"]) + bytes([MAP]) + varint(FAR)),
    "a string of 2^62 bytes in a tree": lambda: spelled(table([]) + b"\x08" + varint(HUGE)),
    "lists 2,000 deep": lambda: spelled(nested(LIST, 2000)),
    "maps 2,000 deep": lambda: spelled(nested(MAP, 2000)),
    "a raw array of 8 TiB": lambda: array(shape=[FAR], part=[0, 0, 8 * FAR]),
    "an array of 2^40 x 2^40": lambda: array(shape=[FAR, FAR], part=[0, 0, 32]),
    "an array of 32 axes of 2^40": lambda: array(shape=[FAR] * 32, part=[0, 0, 32]),
    "a coded array of 8 TiB in 32 bytes": lambda: array(shape=[FAR], part=[0, BEST, 32]),
    "a coded array of 2^63 bytes in 2^52": lambda: array(shape=[FAR], part=[0, BEST, 2**52]),
    "an array of 8 TiB within the header": lambda: array(shape=[FAR], bytes=b"12345678"),
    "64 versions of 8 TiB": lambda: versions(64),
    "codes of 2^40": lambda: codes("int4/tensor", shape=[FAR], data=[[0, BEST, 32]]),
    "raw codes of 2^40": lambda: codes("int8/tensor", shape=[FAR], data=[[0, 0, FAR]]),
    "codes of 2^40 rows, each a tile": lambda: codes("int4/tensor", shape=[FAR, 1], data=[[0, BEST, 32]], tile=1),
    "planes of 2^40 bits": lambda: codes("nested3/tensor", shape=[2**20, 2**20], planes=[[[k, BEST, 8]] for k in range(3)]),
    "two thousand axes": lambda: codes("int4/tensor", shape=[1] * 2000, data=[[0, 0, 1]]),
    "a scale of 4 TiB": lambda: params(shape=[FAR], part=[0, BEST, 32]),
    "a group for each of 2^40 codes": lambda: tensor(format="int4/1", shape=[1, FAR], data=[[0, BEST, 32]]),
    "a segment of 2^61 bytes": lambda: longer(segments([[HUGE // 2, 0]]), HUGE // 2 - 32),
    "raw codes in a segment of 2^40 bytes": lambda: longer(
        codes("int8/tensor", shape=[FAR], data=[[0, 0, FAR]], segments=[[FAR, 0]]), FAR - 32
    ),
    "segments that add up beyond 2^64": lambda: longer(segments([[HUGE, 0]] * 8), 0),
    "a thousand arrays of 8 GiB": lambda: many(
        {"kind": "array", "dtype": "float64", "shape": [2**30], "part": [0, 1, 2**19]}, 90
    ),
    "an order of a layer that is not": lambda: networks(order=varint(2**63)),
    "an order of thousands": lambda: networks(order=bytes(4000)),
    "activations of 8 TiB": lambda: networks(encodings={"x": encoding([FAR])}),
    "nested weights of 2^31 - 1 bits": lambda: tensor(layer=0, format="nested2147483647"),
    "integers of 10^18 bits": lambda: tensor(format="int1000000000000000000"),
}


def encoding(shape: list[int]) -> Tree:
    """An activation's encoding with a parameter of this shape."""
    return {
        "format": "fixed8/tensor",
        "axes": [],
        "params": {"fl": {"dtype": "float32", "shape": shape, "bytes": b"\0\0\x80@"}},
    }


# --------------------------------------------------------------------------------------------------------- measurement


def resident(key: str) -> int:
    """Bytes that this process has in memory now (VmRSS), or had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def tried(data: bytes, read: Callable[[bytes], object]) -> tuple[str | None, float, float]:
    """What is wrong with how a reader refuses a bomb; milliseconds it took, and MiB that memory grew by at most."""
    address = next(int(n) for n in Path("/proc/self/statm").read_text().split()) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address + ROOM, address + ROOM))
    Path("/proc/self/clear_refs").write_text("5")  # forget the most there was
    before, times = resident("VmRSS"), []
    wrong: str | None = "is loaded"
    for _ in range(TIMES):
        began = time.perf_counter()
        try:
            read(data)
        except (Malformed, Unsupported):
            wrong = None
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error)[:200]}"
        times.append(time.perf_counter() - began)
    ms, mib = 1000 * min(times), (resident("VmHWM") - before) / 2**20
    if wrong is None and ms > MOST_MS:
        wrong = f"takes {ms:.0f} ms"
    if wrong is None and mib > MOST_MIB:
        wrong = f"takes {mib:.0f} MiB"
    return wrong, ms, mib


def in_child(data: bytes, read: Callable[[bytes], object]) -> tuple[str | None, float, float]:
    """The same, in a child that ends with it."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sink, json.dumps(tried(data, read)).encode())
        os._exit(0)
    os.close(sink)
    with open(source, "rb") as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    wrong, ms, mib = json.loads(told) if status == 0 else (f"ended the process with status {status}", 0.0, 0.0)
    return wrong, ms, mib


def trials(arguments: Sequence[str]) -> Count:
    """Every bomb, by each reader."""
    readers: dict[str, Callable[[bytes], object]] = {"": file.load}
    if native.core is not None:
        readers[" (compiled)"] = native.core.unsupported
    found = []
    for name, make in BOMBS.items():
        data = make()
        assert len(data) <= MOST_FILE, f"{name} has {len(data)} bytes"
        found += [(f"{name}{which}", *in_child(data, read)) for which, read in readers.items()]
    values = {"bombs_ms": max(ms for _, _, ms, _ in found), "bombs_mib": max(mib for *_, mib in found)}
    note = f"at most {values['bombs_ms']:.2g} ms and {values['bombs_mib']:.2g} MiB"
    return Count.of((wrong and f"{name}: {wrong}" for name, wrong, _, _ in found), note, values)


def bombs() -> Count:
    """Every bomb, in a process of their own."""
    return counted("bench.robust.bombs")


if __name__ == "__main__":
    tell_count(trials)
