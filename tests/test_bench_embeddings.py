"""Sentences for the encoder: where they come from, how they are put into batches."""

import numpy as np
import pytest

from bench import embeddings, table


def test_sentences_are_first_ones(tmp_path, monkeypatch):
    """Of every docstring the first sentence, if it is neither a word nor a page; each once, in the order of files."""
    (tmp_path / "a.py").write_text('"""One two three four. And more."""\ndef f():\n    """Too short."""\n')
    (tmp_path / "b.py").write_text(
        'class A:\n    """Five six seven\n    eight.\n\n    Nine."""\n    def g(self):\n        """One two three four."""\n'
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text('"""Tests are left out of this."""\n')
    monkeypatch.setattr(embeddings.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert embeddings.sentences() == ["One two three four", "Five six seven eight.", "One two three four."]
    assert embeddings.sentences(2) == ["One two three four", "One two three four."]


def test_calibration_is_on_other_sentences(tmp_path, monkeypatch):
    """The packages take turns; none is one that counts."""
    said = {
        "stdlib": ["One two three four"],
        "numpy": ["One two three four", "Five six seven eight"],
        "scipy": ["Nine is a number", "And ten is one"],
    }
    for name, found in said.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            "".join(f'def f{i}():\n    """{s}. More."""\n' for i, s in enumerate(found))
        )
    monkeypatch.setattr(embeddings.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "stdlib")})
    at = {name: type("Module", (), {"__file__": str(tmp_path / name / "__init__.py")}) for name in said}
    monkeypatch.setattr(embeddings.importlib, "import_module", at.get)
    assert embeddings.others() == "Five six seven eight. Nine is a number. And ten is one."


def test_sentences_are_padded_or_cut(monkeypatch):
    """To one length; the mask says what is padding."""

    class Words:
        def encode(self, text):
            return type("Encoded", (), {"ids": [int(word) for word in text.split()]})

    monkeypatch.setattr(embeddings.minilm, "tokenizer", Words)
    monkeypatch.setattr(embeddings, "TOKENS", 2)
    ids, mask = embeddings.tokens(["1 2 3", "4"])
    assert ids.tolist() == [[1, 2], [4, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]
    assert mask.dtype == np.int64


def test_without_the_encoder_nothing_is_measured(monkeypatch):
    """Figures are there, unmet."""
    monkeypatch.setattr(embeddings.minilm, "load", missing)
    rows, figures = embeddings.rows()
    assert rows == []
    assert {name: (f.value, f.met) for name, f in figures.items()} == {
        "minilm_cosine_8": (None, False),
        "minilm_cosine_4": (None, False),
    }
    assert "4 bits" in table.figure_row("rounding", "minilm_cosine_4", {"value": None, "goal": 0.99, "met": False})[1]


def missing():
    raise embeddings.minilm.Missing("not there")


@pytest.mark.parametrize("plan", embeddings.PLANS)
def test_plans_leave_nothing_unsaid(plan):
    """Every plan says how it rounds; goals name plans that are there."""
    assert {"plan", "rounding"} <= embeddings.PLANS[plan].keys()
    assert all(name in embeddings.PLANS for name, _ in embeddings.GOALS.values())
