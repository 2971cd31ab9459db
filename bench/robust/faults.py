"""Every call that a save makes on its folder fails once, in every way: the old file stays whole, nothing else is left behind,
and there is one clear error.

A small library (faults.c, compiled when needed) is preloaded. `python -m bench.robust.faults` learns which calls a save makes
(open, write, sync, close, rename), then forks a child for each call and each way in which it can fail.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import work
from bench.robust.count import Count, counted, held, tell_count
from bench.robust.subjects import heavy, in_floats, small
from bitladder import disk, file
from bitladder.cli import main
from bitladder.convert.to_onnx import to_onnx

SOURCE = Path(__file__).with_suffix(".c")
SHORT, KILL = -1, -2
CALLS = {"o": "open", "w": "write", "s": "sync", "c": "close", "r": "rename", "u": "unlink"}
# How a call fails, and whether all after it do too: a disk that is full stays full.
WAYS = {
    "no space left": (errno.ENOSPC, True),
    "over quota": (errno.EDQUOT, True),
    "input/output error": (errno.EIO, False),
    "broken disk": (errno.EIO, True),
    "interrupted": (errno.EINTR, False),
    "short write": (SHORT, False),
    "short write, then no space": (SHORT, True),
    "killed": (KILL, False),
}
NAME = "net.ladder"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a file system that does not wait for a disk


@dataclass(frozen=True)
class Job:
    """Something that writes one file of a folder: the file's name, the work, and whether a child of it is a command."""

    name: str
    run: Callable[[Path], None]
    command: bool = False


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit status (negative: killed), the text of its error, the calls it made."""

    status: int
    said: str
    calls: str


def library() -> Path | None:
    """The compiled library; None without a compiler or where libraries cannot be preloaded."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    made = work.FOLDER / "faults" / f"{work.digest([SOURCE.read_bytes()])[:12]}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(part), "-ldl"], check=True, capture_output=True
        )
        part.replace(made)
    return made


