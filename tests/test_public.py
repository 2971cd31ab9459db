"""What `import bitladder` gives, and what it must not cost."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import bitladder as bl

NAMES = [
    "Codebook",
    "Fixed",
    "Int",
    "Log",
    "Model",
    "Nested",
    "Product",
    "Ternary",
    "__version__",
    "diff",
    "finish",
    "from_safetensors",
    "load",
    "parse",
    "patch",
    "prepare",
    "quantize",
]
HEAVY = ("torch", "onnx", "onnxruntime", "rich", "jinja2", "scipy", "yaml", "pydantic")


def fresh(code):
    """The standard output of `code` in a new interpreter."""
    env = {**os.environ, "PYTHONPATH": str(Path(bl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, env=env)
    return done.stdout.strip()


def test_the_public_names_are_these():
    """Adding or losing one is a decision; each resolves, and `dir` shows no others."""
    assert sorted(bl.__all__) == NAMES == dir(bl)
    assert set(bl.HOME) == set(NAMES) - {"__version__"}
    for name in bl.__all__:
        assert getattr(bl, name) is not None
    with pytest.raises(AttributeError, match="has no 'quantise'"):
        bl.quantise  # noqa: B018


def test_importing_brings_numpy_at_most():
    """Neither the package nor loading and running a file imports an extra; the first name used imports its home."""
    seen = fresh("import sys, bitladder; print([m for m in sys.modules if m.startswith('bitladder')])")
    assert seen == "['bitladder']"
    names = "bitladder.load, bitladder.Int, bitladder.quantize"
    code = f"import sys, bitladder; {names}; print([m for m in {HEAVY} if m in sys.modules])"
    assert fresh(code) == "[]"
    code = f"import sys, bitladder.cli; print([m for m in {HEAVY} if m in sys.modules])"
    assert fresh(code) == "[]"


def test_importing_takes_no_time():
    """At most 40 ms more than `import numpy`: the median difference of seven pairs of fresh interpreters."""
    clock = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    pairs = [(float(fresh(clock.format("numpy"))), float(fresh(clock.format("numpy, bitladder")))) for _ in range(7)]
    assert statistics.median(b - a for a, b in pairs) <= 0.040
