"""The rows of the comparison: every choice that the program offers, made from its own tables, so that none is forgotten.

A row is a call of `quantize` with everything but the choice under test as in the other rows of its group. A criterion, a
search, a rule or a rounding that is new to the program has a row by itself and asks for words in `SAYS`; a format family
needs a text in `WEIGHTS` or `ACTIVATIONS`. Tests hold this file to the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitladder.assign.criteria import CRITERIA
from bitladder.assign.probe import METHODS
from bitladder.assign.search import SEARCHES
from bitladder.assign.solve import SOLVERS
from bitladder.formats import Format, Nested
from bitladder.formats.uniform import COVERS
from bitladder.ptq.align import MODES as ALIGNS
from bitladder.recipe import EFFORTS, ROUNDINGS
from bitladder.recipes import CHOICES
from bitladder.stats.differences import NORMALIZATIONS, STATISTICS

ENDS = ("conv1", "linear")  # the first and the last layer: eight bits where formats, roundings or ranges are compared
BUDGETS = {"3.5": 3, "2.5": 2}  # bits a weight, and the level that layers step down to there
TABLE_BUDGETS = ("4", "3")
LEVELS = "8,4,3,2"
CHOOSING = 1000  # images that scores are of
DROP = 0.01  # of accuracy on choosing images, that a search may spend
COUNT = 10  # layers of the 20
SUM = "gradient+0.5*error"
MEASURED = "accuracy"  # the criterion that needs labels to choose on

# Choices of `quantize` without a row, and why.
LEFT = {
    "accept": "judges a finished network and changes nothing in it",
    "head_rule": "is about classifiers of more than 16 classes; here there are ten",
    "times": "says whose milliseconds a budget is in; no row has one in milliseconds",
}

WRITING = "seconds to write"  # in place of seconds to quantize
PARTS = ("top-1 %", "bytes", "bits a weight", "processor seconds")  # of a row, each a line of the results


@dataclass(frozen=True)
class Row:
    """One choice: what the table calls it and says of it, the words of `quantize` it stands for, the width it is read at.

    measured: accuracy on the choosing images is given as a score. table: the plan is solved from a sensitivity table that is
    measured for it. saving: how the file is written.
    """

    name: str
    says: str
    how: Mapping[str, Any]
    bits: int | None = None
    measured: bool = False
    table: bool = False
    saving: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Rows that differ in one thing, and what they share."""

    title: str
    says: str
    rows: tuple[Row, ...]
    seconds: str = "seconds"

    def line(self, row: Row, part: str) -> str:
        """What the line of a part of a row is called in the results."""
        return f"{self.title}: {row.name}: {part}"


# --------------------------------------------------------------------------------------------------- plans by criteria

VARIANTS = {
    "statistic": {
        "mean_square": "mean square of the differences (as usual)",
        "mean": "size of their mean",
        "variance": "variance over the cycles",
        "std": "deviation over the cycles",
    },
    "normalize": {
        "none": "as they are (as usual)",
        "relative": "over the size of the weights",
        "step": "in steps of the narrow format",
    },
    "start": {"float": "learned from the float network (as usual)", "fixed8": "learned from its 8-bit version"},
}


def criteria() -> Group:
    """Every criterion and a sum, level by level; the two of tables, solved."""
    rows = []
    for budget, low in BUDGETS.items():
        for name in (*CRITERIA, SUM):
            says = CRITERIA[name].says if name in CRITERIA else "the mean of the ranks by both, the second for half"
            how: dict[str, Any] = {"plan": "nested8", "criterion": name, "search": "budget"}
            how |= {"budget": f"avg_bits={budget}", "low": low}
            rows.append(Row(f"`{name}`, {budget} bits", says, how, measured=name == MEASURED))
    for budget in TABLE_BUDGETS:
        for name in METHODS:
            how = {
                "plan": "nested8",
                "criterion": name,
                "search": "lagrangian",
                "budget": f"avg_bits={budget}",
                "levels": LEVELS,
            }
            rows.append(Row(f"`{name}`, a table, {budget} bits", f"{CRITERIA[name].says}, at every level", how, table=True))
    return Group(
        "Criteria",
        "Which layers have few bits. `nested8`, an average of so many bits a weight. Without a table layers step down level by "
        "level (8, 4, 3, 2) in the order of the criterion, so at an average of exactly 4 or 3 bits every order gives one plan, "
        "all layers alike; budgets half way between tell orders apart. With a table the plan is solved by relaxation. "
        "`accuracy` is measured on 1,000 choosing images and its seconds hold what a score brings along: every width of the "
        "result is scored too.",
        tuple(rows),
    )


def variants() -> Group:
    """Ways to take the weight difference."""
    budget, low = list(BUDGETS.items())[-1]
    base = {"plan": "nested8", "criterion": "weight_difference", "search": "budget", "budget": f"avg_bits={budget}", "low": low}
    known = {"statistic": tuple(STATISTICS), "normalize": tuple(NORMALIZATIONS), "start": tuple(VARIANTS["start"])}
    rows = [
        Row(f"`{word}` `{name}`", VARIANTS[word].get(name, ""), {**base, word: name})
        for word, each in known.items()
        for name in each
    ]
    return Group(
        "Ways to take the weight difference",
        f"The criterion `weight_difference`, {budget} bits a weight, level by level. It learns on the calibration images.",
        tuple(rows),
    )


