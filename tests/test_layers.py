"""Imports go down only. Every module has a floor; neighbours on one floor do not know each other."""

import ast
from pathlib import Path

import bitladder

ROOT = Path(bitladder.__file__).parent

# From the roof to the ground; "|" parts neighbours. A module of a folder is the folder.
FLOORS = """
__main__
cli
demo
report | doctor
verify
recipes | lock
training
recipe
budgets | searches
ranking
task
goal
assign
ptq
dial
device
model
engine
file
train
convert
runtime
ir
formats
stats | codec
peers
errors | disk | table | native | timing | threads
"""
FLOOR = {name.strip(): -n for n, line in enumerate(FLOORS.split("\n")) for name in line.split("|") if name.strip()}

# Not even these may be imported outside a function, by anyone but the rooms whose matter they are.
HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "scipy", "sklearn", "rich", "jinja2", "yaml"}
HEAVY |= {"pydantic", "safetensors"}
LIGHT_ROOMS = set(FLOOR) - {"convert", "train", "assign"}


def room(module):
    """The room a dotted name within the package leads to, or None."""
    parts = module.split(".")
    return parts[1] if parts[0] == "bitladder" and len(parts) > 1 else None


def imports(path):
    """(module, whether at the top of the file) of every import in a file; `from bitladder import x` leads to x."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"bitladder.{a.name}" for a in node.names] if node.module == "bitladder" else [node.module]
            yield from ((name, id(node) in top) for name in names)


def files():
    """(room, path) of every file of the package but its own `__init__`."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_every_module_has_a_floor():
    """A new room fails here until someone decides where it stands."""
    assert {here for here, _ in files()} <= set(FLOOR)


def test_imports_go_down():
    """To a lower floor or within the room; an import within a function counts like any other."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for here, path in files()
        for name, _ in imports(path)
        if (there := room(name)) in FLOOR and there != here and FLOOR[there] >= FLOOR[here]
    ]
    assert wrong == []


def test_extras_are_imported_when_used():
    """Only converters, training and criteria may name an extra at the top of a file."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for here, path in files()
        for name, top in imports(path)
        if top and here in LIGHT_ROOMS and name.partition(".")[0] in HEAVY
    ]
    assert wrong == []
