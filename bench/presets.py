"""What the presets of effort take and lose: a plan of 4 bits in the mean, searched and made from 512 calibration images.

Activations are int8, nothing is trained, and nothing is known of the network before; seconds are those of a clock, from the
float network to the finished one. Losses are against the float network on all test images, paired image by image.
"""

from __future__ import annotations

import time

import numpy as np
import torch

import bitladder as bl
from bench import cifar, resnet
from bench.codec import BATCH, hits
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import about, evenly, loss
from bench.train_nested import right
from bench.work import Work

SECONDS = {"fast": 60, "balanced": None, "best": 600}  # that a preset may take
FAST = 1.0  # points that the quickest may lose
QUICK = 2000  # test images


def measure(options: Options) -> tuple[list[Row], dict[str, Figure]]:
    """Rows and figures of every network."""
    tell("reading images")
    data = cifar.load(options.data)
    test = evenly(data.test, QUICK if options.quick else len(data.test))
    rows, figures = list[Row](), dict[str, Figure]()
    for depth in options.depths:
        net, plain = f"resnet{depth}", resnet.load(options.data, depth)
        work, floats = Work.of("presets", about(options, test), depth, options.threads), right(plain, test)

        def made(effort: str, depth: int = depth) -> np.ndarray:
            tell(f"resnet{depth}: {effort}")
            net, began = resnet.load(options.data, depth), time.perf_counter()
            model = bl.quantize(net, data.draws[0].images, plan="int8", budget="avg_bits=4", effort=effort)
            took = time.perf_counter() - began
            return np.array([took, *hits(model.with_(threads=options.threads, batch=BATCH), test)])

        for effort, most in SECONDS.items():
            took, *found = work(effort, lambda effort=effort: made(effort)).value
            what, lost = f"{net}, {effort}, a plan of 4 bits in the mean", loss([np.array(found, bool)], [floats])
            rows.append(Row.of(f"{what}, top-1 %", 100 * float(np.mean(found)), 100 * float(floats.mean()), "float", lost.half))
            rows.append(Row(f"{what}, seconds on {options.threads} threads", float(took)))
            if most is not None:
                figures[f"{net}_seconds_{effort}"] = Figure.at_most(float(took), most)
            if effort == "fast":
                figures[f"{net}_loss_fast"] = Figure.at_most(lost.mean, FAST, lost.low)
    return rows, figures


def bench(options: Options) -> Result:
    """Every preset, rows and figures."""
    torch.set_num_threads(options.threads)
    rows, figures = measure(options)
    return Result("presets", tuple(rows), figures, machine(options.threads, options.command), versions())
