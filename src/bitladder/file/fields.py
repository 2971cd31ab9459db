"""What the headers of a file may say: every map's keys, what a good value of each is, and what to call one in errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bitladder.errors import Malformed

Tree = dict[str, Any]

DTYPES = ("bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32", "float64")
MOST_ELEMENTS = 2**40
MOST_AXES = 32
INLINE = 32  # bytes of an array that are written in the header itself
LARGEST_FILE = 2**62
POLICIES = ("layer", "plane", "importance")


def damaged(where: str, must: str, got: Any) -> Malformed:
    shown = repr(got)
    return Malformed(f"load: {where} must be {must}, got {shown[:60]}{'...' if len(shown) > 60 else ''}; the file is damaged")


def is_text(x: Any) -> bool:
    return isinstance(x, str)


def is_count(x: Any) -> bool:
    return type(x) is int and 0 <= x <= MOST_ELEMENTS


def is_part(x: Any) -> bool:
    return isinstance(x, list) and len(x) == 3 and all(type(n) is int and 0 <= n <= LARGEST_FILE for n in x)


def are_parts(x: Any) -> bool:
    return isinstance(x, list) and all(map(is_part, x))


def is_row(x: Any) -> bool:
    pair = isinstance(x, list) and len(x) == 2 and all(type(n) is int for n in x)
    return pair and 0 <= x[0] <= LARGEST_FILE and 0 <= x[1] < 2**32


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
    return isinstance(x, list) and len(x) == 2 and all(v is None or type(v) in (int, float) for v in x)


def named(x: Any) -> bool:
    return isinstance(x, dict) and all(isinstance(v, dict) for v in x.values())


def plain_map(x: Any) -> bool:
    """Whether a value is a map without strings of bytes anywhere in it."""
    level = [x]
    while level:
        if any(isinstance(v, bytes) for v in level):
            return False
        level = [c for v in level if isinstance(v, list | dict) for c in (v.values() if isinstance(v, dict) else v)]
    return isinstance(x, dict)


def free_shape(x: Any) -> bool:
    return x is None or (isinstance(x, list) and all(is_text(n) or is_count(n) for n in x))


@dataclass(frozen=True)
class Field:
    """One key of a map: how to tell a good value, what to call one, and whether it may be absent."""

    good: Callable[[Any], bool]
    called: str
    optional: bool = False


ARRAY = {
    "dtype": Field(lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "shape": Field(are_counts, "a list of sizes"),
    "bytes": Field(lambda x: isinstance(x, bytes), "the bytes of an array", optional=True),
    "part": Field(is_part, "the segment, coding and length of a part", optional=True),
}
VERSION = {key: ARRAY[key] for key in ("bytes", "part")}
ENCODING = {
    "format": Field(is_text, "the text of a format"),
    "axes": Field(are_axes, f"a rising list of axes below {MOST_AXES}"),
    "params": Field(named, "arrays by name"),
}
ROOT = {
    "graph": Field(lambda x: isinstance(x, dict), "a map"),
    "encodings": Field(named, "encodings by name"),
    "meta": Field(plain_map, "a map without strings of bytes"),
    "order": Field(lambda x: isinstance(x, bytes), "a string of bytes"),
    "policy": Field(is_text, "text"),
    "global": Field(lambda x: isinstance(x, dict), "a map"),
}
SHARED = {key: replace(f, optional=True) for key, f in ENCODING.items()}
LAYER = {
    "name": Field(is_text, "text"),
    "op": Field(is_text, "text"),
    "tensors": Field(rows, "a list of maps"),
    "segments": Field(lambda x: isinstance(x, list) and all(map(is_row, x)), "a list of lengths and checksums"),
}
GRAPH = {
    "inputs": Field(rows, "a list of maps"),
    "outputs": Field(are_texts, "a list of names"),
    "nodes": Field(rows, "a list of maps"),
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
    "attrs": Field(plain_map, "a map without strings of bytes", optional=True),
    "clip": Field(limits, "two limits", optional=True),
}
KINDS: dict[str, dict[str, Field]] = {
    "array": ARRAY,
    "codes": {
        **SHARED,
        "shape": Field(are_counts, "a list of sizes"),
        "data": Field(are_parts, "a list of parts", optional=True),
        "planes": Field(lambda x: isinstance(x, list) and all(map(are_parts, x)), "a list of lists of parts", optional=True),
        "tile": Field(lambda x: is_count(x) and x > 0, "a number of rows", optional=True),
    },
    "widths": {
        "of": Field(is_text, "the name of a weight"),
        "bits": Field(lambda x: are_widths(x) and len(x) > 0, "one rising list of widths"),
        "dtype": ARRAY["dtype"],
        "shape": ARRAY["shape"],
        "versions": Field(rows, "a list of maps"),
    },
}
HEAD = {"name": Field(is_text, "text"), "kind": Field(lambda x: is_text(x) and x in KINDS, f"one of {', '.join(KINDS)}")}


def checked(x: Any, fields: Mapping[str, Field], where: str, newer: bool) -> Tree:
    """`x` with every field there and good; unknown keys are refused unless the file is newer than this reader."""
    if not isinstance(x, dict):
        raise damaged(where, "a map", x)
    for key, f in fields.items():
        if key not in x and not f.optional:
            raise damaged(where, f"a map with {key!r}", sorted(x))
        if key in x and not f.good(x[key]):
            raise damaged(f"{key!r} of {where}", f.called, x[key])
    if not newer and (extra := sorted(set(x) - set(fields))):
        raise damaged(where, f"a map of {', '.join(fields)}", extra)
    return x
