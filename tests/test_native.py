"""The border between Python and the native core: its face, its refusals, its threads."""

import ast
import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import bitladder as bl
from bitladder import errors, native

core = native.core
needs_core = pytest.mark.skipif(core is None, reason=f"there is no native core: {native.why}")


def fresh(code, **env):
    """Standard output of `code` in a new interpreter with these variables set."""
    env = {**os.environ, "PYTHONPATH": str(Path(bl.__file__).parents[1]), **env}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip()


def test_the_core_is_there_where_it_must_be():
    """Where a build without the core counts as failed, no test passes for lack of it."""
    assert core is not None or not os.environ.get("BITLADDER_CORE_REQUIRED")


def test_it_can_be_switched_off_and_says_so():
    """BITLADDER_NATIVE=0 leaves the reference, and the reason is a line."""
    code = "from bitladder import native; print(native.core, native.isas(), repr(native.isa()), native.why)"
    assert fresh(code, BITLADDER_NATIVE="0") == "None [] '' BITLADDER_NATIVE=0 is set"


def test_a_missing_core_is_no_error():
    """An installation without the extension imports and knows why."""
    code = "import sys; sys.modules['bitladder._native'] = None; from bitladder import native; print(native.core, native.why)"
    assert fresh(code, BITLADDER_NATIVE="1").startswith("None it was not built; install")


@needs_core
def test_instruction_sets_are_chosen_by_name(monkeypatch):
    """The best by default, any that is there by name, and one line for one that is not."""
    monkeypatch.delenv("BITLADDER_ISA", raising=False)
    assert native.isa() == native.isas()[0]
    assert native.isas()[-1] == "scalar"
    monkeypatch.setenv("BITLADDER_ISA", "scalar")
    assert native.isa() == "scalar"
    monkeypatch.setenv("BITLADDER_ISA", "sparc")
    with pytest.raises(ValueError, match=r"BITLADDER_ISA must be one of .*scalar on this machine, got 'sparc'") as caught:
        native.isa()
    assert "\n" not in str(caught.value)


def face(tree):
    """{name: argument names, or None for a property} of the functions, methods and properties in a tree of source."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}": args for name, args in face(node).items()}
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = None if node.decorator_list else [arg.arg for arg in node.args.args]
    return found


def arguments(function):
    """The names of the arguments of an extension function, as its signature spells them."""
    name, *_ = function.__nb_signature__[0]
    return [arg.arg for arg in ast.parse(name.replace("/", "*, ", 0) + ": ...").body[0].args.args]


@needs_core
def test_the_typed_face_is_the_module():
    """_native.pyi names just what the extension has, with the same arguments."""
    stub = ast.parse((Path(native.__file__).with_name("_native.pyi")).read_text())
    public = {name: thing for name, thing in vars(core).items() if not name.startswith("_")}
    found = {}
    for name, thing in public.items():
        if not inspect.isclass(thing):
            found[name] = arguments(thing)
            continue
        for member, value in vars(thing).items():
            if member == "__init__" or not member.startswith("_"):
                found[f"{name}.{member}"] = None if isinstance(value, property) else arguments(value)
    found.pop("Rung.__init__", None)  # rungs are made by networks alone
    assert found == face(stub)
