"""The report of a saved network: one self-contained HTML page, drawn from its weights, its meta and the sizes in its file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from bitladder import file
from bitladder.assign.sensitivity import Table, short
from bitladder.disk import replacing
from bitladder.errors import require
from bitladder.ir.graph import Graph
from bitladder.report import facts, figures
from bitladder.report.acceptance import Acceptance
from bitladder.report.facts import Layer, Result, Width
from bitladder.report.figures import drop, score, shade, size

__all__ = ["page", "write"]

COLUMNS = (
    ("#", "n"), ("Layer", ""), ("Operator", ""), ("Shape", ""), ("Format", ""), ("Bits", "n"), ("Bytes", "n"),
    ("Bits stored", "n"), ("Arithmetic", ""), ("Note", ""),
)  # fmt: skip
SHADES = (("s1", "up to 3 bits"), ("s2", "4"), ("s3", "5 to 6"), ("s4", "7 to 8"), ("s5", "9 to 16"), ("s6", "float"))


class Saved(Protocol):
    """What a report needs of a model: the graph it runs."""

    @property
    def graph(self) -> Graph: ...


def write(
    model: Saved,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    place: str | os.PathLike[str] | None = None,
    table: Table | None = None,
) -> Path:
    """The path of a page that shows `model`, written whole or not at all.

    name: what the network is called, by default what its meta says, else the name of the file. place: the file that holds the
    model, of which bytes are told as they are stored; without it they are those of packed codes. table: a sensitivity table,
    which the page solves for other budgets.
    """
    words = page(model.graph, name or facts.words(model.graph.meta.get("name"), Path(path).stem), place, table)
    with replacing(path) as f:
        f.write(words.encode())
    return Path(path)


def page(graph: Graph, name: str = "network", place: str | os.PathLike[str] | None = None, table: Table | None = None) -> str:
    """The page as text; parts that the graph's meta does not hold say so in a line."""
    jinja = require("jinja2", "report", "report")
    safe = require("markupsafe", "report", "report").Markup
    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shade": shade, "size": size}
    template = environment.from_string((resources.files(__package__) / "page.html.j2").read_text("utf-8"))
    outcome, widths = facts.result(graph.meta), facts.widths(graph.meta)
    stored, reads = ({}, {}) if place is None else file.sizes(place)
    rows = facts.layers(graph, outcome.ranking, stored)
    widths = [replace(w, nbytes=reads.get(w.bits, w.nbytes)) for w in widths]
    as_stored = "packed, before coding" if place is None else "as stored, coded"
    drawn = {key: safe(svg) for key, svg in drawings(rows, outcome, widths).items()}
    judged = Acceptance.of(graph.meta, outcome.fraction)
    shown = [(i, row, row.levels) for i, row in enumerate(rows) if row.levels is not None]
    return template.render(
        name=name,
        verdict=verdict(outcome),
        tiles=tiles(graph, rows, outcome, as_stored),
        as_stored=as_stored,
        judged=judged,
        judged_svg="" if judged is None else safe(judged.drawing()),
        layers=rows,
        columns=COLUMNS,
        shades=[(s, label) for s, label in SHADES if any(shade(row.bits) == s for row in rows)],
        result=outcome,
        ranking_words=ranking_words(outcome),
        trace_words=trace_words(outcome),
        trace_caption=trace_caption(outcome),
        histograms=[(row, grid_words(row), safe(figures.histogram(i, row))) for i, row, _ in shown],
        notes=outcome.notes,
        table=table,
        table_words="" if table is None else table_words(table),
        table_json="" if table is None else safe(embedded(table)),
        budget_js=safe((resources.files(__package__) / "budget.js").read_text("utf-8")),
        **drawn,
    )


def embedded(table: Table) -> str:
    """What the page needs of a table, as JSON that ends no element."""
    said: dict[str, Any] = {
        "layers": [asdict(layer) for layer in table.layers],
        "bytes": table.bytes,
        "milliseconds": table.milliseconds,
        "base": table.base,
    }
    curve = [] if table.scores is None else table.scores.curve()
    fraction = table.scores is not None and any(word in table.scores.metric for word in facts.FRACTIONS)
    said |= {"pairs": table.pairs, "curve": curve, "fraction": fraction}
    return json.dumps(short(said), separators=(",", ":")).replace("<", "\\u003c")


def table_words(table: Table) -> str:
    """What a table rests on, in a sentence."""
    scored = "" if table.scores is None else f" {len(table.scores.points)} plans were scored to tell what a loss costs."
    return f"Losses of {len(table.layers)} layers by {table.criterion} on {table.samples} samples, intervals of 95 %.{scored}"


def drawings(rows: Sequence[Layer], outcome: Result, widths: Sequence[Width]) -> dict[str, str]:
    """The drawings there is something to draw for."""
    plans: dict[str, tuple[Any, Callable[[], str]]] = {
        "bits": (rows, lambda: figures.bits_by_layer(rows)),
        "ends": (any(row.levels for row in rows), lambda: figures.ends_by_layer(rows)),
        "ranking": (
            any(r.value is not None for r in outcome.ranking),
            lambda: figures.ranking(outcome.ranking, outcome.statistic, outcome.low, outcome.high),
        ),
        "trace": (outcome.trace, lambda: figures.trace(outcome)),
        "scores": (any(w.score is not None for w in widths), lambda: figures.score_by_width(widths, outcome)),
        "sizes": (any(w.nbytes is not None for w in widths), lambda: figures.bytes_by_width(widths)),
    }
    return {key: draw() for key, (there, draw) in plans.items() if there}