def ended(job: Job, folder: Path, number: int, way: tuple[int, bool]) -> Ended:
    """What became of a child in which call `number` fails in this way; -1 for none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        shim = ctypes.CDLL(None)
        shim.faults_calls.restype = ctypes.c_char_p
        status, said = 0, ""
        shim.faults_arm(os.fsencode(folder), number, way[0], int(way[1]))
        try:
            job.run(folder)
        except Told as told:
            status, said = told.args
        except OSError as error:
            status, said = 1, str(error)
        except Exception as error:
            status, said = 3, f"{type(error).__name__}: {error}"
        calls = shim.faults_calls().decode()
        shim.faults_arm(b"", -1, 0, 0)
        os.write(write, json.dumps([status, said, calls]).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    _, how = os.waitpid(child, 0)
    if os.WIFSIGNALED(how):
        return Ended(-os.WTERMSIG(how), "", "")
    return Ended(*json.loads(told))


def wrong(job: Job, folder: Path, end: Ended, old: bytes, new: bytes) -> str | None:
    """What of the promises does not hold in a folder that held `old` before; None if all do."""
    has = held(folder / job.name)
    left = [name for name in os.listdir(folder) if name != job.name]
    if end.status == -signal.SIGKILL:
        strange = [name for name in left if not name.startswith(f".{job.name}.")]
        return f"left {strange[0]}" if strange else None if has in (old, new) else "a kill left no whole file"
    if left:
        return f"left {left[0]}"
    if end.status == 0:
        return None if has == new else "no error, and not the new file"
    if end.status != 1:
        return f"ended with status {end.status}: {end.said}"
    if has != old and not (has == new and "is written, but" in end.said):
        return f"an error, and {'the new' if has == new else 'no whole'} file: {end.said}"
    begins = "bitladder: " if job.command else ""
    clear = end.said.startswith(f"{begins}write: ") and "\n" not in end.said and str(folder) in end.said and "; " in end.said
    return None if clear else f"an error that is not clear: {end.said}"


def trials_of(job: Job, folder: Path) -> Iterator[tuple[int, str | None]]:
    """How a job ended after each way in which each of its calls fails, and what of the promises did not hold."""
    path = folder / job.name
    plain = ended(job, folder, -1, (0, False))
    new, old = path.read_bytes(), b"what was there before"
    if plain.status or not {"o", "w", "c"} <= set(plain.calls):
        raise RuntimeError(f"bench: faults must be seen, got calls {plain.calls!r}, {plain.said}")
    yield 0, None if re.search("ws+c*r.*s", plain.calls) else f"{job.name}: not synced, file and folder: {plain.calls}"
    for number, kind in enumerate(plain.calls):
        for words, way in WAYS.items():
            if way[0] == SHORT and kind != "w":
                continue
            path.write_bytes(old)
            end = ended(job, folder, number, way)
            problem = wrong(job, folder, end, old, new)
            for name in set(os.listdir(folder)) - {job.name}:
                os.utime(folder / name, (0, 0))
            disk.sweep(path)
            if problem is None and os.listdir(folder) != [job.name]:
                problem = "what is left stays for ever"
            yield end.status, problem and f"{job.name}: {words} at {CALLS[kind]} (call {number}): {problem}"


class Told(Exception):
    """The exit status of a command, and what it said on standard error."""


def command(*words: str | Path) -> None:
    """Run a command, and raise what it told."""
    err = io.StringIO()
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        status = main([*map(str, words), "--quiet"])
    raise Told(status, err.getvalue().strip())


def jobs(inputs: Path) -> list[Job]:
    """A save, and three commands that write a file."""
    net, data = inputs / "small.ladder", inputs / "x.npz"
    images, large = np.random.default_rng(0).normal(size=(4, 2, 6, 6)), heavy(0)
    np.savez(data, x=images.astype(np.float32))
    file.save(small(), net)
    to_onnx(in_floats(small()), inputs / "net.onnx")
    with suppress(Told):  # so that children find everything imported
        command(*quantize(inputs), "-o", inputs / "warm.ladder")
    return [
        Job(NAME, lambda folder: file.save(large, folder / NAME, coder="raw")),
        Job("made.ladder", lambda folder: command(*quantize(inputs), "-o", folder / "made.ladder"), command=True),
        Job("out.npz", lambda folder: command("run", net, data, "-o", folder / "out.npz"), command=True),
        Job("out.onnx", lambda folder: command("export", net, folder / "out.onnx"), command=True),
        Job("page.html", lambda folder: command("report", net, "-o", folder / "page.html"), command=True),
    ]


def quantize(inputs: Path) -> list[str | Path]:
    """The words of a command that quantizes a small network."""
    return ["quantize", inputs / "net.onnx", "--data", inputs / "x.npz", "--plan", "int8"]


def limited(job: Job, folder: Path, most: int) -> str | None:
    """What is wrong after a job that the system allows files of `most` bytes and no more."""
    path = folder / job.name
    path.write_bytes(b"what was there before")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        try:
            job.run(folder)
        except OSError as error:
            os._exit(1 if "cannot be written" in str(error) and "make room" in str(error) else 2)
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 1:
        return f"{job.name}: files of {most} bytes at most: status {status}"
    same = held(path) == b"what was there before" and os.listdir(folder) == [job.name]
    return None if same else f"{job.name}: files of {most} bytes at most: the old file is gone, or another is left"


def trials(arguments: Sequence[str]) -> Count:
    """All faults of all jobs, then a save under limits of the system's own."""
    found: list[tuple[int, str | None]] = []
    with tempfile.TemporaryDirectory() as inputs:
        works = jobs(Path(inputs))
        for job in works[:1] if "--save" in arguments else works:
            with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
                found += trials_of(job, Path(folder))
        for most in (0, 1, 4096, 65536, 1_000_000):
            with tempfile.TemporaryDirectory() as folder:
                found.append((1, limited(works[0], Path(folder), most)))
    ends = Counter(status for status, _ in found)
    note = f"{ends[1]} ended in one clear error, {ends[0]} in the new file, {ends[-signal.SIGKILL]} were killed"
    return Count.of((problem for _, problem in found), note)


def faults(only_save: bool = False) -> Count | None:
    """All faults, in a process of their own; None where none can be made."""
    made = library()
    if made is None:
        return None
    return counted("bench.robust.faults", *(["--save"] if only_save else []), environment={"LD_PRELOAD": str(made)})


if __name__ == "__main__":
    tell_count(trials)
