"""The report's drawings: each takes rows of `facts` and gives back one SVG as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bitladder.report.facts import Layer, Levels, Ranked, Result, Width
from bitladder.report.svg import (
    Scale,
    bar,
    bottom_axis,
    dot,
    figure,
    left_axis,
    linear,
    logarithmic,
    path,
    rule,
    skyline,
    slant_room,
    slanted,
    text,
    ticks,
)

WIDE, HALF = 960.0, 470.0  # widths of a whole and of half a row
LEFT, RIGHT, TOP = 58.0, 12.0, 34.0  # room for labels around the plot
NARROWEST = 13.0  # the least room for one layer
SHADES = ((3, "s1"), (4, "s2"), (6, "s3"), (8, "s4"), (16, "s5"))  # bits at most, and their colour


# ----------------------------------------------------------------------------------------------------------- words


def size(nbytes: float) -> str:
    """Bytes for people.

    >>> size(980), size(13_500), size(1_080_000)
    ('980 B', '13.5 kB', '1.08 MB')
    """
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= worth:
            return f"{nbytes / worth:.3g} {unit}"
    return f"{nbytes:.0f} B"


def score(value: float | None, fraction: bool) -> str:
    """A score: per cent where it is a share.

    >>> score(0.8772, True), score(0.8772, False), score(None, True)
    ('87.72 %', '0.8772', '-')
    """
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if fraction else f"{value:.4g}"


def drop(value: float, fraction: bool) -> str:
    """A loss of score: points where scores are shares, and a sign that shows a gain.

    >>> drop(0.0053, True), drop(-0.002, True), drop(0.01, True), drop(0.01, False)
    ('0.53 points', '-0.2 points', '1 point', '0.01')
    """
    points = round(100 * value, 2)
    return f"{points:g} point{'s' * (points != 1)}" if fraction else f"{value:.4g}"


def step(levels: Levels) -> str:
    """What one integer is worth, over the channels."""
    low, high = levels.step
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def shade(bits: int | float) -> str:
    """The colour class of a width."""
    return next((name for most, name in SHADES if bits <= most), "s6")


def slots(count: int) -> tuple[float, Callable[[int], float], float]:
    """The width of a drawing for so many layers, where the middle of each lies, and how wide one is."""
    each = max(NARROWEST, (WIDE - LEFT - RIGHT) / max(count, 1))
    each = min(each, 60.0)
    return LEFT + RIGHT + each * count, lambda i: LEFT + each * (i + 0.5), each


# ---------------------------------------------------------------------------------------------------------- layers


def bits_by_layer(layers: Sequence[Layer]) -> str:
    """Bits of each layer above its stored bytes, in network order."""
    width, centre, each = slots(len(layers))
    names = [layer.name for layer in layers]
    upper, lower, thick = (TOP, 190.0), (232.0, 316.0), each * 0.74
    bits, marks = Scale((0, 8), (upper[1], upper[0])), [0.0, 2.0, 4.0, 6.0, 8.0]
    if any(layer.bits > 8 for layer in layers):
        bits, marks = linear([0, *(float(layer.bits) for layer in layers)], (upper[1], upper[0]))
    most = max((layer.nbytes for layer in layers), default=1)
    unit, worth = next(((u, w) for u, w in (("MB", 1e6), ("kB", 1e3)) if most >= w), ("bytes", 1.0))
    bytes_, byte_marks = linear([0, most / worth], (lower[1], lower[0]), 3)
    bars = "".join(
        bar(centre(i) - thick / 2, bits(row.bits), thick, upper[1] - bits(row.bits), class_=shade(row.bits), said=said(row))
        + bar(
            centre(i) - thick / 2,
            bytes_(row.nbytes / worth),
            thick,
            lower[1] - bytes_(row.nbytes / worth),
            class_="soft",
            said=said(row),
        )
        for i, row in enumerate(layers)
    )
    return figure(
        "bits",
        width,
        lower[1] + slant_room(names) + 6,
        "Bits and bytes of every layer, in network order",
        "; ".join(f"{row.name} {row.bits} bits" for row in layers),
        left_axis(bits, marks, LEFT, width - RIGHT, "{:g}".format, "bits per weight"),
        left_axis(bytes_, byte_marks, LEFT, width - RIGHT, "{:g}".format, unit),
        bars,
        slanted(names, [centre(i) for i in range(len(names))], lower[1]),
    )


def said(row: Layer) -> str:
    """One layer in a line."""
    shape = " x ".join(map(str, row.shape))
    return (
        f"{row.name}: {row.format}, {row.bits} bits, {shape} = {row.elements:,} weights, {size(row.nbytes)}, {row.arithmetic}"
    )


def ends_by_layer(layers: Sequence[Layer]) -> str:
    """Share of codes on the lowest and on the highest level of each layer."""
    width, centre, each = slots(len(layers))
    names, thick = [layer.name for layer in layers], each * 0.74
    top = max((100 * (row.levels.low_end + row.levels.high_end) for row in layers if row.levels), default=1.0)
    share, marks = linear([0, max(top, 0.1)], (190.0, TOP), 4)

    def pair(i: int, row: Layer) -> str:
        if row.levels is None:
            return text(centre(i), 186, "-", anchor="middle", class_="tick")
        low, high = share(100 * row.levels.low_end), share(100 * (row.levels.low_end + row.levels.high_end))
        ends = f"{row.levels.low_end:.2%} of codes at the lowest level, {row.levels.high_end:.2%} at the highest"
        about = f"{row.name} ({row.format}): {ends}"
        left = centre(i) - thick / 2
        return bar(left, low, thick, 190 - low, class_="s3", said=about) + bar(
            left, high, thick, low - high, class_="s2", said=about
        )

    return figure(
        "ends",
        width,
        190 + slant_room(names) + 6,
        "Share of codes at the ends of their span, per layer",
        "; ".join(f"{row.name} {row.levels.low_end + row.levels.high_end:.2%}" for row in layers if row.levels),
        left_axis(share, marks, LEFT, width - RIGHT, "{:g}".format, "% of codes"),
        *(pair(i, row) for i, row in enumerate(layers)),
        slanted(names, [centre(i) for i in range(len(names))], 190),
    )


# ---------------------------------------------------------------------------------------------------------- search


def ranking(rows: Sequence[Ranked], statistic: str, low: str, high: str) -> str:
    """The statistic of every layer in ranking order on a logarithmic scale; layers at low precision filled."""
    width, centre, _ = slots(len(rows))
    names = [row.name for row in rows]
    known = [row.value for row in rows if row.value is not None]
    positive = [v for v in known if v > 0]
    floor = 250.0
    log = len(positive) == len(known) or min(known) == 0
    if positive and log:
        scale, marks = logarithmic(positive, (floor - 14, TOP))
        label: Callable[[float], str] = "{:.0e}".format
    else:
        scale, marks = linear(known or [0.0], (floor - 14, TOP))
        label = "{:.3g}".format

    def mark(i: int, row: Ranked) -> str:
        where = row.value if row.value is not None and (row.value > 0 or not scale.log) else None
        state = f"{low}, chosen" if row.chosen else high
        value = "not measured" if row.value is None else f"{row.value:.4g}"
        about = f"{i + 1}. {row.name}: {value}, {state}" + (f", {row.note}" if row.note else "")
        y = floor - 6 if where is None else scale(where)
        stem = rule(centre(i), floor - 4, centre(i), y, "stem-on" if row.chosen else "stem")
        return stem + dot(centre(i), y, class_="on" if row.chosen else "off", said=about)

    return figure(
        "ranking",
        width,
        floor + slant_room(names) + 6,
        f"Layers in the order of their {statistic or 'statistic'}",
        "; ".join(
            f"{r.name} {'none' if r.value is None else format(r.value, '.3g')}{' chosen' if r.chosen else ''}" for r in rows
        ),
        left_axis(
            scale, marks, LEFT, width - RIGHT, label, (statistic or "statistic") + (", logarithmic" if scale.log else "")
        ),
        *(mark(i, row) for i, row in enumerate(rows)),
        slanted(names, [centre(i) for i in range(len(names))], floor),
    )


def trace(result: Result) -> str:
    """Loss against the number of low-precision layers, with the loss that was allowed."""
    times = 100.0 if result.fraction else 1.0
    unit = "points" if result.fraction else result.metric
    points = [(k, loss * times) for k, loss in result.trace]
    allowed = None if result.max_drop is None else result.max_drop * times
    floor, right = 300.0, WIDE - RIGHT
    most = max(len(result.ranking), *(k for k, _ in points), 1)
    losses = [loss for _, loss in points] + [0.0] + ([] if allowed is None else [allowed])
    y, marks = linear([min(losses), max(losses)], (floor, TOP))
    x = Scale((0, most), (LEFT + 16, right - 16))
    ordered = sorted(dict(points).items())
    best = result.chosen if result.ranking else None

    def mark(turn: int, k: int, loss: float) -> str:
        about = f"evaluation {turn}: {k} layers at {result.low}, loss {loss:.2f} {unit}"
        inside = allowed is None or loss <= allowed
        return dot(x(k), y(loss), class_="on" if inside else "bad", said=about, r=5.5) + (
            dot(x(k), y(loss), class_="ring", r=9.5) if k == best else ""
        )

    limit = (
        ""
        if allowed is None
        else rule(LEFT, y(allowed), right, y(allowed), "limit")
        + text(right, y(allowed) - 6, f"allowed {allowed:g} {unit}", anchor="end", class_="limit-word")
    )
    whole = [v for v in ticks(0, most, 10) if v <= most and v == int(v)]
    return figure(
        "trace",
        WIDE,
        floor + 44,
        f"Loss against the number of layers at {result.low}",
        "; ".join(f"{k} layers: {loss:.2f} {unit}" for k, loss in ordered),
        left_axis(y, marks, LEFT, right, "{:g}".format, f"loss in {unit}, against the float network"),
        bottom_axis(x, whole, floor, "{:g}".format, f"layers at {result.low}"),
        limit,
        path([(x(k), y(loss)) for k, loss in ordered], "line"),
        *(mark(turn, k, loss) for turn, (k, loss) in enumerate(points, 1)),
    )


# ---------------------------------------------------------------------------------------------------------- widths


def width_slots(rows: Sequence[Width]) -> tuple[Scale, list[float]]:
    """A scale over the widths of a file, narrow to wide, and its marks."""
    bits = sorted(row.bits for row in rows)
    return Scale((bits[0] - 0.6, bits[-1] + 0.6), (LEFT, HALF - RIGHT)), [float(b) for b in bits]


def score_by_width(rows: Sequence[Width], result: Result) -> str:
    """The score at every width, with that of the float network."""
    x, widths = width_slots(rows)
    times = 100.0 if result.fraction else 1.0
    known = sorted((row.bits, row.score * times) for row in rows if row.score is not None)
    whole = None if result.float_score is None else result.float_score * times
    y, marks = linear([s for _, s in known] + ([] if whole is None else [whole]), (220.0, TOP))
    line = (
        ""
        if whole is None
        else rule(LEFT, y(whole), HALF - RIGHT, y(whole), "limit-soft")
        + text(LEFT + 4, y(whole) + 14, f"float {whole:.4g}", class_="tick")
    )
    return figure(
        "scores",
        HALF,
        264,
        f"{result.metric} at every width",
        "; ".join(f"{bits} bits {s:.4g}" for bits, s in known),
        left_axis(y, marks, LEFT, HALF - RIGHT, "{:g}".format, result.metric + (", %" if result.fraction else "")),
        bottom_axis(x, widths, 220, "{:g}".format, "bits"),
        line,
        path([(x(bits), y(s)) for bits, s in known], "line"),
        *(dot(x(bits), y(s), class_="on", said=f"{bits} bits: {s:.4g}") for bits, s in known),
    )


def bytes_by_width(rows: Sequence[Width]) -> str:
    """The bytes read at every width."""
    x, widths = width_slots(rows)
    known = sorted((row.bits, row.nbytes) for row in rows if row.nbytes is not None)
    most = max(n for _, n in known)
    unit, worth = next(((u, w) for u, w in (("MB", 1e6), ("kB", 1e3)) if most >= w), ("bytes", 1.0))
    y, marks = linear([0, most / worth], (220.0, TOP), 4)
    thick = min(0.7 * (x(1) - x(0)), 44.0)
    return figure(
        "sizes",
        HALF,
        264,
        "Bytes read at every width",
        "; ".join(f"{bits} bits {n:,} bytes" for bits, n in known),
        left_axis(y, marks, LEFT, HALF - RIGHT, "{:g}".format, f"{unit} read"),
        bottom_axis(x, widths, 220, "{:g}".format, "bits"),
        *(
            bar(
                x(bits) - thick / 2, y(n / worth), thick, 220 - y(n / worth), class_=shade(bits), said=f"{bits} bits: {size(n)}"
            )
            for bits, n in known
        ),
    )


# ------------------------------------------------------------------------------------------------------ histograms


def histogram(index: int, row: Layer) -> str:
    """Counts per integer of one layer's grid, as a small drawing."""
    assert row.levels is not None
    counts = row.levels.counts
    width, base, top = 220.0, 84.0, 8.0
    most = max(int(counts.max()), 1)
    heights = [(base - top) * math.sqrt(c / most) if c else 0.0 for c in counts.tolist()]
    return figure(
        f"h{index}",
        width,
        104,
        f"Weights of {row.name} on their grid",
        f"{row.levels.used} of {len(counts)} levels used, step {step(row.levels)}",
        skyline(heights, 6, base, width - 12, "sky " + shade(row.bits)),
        rule(6, base, width - 6, base, "base"),
        text(6, 99, str(row.levels.first), class_="tick"),
        text(width / 2, 99, str((row.levels.first + row.levels.last) // 2), anchor="middle", class_="tick"),
        text(width - 6, 99, str(row.levels.last), anchor="end", class_="tick"),
    )