# ------------------------------------------------------------------------------------------------------------- searches

SEARCH_SAYS = {name: search.says for name, search in SEARCHES.items()} | {
    "lagrangian": "a sensitivity table, solved by relaxation",
    "exact": "a sensitivity table, solved by an integer program",
}
TOLD: dict[str, tuple[str, dict[str, Any]]] = {  # searches that no drop is given to
    "budget": ("3.5 bits", {"budget": "avg_bits=3.5", "low": 3}),
    "count": (f"{COUNT} layers", {"count": COUNT, "low": 2}),
}


def searches() -> Group:
    """Every search: those for an allowed drop, the one-by-one order, and those for a budget or a number."""
    rows, base = [], {"plan": "nested8", "criterion": "divergence"}
    for name, says in SEARCH_SAYS.items():
        solves = name in SOLVERS
        how: dict[str, Any] = {**base, "search": name, **({"levels": LEVELS} if solves else {})}
        if name in TOLD:
            label, goal = TOLD[name]
            rows.append(Row(f"`{name}`, {label}", says, how | goal))
            continue
        levels = {} if solves else {"low": 2}
        rows.append(Row(f"`{name}`, at most 1 point", says, how | levels | {"max_drop": DROP}, measured=True, table=solves))
        if solves:
            rows.append(Row(f"`{name}`, 3.5 bits", says, {**how, "budget": "avg_bits=3.5"}, table=True))
    one = {**base, "criterion": MEASURED, "search": "bisection", "low": 2, "max_drop": DROP}
    rows.append(Row("one by one, at most 1 point", f"`bisection` in the order of `{MEASURED}`", one, measured=True))
    return Group(
        "Searches",
        "How a plan is found. `nested8`, the criterion `divergence`. The goal is a loss of at most one point on 1,000 choosing "
        f"images, which are training images, or an average of 3.5 bits, or {COUNT} of 20 layers. Layers go from 8 bits to 2, "
        f"where a search knows levels to {LEVELS.replace(',', ', ')}. Tables are measured anew for each row.",
        tuple(rows),
    )


# -------------------------------------------------------------------------------------------------------------- formats

Text = str | Format

# A format, the width it is read at, and what it is; the first word of its text is the family.
WEIGHTS: tuple[tuple[Text, int | None, str], ...] = (
    ("int4", None, "integers times a scale for each output"),
    ("int4/tensor", None, "one scale for the whole weight"),
    ("fixed4", None, "steps are powers of two"),
    ("q-2.5", None, "fixed point with five fractional bits in all layers"),
    ("nested4", None, "mid-rise levels, fitted and rounded for 4, 3 and 2 bits"),
    ("nested8", 4, "mid-rise levels, eight planes rounded for all widths, read at 4"),
    ("nested8:tree", 4, "every code splits in two, read at 4"),
    (Nested(8, "tree", cells="entropy"), 4, "the same, first cells by weighted entropy"),
    ("nested8:sign", 4, "a sign and a tree of magnitudes, read at 4"),
    ("codebook4", None, "a table of 16 levels by weighted entropy"),
    ("codebook4:15", None, "15 levels, zero among them"),
    ("codebook4:squares", None, "levels of least squared error"),
    ("log4", None, "zero and octaves"),
    ("log4:2", None, "two levels in an octave"),
    ("product2x256", None, "one code of 8 bits for two weights"),
    ("int2", None, "four integers around an odd one"),
    ("fixed2", None, "steps are powers of two"),
    ("ternary", None, "-1, 0, 1 times a scale"),
    ("nested2", None, "mid-rise levels, fitted and rounded for 2 bits alone"),
    ("nested8", 2, "mid-rise levels, eight planes rounded for all widths, read at 2"),
    ("nested8:tree", 2, "every code splits in two, read at 2"),
    (Nested(8, "tree", cells="entropy"), 2, "the same, first cells by weighted entropy"),
    ("nested8:sign", 2, "a sign and a tree of magnitudes, read at 2"),
    ("codebook2", None, "a table of 4 levels by weighted entropy"),
    ("codebook2:3", None, "3 levels, zero among them"),
    ("log2", None, "-2, -1, 0 and 1 times a scale"),
    ("product4x256", None, "one code of 8 bits for four weights"),
)
ACTIVATIONS = {
    "int8": "integers times a scale (as usual)",
    "fixed8": "steps are powers of two",
    "int4": "integers of 4 bits",
    "log4": "zero and octaves",
    "log4:2": "two levels in an octave",
    "log4:4": "four levels in an octave",
}


def between(fmt: Text, ends: str = "int8") -> dict[str, Text]:
    """A plan with a format everywhere but at the ends."""
    return {"*": fmt, **dict.fromkeys(ENDS, ends)}


