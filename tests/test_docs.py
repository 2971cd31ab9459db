"""What is written is true: code runs, generated pages are current, names exist, nothing of one machine is in the tree."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import bitladder
from bitladder import native

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SYSTEMS = 18
TELLING = ("show", "verify", "doctor", "bench")
TEXT = (".c", ".py", ".pyi", ".md", ".txt", ".toml", ".json", ".yaml", ".yml", ".html", ".j2", ".cfg", ".h", ".cc", "")
# Put together here so that this file does not hold them: folders of one machine, hosts of package registries.
NEVER = [
    a + b for a, b in (("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("py", "pi."), ("python", "hosted"), ("download.", "py"))
]


def blocks(path, language):
    """The blocks of code of a page in one language, but those that say they are not to be run."""
    found = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)
    return [code for code in found if "# not run" not in code]


def loaded(name, path):
    """A Python file of the tree that is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(arguments, folder):
    """Run Python in a folder; its output."""
    path = os.pathsep.join([str(Path(bitladder.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_code_runs(page, tmp_path):
    """The Python blocks of a page are one program, its `bitladder` lines follow, all in an empty folder."""
    for name in ("torch", "sklearn", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    (tmp_path / "page.py").write_text("\n\n".join(blocks(page, "python")))
    run(["page.py"], tmp_path)
    for line in "".join(blocks(page, "bash")).splitlines():
        command, *words = shlex.split(line, comments=True) or [""]
        if command == "bitladder" and (words[0] != "doctor" or native.core):  # for which a missing core is a finding
            assert "wrote" in run(["-m", "bitladder", *words], tmp_path) or words[0] in TELLING


def test_operators_are_current():
    """docs/operators.md is what docs/make_operators.py makes."""
    made = loaded("make_operators", ROOT / "docs" / "make_operators.py")
    assert made.PAGE.read_text() == made.page(), "run: python docs/make_operators.py"


def test_results_are_current():
    """The table in README.md and in docs/reliability.md, and all of docs/performance.md, are what bench/results/ says."""
    table = loaded("bench_table", ROOT / "bench" / "table.py")
    readme, found = table.README.read_text(), table.results()
    assert table.rewritten(readme, table.block(found)) == readme, "run: python -m bench.table"
    assert table.PAGE.read_text() == table.page(found), "run: python -m bench.table"
    files = table.FILES.read_text()
    assert table.rewritten(files, table.trials(found)) == files, "run: python -m bench.table"


def test_the_table_says_what_was_missed():
    """A goal that was missed and a figure that was not measured are rows like any other."""
    table = loaded("bench_table", ROOT / "bench" / "table.py")
    figures = {
        "layers_at_4_bits_nearest": {"value": 0.55, "goal": 0.5, "met": True},
        "nested_8_loss": {"value": 0.7, "goal": 0.5, "met": False},
        "nested_4_loss": {"value": 0.7, "goal": 0.5, "met": True},
        "nested_2_loss": {"value": 4.0, "goal": None, "met": True},
        "some_seconds": {"value": None, "goal": 3, "met": False},
    }
    machine = {"cores": 2, "command": "python -m bench criteria"}
    text = table.block([{"bench": "criteria", "machine": machine, "versions": {"torch": "2.13.0"}, "figures": figures}])
    alone = "one nested file at {0} bits: points lost against a network rounded for {0} bits alone"
    assert text.splitlines()[2:] == [
        "| `criteria` | share of layers at 4 bits, losing at most 1 point against 8, nearest | 0.55 | at least 0.5 | yes |",
        f"| `criteria` | {alone.format(8)} | 0.7 | at most 0.5 | **no** |",
        f"| `criteria` | {alone.format(4)} | 0.7 | at most 0.5 | within the interval |",
        f"| `criteria` | {alone.format(2)} | 4 | - | - |",
        "| `criteria` | some seconds | - | 3 | not measured |",
        "",
        "- `python -m bench criteria`: cores 2; torch 2.13.0",
    ]
    assert table.block([]) == table.NOTHING
    assert table.NOTHING in table.page([])
    with pytest.raises(ValueError, match="is missing"):
        table.rewritten("no place", text)


def rows():
    """The cells of every row of docs/systems.md."""
    lines = (ROOT / "docs" / "systems.md").read_text().splitlines()
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in lines if re.match(r"\| S\d", line)]


def test_every_system_has_a_row():
    """Eighteen rows in order; those that claim to run name a call, a module and evidence."""
    assert [row[0] for row in rows()] == [f"S{n}" for n in range(1, SYSTEMS + 1)]
    for system, does, state, call, _, module, evidence in rows():
        assert does, system
        assert module, system
        assert state.startswith(("here", "part: ", "not there yet")), system
        if not state.startswith("not there yet"):
            assert call, system
            assert evidence, system


def test_modules_and_evidence_exist():
    """Every module, test and page that docs/systems.md names is in the tree."""
    for system, _, state, _, _, modules, evidence in rows():
        for module in re.findall(r"`([^`]+)`", modules):
            assert (ROOT / "src" / "bitladder" / module).exists() or "not made yet" in modules, f"{system}: {module}"
        for path, name in re.findall(r"`((?:tests|docs)/[\w./-]+?)(?:::(\w+))?`", evidence):
            assert (ROOT / path).exists(), f"{system}: {path}"
            assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{system}: {path}::{name}"
        assert state.startswith("not there yet") or "tests/" in evidence, system


def test_links_lead_somewhere():
    """Links between pages point to files of the tree."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_floors_are_drawn_as_they_are():
    """The diagram of docs/design.md has the floors that tests/test_layers.py checks, in their order."""
    floors = loaded("layers", ROOT / "tests" / "test_layers.py").FLOORS.split("\n")
    (diagram,) = blocks(ROOT / "docs" / "design.md", "text")
    assert [re.split(r"\s{2,}", line)[0] for line in diagram.splitlines()] == [line for line in floors if line]


def tracked():
    """Every text file that git knows, or all there are in a tree without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    made = {".git", ".venv", "_build", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    every = (
        (p for p in ROOT.rglob("*") if not made & set(p.parts))
        if listed.returncode
        else map(ROOT.joinpath, listed.stdout.split("\0"))
    )
    return [p for p in every if p.is_file() and p.suffix in TEXT and ".egg-info" not in str(p)]


def test_nothing_of_one_machine():
    """No folder of a machine and no host of a registry in the tree; prose is ASCII."""
    files = tracked()
    assert len(files) > 100
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for word in NEVER:
            assert word not in text, f"{path.relative_to(ROOT)} holds {word!r}"
        if path.suffix == ".md":
            assert text.isascii(), path.relative_to(ROOT)
