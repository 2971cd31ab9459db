"""Every choice that the program offers, side by side: accuracy of ResNet-20, bytes of its file, processor seconds.

The rows are those of `choices.py`, each one call of `quantize`, written to a file, read again and run by the native runtime.
One draw of 512 calibration images; scores, where a row needs one, are of choosing images.
"""

from __future__ import annotations

import inspect
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import bitladder as bl
from bench import cifar, resnet
from bench.choices import CHOOSING, GROUPS, PARTS, WRITING, Group, Row
from bench.options import Options, tell
from bench.result import Result, machine, versions
from bench.result import Row as Line
from bench.subject import about, evenly, loss
from bench.work import Work
from bitladder.assign.score import Score, accuracy
from bitladder.recipe import EFFORTS

QUICK = 2000  # test images
FACTS = 4  # numbers that stand before the hits of a row: seconds to quantize and to write, bytes, bits a weight


@dataclass
class Side:
    """The network, its data, and the models that were made of it."""

    options: Options
    test: cifar.Split
    work: Work
    models: dict[str, tuple[bl.Model, float]] = field(default_factory=dict)

    @cached_property
    def calibration(self) -> cifar.Split:
        return cifar.read(cifar.archives(self.options.data)[0], lambda n: np.arange(0, n, 97)[:512])

    @cached_property
    def choosing(self) -> Score:
        """Accuracy on training images that nothing is calibrated on."""
        split = cifar.read(cifar.archives(self.options.data)[0], lambda n: chosen(n, CHOOSING))
        return accuracy({"x": split.images}, split.labels)

    @cached_property
    def net(self) -> Any:
        return resnet.load(self.options.data, 20)

    def made(self, row: Row, folder: Path) -> tuple[bl.Model, float]:
        """The model of a row, and the processor seconds it took; rows that share all words share it."""
        key = key_of(replace(row, bits=None, saving={}))
        if key not in self.models:
            more: dict[str, Any] = {"score": self.choosing} if row.measured else {}
            more |= {"table": folder / "net.table"} if row.table else {}
            calib, net = [(self.calibration.images, self.calibration.labels)], self.net
            began = time.process_time()
            model = bl.quantize(net, calib, **row.how, **more)
            self.models[key] = model, time.process_time() - began
        return self.models[key]

    def measured(self, row: Row) -> np.ndarray:
        """Seconds to quantize and to write, bytes, bits a weight, and which test images are right."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "net.ladder"
            model, seconds = self.made(row, path.parent)
            began = time.process_time()
            model.save(path, **row.saving)
            written = time.process_time() - began
            model = bl.load(path, threads=1) if row.bits is None else bl.load(path, row.bits, threads=1)
            if row.bits is not None:
                model.save(path)
            facts = seconds, written, os.path.getsize(path), model.average_bits
            return np.concatenate([facts, self.hits(model)])

    def hits(self, model: Any) -> np.ndarray:
        return accuracy({"x": self.test.images}, self.test.labels).each(model)

    def kept(self, key: str, row: Row | None) -> np.ndarray:
        """What is known of a row, or of the float network, measured now if it has to be."""

        def go() -> np.ndarray:
            import torch

            if row is not None:
                return self.measured(row)
            with torch.no_grad():
                return self.hits(lambda x: self.net(torch.from_numpy(x)))

        return self.work(key, go).value


def chosen(count: int, some: int) -> np.ndarray:
    """So many places of choosing images among `count` training images, evenly."""
    i = np.arange(count)
    found = i[(i % 10 == 5) & (i % 97 >= cifar.DRAWS)]
    return found[np.linspace(0, len(found) - 1, some).round().astype(int)]


def lines(group: Group, row: Row, found: np.ndarray, plain: np.ndarray) -> list[Line]:
    """The lines of one row."""
    (seconds, writing, size, bits), hits = found[:FACTS], found[FACTS:]
    spread = loss([hits], [plain]).half
    ours, peer = 100 * float(hits.mean()), 100 * float(plain.mean())
    values = float(size), float(bits), float(writing if group.seconds == WRITING else seconds)
    names = [group.line(row, part) for part in PARTS]
    return [Line.of(names[0], ours, peer, "float", spread), *(Line(n, v) for n, v in zip(names[1:], values, strict=True))]


def bench(options: Options) -> Result:
    """A line for every part of every row; rows that were measured once are kept as long as code and data stay."""
    import torch

    torch.set_num_threads(options.threads)
    test = cifar.read(cifar.archives(options.data)[1], lambda n: np.arange(n))
    test = evenly(test, QUICK if options.quick else len(test))
    side = Side(options, test, Work.of("compare", options.quick, about(options, test)))
    plain = side.kept("float", None).astype(bool)
    out: list[Line] = []
    rows = [(group, row) for group in GROUPS for row in group.rows]
    for at, (group, row) in enumerate(rows, 1):
        found = side.kept(key_of(row), row)
        out += lines(group, row, found, plain)
        tell(f"{at} of {len(rows)}, {group.title}: {row.name}: {out[-4].ours:.2f} %, {found[2]:,.0f} bytes, {found[0]:.1f} s")
    return Result("compare", tuple(out), {}, machine(options.threads, options.command), versions())


def key_of(row: Row) -> str:
    """What a row's measurement depends on: rows that say what is usual anyway are one."""
    usual = {name: p.default for name, p in inspect.signature(bl.quantize).parameters.items()}
    if row.how.get("effort", usual["effort"]) == usual["effort"]:
        usual["rounding"] = EFFORTS[str(usual["effort"])].rounding
    how = {word: shown(value) for word, value in sorted(row.how.items()) if value != usual[word]}
    return repr((how, row.bits, row.measured and CHOOSING, row.table, dict(row.saving)))


def shown(value: Any) -> str:
    """A word of a row as text that tells formats apart by all they are."""
    cells = getattr(value, "cells", "")
    if isinstance(value, Mapping):
        return repr({pattern: shown(fmt) for pattern, fmt in value.items()})
    return f"{value}{cells}"
