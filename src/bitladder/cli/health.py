"""`bitladder doctor`: findings with their fix, then where the milliseconds and the bytes are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from bitladder import native
from bitladder.cli import arrays, inputs
from bitladder.cli.network import network
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.doctor import Finding, Patient, examine, foreseen
from bitladder.doctor.size import largest
from bitladder.errors import Unsupported
from bitladder.table import table

SAMPLES = 16
TOP = 10
NAMED = 4  # nodes of a finding


def doctor(args: Namespace, terminal: Terminal) -> Outcome:
    """What is slow, wrong or big; not met where something is wrong."""
    terminal.progress("read", 0, 0)
    if args.net.endswith(".onnx") or ".py:" in args.net:
        return before(args)
    found, patient = examine(
        args.net,
        lambda graph: inputs.samples(args.data, graph, SAMPLES),
        real=args.data is not None,
        bits=args.bits,
        threads=args.threads or 1,
        progress=terminal.progress,
    )
    notes = [] if patient.real else ["on random data: saturation and ranges need data of the network's own, --data X.npz"]
    facts = {**said(found), "milliseconds": patient.milliseconds, "isa": patient.model.engine.isa or native.isa()}
    facts["steps"] = [{**asdict(c.step), "share": c.share, "of_peak": c.of_peak, "bound": c.bound} for c in patient.costs]
    facts["peak_macs_per_ms"], facts["bytes_per_ms"] = patient.peak, patient.bandwidth
    text = "\n\n".join([*notes, *map(listed, enumerate_(found)), time_table(patient), byte_table(patient), verdict(found)])
    return Outcome(text, None, (), facts, met=not any(f.wrong for f in found))


def before(args: Namespace) -> Outcome:
    """What is to be expected of a float network; nothing is quantized."""
    samples = {} if args.data is None else arrays.read(args.data)
    if not samples and not args.net.endswith(".onnx"):
        raise ValueError(f"doctor: {args.net!r} does not say what its inputs are; give some with --data X.npz")
    try:
        found = foreseen(network(args.net, args.weights, samples), args.net)
    except Unsupported as error:
        found = [Finding("values", str(error), fix="replace these operators before export", wrong=True)]
    text = "\n\n".join([*map(listed, enumerate_(found)), verdict(found)])
    return Outcome(text, None, (), said(found), met=not any(f.wrong for f in found))


def said(found: Sequence[Finding]) -> dict[str, object]:
    """What JSON says of the findings."""
    return {"findings": [asdict(f) for f in found], "wrong": sum(f.wrong for f in found)}


def enumerate_(found: Sequence[Finding]) -> list[tuple[int, Finding]]:
    return list(enumerate(found, 1))


def listed(numbered: tuple[int, Finding]) -> str:
    """A finding in three lines: what and how much, where, the fix."""
    number, f = numbered
    parts = [
        "" if f.milliseconds is None else f"{f.milliseconds:.3g} ms",
        "" if f.bytes is None else f"{f.bytes:,} bytes",
        "" if f.share is None else f"{100 * f.share:.3g} %",
    ]
    much = ", ".join(p for p in parts if p)
    lines = [f"{number}. {'WRONG, ' if f.wrong else ''}{f.about}: {f.what}" + (f" ({much})" if much else "")]
    if f.where:
        more = f" and {len(f.where) - NAMED} more" if len(f.where) > NAMED else ""
        lines.append(f"   at:  {', '.join(f.where[:NAMED])}{more}")
    return "\n".join([*lines, f"   fix: {f.fix}"])


def time_table(patient: Patient) -> str:
    """Where the milliseconds are."""
    rows = [
        (c.step.node, c.step.kernel, c.step.milliseconds, 100 * c.share, 100 * c.of_peak if c.step.macs else None, c.bound)
        for c in patient.costs[:TOP]
    ]
    rest = sum(c.step.milliseconds for c in patient.costs[TOP:])
    total = (f"all, {len(patient.costs)} steps", f"others {rest:.3g} ms", patient.milliseconds, 100.0, None, "")
    return table(("where the time is", "kernel", "ms", "%", "% of peak", "bound by"), rows, total)


def byte_table(patient: Patient) -> str:
    """Where the bytes are."""
    rows = [(name, fmt, n, 100 * share) for name, fmt, n, share in largest(patient, TOP)]
    return table(("where the bytes are", "format", "bytes", "%"), rows)


def verdict(found: Sequence[Finding]) -> str:
    """The last line."""
    wrong = sum(f.wrong for f in found)
    return f"{len(found)} findings, {wrong} of them wrong" if wrong else f"{len(found)} findings, nothing is wrong"
