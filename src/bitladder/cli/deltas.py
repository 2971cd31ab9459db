"""`diff` and `patch`: what differs between two files, written and applied."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from bitladder.cli.terminal import Outcome, Terminal
from bitladder.file import delta
from bitladder.table import table

TOLD = 8  # tensors that are named


def diff(args: Namespace, terminal: Terminal) -> Outcome:
    """What turns one file into another, as a third."""
    terminal.progress("diff", 0, 0)
    return outcome(delta.diff(args.base, args.file, args.output), args.output)


def patch(args: Namespace, terminal: Terminal) -> Outcome:
    """The file that a delta was made for, byte for byte."""
    terminal.progress("patch", 0, 0)
    return outcome(delta.patch(args.base, args.delta, args.output), args.output)


def outcome(s: delta.Summary, wrote: str) -> Outcome:
    """Bytes, and what became of the tensors."""
    kept = len(s.same) + len(s.changed)
    rows = [
        ("base", s.base, kept + len(s.gone), ""),
        ("result", s.result, kept + len(s.new), f"{len(s.same)} the same, {len(s.changed)} changed, {len(s.new)} new"),
        ("delta", s.delta, len(s.changed) + len(s.new), f"{s.delta / max(s.result, 1):.1%} of the result"),
    ]
    lines = [
        f"{word}: {', '.join(names[:TOLD])}{f' and {len(names) - TOLD} more' if len(names) > TOLD else ''}"
        for word, names in (("changed", s.changed), ("new", s.new), ("gone", s.gone))
        if names
    ]
    return Outcome(table(("file", "bytes", "tensors", ""), rows), wrote, lines, asdict(s))
