"""The comparison has a row for everything that the program offers, and its page is what the rows say."""

import importlib.util
import inspect
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitladder as bl
from bench import choices, compare
from bench.choices import GROUPS, LEFT, PARTS, Group, Row
from bench.cifar import DRAWS, Split
from bench.options import Options
from bench.work import Work
from bitladder.assign.criteria import CRITERIA, parts
from bitladder.assign.probe import METHODS
from bitladder.formats import GRAMMAR
from bitladder.formats.cells import GOALS
from bitladder.formats.nested import SCHEMES, SEEDS, Nested
from bitladder.ptq.plan import plan_of
from bitladder.recipes import CHOICES

SCRIPT = Path(__file__).parents[1] / "docs" / "make_comparison.py"
ALL = [row for group in GROUPS for row in group.rows]


def missing(rows):
    """What the program offers and no row shows."""
    out = []
    for word, names in CHOICES.items():
        shown = {row.how.get(word) for row in rows} | {row.saving.get(word) for row in rows}
        out += [f"{word} {name}" for name in names if name not in shown and word not in LEFT]
    criteria = [row.how.get("criterion", "random") for row in rows]
    out += [f"criterion {name}" for name in CRITERIA if name not in criteria]
    out += [] if any(len(parts(text)) > 1 for text in criteria) else ["a sum of criteria"]
    out += [f"table of {name}" for name in METHODS if not any(r.table and r.how["criterion"] == name for r in rows)]
    formats = [fmt for row in rows for fmt in plan_of(row.how.get("plan")).values()]
    texts = [str(fmt) for fmt in formats] + [str(t) for t in written(rows)]
    out += [f"format {pattern}" for pattern, _ in GRAMMAR if not any(re.fullmatch(pattern, t) for t in texts)]
    nested = [fmt for fmt in formats if isinstance(fmt, Nested)]
    out += [f"scheme {name}" for name in SCHEMES if name not in {fmt.scheme for fmt in nested}]
    out += [f"cells {name}" for name in SEEDS if name not in {fmt.cells for fmt in nested if fmt.scheme == "tree"}]
    return out + [f"goal {name}" for name in GOALS if name not in {getattr(fmt, "cells", "") for fmt in formats}]


def written(rows):
    """Formats as plans have them: q-2.5 prints as the format it stands for."""
    plans = [row.how.get("plan") for row in rows]
    return [fmt for plan in plans for fmt in (plan.values() if isinstance(plan, dict) else [plan])]


def script():
    """docs/make_comparison.py, loaded."""
    spec = importlib.util.spec_from_file_location("make_comparison", SCRIPT)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_everything_has_a_row():
    """Criteria, searches, solvers, rules, roundings, efforts, codings, families of formats and their schemes."""
    assert missing(ALL) == []
    assert set(LEFT) <= set(CHOICES)


@pytest.mark.parametrize(
    ("has", "what"),
    [
        (lambda r: r.how.get("criterion") == "error", "criterion error"),
        (lambda r: r.how.get("rounding") == "trellis", "rounding trellis"),
        (lambda r: "codebook" in str(r.how.get("plan")), "codebook"),
        (lambda r: r.table and r.how["criterion"] == "gradient", "table of gradient"),
        (lambda r: r.saving.get("coder") == "fast", "coder fast"),
        (lambda r: r.how.get("cover") == "pdf", "cover pdf"),
    ],
)
def test_a_choice_without_a_row_is_seen(has, what):
    """With its rows away, a choice is missing by its name."""
    found = missing([row for row in ALL if not has(row)])
    assert any(what in text for text in found)


def test_rows_are_calls_that_quantize_takes():
    """Known words alone, names that differ, and words for readers in every row."""
    known = inspect.signature(bl.quantize).parameters
    for group in GROUPS:
        names = [row.name for row in group.rows]
        assert len(set(names)) == len(names)
        for row in group.rows:
            assert set(row.how) <= set(known) - {"score", "table"}
            assert row.says, f"{row.name} needs words in bench/choices.py"
            assert set(row.saving) <= {"coder", "order"}
    for word, each in {"search": choices.SEARCH_SAYS, "rounding": choices.ROUNDING_SAYS, "cover": choices.COVER_SAYS}.items():
        assert set(each) == set(CHOICES[word])


