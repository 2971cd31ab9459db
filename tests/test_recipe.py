"""The whole path: a trained network in, a plan found, a model out, resumed or not."""

import numpy as np
import pytest
import torch

import bitladder as bl
from bitladder.assign.score import accuracy
from bitladder.formats import QTensor
from bitladder.ir.graph import PerWidth

SMALL = {"effort": "fast", "cycles": 20}


def weights_of(model):
    return {n: c for n, c in model.graph.constants.items() if isinstance(c, QTensor)}


def test_an_accuracy_budget_finds_a_plan(digits):
    """As many layers at 4 bits as the drop allows, measured on data that was given for choosing."""
    net, (x, y), (cx, cy), (tx, ty) = digits
    score = accuracy({"x": cx}, cy)
    model = bl.quantize(net, x, labels=y, score=score, max_drop=0.02, **SMALL)
    result = model.graph.meta["result"]
    assert result["goal_met"]
    assert result["float"] - result["score"] <= 0.02 + 1e-9
    assert result["evaluations"] <= 8
    low = [row["layer"] for row in result["ranking"] if row["chosen"]]
    assert low
    for name, q in weights_of(model).items():
        assert str(q.format) == ("nested4" if name in low else "nested8")
    assert abs((model(tx).argmax(1) == ty).mean() - accuracy({"x": tx}, ty)(lambda a: net(torch.from_numpy(a)))) < 0.06
    assert [row["bits"] for row in model.graph.meta["widths"]] == list(
        range(max(q.format.bits for q in weights_of(model).values()), 1, -1)
    )


def test_user_functions_score_too(digits):
    """The score of the README: any function of a callable, given arrays or tensors."""
    net, (x, y), (cx, cy), _ = digits

    def of(model):
        out = model(torch.from_numpy(cx))
        return float((out.argmax(1).numpy() == cy).mean())

    model = bl.quantize(net, [(x[:300], y[:300]), (x[300:], y[300:])], score=of, max_drop=0.02, **SMALL)
    assert model.graph.meta["result"]["goal_met"]


def test_nothing_but_a_plan(digits):
    net, (x, _), _, _ = digits
    model = bl.quantize(net, x, plan={"*": "int8", "0.*": "int4", "a=*": "fixed8"}, effort="fast")
    assert model.plan["0.weight"] == "int4"
    assert model.plan["2.weight"] == "int8"
    assert bl.quantize(net, x, effort="fast").plan["0.weight"] == "nested8"


def test_budgets_are_met_or_missed(digits):
    """Average bits and bytes; what cannot be reached is said, and the least is returned."""
    net, (x, y), _, _ = digits
    model = bl.quantize(net, x, labels=y, budget="avg_bits=4.5", **SMALL)
    assert model.graph.meta["result"]["goal_met"]
    assert 3 < model.average_bits <= 4.5
    model = bl.quantize(net, x, criterion="range", budget="9kB", **SMALL)
    assert model.graph.meta["result"]["goal_met"]
    model = bl.quantize(net, x, criterion="range", budget="10B", **SMALL)
    assert not model.graph.meta["result"]["goal_met"]
    assert model.average_bits == 2


@pytest.mark.parametrize("criterion", ["weight_difference", "range", "accuracy", "error", "random"])
@pytest.mark.parametrize("search", ["halving", "bisection", "multi_level"])
def test_every_criterion_with_every_search(digits, criterion, search):
    net, (x, y), (cx, cy), _ = digits
    model = bl.quantize(
        net, x, labels=y, score=accuracy({"x": cx}, cy), max_drop=0.05, criterion=criterion, search=search, **SMALL
    )
    result = model.graph.meta["result"]
    assert result["criterion"] == criterion
    assert result["goal_met"] == (result["float"] - result["score"] <= 0.05 + 1e-9)


@pytest.mark.parametrize(
    "options",
    [{"statistic": "variance"}, {"normalize": "relative"}, {"normalize": "step"}, {"start": "fixed8"}, {"skip_smallest": True}],
)
def test_options_of_the_weight_difference(digits, options):
    """Each runs; the skipped layer keeps its bits."""
    net, (x, y), _, _ = digits
    model = bl.quantize(net, x, labels=y, count=3, **SMALL, **options)
    result = model.graph.meta["result"]
    assert sum(row["chosen"] for row in result["ranking"]) == 3
    assert not any(row["chosen"] for row in result["ranking"] if "skipped" in row["note"])


def test_keep_stores_all_planes(digits, tmp_path):
    """With keep, every layer has eight planes, and the plan is what the file runs by default."""
    net, (x, y), _, (tx, _) = digits
    model = bl.quantize(net, x, labels=y, count=3, keep=8, **SMALL)
    model.save(tmp_path / "net.ladder")
    marked = model.graph.meta["default_bits"]
    assert sorted(set(marked.values())) == [4, 8]
    assert {n: q.format.bits for n, q in weights_of(model).items()} == marked
    assert all(q.format.bits == 8 for q in weights_of(model.at(8)).values())
    loaded = bl.load(tmp_path / "net.ladder")
    for same in (model.at(marked), loaded, bl.load(tmp_path / "net.ladder", bits="auto")):
        assert np.array_equal(same(tx), model(tx))
    assert np.array_equal(loaded.at(8)(tx), bl.load(tmp_path / "net.ladder", bits=8)(tx))
    loaded.save(tmp_path / "again.ladder")
    assert (tmp_path / "again.ladder").read_bytes() == (tmp_path / "net.ladder").read_bytes()


