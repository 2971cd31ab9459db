"""The native core if it was built, and the instruction set it is to use.

`BITLADDER_NATIVE=0` in the environment runs everything on the reference; `BITLADDER_ISA=avx2` and the like choose an
instruction set other than the best this machine has.
"""

from __future__ import annotations

import os

__all__ = ["core", "isa", "isas", "trim", "why"]

# Why there is no core, or nothing where there is one. `core` is the extension module or None.
why = "BITLADDER_NATIVE=0 is set" if os.environ.get("BITLADDER_NATIVE") == "0" else ""
if not why:
    try:
        import bitladder._native as core
    except ModuleNotFoundError:
        why = "it was not built; install bitladder where there is a C++ compiler"
    except ImportError as error:
        why = f"it does not load: {error}"
if why:
    core = None  # type: ignore[assignment]  # so that its functions keep their types


def isas() -> list[str]:
    """The instruction sets that the core has for this machine, best first; none where there is no core.

    >>> isas()[-1:] in (["scalar"], [])
    True
    """
    return list(core.isas()) if core else []


def isa() -> str:
    """The instruction set to use: what `BITLADDER_ISA` says, or the best; empty where there is no core."""
    there = isas()
    chosen = os.environ.get("BITLADDER_ISA", "")
    if chosen and there and chosen not in there:
        raise ValueError(f"native: BITLADDER_ISA must be one of {', '.join(there)} on this machine, got {chosen!r}; unset it")
    return chosen if chosen in there else "".join(there[:1])


def trim() -> None:
    """Give memory that is free back to the system, where the core is there and can."""
    if core:
        core.trim()