def formats() -> Group:
    """Every family of formats, and the schemes of nested ones."""
    rows = []
    for fmt, bits, says in WEIGHTS:
        cells = ", cells by entropy" if getattr(fmt, "cells", "") == "entropy" else ""
        rows.append(Row(f"`{fmt}`{cells}" + (f" at {bits} bits" if bits else ""), says, {"plan": between(fmt)}, bits))
    return Group(
        "Formats of weights",
        "About 4 and about 2 bits a weight; the first and the last layer are `int8`, activations too. Bytes of a nested file "
        "that is read at a width are those of the planes that it takes.",
        tuple(rows),
    )


def activations() -> Group:
    """Formats of activations under int8 weights."""
    rows = [Row(f"`a={fmt}`", says, {"plan": {"*": "int8", "a=*": fmt}}) for fmt, says in ACTIVATIONS.items()]
    return Group("Formats of activations", "All weights are `int8`.", tuple(rows))


# ------------------------------------------------------------------------------------------------- rounding and ranges

ROUNDING_SAYS = {
    "nearest": "every weight to the nearest code",
    "feedback": "weights that are not yet rounded make up for those that are",
    "sequence": "and layers for those before them",
    "moments": "and outputs for each other, by the moments of the loss's gradient",
    "rate": "for the length of codes: steps of all layers, coded bits",
    "trellis": "the same, levels depend on the codes before",
}
BY_LENGTH = ("rate", "trellis")


def roundings() -> Group:
    """Every rounding at 4 and 3 bits."""
    rows = []
    for bits in (4, 3):
        for name in ROUNDINGS:
            how = {"budget": f"avg_bits={bits}"} if name in BY_LENGTH else {"plan": between(f"int{bits}")}
            rows.append(Row(f"`{name}`, {bits} bits", ROUNDING_SAYS.get(name, ""), {**how, "rounding": name}))
    return Group(
        "Roundings",
        "`int4` and `int3`, the first and the last layer `int8`. `rate` and `trellis` choose the steps of `int8` weights "
        "such that a weight takes so many bits once coded, on average; compare them by bytes.",
        tuple(rows),
    )


COVER_SAYS = {
    "max": "the largest weight fits",
    "kstd": "four deviations around the mean",
    "mse": "least squared error (as usual)",
    "pdf": "by the type of density, from moments",
}
ALIGN_SAYS = {
    "weights": "kernel slices agree on a length (as usual)",
    "sums": "slices keep their best length, sums are shifted",
}


def ranges() -> Group:
    """Range rules, how fixed-point sums agree, equalizing."""
    fixed = between("fixed4", "fixed8") | {"a=*": "fixed8"}
    whole = between("int4/tensor")
    rows = [
        Row(f"`cover` `{name}`, {kind}", COVER_SAYS.get(name, ""), {"plan": plan, "cover": name, "rounding": "feedback"})
        for kind, plan in (("`int4`", between("int4")), ("`fixed4`", fixed))
        for name in COVERS
    ]
    rows += [
        Row(f"`align` `{name}`, `fixed4`", ALIGN_SAYS.get(name, ""), {"plan": fixed, "align": name, "rounding": "feedback"})
        for name in ALIGNS
    ]
    rows += [
        Row(
            f"`equalize` {'on' if on else 'off'}, {kind}",
            "channels between layers are scaled alike" if on else "they are as they came (as usual)",
            {"plan": plan, "equalize": on, "rounding": "feedback"},
        )
        for kind, plan in (("`int4`", between("int4")), ("`int4/tensor`", whole), ("`fixed4`", fixed))
        for on in (False, True)
    ]
    return Group(
        "Ranges and equalizing",
        "Weights are rounded with error feedback, which keeps the ranges that the rule gives; rounding in sequence chooses its "
        "own. The first and the last layer have 8 bits; with `fixed4` all numbers are fixed point, activations `fixed8`.",
        tuple(rows),
    )


# ------------------------------------------------------------------------------------------------- efforts and files

CODER_SAYS = {"raw": "codes as they are", "fast": "quick to read", "best": "fewest bytes (as usual)"}
ORDER_SAYS = {
    "layer": "layer by layer",
    "plane": "first planes of all layers first (as usual)",
    "importance": "what outputs need most first",
}


def efforts() -> Group:
    """Every effort, with the rounding that it brings."""
    rows = [
        Row(f"`{name}`", f"{e.correct} samples, rounding `{e.rounding}`", {"plan": between("int4"), "effort": name})
        for name, e in EFFORTS.items()
    ]
    return Group("Efforts", "`int4`, the first and the last layer `int8`.", tuple(rows))


def files() -> Group:
    """Every coder and every order of planes."""
    says = {"coder": CODER_SAYS, "order": ORDER_SAYS}
    rows = [
        Row(f"`{word}` `{name}`", says[word].get(name, ""), {"plan": "nested8"}, saving={word: name})
        for word in says
        for name in CHOICES[word]
    ]
    return Group("Files", "`nested8`, all planes; the network is the same.", tuple(rows), WRITING)


GROUPS = tuple(make() for make in (criteria, variants, searches, formats, activations, roundings, ranges, efforts, files))
