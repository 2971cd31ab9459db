"""Writes docs/operators.md from the table of operators; `python docs/make_operators.py`. A test holds the two together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitladder.ir.graph import WEIGHT_SLOTS
from bitladder.ir.ops import ATTENTION, ELEMENTWISE, INDEX, LINEAR, NORM, OPS, POOL, QUANT, RECURRENT, REDUCE, RESIZE, SHAPE
from bitladder.ptq.calibrate import MOVES
from bitladder.runtime.integer import RULES, lookup

PAGE = Path(__file__).with_name("operators.md")
SECTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "Linear": LINEAR,
    "Element by element": ELEMENTWISE,
    "Reductions": REDUCE,
    "Normalization": NORM,
    "Pooling": POOL,
    "Shape": SHAPE,
    "Indexing": INDEX,
    "Resizing": RESIZE,
    "Attention": ATTENTION,
    "Recurrent": RECURRENT,
    "Explicit quantization": QUANT,
}

# What functions say that are made by others, and so have no sentence of their own.
SAYS = {
    "relu": "x where positive, otherwise 0.",
    "softsign": "x / (1 + |x|).",
    "max": "The largest of one or more arrays, element by element.",
    "min": "The smallest of one or more arrays, element by element.",
    "identity": "x.",
    "reduce_sum": "The sum over axes.",
    "reduce_mean": "The mean over axes.",
    "reduce_prod": "The product over axes.",
    "reduce_max": "The maximum over axes.",
    "reduce_min": "The minimum over axes.",
    "reduce_l2": "The root of the sum of squares over axes.",
    "reduce_log_sum_exp": "The logarithm of the sum of exp(x) over axes, without overflow.",
    "arg_max": "Where the largest element of an axis is, the first of equals unless asked for the last.",
    "arg_min": "Where the smallest element of an axis is, the first of equals unless asked for the last.",
    "cum_sum": "Running sums along an axis.",
    "cum_prod": "Running products along an axis.",
    "global_avg_pool": "The mean of every channel over its spatial axes.",
    "global_max_pool": "The maximum of every channel over its spatial axes.",
    "transpose": "x with its axes in another order, backwards if none is given.",
    "concat": "Arrays one after the other along an axis.",
    "tile": "x repeated so many times along each axis.",
    "size": "The number of elements of x.",
    "non_zero": "The places of all elements that are not zero, a row for each axis.",
    "where": "The second input where the first holds, otherwise the third.",
}

HEAD = """# Operators

*Made from the table `bitladder.ir.ops.OPS` by `python docs/make_operators.py`; do not edit.*

A node of a graph is one of these {count} words. The numpy function behind a word is its definition; the torch table has
the same words, and a test holds the two together. A word is the ONNX operator of the newest opset in snake_case, with its
inputs in their order (`=` marks those that may be absent) and its attributes as plain values. What differs from ONNX:

- `linear`, `embedding` and `max_pool_indices` are ours;
- `pads` of convolutions, pools and `col2im` are (begin, end) for each spatial axis;
- types are numpy names; int4, uint4, int2 and uint2 live in arrays of 8 bits.

Importers write other operators with these words, so what can be imported is more than what is listed here.

How a word computes when its inputs are integers: *sums* means exact integer sums, and *table* a table of all codes, as
`docs/numerics.md` says; *moves* means that values pass through, so their codes do too; all others see reals. A *w*
marks operators whose second input (of `embedding` the first, of recurrent ones the second and third) counts as a weight and
can be quantized.
"""


def sentence(name: str, f: Callable[..., Any]) -> str:
    """One line on what an operator gives back."""
    if name in SAYS:
        return SAYS[name]
    if (f.__module__ or "").startswith("numpy"):
        return f"numpy's `{f.__name__}`."
    said = " ".join((inspect.getdoc(f) or "").split("\n\n")[0].split())
    assert said, f"operator {name} says nothing; give it a docstring, or a line in SAYS"
    return said


def words(name: str, f: Callable[..., Any]) -> tuple[str, str]:
    """The inputs and the attributes of an operator."""
    if isinstance(n := getattr(f, "nin", None), int):
        return ", ".join("xyz"[:n]), ""
    if (f.__module__ or "").startswith("numpy"):
        n = {"add": 2, "sub": 2, "mul": 2, "where": 3}.get(name, 1)
        return ", ".join(["condition", "x", "y"] if n == 3 else "xyz"[:n]), ""
    inputs, attrs = [], []
    for p in inspect.signature(f).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            attrs.append(f"`{p.name}`" if p.default is p.empty else f"`{p.name}={shown(p.default)}`")
        else:
            star = "*" if p.kind is p.VAR_POSITIONAL else ""
            inputs.append(f"{star}{p.name}{'' if p.default is p.empty else '='}")
    return ", ".join(inputs), ", ".join(attrs)


def shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def computes(name: str) -> str:
    """How an operator treats integers, and whether it has weights."""
    how = "moves" if name in MOVES else ""
    if name in RULES:
        how = "table" if RULES[name] is lookup else "sums"
    return " ".join(part for part in (how, "w" if name in WEIGHT_SLOTS else "") if part)


def page() -> str:
    """The whole page."""
    lines = [HEAD.format(count=len(OPS))]
    for title, table in SECTIONS.items():
        lines += [f"## {title}\n", "| word | inputs | attributes | what it gives | integers |", "|---|---|---|---|---|"]
        for name, f in table.items():
            inputs, attrs = words(name, f)
            cells = (f"`{name}`", inputs, attrs, sentence(name, f), computes(name))
            lines.append("| " + " | ".join(c.replace("|", "\\|").replace("*", "\\*") for c in cells) + " |")
        lines.append("")
    assert {name for table in SECTIONS.values() for name in table} == set(OPS), "a section is missing"
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
