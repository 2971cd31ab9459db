"""What a number may be. `parse` turns the text of a format into the format; `str` turns it back."""

from __future__ import annotations

import re
from collections.abc import Callable

from bitladder.formats.codebook import Codebook
from bitladder.formats.log import Log
from bitladder.formats.nested import Nested
from bitladder.formats.product import Product
from bitladder.formats.tensor import Encoding, Format, QTensor, fit
from bitladder.formats.uniform import Fixed, Int, Ternary

__all__ = [
    "Codebook", "Encoding", "Fixed", "Format", "Int", "Log", "Nested", "Product", "QTensor", "Ternary", "fit", "parse",
]  # fmt: skip


def _per(tail: str | None) -> dict[str, object]:
    if tail is None:
        return {}
    return {"per": "tensor"} if tail == "tensor" else {"group": int(tail)}


GRAMMAR: list[tuple[str, Callable[..., Format]]] = [
    (r"(u?)int(\d+)(?:/(tensor|\d+))?", lambda u, b, t: Int(int(b), unsigned=bool(u), **_per(t))),  # type: ignore[arg-type]
    (r"(u?)fixed(\d+)(?:/(tensor))?", lambda u, b, t: Fixed(int(b), unsigned=bool(u), **_per(t))),  # type: ignore[arg-type]
    (r"(u?)q(-?\d+)\.(-?\d+)", lambda u, m, n: Fixed(int(m) + int(n) + (not u), fl=int(n), unsigned=bool(u))),
    (r"ternary(?:/(tensor))?", lambda t: Ternary(**_per(t))),  # type: ignore[arg-type]
    (r"nested(\d+)(?::(\w+))?(?:/(tensor))?", lambda b, s, t: Nested(int(b), s or "midrise", **_per(t))),  # type: ignore[arg-type]
    (
        r"codebook(\d+)(?::(\d+))?(?::(squares))?(?:/(tensor))?",
        lambda b, n, c, t: Codebook(int(b), n and int(n), cells=c or "entropy", **_per(t)),  # type: ignore[arg-type]
    ),
    (
        r"(u?)log(\d+)(?::(\d+))?(?:/(tensor))?",
        lambda u, b, o, t: Log(int(b), int(o or 1), unsigned=bool(u), **_per(t)),  # type: ignore[arg-type]
    ),
    (r"product(\d+)x(\d+)(?:/(tensor))?", lambda d, n, t: Product(int(d), int(n), **_per(t))),  # type: ignore[arg-type]
]


def parse(text: str) -> Format | None:
    """The format that prints as `text`; None for "float".

    >>> parse("int4/64"), parse("q2.5"), parse("nested8:tree"), parse("float")
    (Int(bits=4, per='channel', group=64, unsigned=False), Fixed(bits=8, per='channel', fl=5, unsigned=False, group=None), \
Nested(bits=8, scheme='tree', per='channel', group=None), None)
    """
    if text == "float":
        return None
    for pattern, make in GRAMMAR:
        if match := re.fullmatch(pattern, text.strip()):
            return make(*match.groups())
    known = (
        "int8, int8/tensor, int4/64, fixed8, fixed8/tensor, q2.5, ternary, nested8, nested8:tree, nested8:sign, codebook4, "
        "codebook4:11, log4, product8x256, float"
    )
    raise ValueError(f"format: must be written like one of {known}; got {text!r}")
