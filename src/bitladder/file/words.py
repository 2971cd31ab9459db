"""Python values as JSON and back, so that what a node or a network says survives exactly.

JSON has no infinity, no NaN and no tuples. Numbers that are not finite are written {"float": "inf"}, {"float": "-inf"} or
{"float": "nan"}. Arrays are tuples in the attributes of nodes and lists in metadata. A number with a point or an exponent
is a float, any other an integer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitladder.errors import Malformed

ODD = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
DEEPEST = 32
LARGEST = 2**63


def to_json(value: Any, where: str) -> Any:
    """`value` in plain JSON; numpy scalars and small arrays become numbers and lists; `where` names it in errors.

    >>> to_json((1, float("-inf"), np.float32(0.5)), "node 'y'")
    [1, {'float': '-inf'}, 0.5]
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if not -LARGEST <= value < LARGEST:
            raise ValueError(f"save: {where} holds {value}, must fit in 64 bits")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, tuple | list):
        return [to_json(v, where) for v in value]
    if isinstance(value, Mapping):
        if bad := [k for k in value if not isinstance(k, str)]:
            raise ValueError(f"save: {where} holds a mapping with the key {bad[0]!r}, keys must be text")
        if set(value) == {"float"}:
            raise ValueError(
                f"save: {where} holds a mapping with the only key 'float', which files need for themselves; rename it"
            )
        return {k: to_json(v, where) for k, v in value.items()}
    raise ValueError(f"save: {where} holds a {type(value).__name__}, must be numbers, text, lists and mappings")


def from_json(value: Any, array: Callable[[list[Any]], Any] = tuple) -> Any:
    """What `to_json` was given; `array` says what arrays become.

    >>> from_json([1, {"float": "-inf"}, [0.5]])
    (1, -inf, (0.5,))
    """
    if isinstance(value, list):
        return array([from_json(v, array) for v in value])
    if isinstance(value, dict):
        if set(value) == {"float"}:
            if not isinstance(value["float"], str) or value["float"] not in ODD:
                raise Malformed(f"load: a float must be inf, -inf or nan, got {value['float']!r}; the file is damaged")
            return ODD[value["float"]]
        return {k: from_json(v, array) for k, v in value.items()}
    return value


def dumps(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def loads(text: bytes) -> Any:
    """The JSON value of `text`; anything that JSON does not define, or that hides something, is `Malformed`."""
    try:
        value = json.loads(
            text.decode("ascii"), object_pairs_hook=once, parse_constant=refuse, parse_int=whole, parse_float=real
        )
    except RecursionError:
        raise Malformed("load: the header is nested too deeply; the file is damaged") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"load: the header is not JSON ({error}); the file is damaged") from None
    if depth(value) > DEEPEST:
        raise Malformed(f"load: the header is nested more than {DEEPEST} deep; the file is damaged")
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise Malformed("load: the header has a key twice; the file is damaged")
    return out


def refuse(text: str) -> Any:
    raise Malformed(f"load: the header holds {text}, which is not JSON; the file is damaged")


def whole(text: str) -> int:
    if len(text) > 20 or not -LARGEST <= int(text) < LARGEST:
        raise Malformed(f"load: the header holds the number {text[:24]}, must fit in 64 bits; the file is damaged")
    return int(text)


def real(text: str) -> float:
    if math.isinf(value := float(text)):
        raise Malformed(f"load: the header holds the number {text[:24]}, must be one that a float holds; the file is damaged")
    return value


def depth(value: Any) -> int:
    """How deep arrays and objects are nested, counted without recursion."""
    level, deepest = [value], 0
    while level:
        level = [v for x in level if isinstance(x, dict | list) for v in (x.values() if isinstance(x, dict) else x)]
        deepest += 1
    return deepest