def test_the_page_is_current():
    """docs/comparison.md is what docs/make_comparison.py makes of the last result."""
    made = script()
    assert made.PAGE.read_text() == made.page(), "run: python docs/make_comparison.py"


def test_the_page_says_what_was_measured():
    """A row that was measured has its numbers; one that was not says so."""
    made = script()
    group = GROUPS[0]
    plain, hits = np.ones(100, bool), np.arange(100) >= 2
    lines = compare.lines(group, group.rows[0], np.concatenate([[1.5, 0.25, 12345, 3.5], hits]), plain)
    assert [line.what for line in lines] == [group.line(group.rows[0], part) for part in PARTS]
    assert [line.ours for line in lines] == [98.0, 12345.0, 3.5, 1.5]
    as_json = [{"what": x.what, "ours": x.ours, "peer": x.peer, "spread": x.spread} for x in lines]
    page = made.page({"bench": "compare", "rows": as_json, "machine": {"command": "python -m bench compare --quick"}})
    assert f"| {group.rows[0].name} | {group.rows[0].says} | 98.00 | 2.00 +- 2.74 | 3.50 | 12,345 | 1.5 |" in page
    assert f"| {group.rows[1].name} | {group.rows[1].says} | not measured | - | - | - | - |" in page
    assert "Float has 100.00 % right" in page
    assert "2,000 test images" in page
    assert f"1 of {len(ALL)} rows are measured" in page
    writing = Group("Files", "", (group.rows[0],), choices.WRITING)
    assert compare.lines(writing, group.rows[0], np.concatenate([[1.5, 0.25, 12345, 3.5], hits]), plain)[-1].ours == 0.25


def test_choosing_images_are_no_calibration_images():
    """Every tenth training image from the sixth on, none of a calibration draw, at even distances."""
    found = compare.chosen(50_000, 2000)
    assert len(set(found.tolist())) == 2000
    assert set(found % 10) == {5}
    assert (found % 97 >= DRAWS).all()
    assert found.max() > 49_000


def test_rows_are_measured(tmp_path):
    """A small network in two widths of one file: one call of quantize, fewer bytes at fewer bits; then it is known."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(64, 3, 8, 8)).astype(np.float32)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 4)).eval()
    with torch.no_grad():
        data = Split(images, net(torch.from_numpy(images)).numpy().argmax(1))
    side = compare.Side(Options(data=tmp_path), data, Work(tmp_path / "kept", ""))
    side.calibration, side.net = data, net
    row = Row("eight", "", {"plan": "nested8", "effort": "fast"})
    wide, narrow = side.measured(row), side.measured(replace(row, bits=2))
    assert len(side.models) == 1
    assert wide[0] == narrow[0] > 0
    assert wide[2] > narrow[2] > 576 * 4 / 4
    assert (wide[3], narrow[3]) == (8.0, 2.0)
    assert wide[compare.FACTS :].mean() > 0.9
    assert side.kept("float", None).all()
    kept = side.kept(compare.key_of(row), row)
    again = compare.Side(Options(data=tmp_path), data, Work(tmp_path / "kept", ""))
    assert (again.kept(compare.key_of(row), row) == kept).all()
    other = replace(row, how={**row.how, "plan": {"*": Nested(8, "tree", cells="entropy")}})
    assert compare.key_of(other) != compare.key_of(replace(row, how={**row.how, "plan": {"*": Nested(8, "tree")}}))


def test_rows_that_say_what_is_usual_are_measured_once():
    """In whatever words; what is not usual is told apart."""
    row = Row("", "", {"plan": "int4"})
    for same in ({"cover": "mse"}, {"rounding": "sequence"}, {"effort": "balanced", "equalize": False}):
        assert compare.key_of(replace(row, how={**row.how, **same})) == compare.key_of(row)
    for other in ({"cover": "max"}, {"rounding": "feedback"}, {"effort": "fast"}, {"effort": "fast", "rounding": "sequence"}):
        assert compare.key_of(replace(row, how={**row.how, **other})) != compare.key_of(row)
    assert compare.key_of(replace(row, bits=4)) != compare.key_of(row)
    assert compare.key_of(replace(row, measured=True)) != compare.key_of(row)
