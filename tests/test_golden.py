"""Files of every released version: they load for ever, are what they were, and compute what they did (tests/golden/make.py)."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from bitladder import file, native
from bitladder.file import delta
from bitladder.model import Model

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
RUN = sorted(set(EXPECTED) - {"odd"})
NEAR = {"floats": 1e-5}  # files whose sums are floats, and how near their answers must be


@pytest.fixture(scope="module")
def make():
    """The script that made the files."""
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(name, got, want):
    """Whether answers are those that were written down: to the bit, or near where sums are floats."""
    if name in NEAR:
        return np.allclose(got, want, rtol=NEAR[name], atol=NEAR[name])
    return got.dtype == want.dtype and got.tobytes() == want.tobytes()


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_are_what_they_were(name):
    """Every byte, and the identity that says so; none is larger than a page."""
    data = (GOLDEN / f"{name}.ladder").read_bytes()
    assert {
        "bytes": len(data), "identity": file.identity(data), "sha256": hashlib.sha256(data).hexdigest()
    } == EXPECTED[name]  # fmt: skip
    assert len(data) <= 6000
    file.load(data)


@pytest.mark.parametrize("name", RUN)
def test_golden_files_compute_what_they_did(name, make):
    """On the reference, at every width."""
    got = make.answers(file.load(GOLDEN / f"{name}.ladder"))
    with np.load(GOLDEN / f"{name}.npz") as want:
        assert set(want) == set(got)
        assert [key for key in want if not same(name, got[key], want[key])] == []


@pytest.mark.skipif(not native.core, reason="no native core")
@pytest.mark.parametrize("name", RUN)
def test_the_core_computes_the_same(name, make):
    """What the compiled reader reads from the file itself, at every width."""
    model = Model(file.load(GOLDEN / f"{name}.ladder"))
    with np.load(GOLDEN / f"{name}.npz") as want:
        for bits in range(1, 9):
            out = model.at(bits)(make.inputs(model.whole))
            assert same(name, np.asarray(out), want[f"{model.whole.outputs[0]} at {bits}"])


def test_golden_deltas_make_what_they_did(make, tmp_path):
    """A file and what changed in it give the changed file, to the byte."""
    for name, base in make.DELTAS.items():
        delta.patch(GOLDEN / f"{base}.ladder", GOLDEN / f"{name}.delta", tmp_path / "made")
        assert (tmp_path / "made").read_bytes() == (GOLDEN / f"{name}.ladder").read_bytes()


def test_no_golden_file_is_forgotten(make):
    """Every kind of file that the script knows is there, and nothing else is."""
    assert set(make.wanted()) <= set(EXPECTED)
    assert {p.stem for p in GOLDEN.glob("*.ladder")} == set(EXPECTED)