# ------------------------------------------------------------------------------------------------------------ words


def verdict(outcome: Result) -> dict[str, str] | None:
    """Whether the goal was met, in a word and in a line; None where no goal was set."""
    if outcome.goal_met is None:
        return None
    long = ""
    if outcome.score is not None and outcome.float_score is not None:
        loss = drop(outcome.float_score - outcome.score, outcome.fraction)
        long = f"A loss of {loss} of {outcome.metric} against the float network"
        long += f"; {drop(outcome.max_drop, outcome.fraction)} allowed." if outcome.max_drop is not None else "."
    return (
        {"kind": "met", "short": "Goal met", "long": long}
        if outcome.goal_met
        else {"kind": "missed", "short": "Goal missed", "long": long}
    )


def tiles(graph: Graph, rows: Sequence[Layer], outcome: Result, as_stored: str) -> list[dict[str, Any]]:
    """The headline figures, each a label, a value and lines under it."""
    stored, whole = sum(r.nbytes for r in rows), sum(4 * r.elements for r in rows)
    coded = [r for r in rows if r.levels is not None]
    integer = sum(r.arithmetic == "integer" for r in rows)
    each = 8 * stored / max(sum(r.elements for r in rows), 1)
    out = [accuracy_tile(outcome)] if outcome.score is not None else []
    if rows:
        smaller = f", {whole / stored:.1f} times smaller" if stored < whole else ""
        elements = f"{sum(r.elements for r in rows):,} weights"
        figures_of = {
            "Weights": (size(stored), [f"float32: {size(whole)}{smaller}", f"{as_stored}: {each:.3g} bits a weight"]),
            "Average bits": (f"{facts.average_bits(rows):.2f}", [bits_words(rows), elements]),
            "Layers in integers": (f"{integer} of {len(rows)}", [f"{len(coded)} stored as codes", *low_words(outcome)]),
        }
        out += [{"label": label, "value": value, "lines": lines} for label, (value, lines) in figures_of.items()]
    return out + search_tile(outcome)


def accuracy_tile(outcome: Result) -> dict[str, Any]:
    """The score beside those of the float network and of all layers at the high width."""
    others = (("float", outcome.float_score), (f"all {outcome.high}", outcome.reference))
    lines = [f"{label}: {score(value, outcome.fraction)}" for label, value in others if value is not None]
    return {"label": outcome.metric.capitalize(), "value": score(outcome.score, outcome.fraction), "lines": lines}


def bits_words(rows: Sequence[Layer]) -> str:
    """How many layers there are at each width, in a line."""
    widths = sorted({r.bits for r in rows})
    return ", ".join(f"{sum(r.bits == b for r in rows)} at {b}" for b in widths) + (" bits" if widths else "")


def low_words(outcome: Result) -> list[str]:
    return [f"{outcome.chosen} of {len(outcome.ranking)} at {outcome.low}"] if outcome.ranking else []


def search_tile(outcome: Result) -> list[dict[str, Any]]:
    """How much measuring the plan took."""
    if outcome.evaluations is None:
        return []
    total = sum(outcome.seconds.values())
    how = ", ".join(w for w in (outcome.criterion, outcome.search) if w)
    stages = ", ".join(f"{stage} {s:.1f}" for stage, s in outcome.seconds.items())
    lines = [how, f"{total:.1f} s: {stages}" if stages else ""]
    return [{"label": "Evaluations", "value": str(outcome.evaluations), "lines": [line for line in lines if line]}]


def ranking_words(outcome: Result) -> str:
    """What the ranking is made of, in a sentence."""
    by = f"Ordered by {outcome.criterion}" if outcome.criterion else "In ranking order"
    of = f" ({outcome.statistic})" if outcome.statistic else ""
    return (
        f"{by}{of}; layers that matter least come first, and {outcome.chosen} of {len(outcome.ranking)} went to {outcome.low}."
    )


def trace_words(outcome: Result) -> str:
    """How the number of layers was found, in a sentence."""
    how = f" by {outcome.search}" if outcome.search else ""
    return f"{len(outcome.trace)} plans were measured{how}; each takes the first layers of the ranking to {outcome.low}."


def trace_caption(outcome: Result) -> str:
    """What the marks of the search plot mean."""
    caption = (
        "Filled dots keep to the allowed loss, open ones do not."
        if outcome.max_drop is not None
        else "One dot for each plan measured."
    )
    return caption + (" The ring marks the plan of this file." if outcome.ranking else "")


def grid_words(row: Layer) -> str:
    """One histogram's line: format, levels used, what an integer is worth."""
    assert row.levels is not None
    return f"{row.format}, {row.levels.used} of {len(row.levels.counts)} levels, step {figures.step(row.levels)}"
