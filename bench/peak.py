"""What this machine does at most on one core, measured by a small program (peak.cc) that is compiled when it is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import work

SOURCE = Path(__file__).with_suffix(".cc")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20}


@dataclass(frozen=True)
class Peak:
    """Multiply-accumulates a second by instruction set, bytes a second from memory; empty and None without a compiler."""

    macs: dict[str, float]
    memory: float | None


def peak() -> Peak:
    """Measured now: a shared machine is not the same at every hour."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return Peak({}, None)
    program = work.FOLDER / "peak" / work.digest([SOURCE.read_bytes()])[:12]
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        dot = ["-march=armv8.2-a+dotprod"] if os.uname().machine == "aarch64" else []
        subprocess.run([compiler, "-O3", "-std=c++20", *dot, str(SOURCE), "-o", str(program)], check=True, capture_output=True)
    said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    found = {name: float(value) for name, value in (line.split() for line in said.splitlines())}
    memory = found.pop("memory", None)
    return Peak(found, memory)


def last_cache() -> int:
    """Bytes of the largest cache, 32 MB where the system does not say."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(s[:-1]) * UNITS[s[-1]] for s in sizes if s[-1:] in UNITS), default=32 << 20)
