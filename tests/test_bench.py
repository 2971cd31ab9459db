"""Benchmarks without data: the format of results, what figures make of numbers, and the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import criteria, nested, work
from bench.__main__ import BENCHES, LATER, main
from bench.criteria import MAIN, ONE, RANGE, Chosen, Found, area, area_ratio, areas, counts, ratio, tau
from bench.options import Options
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Interval, loss
from bench.work import Work

ROOT = Path(__file__).parents[1]


def result():
    rows = (Row.of("one", 2.0, 4.0, "other", 0.1), Row("alone", 1 / 3))
    figures = {"good": Figure.at_most(0.2, 0.3), "missing": Figure.at_most(None, 0.3)}
    return Result("nested", rows, figures, machine(2, "python -m bench nested"), versions())


def test_a_result_is_the_object_that_was_promised(tmp_path):
    """These keys and no others, the same in the file; numbers are plain, a figure not measured is null and missed."""
    made = result()
    path = made.save(tmp_path / "results")
    got = json.loads(path.read_text())
    assert got == json.loads(json.dumps(made.json()))
    assert list(got) == ["bench", "machine", "versions", "rows", "figures"]
    assert got["rows"][0] == {"what": "one", "ours": 2.0, "peer": 4.0, "peer_name": "other", "ratio": 0.5, "spread": 0.1}
    assert got["figures"] == {
        "good": {"value": 0.2, "goal": 0.3, "met": True},
        "missing": {"value": None, "goal": 0.3, "met": False},
    }
    assert got["versions"]["python"]
    assert got["machine"]["cores"] >= 1
    assert [p.name for p in path.parent.iterdir()] == ["nested.json"]
    for word in ("one", "other", "missing", "python -m bench nested"):
        assert word in made.text()


def test_figures_are_judged_by_the_better_end():
    """Of their interval, where they have one; strictness is as asked for."""
    assert Figure.at_most(0.5, 0.5).met
    assert not Figure.below(1.0, 1.0).met
    assert not Figure.below(None, 1.0).met
    assert Figure.at_most(0.9, 0.5, best=0.5).met
    assert not Figure.at_least(0.6, 0.5, provided=False).met
    assert Figure.at_least(0.5, 0.5).met
    assert Figure.at_most(3.0, None).met


def test_losses_are_paired():
    """The interval is of the difference image by image, so equal networks differ by nothing at all."""
    draw = np.random.default_rng(0)
    a = draw.random(1000) < 0.9
    assert loss([a], [a]) == Interval(0.0, 0.0)
    worse = a & (draw.random(1000) < 0.98)
    lost = loss([worse], [a])
    assert np.isclose(lost.mean, 100 * (a.mean() - worse.mean()))
    assert 0 < lost.low < lost.mean
    assert np.isclose(loss([worse, a], [a, a]).mean, lost.mean / 2)


def curve(**heights):
    """A curve that is the same for every one of fifty images."""
    return {int(k[1:]): np.full(50, v) for k, v in heights.items()}


def test_areas_under_curves():
    """The mean height from no layer on, at the counts two curves share; a peer that loses nothing gives no ratio."""
    flat, bent = curve(k10=1.0, k20=1.0), curve(k5=9.0, k10=1.0, k20=1.0)
    assert area(flat).mean() == 0.75
    assert [a.mean() for a in areas(bent, flat)] == [0.75, 0.75]
    assert ratio(1.0, 0.0) is None
    assert counts(20, (0.01, 0.1, 0.11, 1.0)) == [2, 20]
    assert tau({"a": 1, "b": 2, "c": 3}, {"a": 5, "b": 6, "c": 9}) == 1.0


def test_ratios_of_areas():
    """The same curve gives one; a peer that loses nothing gives none."""
    peer = {20: 1.0 + np.random.default_rng(0).normal(0, 20, 400)}
    assert area_ratio(peer, peer) == 1.0
    assert area_ratio(peer, {20: -np.abs(peer[20])}) is None


def found(scale=1.0, nearest=9):
    def rising(slope):
        return {k: np.full(50, slope * k) for k in (4, 7, 10, 13, 16, 20)}

    curves = {MAIN: rising(0.1 * scale), ONE: rising(0.1), RANGE: rising(0.12), "random": rising(0.2)}
    layers = {"nearest": nearest, "feedback": 15}
    chosen = {name: Chosen(tuple(map(str, range(n))), 20, 6, Interval(1.2, 0.5)) for name, n in layers.items()}
    return Found(Interval(0.4, 0.2), curves, chosen, [(curves[criteria.MAIN], curves[criteria.ONE])])


def test_figures_of_criteria():
    """Each is there, with its goal; a curve that is too high misses what it should."""
    made = criteria.figures(found())
    assert {name: f.met for name, f in made.items()} == {
        "fixed8_loss": True,
        "layers_at_4_bits_nearest": False,
        "layers_at_4_bits": True,
        "evaluations": True,
        "area_vs_one_by_one": True,
        "area_vs_range": True,
        "area_vs_random": True,
    }
    level = criteria.figures(found(1.2))["area_vs_range"]
    assert np.isclose(level.value, 1.0)
    assert made["layers_at_4_bits"].value == 0.75
    assert np.isclose(made["area_vs_one_by_one"].value, 1.0)
    high = criteria.figures(found(1.5, nearest=10))
    assert not high["area_vs_one_by_one"].met
    assert not high["area_vs_range"].met
    assert high["area_vs_random"].met
    assert high["layers_at_4_bits_nearest"].met


def test_rows_of_criteria_name_their_curves():
    """Every point of every curve, and an area for each order but ours."""
    rows = criteria.curve_rows("net", found().curves)
    assert len(rows) == 4 * 6 + 3
    assert {r.peer_name for r in rows} == {"the 8-bit network", ONE, RANGE, "random"}


def test_figures_and_rows_of_nested():
    """Widths with a goal are judged by the better end, the others reported; every width has a row for each peer."""
    made = nested.figures({8: Interval(0.6, 0.2), 4: Interval(0.9, 0.2), 2: Interval(-8.0, 1.0)})
    assert [(f.goal, f.met) for f in made.values()] == [(0.5, True), (0.5, False), (None, True)]
    hits = {b: np.arange(100) < 80 + b for b in nested.WIDTHS}
    peers = {"nested": hits, "int": hits}
    rows = nested.accuracy_rows("net", "nested8", hits, peers, hits[8])
    assert len(rows) == 3 * len(nested.WIDTHS)
    assert rows[0].peer_name == "nested8 alone"
    assert rows[0].ours == rows[0].peer == 88.0
    sizes = {"file": 8, **{f"read {b}": b for b in nested.WIDTHS}, **{f"nested{b}": b for b in nested.WIDTHS}}
    assert nested.byte_rows("net", sizes)[0].peer == sum(nested.WIDTHS)


def test_measured_values_outlive_an_interruption(tmp_path, monkeypatch):
    """What was measured is not measured again, until the benchmark is done or depends on something else."""
    monkeypatch.setattr(work, "FOLDER", tmp_path)
    made = []

    def make():
        made.append(1)
        return np.array([True, False])

    for _ in range(2):
        got = Work.of("x", "data 1")("key", make)
        assert got.value.tolist() == [True, False]
        assert got.seconds >= 0
    Work.of("x", "data 2")("key", make)
    Work.of("x", "data 1")("another", make)
    assert len(made) == 3
    Work.of("x", "data 1").done()
    Work.of("x", "data 1")("key", make)
    assert len(made) == 4


def command(*arguments):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, env=env)


def test_benchmarks_to_come_say_so():
    """In one line, with exit status 1."""
    done = command("exchange")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bench: exchange is not there yet; there are {', '.join(BENCHES)}\n"


@pytest.mark.parametrize("name", [*LATER, "criterion"])
def test_other_names_are_errors(name, capsys):
    """Known or not; an unknown one is told what there is."""
    assert main([name]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert all(known in said for known in BENCHES)


@pytest.mark.parametrize(
    ("name", "file"),
    [("criteria", "train.tar"), ("nested", "train.tar"), ("codec", "train.tar"), ("networks", "resnet20_jpeg.safetensors")],
)
def test_missing_data_is_one_line(name, file, capsys, tmp_path):
    """That says which file is wanted and which option gives it."""
    assert main([name, "--quick", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{file} is missing" in said
    assert "--data-dir" in said


def test_one_network_alone_has_a_result_of_its_own():
    """`--network 56` leaves the file of the other networks as it is."""
    assert (Options(full=True).depths, Options(full=True).named("rounding")) == ((20, 56), "rounding")
    assert (Options(network=56).depths, Options(network=56).named("rounding")) == ((56,), "rounding_resnet56")
