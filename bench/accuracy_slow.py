"""Accuracy beside the settings of peers that learn for many minutes each: what `accuracy --full` adds to `accuracy`, alone.

Each may take 20 minutes of the processor; one that would take more has a row that says so, in place of numbers. What was cut
at one width is not run at a lower one, where it learns for as many steps; the row says that too.
"""

from __future__ import annotations

import torch

from bench.accuracy import BITS, measure
from bench.options import Options
from bench.result import Result, machine, versions


def bench(options: Options) -> Result:
    """Every bit width, rows and figures."""
    torch.set_num_threads(options.threads)
    rows, figures = measure(options, BITS, (True,))
    return Result("accuracy_slow", tuple(rows), figures, machine(options.threads, options.command), versions())
