"""Tables of text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], totals: Sequence[Any] = ()) -> str:
    """Lines of aligned columns under a rule; numbers to the right, text to the left; `totals` under a second rule.

    >>> print(table(["layer", "bits"], [["conv1", 8], ["fc", 4]], ["", 6.0]))
    layer  bits
    -----  ----
    conv1     8
    fc        4
    -----  ----
              6
    """
    cells = [[shown(c) for c in row] for row in [*rows, *([totals] if totals else [])]]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    right = [all(isinstance(r[i], int | float) or r[i] in ("", None) for r in rows) and bool(rows) for i in range(len(header))]
    rule = "  ".join("-" * w for w in widths)
    body = [line(list(header), widths, right), rule, *(line(r, widths, right) for r in cells)]
    if totals:
        body.insert(len(body) - 1, rule)
    return "\n".join(body)


def line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)).rstrip()


def shown(x: Any) -> str:
    """A cell: thousands separated, four digits of a fraction, nothing for None.

    >>> shown(12345), shown(0.98765432), shown(None), shown((3, 3))
    ('12,345', '0.9877', '', '3x3')
    """
    if isinstance(x, bool) or x is None:
        return "" if x is None else ("yes" if x else "no")
    if isinstance(x, int):
        return f"{x:,}"
    if isinstance(x, float):
        return f"{x:.4g}"
    return "x".join(map(str, x)) if isinstance(x, tuple) else str(x)
