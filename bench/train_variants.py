"""Nested training in other ways: activations of the weights' width, down to one bit, one random width a step.

Each from the same floats, with the same rate and batches as in `train_nested`, beside float. The run down to one bit has half
of the epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.options import Options
from bench.result import Figure, Result, Row
from bench.train_nested import FULL, QUICK, WIDTHS, Run, measured, row
from bench.training import alone

RUNS = {
    "nested, activations too": Run(WIDTHS, follow=True),
    "nested down to 1 bit": Run((8, 4, 2, 1), share=0.5),
    "nested, a random width a step": Run(WIDTHS, at_once=1),
}


def rows(data: Path, quick: bool) -> list[Row]:
    """Accuracies in per cent beside float's; spread in points."""
    plain, hits = measured(data, RUNS, QUICK if quick else FULL)
    pairs = [(name, b, h) for name, run in RUNS.items() for b, h in zip(run.widths, hits[name], strict=True)]
    return [row(f"{name}, at {b} bits", h, plain, "float") for name, b, h in pairs]


def figures(found: list[Row]) -> Mapping[str, Figure]:
    """Nothing was asked of these."""
    return {}


def bench(options: Options) -> Result:
    """Rows of these runs."""
    return alone("train_variants", options, rows, figures)
