"""The benchmark of training: which files it collects, and how rows become figures."""

from bench import train_nested, training
from bench.result import Row


def test_every_method_is_collected():
    """Each `train_*.py` has rows to give and figures to make of them."""
    assert {"train_nested", "train_updates"} <= set(training.methods())


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
