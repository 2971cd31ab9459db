"""Trials of what is promised about files, a few of each kind; and that each kind of trial can fail."""

import json
import shutil
import sys

import numpy as np
import pytest

from bench import robustness
from bench.options import Options
from bench.robust import bombs, damage, faults, fields, fuzzing, kills, prefixes
from bench.robust.count import Count
from bench.robust.subjects import alike, small
from bitladder import disk, file

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def fine(count, least):
    """Return if there were enough trials and none failed."""
    assert count.failures == 0, "\n".join(count.lines)
    assert count.trials >= least


@needs_fork
def test_killed_saves_leave_a_whole_file():
    """Twenty kills, some of them in the middle of writing."""
    count = kills.kills(20, 7)
    fine(count, 20)
    assert not count.note.startswith("0 of")


@needs_fork
@pytest.mark.skipif(faults.library() is None, reason="no C compiler")
def test_every_call_of_a_save_may_fail():
    """In every way: the old file is whole, nothing is left, and there is one clear error."""
    fine(faults.faults(only_save=True), 60)


@needs_fork
def test_bombs_are_refused_at_once():
    """Within milliseconds, and without memory."""
    count = bombs.bombs()
    fine(count, 30)
    assert count.values["bombs_ms"] < bombs.MOST_MS
    assert count.values["bombs_mib"] < bombs.MOST_MIB


def test_beginnings_and_extensions_of_golden_files():
    """Every cut of three files runs as the rule says or is refused; what is longer is refused."""
    fine(damage.damage("cuts", "extensions"), 3000)


def test_fields_at_their_borders():
    """Those of the prelude: the same network, or a refusal."""
    fine(fields.every_field("fields"), 400)


def test_flipped_bits_are_noticed():
    """A sample here; all of them in the benchmark."""
    fine(Count.of(damage.flips(every=25)), 1000)


def test_beginnings_of_a_network_in_order_of_importance():
    """Random ones and every border run on a few images; no border is surely half a point below a shorter one."""
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    count = prefixes.counted("bench.robust.prefixes", 20, 3, "judged")
    fine(count, 100)
    assert count.values["borders_below"] == 0


# ------------------------------------------------------------------------------------------------- trials that can fail


@pytest.fixture
def one_file(monkeypatch):
    """The trials are of one golden file; its bytes."""
    data = damage.golden()["plane-best"]
    monkeypatch.setattr(damage, "golden", lambda names=(): {"it": data})
    monkeypatch.setattr(fields, "golden", damage.golden)
    return data


def first(series, many=40):
    """What the first trials of a series say."""
    return [problem for _, problem in zip(range(many), series(), strict=False)]


@pytest.mark.parametrize("series", [damage.flips, damage.extensions, damage.cuts, fields.fields])
def test_a_reader_that_takes_anything_fails(series, one_file, monkeypatch):
    """A network for whatever bytes there are, or another one than theirs."""
    graphs = iter([file.load(one_file)] + 1000 * [small(seed=4)])
    monkeypatch.setattr(file, "load", lambda *_, **__: next(graphs))
    assert any(first(series))


@pytest.mark.parametrize("series", [damage.flips, fields.words, fields.records])
def test_a_reader_that_stumbles_fails(series, one_file, monkeypatch):
    """Any error but the two that readers have, even one that looks like them."""
    monkeypatch.setattr(file, "load", lambda *_, **__: {}[0])
    assert all(first(series))


def test_networks_that_differ_in_a_bit_are_not_alike():
    """Neither those with another seed, nor with one code changed, nor with other metadata."""
    a = small()
    assert alike(a, small())
    assert not alike(a, small(seed=4))
    assert not alike(a, a.with_(meta={**a.meta, "more": 1}))
    w = a.constants["b3"].copy()
    w[0] = np.nextafter(w[0], 9)
    assert not alike(a, a.with_(constants={**a.constants, "b3": w}))


def test_a_dip_must_be_sure_and_large():
    """Half a point may be lost, and so may what chance explains."""
    right = np.ones(1000, bool)

    def without(n):
        return prefixes.Border(2, np.arange(1000) >= n)

    best = prefixes.Border(1, right)
    assert [prefixes.dip(best, without(n)).sure for n in (0, 5, 12, 40)] == [False, False, False, True]
    found = prefixes.of_borders("it", [without(0), without(40), without(3)])
    assert (found.trials, found.failures) == (2, 1)
    assert found.values == {"border_dip": 4.0, "borders_below": 1.0}


def test_scraps_go_after_an_hour_and_nothing_else_does(tmp_path):
    """Siblings of killed writes; neither fresh ones, nor those of another file, nor what only looks alike."""
    import os

    names = [".a.12.0123abcd", ".a.13.0123abcd", ".b.12.0123abcd", ".a.12.0123abcd.more", ".a.x.0123abcd", "a"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".a.13.0123abcd").write_bytes(b"fresh")
    with disk.replacing(tmp_path / "a") as f:
        f.write(b"new")
    assert sorted(os.listdir(tmp_path)) == sorted(set(names) - {".a.12.0123abcd"})


# --------------------------------------------------------------------------------------------------------------- counts


def test_random_trials_add_up_and_complete_ones_do_not(tmp_path):
    """Over runs, in the file of results; what a run cannot try keeps what it had."""
    options = Options(command="python -m bench robustness")
    book = robustness.Book.last(tmp_path)
    assert not book.counts
    book = (
        book.plus("kills", Count(300, 0)).plus("flips", Count(50_000, 1)).plus("bombs", Count(40, 0, values={"bombs_ms": 2.0}))
    )
    book.result(options).save(tmp_path)
    book = robustness.Book.last(tmp_path).plus("kills", Count(60, 1)).plus("flips", Count(60_000, 0)).plus("fuzz", None)
    assert {k: (c.trials, c.failures) for k, c in book.counts.items()} == {
        "kills": (360, 1), "flips": (60_000, 0), "bombs": (40, 0)
    }  # fmt: skip
    figures = book.figures()
    assert figures["trials_flips"].met
    assert (figures["trials_kills"].value, figures["trials_kills"].met) == (360, False)
    assert figures["bombs_ms"].value == 2.0
    assert figures["bombs_mib"].value is None
    assert not figures["trials_fuzz"].met
    assert robustness.add("fuzz", 1000, 0, tmp_path).name == "robustness.json"
    rows = {r["what"]: r for r in json.loads((tmp_path / "robustness.json").read_text())["rows"]}
    fuzz = rows[robustness.KINDS["fuzz"].says]
    assert (fuzz["ours"], fuzz["peer"], fuzz["spread"]) == (0, 1000, 0.003)
    with pytest.raises(ValueError, match="NAME must be one of"):
        robustness.add("flips", 1, 0, tmp_path)


def test_what_a_fuzzer_said_is_counted():
    """Inputs and findings, also of a run that a finding ended."""
    assert fuzzing.said(0, "stat::number_of_executed_units: 1234\n") == Count(1234, 0)
    ended = "#12\tNEW\n#77\tpulse\nSUMMARY: AddressSanitizer: heap-buffer-overflow\nTest unit written to /x/crash-1\n"
    found = fuzzing.said(77, ended)
    assert (found.trials, found.failures) == (77, 1)
    assert "heap-buffer-overflow" in found.lines[0]
    assert "/x/crash-1" in found.lines[0]


@pytest.mark.skipif(shutil.which("true") is None, reason="needs true")
def test_a_named_harness_is_used(monkeypatch):
    """Without building one."""
    monkeypatch.setenv("BITLADDER_FUZZ_FILE", shutil.which("true"))
    assert fuzzing.harness().name == "true"