def test_interrupted_and_resumed_is_the_same(digits, tmp_path):
    """Stopped while learning, and while searching, the same call goes on and ends with the same codes and the same trace."""
    net, (x, y), (cx, cy), _ = digits
    score = accuracy({"x": cx}, cy)
    whole = bl.quantize(net, x, labels=y, score=score, max_drop=0.02, **SMALL)
    for stage, at in (("learn", 7), ("search", 2)):
        work = tmp_path / stage

        def stop(name, done, total, stage=stage, at=at):
            if name == stage and done == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bl.quantize(net, x, labels=y, score=score, max_drop=0.02, work=work, progress=stop, **SMALL)
        again = bl.quantize(net, x, labels=y, score=score, max_drop=0.02, work=work, **SMALL)
        for name, q in weights_of(whole).items():
            assert np.array_equal(q.codes, weights_of(again)[name].codes)
        a, b = (m.graph.meta["result"] for m in (whole, again))
        assert a == b


def test_same_call_same_bytes(digits, tmp_path):
    """The file holds nothing of time or place."""
    net, (x, y), _, _ = digits
    for name in ("a", "b"):
        bl.quantize(net, x, labels=y, count=2, **SMALL).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_biases_for_every_width(digits):
    net, (x, y), _, _ = digits
    model = bl.quantize(net, x, labels=y, effort="fast")
    bias = model.graph.constants["2.bias"]
    assert isinstance(bias, PerWidth)
    assert sorted(bias.arrays) == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"criterion": "magic"}, "criterion must be one of weight_difference"),
        ({"search": "magic"}, "search must be one of halving"),
        ({"max_drop": 2}, "max_drop must be a fraction"),
        ({"budget": "big"}, "budget must be written like 0.5MB"),
        ({"effort": "heroic"}, "effort must be one of fast"),
        ({"low": 0}, "low must be at least 1"),
        ({"plan": "float"}, "no float weight is left"),
        ({"labels": [1, 2]}, "labels"),
    ],
)
def test_wrong_arguments_are_one_line(digits, options, text):
    net, (x, _), _, _ = digits
    with pytest.raises(ValueError, match=text) as caught:
        bl.quantize(net, x, **({"effort": "fast"} | options))
    assert "\n" not in str(caught.value)


def test_a_score_must_be_a_number(digits):
    net, (x, _), _, _ = digits
    with pytest.raises(ValueError, match="score must return a finite number"):
        bl.quantize(net, x, score=lambda model: float("nan"), max_drop=0.1, criterion="range", effort="fast")


@pytest.mark.parametrize("options", [{"cover": "max"}, {"cover": "kstd"}, {"cover": "pdf"}, {"align": "sums"}])
def test_ranges_and_alignment_are_options(digits, options):
    net, (x, _), _, (tx, ty) = digits
    model = bl.quantize(net, x, plan="fixed8,a=fixed8", effort="fast", **options)
    assert (model(tx).argmax(1) == ty).mean() > 0.85


def test_wrong_options_of_ranges(digits):
    net, (x, _), _, _ = digits
    with pytest.raises(ValueError, match="cover must be one of max, kstd, mse, pdf, got 'all'"):
        bl.quantize(net, x, cover="all", effort="fast")


def test_what_deployment_needs_is_in_the_file(digits, tmp_path):
    """Labels, normalisation and layout go with the network."""
    net, (x, _), _, _ = digits
    said = {"labels": list("0123456789"), "normalisation": {"mean": [0.5], "std": [0.25]}, "layout": "NCHW"}
    bl.quantize(net, x, meta=said, effort="fast").save(tmp_path / "net.ladder")
    model = bl.load(tmp_path / "net.ladder")
    assert model.labels == said["labels"]
    assert {k: model.graph.meta[k] for k in said} == said


def test_a_file_says_how_it_was_made(digits, tmp_path):
    """The arguments that were not the usual ones; given again, they make the same bytes."""
    net, (x, y), *_ = digits
    bl.quantize(net, x, labels=y, plan={"*": "nested6", "a=*": "fixed8"}, count=2, low=3, **SMALL).save(tmp_path / "a.ladder")
    said = bl.load(tmp_path / "a.ladder").graph.meta["recipe"]
    assert said == {"plan": {"*": "nested6", "a=*": "fixed8"}, "count": 2, "low": 3, **SMALL}
    bl.quantize(net, x, labels=y, **said).save(tmp_path / "b.ladder")
    assert (tmp_path / "a.ladder").read_bytes() == (tmp_path / "b.ladder").read_bytes()
