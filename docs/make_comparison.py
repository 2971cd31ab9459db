"""Writes docs/comparison.md from bench/results/compare.json; `python docs/make_comparison.py`. A test holds both together."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the bench is no part of the package

from bench.choices import GROUPS, LEFT, PARTS, Group, Row  # noqa: E402
from bench.table import measured_with, table  # noqa: E402

PAGE, RESULT = Path(__file__).with_name("comparison.md"), ROOT / "bench" / "results" / "compare.json"
HEAD = "# Comparison\n\n*Made from `bench/results/compare.json` by `python docs/make_comparison.py`; do not edit.*\n"
SAYS = (
    "Every criterion, search, format, rounding, range rule and effort that `quantize` takes, one at a time on ResNet-20 for "
    "CIFAR-10 (images recompressed as JPEG), {images} test images. Each row is one call of `quantize`; what its group does not "
    'name is the same in all of its rows: `effort="balanced"`, one draw of 512 calibration images with labels, activations '
    "`int8`, nothing trained afterwards. The file is written with the coder `best`, read again and run by the native runtime.",
    "Float has {plain} % right. *Lost* is in points against it on the same images, with half of its 95 % interval (paired, "
    "normal approximation); negative is a gain. *Bits* are those of a weight before coding, on average, *bytes* those of the "
    "whole file. *Seconds* are of the processor, for all of `quantize`, calibration and whatever a row measures included, on a "
    "slow core that others use too: compare them with each other only. Every row here was measured once; choices were never "
    "made by it.",
)
NOT = "not measured"


def page(found: Mapping[str, Any] | None = None) -> str:
    """The whole page."""
    found = result() if found is None else found
    lines = {line["what"]: line for line in found["rows"]}
    plain = next((line["peer"] for line in found["rows"] if line["peer"] is not None), None)
    quick = "--quick" in found["machine"].get("command", "")
    told = {"images": "2,000" if quick else "all 10,000", "plain": "..." if plain is None else f"{plain:.2f}"}
    head = [HEAD, *(f"{wrapped(text.format(**told))}\n" for text in SAYS), f"{measured_with(found)}.\n", *gaps(lines)]
    return "\n".join([*head, *(section(group, lines) for group in GROUPS), *left()])


def gaps(lines: Mapping[str, Any]) -> list[str]:
    """How many rows the last run did not get to, if any."""
    rows = [(group, row) for group in GROUPS for row in group.rows]
    there = sum(group.line(row, PARTS[0]) in lines for group, row in rows)
    return [] if there == len(rows) else [f"{there} of {len(rows)} rows are measured; the others say so.\n"]


def wrapped(text: str) -> str:
    """A paragraph as the other pages have it."""
    return textwrap.fill(text, 125, break_long_words=False, break_on_hyphens=False)


def result() -> dict[str, Any]:
    """The last result, or one without rows."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else {"bench": "compare", "rows": [], "machine": {}}


def section(group: Group, lines: Mapping[str, Any]) -> str:
    """The table of one group."""
    header = ("choice", "what it is", "top-1 %", "lost, points", "bits", "bytes", group.seconds)
    rows = [(row.name, row.says, *cells(group, row, lines)) for row in group.rows]
    return "\n".join([f"## {group.title}", "", wrapped(group.says), "", *table(header, rows), ""])


def cells(group: Group, row: Row, lines: Mapping[str, Any]) -> tuple[str, ...]:
    """What was measured of a row."""
    parts = [lines.get(group.line(row, part)) for part in PARTS]
    if any(part is None for part in parts):
        return NOT, "-", "-", "-", "-"
    right, size, bits, seconds = parts
    lost = f"{right['peer'] - right['ours'] + 0.0:.2f} +- {right['spread']:.2f}"
    return f"{right['ours']:.2f}", lost, f"{bits['ours']:.2f}", f"{size['ours']:,.0f}", f"{seconds['ours']:.2g}"


def left() -> list[str]:
    """What has no table, and why."""
    return ["## Without a row", "", *(f"- `{word}` {why}." for word, why in LEFT.items()), ""]


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
