"""Whole networks at batch 1: time against the peers at int8, one file at every width, switching between widths, memory;
accuracy beside the peers that quantize, at 8 bits.

Our networks are quantized here once, as `int8` and as one file of nested widths, and kept with the peers' files. Figures are
of one thread and of the `int8` file; rows have all widths, our AVX2 path, and as many threads as --threads says.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bitladder as bl
from bench import accuracy, minilm, nets, peers, work
from bench.nets import Net
from bench.options import Options, tell
from bench.ours import call, isas, opened, ours
from bench.race import Race, judged, race, rounds, threaded
from bench.result import Figure, Result, Row, machine, versions
from bitladder import Model
from bitladder.formats import QTensor
from bitladder.timing import Run

GOALS = {"resnet50": 1.0, "mobilenet_v2": 0.75, "resnet20": 0.75, "minilm": 1.0}  # of the faster int8 peer's time
WIDTHS = (8, 4, 2)
PLANS = ("int8", "nested8")
SWITCH = 1.0  # milliseconds
KEPT = 0.05  # bytes that a width may keep for itself, as a share of those of the weights
MEMORY = 1.2  # bytes of a loaded network, as a multiple of its codes and its arena
MADE_BY = ("convert", "file", "formats", "ir", "ptq")  # what a quantized network depends on
FOLDER = work.FOLDER / "ours"

Found = tuple[list[Row], dict[str, Figure]]


def file(net: Net, plan: str) -> Path:
    """The network quantized by us, made unless it is there; the name changes with the code that makes it."""
    path = FOLDER / f"{net.name}-{plan}-{work.source(MADE_BY, ('nets', 'minilm', 'resnet'))[:12]}.ladder"
    if not path.exists():
        tell(f"quantizing {net.name} as {plan}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        bl.quantize(net.module, net.calibration, plan=plan, effort="fast").save(path)
    return path


# ------------------------------------------------------------------------------------------------------------- time


def our_calls(net: Net, threads: int) -> dict[str, Run]:
    """The int8 file, the nested file at every width, and the int8 file on the older instruction set."""
    whole, nested = bl.load(file(net, "int8")), opened(bl.load(file(net, "nested8")), threads)
    calls = {"int8": ours(whole, net.example, threads)}
    calls |= {f"nested8 at {bits} bits": call(nested.at(bits), net.example) for bits in WIDTHS}
    if "avx2" in isas()[1:]:
        calls["int8, avx2"] = ours(whole, net.example, threads, "avx2")
    return calls


def timed(options: Options, net: Net, threads: int) -> Race:
    """Ours and the peers' in one interleaved run."""
    tell(f"timing {net.name}, threads {threads}")
    theirs = peers.calls(net, threads)
    what = f"{net.name}, {threaded(threads)}"
    return race(what, our_calls(net, threads), theirs, rounds(options), threads=threads)


def time_rows(found: Race) -> list[Row]:
    """Each of ours against the int8 peers, int8 against the float ones too."""
    pairs = [(name, peer) for name in found.ours for peer in found.peers if peer in peers.INT8 or name == "int8"]
    return [found.row(*pair) for pair in pairs]


def times(options: Options, net: Net) -> Found:
    """Rows of all threads; the figure is of one thread, against the faster peer at int8."""
    races = {threads: timed(options, net, threads) for threads in sorted({1, options.threads})}
    figure = Figure.at_most(races[1].share("int8", peers.INT8), GOALS[net.name])
    return [row for found in races.values() for row in time_rows(found)], {f"{net.name}_time": figure}


# ----------------------------------------------------------------------------------------------------------- widths


def switching(options: Options, net: Net) -> Found:
    """Milliseconds that a change of width costs before the next answer, and bytes that each width keeps for itself.

    The cost is the change with the answer after it, less a later answer at that width, width by width in turns.
    """
    tell(f"switching {net.name}")
    model = opened(bl.load(file(net, "nested8")))
    x = list(net.example.values())
    model(*x)
    costs = []
    for i in range(2 * rounds(options)):
        began = time.perf_counter()
        narrow = model.at(WIDTHS[i % len(WIDTHS)])
        narrow(*x)
        middle = time.perf_counter()
        narrow(*x)
        costs.append(2 * middle - began - time.perf_counter())
    share = bytes_kept(model, x)
    milliseconds = 1e3 * float(np.median(costs))
    what = f"{net.name}, changing width"
    return [Row(f"{what}, ms until the next answer", milliseconds), Row(f"{what}, bytes kept by a width / weights", share)], {
        "switch_ms": Figure.at_most(milliseconds, SWITCH),
        "switch_bytes": Figure.at_most(share, KEPT),
    }


