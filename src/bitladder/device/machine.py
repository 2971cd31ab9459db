"""What this machine lends to this process, read from where the system says it; nothing is timed here.

Linux tells all of it. Elsewhere caches are unknown (an empty tuple) and can be given: `terminal(caches=(65536, 4194304))`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bitladder import native
from bitladder.model import Model, constant_bytes

SCALE = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}  # how sysfs writes the size of a cache


@dataclass(frozen=True)
class Terminal:
    """What a program may use of a machine.

    cores: processors that the affinity and the quota of the control group allow, at least one.
    caches: bytes of each data cache that one core sees, nearest first; empty if unknown.
    isas: instruction sets that the compiled core has kernels for here, best first; empty without a compiled core.
    memory: bytes, of the machine or of the control group if that has less; None if unknown.
    """

    cores: int = 1
    caches: tuple[int, ...] = ()
    isas: tuple[str, ...] = ()
    memory: int | None = None

    def level(self, nbytes: int) -> int | None:
        """The nearest cache that holds so many bytes, counted from 1; None if none does.

        >>> Terminal(caches=(32_000, 1_000_000)).level(40_000)
        2
        """
        return next((level for level, size in enumerate(self.caches, 1) if nbytes <= size), None)

    def fits(self, model: Model, bits: int | Mapping[str, int] | None = None) -> int | None:
        """The nearest cache that holds the weights in use, at `bits` or as the model runs now; None if none does."""
        return self.level(weight_bytes(model if bits is None else model.at(bits)))

    def json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"cores": self.cores, "caches": list(self.caches), "isas": list(self.isas), "memory": self.memory}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Terminal:
        """The terminal that `json` described."""
        return cls(int(said["cores"]), tuple(map(int, said["caches"])), tuple(map(str, said["isas"])), said["memory"])


def terminal(root: Path = Path("/"), **known: Any) -> Terminal:
    """This machine, as far as this process may use it; what is given by name is taken as given, such as `caches`."""
    cores = max(1, min([usable_cores(), *([] if (allowed := quota(root)) is None else [int(allowed)])]))
    return replace(Terminal(cores, caches(root), tuple(native.isas()), memory(root)), **known)


def weight_bytes(model: Model) -> int:
    """Bytes of the weights that a model reads, codes packed, with their scales and tables."""
    constants = model.graph.constants
    return sum(constant_bytes(constants[name]) for name, _ in model.graph.weights())


# ------------------------------------------------------------------------------------------------------- processors


def usable_cores() -> int:
    """How many processors this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path) -> float | None:
    """How many processors' worth of time the control groups allow; None if they do not say."""
    shares = []
    for folder in groups(root, "cpu"):
        words = said(folder / "cpu.max") or said(folder / "cpu.cfs_quota_us") + said(folder / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            shares.append(int(words[0]) / int(words[1]))
    return min(shares, default=None)


# ----------------------------------------------------------------------------------------------------------- memory


def caches(root: Path) -> tuple[int, ...]:
    """Bytes of each cache that holds data, nearest first, as the first processor has them."""
    sizes: dict[int, int] = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (said(folder / name) for name in ("level", "type", "size"))
        if kind and kind[0] in ("Data", "Unified") and level and level[0].isdecimal() and size and number(size[0]) is not None:
            sizes[int(level[0])] = number(size[0]) or 0
    return tuple(size for _, size in sorted(sizes.items()))


def number(text: str) -> int | None:
    """Bytes of a size such as 48K; None for other words.

    >>> number("48K"), number("512"), number("big")
    (49152, 512, None)
    """
    digits, scale = (text[:-1], SCALE[text[-1]]) if text[-1:] in SCALE else (text, 1)
    return int(digits) * scale if digits.isdecimal() else None


def memory(root: Path) -> int | None:
    """Bytes of memory, of the machine or of the narrowest control group; None if nobody says."""
    lines = said(root / "proc/meminfo")
    sizes = [1024 * int(lines[1])] if lines[:1] == ["MemTotal:"] else []
    for folder in groups(root, "memory"):
        words = said(folder / "memory.max") or said(folder / "memory.limit_in_bytes")
        sizes += [int(word) for word in words[:1] if word.isdecimal()]
    return min(sizes, default=None)


# --------------------------------------------------------------------------------------------------- what files say


def groups(root: Path, controller: str) -> list[Path]:
    """The folder of this process's control group and those of the groups around it, in version 1 and version 2."""
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else []:
        names, path = line.split(":", 2)[1:]
        if not names or controller in names.split(","):
            top, inner = root / "sys/fs/cgroup" / (names and controller), PurePosixPath(path.lstrip("/"))
            found += [top / inner, *(top / around for around in inner.parents)]
    return found


def said(path: Path) -> list[str]:
    """The words of a small file; none if it cannot be read."""
    try:
        return path.read_text().split()
    except OSError:
        return []
