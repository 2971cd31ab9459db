"""Plans: which value gets which format. A plan is a dict from patterns to formats; the last match wins.

Keys are shell patterns (or `re:` and a regular expression) over weight names; keys that begin with `a=` are patterns over
activation names. Values are formats, their text, or None for float. A text such as "fixed4,a=fixed8" is a plan too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from bitladder.convert.from_safetensors import plan_in
from bitladder.formats import Format, Int, parse

Plan = Mapping[str, "Format | str | None"]
ACTIVATIONS = "a="


def plan_of(spec: str | Format | Plan | None) -> dict[str, Format | None]:
    """A plan from whatever a user may write.

    >>> {k: str(v) for k, v in plan_of("nested8,a=fixed8").items()}
    {'*': 'nested8', 'a=*': 'fixed8'}
    """
    if spec is None:
        return {}
    if isinstance(spec, str) and spec.endswith(".safetensors"):
        return plan_of(plan_in(spec))
    if isinstance(spec, str):
        weights, *rest = (part.strip() for part in spec.split(","))
        out: dict[str, Format | None] = {"*": parse(weights)}
        for part in rest:
            if not part.startswith(ACTIVATIONS):
                raise ValueError(f"plan: {spec!r} must be written WEIGHTS[,a=ACTIVATIONS], got the part {part!r}")
            out["a=*"] = parse(part[len(ACTIVATIONS) :])
        return out
    if isinstance(spec, Mapping):
        return {key: parse(value) if isinstance(value, str) else value for key, value in spec.items()}
    return {"*": spec}


def matches(pattern: str, name: str) -> bool:
    """Whether a shell pattern or `re:` expression names a value, with or without its `.weight` ending."""
    names = (name, name.removesuffix(".weight"))
    if pattern.startswith("re:"):
        return any(re.fullmatch(pattern[3:], n) for n in names)
    return any(fnmatchcase(n, pattern) for n in names)


def resolve(plan: Mapping[str, Format | None], names: Iterable[str], *, activations: bool = False) -> dict[str, Format | None]:
    """The format of every name; names that no pattern matches are absent. A pattern that matches nothing is an error."""
    names = list(names)
    out: dict[str, Format | None] = {}
    for key, fmt in plan.items():
        if key.startswith(ACTIVATIONS) != activations:
            continue
        pattern = key.removeprefix(ACTIVATIONS) if activations else key
        hits = [n for n in names if matches(pattern, n)]
        if not hits and pattern != "*":
            kind = "activation" if activations else "weight"
            raise ValueError(
                f"plan: pattern {key!r} matches no {kind}; names are {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
            )
        out.update(dict.fromkeys(hits, fmt))
    return out


def activation_default() -> Format:
    """What activations are when a plan does not say."""
    return Int(8, per="tensor")
