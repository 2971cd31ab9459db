"""`bitladder verify`: whether every way to run a file gives the reference's integers, as a table."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from bitladder import native
from bitladder.cli import inputs
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.model import load
from bitladder.table import table
from bitladder.verify import Row, Verdict, check

NAMED = 6  # nodes in a line
SAMPLES = 4  # enough for batches, few enough for the reference


def verify(args: Namespace, terminal: Terminal) -> Outcome:
    """A row for each node and kernel; not met where anything differs that must not."""
    terminal.progress("read", 0, 0)
    model = load(args.file)
    feeds = inputs.samples(args.data, model.whole, SAMPLES)
    found = check(model, feeds, args.bits, progress=terminal.progress)
    shown = [*found_together(found.rows), *found_together(found.whole), *in_short(found.onnx)]
    cells = [cell(rows) for rows in shown]
    text = table(("node", "operator", "computes", "kernel", "on", "widths", "checked", "differing", "largest", ""), cells)
    facts = {
        "equal": found.first is None,
        "first": None if found.first is None else asdict(found.first),
        "samples": max((len(a) for a in feeds.values() if a.ndim), default=1),
        "instruction_sets": native.isas(),
        "notes": found.notes,
        **{name: [asdict(r) for r in getattr(found, name)] for name in ("rows", "whole", "onnx")},
    }
    where = "random data" if args.data is None else args.data
    return Outcome(f"{text}\n{verdict(found, where)}", None, [*found.notes, *remarks(found)], facts, met=found.first is None)


def found_together(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that differ only in instruction set and width, in the order of the first; wrong ones and right ones apart."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault((r.node, r.op, r.kind, r.wrong), []).append(r)
    return iter(groups.values())


def in_short(rows: list[Row]) -> Iterator[list[Row]]:
    """Values that differ in ONNX Runtime, each for itself, and all others as one."""
    yield from found_together([r for r in rows if r.differing])
    for kind in ("integers", "float"):
        if equal := [replace(r, node="values that are equal", op="") for r in rows if not r.differing and r.kind == kind]:
            yield equal


def cell(rows: list[Row]) -> tuple[object, ...]:
    """One line of the table."""
    r, count = rows[0], sum(r.count for r in rows)
    kernels = ", ".join(sorted({r.kernel for r in rows if r.kernel})) or "-"
    sets, widths = (" ".join(dict.fromkeys(getattr(r, name) for r in rows)) for name in ("isa", "bits"))
    off = (count, sum(r.differing for r in rows), max(r.largest for r in rows)) if count else (None, None, None)
    return r.node, r.op, r.kind, kernels, sets, widths, *off, "WRONG" if r.wrong else ""


def remarks(found: Verdict) -> list[str]:
    """What a reader should know of differences that are allowed, and of what was not compared."""
    lines = []
    if left := [r.node for r in found.rows if not r.count]:
        lines.append(f"not compared alone, for want of a kernel or of inputs: {some(left)}")
    if off := [r for r in found.rows if r.differing and not r.wrong]:
        count = sum(r.differing for r in off)
        lines.append(f"float nodes off within the tolerance, {count:,} numbers: {some(r.node for r in off)}")
    if floats := [r for r in found.onnx if r.kind == "float" and r.op != "input"]:
        lines.append(
            f"ONNX Runtime computes in float: {some(r.node for r in floats)}; {sum(r.differing for r in floats):,} of "
            f"{sum(r.count for r in floats):,} codes differ there, by {max(r.largest for r in floats):g} at most"
        )
    return lines


def some(names: Iterable[str]) -> str:
    """Each name once, and how many more there are than fit a line."""
    each = list(dict.fromkeys(names))
    return ", ".join(each[:NAMED]) + (f" and {len(each) - NAMED} more" if len(each) > NAMED else "")


def verdict(found: Verdict, where: str) -> str:
    """The last line."""
    checked = sum(r.count for r in (*found.rows, *found.whole, *found.onnx))
    r = found.first
    if r is None:
        return f"equal: {checked:,} numbers on {where}, as far as numerics.md promises them"
    what = f"{r.node} ({r.op}, {r.kernel or 'no kernel'})" if r.op else r.node
    return (
        f"NOT EQUAL: the first layer that diverges is {what} on {r.isa} at width {r.bits}, "
        f"{r.differing:,} of {r.count:,} numbers by up to {r.largest:g}; report it with the file"
    )
