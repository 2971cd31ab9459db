"""The benchmark of training: which files it collects, and how rows become figures."""

import sys
from types import SimpleNamespace

from bench import train_nested, training
from bench.__main__ import BENCHES
from bench.options import Options
from bench.result import Figure, Row


def test_every_method_is_collected():
    """Each `train_*.py` has rows to give and figures to make of them."""
    assert {"train_nested", "train_updates"} <= set(training.methods()) <= set(BENCHES)


def test_one_result_has_the_rows_of_all(monkeypatch):
    """What each method says alone, one after the other; each gets what the command was told."""

    def method(name):
        rows = lambda data, quick: [Row(f"{name} {quick}", 1.0)]
        return SimpleNamespace(
            bench=lambda options: training.alone(name, options, rows, lambda found: {name: Figure(1, 1, True)})
        )

    monkeypatch.setattr(training, "methods", lambda: ["train_a", "train_b"])
    for name in training.methods():
        monkeypatch.setitem(sys.modules, f"bench.{name}", method(name))
    result = training.bench(Options(quick=True))
    assert (result.bench, [r.what for r in result.rows], list(result.figures)) == (
        "training", ["train_a True", "train_b True"], ["train_a", "train_b"]
    )  # fmt: skip


def test_figures_of_nested_training():
    """Points lost are judged as they are, whatever their interval; each row is found by its width and its peer."""
    held = {8: 88.3, 4: 88.0, 3: 87.9, 2: 87.0}
    rows = [Row.of(f"ResNet-20 trained on: nested at {b} bits, top-1 %", h, 88.29, "float", 0.2) for b, h in held.items()]
    rows += [
        Row.of(f"ResNet-20 trained on: nested at {b} bits, top-1 %", held[b], 88.1, f"{b} bits alone", 0.2) for b in (4, 2)
    ]
    rows += [Row.of("ResNet-20 trained on: nested down to 1 bit, at 2 bits, top-1 %", 80.0, 88.29, "float", 0.2)]
    found = train_nested.figures(rows)
    assert {name.rpartition(": ")[2]: (round(f.value, 2), f.met) for name, f in found.items()} == {
        "points lost at 4 bits": (0.29, False),
        "points lost at 2 bits": (1.29, False),
        "points behind 4 bits alone": (0.1, True),
        "points behind 2 bits alone": (1.1, False),
    }
