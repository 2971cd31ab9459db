"""What the header of a file may say: every object's keys, what a good value of each is, and what to call one in errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bitladder.errors import Malformed
from bitladder.file.words import from_json

Json = dict[str, Any]

DTYPES = ("bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32", "float64")
MOST_ELEMENTS = 2**40
MOST_AXES = 32
INLINE = 32  # bytes of an array that are written in the header itself


def damaged(where: str, must: str, got: Any) -> Malformed:
    shown = repr(got)
    return Malformed(f"load: {where} must be {must}, got {shown[:60]}{'...' if len(shown) > 60 else ''}; the file is damaged")


def is_text(x: Any) -> bool:
    return isinstance(x, str)


def is_count(x: Any) -> bool:
    return type(x) is int and 0 <= x <= MOST_ELEMENTS


def is_hex(x: Any) -> bool:
    return isinstance(x, str) and len(x) <= 2 * INLINE and len(x) % 2 == 0 and set(x) <= set("0123456789abcdef")


def are_texts(x: Any) -> bool:
    return isinstance(x, list) and all(map(is_text, x))


def are_counts(x: Any) -> bool:
    return isinstance(x, list) and all(map(is_count, x))


def are_widths(x: Any) -> bool:
    return are_counts(x) and x == sorted(set(x)) and all(1 <= b <= 64 for b in x)


def are_axes(x: Any) -> bool:
    return are_counts(x) and x == sorted(set(x)) and all(a < MOST_AXES for a in x)


def rows(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(r, dict) for r in x)


def limits(x: Any) -> bool:
    pair = from_json(x) if isinstance(x, list) else None
    return isinstance(pair, tuple) and len(pair) == 2 and all(v is None or type(v) in (int, float) for v in pair)


def named(x: Any) -> bool:
    return isinstance(x, dict) and all(isinstance(v, dict) for v in x.values())


def mapping(x: Any) -> bool:
    return isinstance(x, dict) and set(x) != {"float"}


def free_shape(x: Any) -> bool:
    return x is None or (isinstance(x, list) and all(is_text(n) or is_count(n) for n in x))


@dataclass(frozen=True)
class Field:
    """One key of a header object: how to tell a good value, what to call one, and whether it may be absent."""

    good: Callable[[Any], bool]
    called: str
    optional: bool = False


ARRAY = {
    "dtype": Field(lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "shape": Field(are_counts, "a list of sizes"),
    "data": Field(is_count, "the number of a section", optional=True),
    "hex": Field(is_hex, f"the bytes of a small array, at most {INLINE}, as lower case text", optional=True),
}
ENCODING = {
    "format": Field(is_text, "the text of a format"),
    "axes": Field(are_axes, f"a rising list of axes below {MOST_AXES}"),
    "params": Field(named, "arrays by name"),
}
ROOT = {
    "graph": Field(lambda x: isinstance(x, dict), "an object"),
    "encodings": Field(named, "encodings by name"),
    "meta": Field(mapping, "an object"),
    "tensors": Field(rows, "a list of objects"),
    "sections": Field(lambda x: isinstance(x, list), "a list of rows"),
}
GRAPH = {
    "inputs": Field(rows, "a list of objects"),
    "outputs": Field(are_texts, "a list of names"),
    "nodes": Field(rows, "a list of objects"),
}
INPUT = {
    "name": Field(is_text, "text"),
    "dtype": Field(lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "shape": Field(free_shape, "a list of sizes and names, or null"),
}
NODE = {
    "op": Field(is_text, "text"),
    "inputs": Field(are_texts, "a list of names"),
    "outputs": Field(lambda x: are_texts(x) and len(x) > 0 and all(x), "a list of one name or more"),
    "attrs": Field(mapping, "an object", optional=True),
    "clip": Field(limits, "two limits", optional=True),
}
KINDS: dict[str, dict[str, Field]] = {
    "array": ARRAY,
    "codes": {
        **ENCODING,
        "shape": Field(are_counts, "a list of sizes"),
        "data": Field(is_count, "the number of a section", optional=True),
        "planes": Field(are_counts, "a list of numbers of sections", optional=True),
    },
    "widths": {
        "of": Field(is_text, "the name of a weight"),
        "bits": Field(lambda x: are_widths(x) and len(x) > 0, "one rising list of widths"),
        **ARRAY,
    },
}
HEAD = {"name": Field(is_text, "text"), "kind": Field(lambda x: is_text(x) and x in KINDS, f"one of {', '.join(KINDS)}")}


def checked(x: Any, fields: Mapping[str, Field], where: str, newer: bool) -> Json:
    """`x` with every field there and good; unknown keys are refused unless the file is newer than this reader."""
    if not isinstance(x, dict):
        raise damaged(where, "an object", x)
    for key, f in fields.items():
        if key not in x and not f.optional:
            raise damaged(where, f"an object with {key!r}", sorted(x))
        if key in x and not f.good(x[key]):
            raise damaged(f"{key!r} of {where}", f.called, x[key])
    if not newer and (extra := sorted(set(x) - set(fields))):
        raise damaged(where, f"an object of {', '.join(fields)}", extra)
    return x


def elements(shape: list[int], where: str) -> int:
    """The number of elements of a shape, refusing those that no memory holds."""
    product = 1
    for n in shape:
        product *= max(n, 1)
    if len(shape) > MOST_AXES or product > MOST_ELEMENTS:
        raise damaged(f"shape of {where}", f"at most {MOST_AXES} axes and {MOST_ELEMENTS} elements", shape)
    return product if all(shape) else 0