def bytes_kept(model: Model, x: Sequence[np.ndarray]) -> float | None:
    """What a width that was used once keeps in memory, as a share of the weights; None where the system does not tell."""
    before = heap()
    held = [model.at(bits) for bits in (3, 5, 6, 7)]  # not used before
    for narrow in held:
        narrow(*x)
    after = heap()
    return None if before is None or after is None else max(0, after - before) / len(held) / weight_bytes(model)


def weight_bytes(model: Model) -> int:
    """Bytes of all codes, packed."""
    return sum(c.nbytes for c in model.whole.constants.values() if isinstance(c, QTensor))


FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Heap(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def heap() -> int | None:
    """Bytes that this process holds from malloc, Python's and the core's; None without glibc."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    ask.restype = Heap
    found = ask()
    return int(found.uordblks + found.hblkhd)


# ----------------------------------------------------------------------------------------------------------- memory

LOADED = """
import sys
import numpy as np
import bitladder as bl

def resident():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

small, large, feeds = sys.argv[1:]
x = list(np.load(feeds).values())
first = bl.load(small)
first(np.zeros((1, 3, 32, 32), np.float32))
before = resident()
model = bl.load(large)
model(*x)
print(resident() - before, model.engine.arena_bytes)
"""


@dataclass(frozen=True)
class Loaded:
    """Bytes that a network takes once it has answered, of codes as they are packed, and of its arena."""

    resident: int
    codes: int
    arena: int

    @property
    def share(self) -> float:
        return self.resident / (self.codes + self.arena)


def loaded(net: Net, small: Path, path: Path) -> Loaded | None:
    """Measured in a process of its own that has run a small network before; None where the system does not tell."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    feeds = FOLDER / f"{net.name}-example.npz"
    np.savez(feeds, **net.example)
    command = [sys.executable, "-c", LOADED, str(small), str(path), str(feeds)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Loaded(int(said[0]), weight_bytes(bl.load(path)), int(said[1]))


def memory(options: Options, made: Mapping[str, Net]) -> Found:
    """Bytes of every loaded network and plan over codes and arena; the figure is the largest of ResNet-50."""
    tell("memory of loaded networks")
    rows, worst = [], 0.0
    small = file(made["resnet20"], "int8")
    for name in [name for name in made if name != "resnet20"]:
        for plan in PLANS:
            found = loaded(made[name], small, file(made[name], plan))
            if found is None:
                return [], {"memory": Figure.at_most(None, MEMORY)}
            what = f"{name}, {plan}, MB once loaded"
            rows.append(Row.of(what, found.resident / 1e6, (found.codes + found.arena) / 1e6, "codes and arena"))
            worst = max(worst, found.share) if name == "resnet50" else worst
    return rows, {"memory": Figure.at_most(worst, MEMORY)}


# ------------------------------------------------------------------------------------------------------------ whole


def escalation(options: Options) -> Found:
    """Running low and going on only where it is close: accuracy against cost, measured by bench.escalation."""
    try:
        room = importlib.import_module("bench.escalation")
    except ModuleNotFoundError:
        return [], {}
    rows, figures = room.measure(options)
    return list(rows), dict(figures)


def networks(options: Options) -> dict[str, Net]:
    """Every network whose weights can be had; only the sentence encoder may be missing."""
    made = {}
    for name, make in nets.NETS.items():
        try:
            made[name] = make(options)
        except minilm.Missing as error:
            tell(str(error))
    return made


def bench(options: Options) -> Result:
    """Every part, rows and figures; those of accuracy need no compiled core."""
    import torch

    torch.set_num_threads(options.threads)
    made = networks(options)
    rows: list[Row] = []
    figures = {f"{name}_time": Figure.at_most(None, goal) for name, goal in GOALS.items()}
    parts: list[Callable[[], Found]] = [functools.partial(times, options, net) for net in made.values()]
    parts += [lambda: switching(options, made["resnet50"]), lambda: memory(options, made)]
    for part in parts:
        more, found = part()
        rows += more
        figures |= judged(found)
    more, found = escalation(options)
    beside, behind = accuracy.measure(options, (8,))
    about = machine(options.threads, options.command) | {"isa": ", ".join(isas()) or "reference"}
    return Result("networks", (*rows, *more, *beside), figures | found | behind, about, versions())
