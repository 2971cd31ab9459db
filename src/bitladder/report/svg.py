"""Plots as text: scales, ticks, and the few marks that the report draws with, each a piece of SVG.

Colours are classes, so that the page's style sheet gives them for light and dark. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

GLYPH = 6.2  # the width of a letter in labels, in units of the drawing


@dataclass(frozen=True)
class Scale:
    """A map from values in `domain` to positions in `extent`; `log` for ratios.

    >>> Scale((0, 10), (100, 0))(2.5), Scale((1, 100), (0, 10), log=True)(10)
    (75.0, 5.0)
    """

    domain: tuple[float, float]
    extent: tuple[float, float]
    log: bool = False

    def __call__(self, value: float) -> float:
        bend = math.log10 if self.log else float
        low, high = bend(self.domain[0]), bend(self.domain[1])
        share = (bend(value) - low) / (high - low) if high != low else 0.5
        return self.extent[0] + share * (self.extent[1] - self.extent[0])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, spaced by 1, 2 or 5 times a power of ten.

    >>> ticks(0, 8.7), ticks(0.87, 0.884, 3)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.87, 0.875, 0.88, 0.885])
    """
    if not high > low:
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(k * step, digits) + 0.0 for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`, every so many where they are many.

    >>> log_ticks(0.02, 3)
    [0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    stride = max(1, math.ceil((last - first) / 6))
    return [float(f"1e{k}") for k in range(first, max(last, first + 1) + stride, stride)]


def linear(values: Iterable[float], extent: tuple[float, float], about: int = 5) -> tuple[Scale, list[float]]:
    """A scale that covers `values` with round ends, and its ticks."""
    values = list(values)
    marks = ticks(min(values), max(values), about)
    return Scale((marks[0], marks[-1]), extent), marks


def logarithmic(values: Iterable[float], extent: tuple[float, float]) -> tuple[Scale, list[float]]:
    """A logarithmic scale that covers positive `values` with powers of ten at its ends, and its ticks."""
    values = list(values)
    marks = log_ticks(min(values), max(values))
    return Scale((marks[0], marks[-1]), extent, log=True), marks


# ------------------------------------------------------------------------------------------------------------- marks


def num(x: Any) -> str:
    """An attribute's value, floats to a tenth of a unit.

    >>> num(3.0), num(2.345), num(-0.01), num("a")
    ('3', '2.3', '0', 'a')
    """
    return f"{round(x, 1) + 0.0:.1f}".removesuffix(".0") if isinstance(x, float) else str(x)


def tag(name: str, *inside: str, **attributes: Any) -> str:
    """One element; `_` in an attribute's name is `-`, a trailing one is dropped (class_), None leaves the attribute out.

    >>> tag("rect", width=2.0, class_="bar", fill=None)
    '<rect width="2" class="bar"/>'
    """
    pairs = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    opening = name + "".join(f' {k}="{escape(num(v))}"' for k, v in pairs)
    return f"<{opening}>{''.join(inside)}</{name}>" if inside else f"<{opening}/>"


def text(
    x: float, y: float, words: str, *, anchor: str | None = None, turn: float | None = None, class_: str | None = None
) -> str:
    """Words at a place; `anchor` is middle or end, `turn` degrees about the place."""
    about = None if turn is None else f"rotate({num(turn)} {num(x)} {num(y)})"
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, transform=about, class_=class_)


def hint(words: str) -> str:
    """What a pointer resting on the surrounding element shows."""
    return tag("title", escape(words))


def short(words: str, letters: int = 24) -> str:
    """Words cut in the middle to so many letters: beginnings and ends of names tell layers apart.

    >>> short("encoder.layer.11.attention.self.query", 16)
    'encoder.\\u2026f.query'
    """
    if len(words) <= letters:
        return words
    half = letters // 2
    return f"{words[:half]}\u2026{words[len(words) - (letters - half - 1) :]}"


def bar(x: float, y: float, width: float, height: float, *, class_: str, said: str = "") -> str:
    """A rectangle, with a hint."""
    return tag("rect", *([hint(said)] if said else []), x=x, y=y, width=width, height=max(height, 0.0), class_=class_)


def dot(x: float, y: float, *, class_: str, said: str = "", r: float = 4.5) -> str:
    """A disc, with a hint."""
    return tag("circle", *([hint(said)] if said else []), cx=x, cy=y, r=r, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Straight lines through points."""
    return tag("polyline", points=" ".join(f"{num(float(x))},{num(float(y))}" for x, y in points), class_=class_)


def rule(x1: float, y1: float, x2: float, y2: float, class_: str = "grid") -> str:
    """One straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def skyline(heights: Sequence[float], x: float, base: float, width: float, class_: str = "sky") -> str:
    """Bars side by side without gaps as one closed path, in relative moves: a histogram of 255 levels in 2 kB.

    >>> skyline([1, 3], 0, 10, 4)
    '<path d="M0 10v-1h2v-2h2v3z" class="sky"/>'
    """
    each, at, moves = width / max(len(heights), 1), 0.0, []
    for height, run in runs([round(float(h), 1) for h in heights]):
        moves.append((f"v{num(at - height)}" if height != at else "") + f"h{f'{each * run:.2f}'.rstrip('0').rstrip('.')}")
        at = height
    return tag("path", d=f"M{num(x)} {num(base)}{''.join(moves)}v{num(at)}z", class_=class_)


def runs(values: Iterable[float]) -> list[tuple[float, int]]:
    """Values with the number of times each stands in a row."""
    return [(value, len(list(same))) for value, same in groupby(values)]


# -------------------------------------------------------------------------------------------------------------- axes


def left_axis(
    scale: Scale, marks: Iterable[float], x1: float, x2: float, label: Callable[[float], str], title: str = ""
) -> str:
    """Horizontal grid lines from x1 to x2, each labelled on the left, and the axis' title above them."""
    lines = [
        rule(x1, scale(v), x2, scale(v)) + text(x1 - 6, scale(v) + 4, label(v), anchor="end", class_="tick") for v in marks
    ]
    return "".join(lines) + (text(2, min(scale.extent) - 14, title, class_="axis") if title else "")


def bottom_axis(scale: Scale, marks: Iterable[float], y: float, label: Callable[[float], str], title: str = "") -> str:
    """Labels under y, and the axis' title under those."""
    middle = sum(scale.extent) / 2
    out = "".join(text(scale(v), y + 16, label(v), anchor="middle", class_="tick") for v in marks)
    return out + (text(middle, y + 34, title, anchor="middle", class_="axis") if title else "")


def slanted(names: Sequence[str], centres: Sequence[float], y: float) -> str:
    """Names under y, turned so that a dozen units apart is enough."""
    return "".join(
        tag("g", hint(name), text(x + 4, y + 10, short(name), anchor="end", turn=-60, class_="tick"))
        for name, x in zip(names, centres, strict=True)
    )


def slant_room(names: Iterable[str]) -> float:
    """The height that `slanted` names need."""
    return 16 + 0.87 * GLYPH * max((len(short(n)) for n in names), default=0)


def figure(name: str, width: float, height: float, title: str, about: str, *parts: str, class_: str | None = None) -> str:
    """A drawing with a title and a description for those who cannot see it; `name` is unique on the page."""
    return tag(
        "svg",
        tag("title", escape(title), id=f"{name}-t"),
        tag("desc", escape(about), id=f"{name}-d"),
        *parts,
        viewBox=f"0 0 {num(float(width))} {num(float(height))}",
        width=float(width),
        height=float(height),
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_=class_,
    )
