"""What turns one tree into another, as a tree: what two headers share costs nothing (docs/file-format.md, Deltas).

An edit is null where nothing changes, a list of one value for what comes in the old one's place, or a map: of a map the keys
that are "gone", "new" (with their values) and "changed" (with edits); of a list of the same length its changed "items" (place,
edit, place, edit ...), of one of another length what stays at its "head" and "tail" and what comes "between".
"""

from __future__ import annotations

from typing import Any

from bitladder.file.words import bad


def same(a: Any, b: Any) -> bool:
    """Whether two trees are the same to the bit: 1 is not 1.0, 0.0 is not -0.0, but NaN is NaN.

    >>> same([1, float("nan")], [1, float("nan")]), same(1, 1.0), same(0.0, -0.0)
    (True, False, False)
    """
    return repr(a) == repr(b)


def edit(a: Any, b: Any) -> Any:
    """The edit that turns the tree `a` into `b`.

    >>> edit({"x": [1, 2, 3], "y": 1}, {"x": [1, 5, 3], "z": 2})
    {'gone': ['y'], 'new': {'z': 2}, 'changed': {'x': {'items': [1, [5]]}}}
    """
    if same(a, b):
        return None
    if isinstance(a, dict) and isinstance(b, dict):
        parts = {
            "gone": [k for k in a if k not in b],
            "new": {k: v for k, v in b.items() if k not in a},
            "changed": {k: e for k, v in b.items() if k in a and (e := edit(a[k], v)) is not None},
        }
        return {k: v for k, v in parts.items() if v}
    if isinstance(a, list) and isinstance(b, list):
        if len(a) == len(b):
            return {"items": [x for k in range(len(a)) if (e := edit(a[k], b[k])) is not None for x in (k, e)]}
        short = min(len(a), len(b))
        head = next((k for k in range(short) if not same(a[k], b[k])), short)
        tail = next((k for k in range(short - head) if not same(a[-1 - k], b[-1 - k])), short - head)
        return {"head": head, "tail": tail, "between": b[head : len(b) - tail]}
    return [b]


def edited(a: Any, e: Any) -> Any:
    """The tree that the edit `e` makes of `a`.

    >>> edited([1, 2, 3], {"head": 1, "tail": 1, "between": [7, 8]})
    [1, 7, 8, 3]
    """
    if e is None:
        return a
    if isinstance(e, list) and len(e) == 1:
        return e[0]
    if isinstance(a, dict) and isinstance(e, dict) and set(e) <= {"gone", "new", "changed"}:
        changed, new, gone = e.get("changed", {}), e.get("new", {}), e.get("gone", [])
        if set(changed) <= set(a) and set(gone) <= set(a) and not set(new) & set(a):
            kept = {k: edited(v, changed.get(k)) for k, v in a.items() if k not in gone}
            return {k: v for k, v in sorted((kept | new).items())}
    if isinstance(a, list) and isinstance(e, dict) and set(e) == {"items"}:
        out, items = list(a), e["items"]
        for k, change in zip(items[::2], items[1::2], strict=True):
            out[k] = edited(a[k], change)
        return out
    if isinstance(a, list) and isinstance(e, dict) and set(e) == {"head", "tail", "between"}:
        head, tail = e["head"], e["tail"]
        if min(head, tail) >= 0 and head + tail <= len(a):
            return [*a[:head], *e["between"], *a[len(a) - tail :]]
    raise bad("an edit does not fit what it edits")
