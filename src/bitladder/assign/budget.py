"""What a budget may be: coded bytes, bits a weight on average, or measured milliseconds (docs/plans.md)."""

from __future__ import annotations

BYTES, BITS, MILLISECONDS = "bytes", "avg_bits", "milliseconds"
UNITS = {"MB": (BYTES, 1e6), "kB": (BYTES, 1e3), "KB": (BYTES, 1e3), "ms": (MILLISECONDS, 1.0), "B": (BYTES, 1.0)}


def target(budget: str) -> tuple[str, float]:
    """What a budget limits, and to how much.

    >>> target("0.5MB"), target("avg_bits=4"), target("5ms")
    (('bytes', 500000.0), ('avg_bits', 4.0), ('milliseconds', 5.0))
    """
    try:
        if budget.startswith("avg_bits="):
            what, limit = BITS, float(budget.removeprefix("avg_bits="))
        else:
            unit = next(u for u in UNITS if budget.endswith(u))
            what, limit = UNITS[unit][0], float(budget.removesuffix(unit)) * UNITS[unit][1]
        if 0 < limit < float("inf"):
            return what, limit
    except (StopIteration, ValueError):
        pass
    raise ValueError(f"quantize: budget must be written like 0.5MB, 300kB, 5ms or avg_bits=4, got {budget!r}")


def said(what: str, amount: float) -> str:
    """An amount of what a budget limits, for people.

    >>> said("bytes", 13500.0), said("milliseconds", 1.234), said("avg_bits", 4.0)
    ('13,500 bytes', '1.23 ms', '4 bits a weight')
    """
    return {BYTES: f"{amount:,.0f} bytes", MILLISECONDS: f"{amount:.3g} ms", BITS: f"{amount:.3g} bits a weight"}[what]
