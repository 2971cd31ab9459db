"""Recipes as files: read, refused, written, and made again to the byte; locks that say what differs."""

import hashlib
import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convnet, images, onnx_net

import bitladder as bl
from bitladder import lock, recipes
from bitladder.cli import COMMANDS, main
from bitladder.recipe import UNSAID

pytest.importorskip("yaml")
pytest.importorskip("pydantic")

DOCS = Path(__file__).parent.parent / "docs"
RUN = ["quantize", "net.onnx", "--data", "x.npz", "--eval", "e.npz"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a network and data for it."""
    pytest.importorskip("onnx_ir")
    monkeypatch.chdir(tmp_path)
    onnx_net("net.onnx")
    for name, seed in (("x", 0), ("e", 1), ("t", 2)):
        x, labels = images(60, seed)
        np.savez(f"{name}.npz", x=x, y=labels)
    return tmp_path


def said(capsys):
    """Standard output as lines, and the one line of standard error, if there is one."""
    captured = capsys.readouterr()
    assert captured.err.count("\n") <= 1
    return captured.out.splitlines(), captured.err


def reads(text, folder):
    """What a recipe of this text says."""
    (folder / "r.yaml").write_text(text)
    return recipes.read(str(folder / "r.yaml"))


# ---------------------------------------------------------------------------------------------------------- the schema


def test_the_schema_is_current():
    """docs/recipe.schema.json is what docs/make_schema.py makes."""
    spec = importlib.util.spec_from_file_location("make_schema", DOCS / "make_schema.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.FILE.read_text() == made.text(), "run: python docs/make_schema.py"


def test_a_recipe_can_say_all_that_quantize_takes():
    """Every argument but the data and what is no setting; each has a meaning, and the page has each."""
    arguments = set(inspect.signature(bl.quantize).parameters) - set(UNSAID) | {"meta"} | set(recipes.SAVING)
    properties = recipes.schema()["properties"]
    assert set(properties) == arguments
    assert all(entry.get("description") for entry in properties.values()), "a word is missing in recipes.MEANS"
    page = (DOCS / "recipes.md").read_text()
    assert [word for word in arguments if f"`{word}`" not in page] == []
    assert recipes.schema()["additionalProperties"] is False


def test_the_command_line_can_say_it_too():
    """One option a word."""
    options = {flag for flags, _ in COMMANDS["quantize"][1] for flag in flags}
    assert [word for word in recipes.schema()["properties"] if "--" + word.replace("_", "-") not in options] == []


# ------------------------------------------------------------------------------------------------------------- reading


def test_every_word_is_taken(tmp_path):
    """Some other value of each, as it was written."""
    other = {"string": "5", "integer": 3, "number": 0.5, "boolean": True, "object": {"a": "b"}}
    some = {}
    for word, entry in recipes.schema()["properties"].items():
        kind = next(e for e in entry.get("anyOf", [entry]) if e.get("type") != "null")
        some[word] = kind["enum"][-1] if "enum" in kind else other[kind["type"]]
    assert reads(recipes.text(some), tmp_path) == some
    assert recipes.told(recipes.words() | recipes.SAVING | some | {"plan": {"*": "int4"}})["plan"] == {"*": "int4"}


def test_numbers_and_nothing(tmp_path):
    """1e-3 is a number, a whole number does for a fraction, an empty file says nothing, dates are text."""
    assert reads("max_drop: 1e-3", tmp_path) == {"max_drop": 0.001}
    assert repr(reads("seed: 1\nmax_drop: 0", tmp_path)) == "{'seed': 1, 'max_drop': 0.0}"  # as the command line has it
    assert reads("# nothing\n", tmp_path) == {}
    assert reads("plan: {'9': null, '*': int4}", tmp_path) == {"plan": {"9": None, "*": "int4"}}
    assert reads("meta: {made: 2026-01-02}", tmp_path) == {"meta": {"made": "2026-01-02"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("criterium: range", "has no word 'criterium'; the nearest is 'criterion'"),
        ("max-drop: 0.1", "has no word 'max-drop'; the nearest is 'max_drop'"),
        ("3: 4", "has no word 3; the nearest is"),
        ("- plan", "must map words such as plan or max_drop, got list"),
        ("seed: 0.5", "'seed' of .* must be a whole number, got 0.5"),
        ("seed: true", "'seed' of .* must be a whole number, got True"),
        ("max_drop: .nan", "'max_drop' of .* must be a finite number, got nan"),
        ("max_drop: lots", "'max_drop' of .* must be a finite number, got 'lots'"),
        ("skip_smallest: 1", "'skip_smallest' of .* must be true or false, got 1"),
        ("order: random", "'order' of .* must be one of layer, plane, importance, got 'random'"),
        ("rounding: up", "'rounding' of .* must be one of nearest, .*got 'up'"),
        ("plan: {3: int4}", "'plan' of .* must be text or a map from text in quotes to text, got {3: 'int4'}"),
        ("meta: []", "'meta' of .* must be a map from text in quotes, got "),
        ("meta: {x: .inf}", "must hold what JSON can"),
        ("seed: 1\nseed: 2", "is not YAML .*'seed' is given twice"),
        ("plan: {a: int4, a: int8}", "is not YAML .*'a' is given twice"),
        ("meta: &a {x: *a}", "is not YAML .*aliases are not taken here"),
        ("plan: !!python/name:os.system", "is not YAML .*could not determine a constructor"),
        ("a: [", "is not YAML"),
    ],
)
def test_mistakes_are_one_line(text, says, tmp_path):
    """It names the file, the word, what it must be and what it is."""
    with pytest.raises(ValueError, match=f"^recipe: .*{says}") as caught:
        reads(text, tmp_path)
    assert "\n" not in str(caught.value)
    assert "r.yaml" in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    """Or that is no text."""
    with pytest.raises(ValueError, match="cannot be read"):
        recipes.read(str(tmp_path / "gone.yaml"))
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        recipes.read(str(tmp_path / "r.yaml"))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(
    plan=st.dictionaries(st.text(min_size=1), st.sampled_from(["int4", "float", "nested8:tree"]), min_size=1, max_size=4),
    meta=st.dictionaries(st.text(), PLAIN, max_size=3),
    drop=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**63),
)
def test_what_is_written_is_read(plan, meta, drop, seed, tmp_path_factory):
    """Any text, any number, in the order given."""
    some = {"plan": plan, "max_drop": drop, "meta": meta, "seed": seed}
    path = str(tmp_path_factory.mktemp("recipe") / "r.yaml")
    recipes.write(path, some)
    found = recipes.read(path)
    assert found == some
    assert list(found["plan"]) == list(plan)


# ---------------------------------------------------------------------------------------------------------- same bytes


def test_a_recipe_makes_the_same_bytes_again(here, capsys):
    """What --recipe-out writes and what show prints; with data for deployment, a coder and an order."""
    (here / "m.json").write_text(json.dumps({"labels": list("abcde"), "layout": "NCHW"}))
    words = ["--criterion", "range", "--max-drop", "0.3", "--low", "3", "--meta", "m.json", "--order", "importance"]
    more = ["--coder", "fast", "--plan", "nested6,a=fixed8", "--effort", "fast", "--test", "t.npz", "--recipe-out", "r.yaml"]
    assert main([*RUN, *words, *more, "-o", "a.ladder", "--quiet"]) == 0
    said(capsys)
    assert main(["show", "a.ladder", "--recipe"]) == 0
    shown = "\n".join(said(capsys)[0]) + "\n"
    (here / "s.yaml").write_text(shown)
    assert "# evaluation data: top-1 accuracy on 60 samples" in shown
    assert recipes.read("r.yaml") == recipes.read("s.yaml")
    assert recipes.read("s.yaml")["plan"] == {"*": "nested6", "a=*": "fixed8"}
    for name in ("r", "s"):
        assert main([*RUN, "--test", "t.npz", "--recipe", f"{name}.yaml", "-o", f"{name}.ladder", "--quiet"]) == 0
        assert (here / f"{name}.ladder").read_bytes() == (here / "a.ladder").read_bytes()
    assert main([*RUN, "--test", "t.npz", "--recipe", "r.yaml", "--coder", "raw", "-o", "b.ladder", "--quiet"]) == 0
    assert bl.load("b.ladder").graph.meta["recipe"]["low"] == 3
    assert "coder" in bl.load("b.ladder").graph.meta["recipe"]


def test_a_run_without_words_has_an_empty_recipe(here, capsys):
    """Which is one too."""
    assert main([*RUN[:4], "--recipe-out", "r.yaml", "-o", "a.ladder", "--quiet"]) == 0
    assert recipes.read("r.yaml") == {}
    assert main([*RUN[:4], "--recipe", "r.yaml", "-o", "b.ladder", "--quiet"]) == 0
    assert (here / "a.ladder").read_bytes() == (here / "b.ladder").read_bytes()


def test_files_without_a_recipe_say_so(here, capsys):
    """And two recipes at once are one too many."""
    bl.Model(convnet()).save("net.ladder")
    assert main(["show", "net.ladder", "--recipe"]) == 1
    assert "recipe: this file keeps none" in said(capsys)[1]
    (here / "r.yaml").write_text("seed: 1")
    assert main([*RUN, "--plan", "r.yaml", "--recipe", "r.yaml", "-o", "q.ladder"]) == 1
    assert "are both recipes; give one of them" in said(capsys)[1]


# ---------------------------------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--accept", "proved", "--max-drop", "0.5"], 0, "; surely within 0.5"),
        (["--accept", "proved", "--max-drop", "0.001"], 2, "; neither surely within 0.001 nor surely more: it takes about"),
        (["--max-drop", "0.001"], 0, "; neither surely within 0.001 nor surely more: it takes about"),
        (
            ["--plan", "nested8", "--budget", "avg_bits=2", "--max-drop", "0.01", "--test", "t.npz"],
            2,
            "; surely more than 0.01",
        ),
        (["--plan", "int8"], 0, "; so many samples tell"),
    ],
)
def test_the_loss_is_judged(words, status, says, here, capsys):
    """By agreement with float: status 2 where it is surely too large, or not proved although that was asked for."""
    onnx_net("net.onnx", b2=np.zeros(5))
    from_onnx = pytest.importorskip("bitladder.convert.from_onnx").from_onnx
    x = np.random.default_rng(7).normal(size=(120, 2, 6, 6)).astype(np.float32)
    if status and "--budget" in words:  # let no class win by itself
        onnx_net("net.onnx", b2=-bl.Model(from_onnx("net.onnx"))(x).mean(0))
    np.savez("e.npz", x=x[:60])
    np.savez("t.npz", x=x[60:])
    assert main([*RUN, "--criterion", "range", *words, "-o", "q.ladder"]) == status
    (line,) = [line for line in said(capsys)[0] if line.startswith("loss against float on 60 samples")]
    assert says in line
    assert ("that nothing was chosen by" in line) == ("--test" in words)
    said_there = bl.load("q.ladder").graph.meta["result"]["accepted"]
    assert said_there["low"] <= said_there["loss"] <= said_there["high"]
    assert main(["show", "q.ladder"]) == 0
    assert line in said(capsys)[0]


def test_shared_samples_are_named(here, capsys):
    """In the output and in the file."""
    x, labels = images(60, 0)
    np.savez("e.npz", x=x[50:], y=labels[50:])
    assert main([*RUN, "--plan", "int8", "-o", "q.ladder"]) == 0
    assert said(capsys)[0][0].startswith("10 of 10 samples of the evaluation data are in the calibration data, byte for byte")
    assert bl.load("q.ladder").graph.meta["result"]["leaked"] == {"evaluation in calibration": 10}


def test_a_plan_comes_out_of_a_file(here, capsys):
    """That of a search, to be proved on other samples: weights by name, activations as before."""
    assert main([*RUN, "--criterion", "range", "--max-drop", "0.5", "--plan", "fixed8,a=fixed7", "-o", "a.ladder"]) == 0
    again = [*RUN[:4], "--plan", "a.ladder", "--test", "t.npz", "--max-drop", "0.6", "--accept", "proved"]
    assert main([*again, "-o", "b.ladder"]) == 0
    a, b = bl.load("a.ladder").graph, bl.load("b.ladder").graph
    assert b.meta["plan"] == a.meta["plan"] != {"w1": "fixed8", "w2": "fixed8"}
    assert {str(e.format) for e in b.encodings.values()} == {str(e.format) for e in a.encodings.values()}
    assert b.meta["recipe"]["plan"] == a.meta["plan"] | {"a=*": "fixed7"}
    (here / "r.yaml").write_text("plan: {w1: int4, w2: null}")
    assert main([*RUN[:4], "--plan", "r.yaml", "-o", "a.ladder"]) == 0
    assert main([*RUN[:4], "--plan", "a.ladder", "-o", "b.ladder"]) == 0
    assert bl.load("b.ladder").plan == bl.load("a.ladder").plan == {"w1": "int4", "w2": "float"}
    bl.Model(convnet()).save("net.ladder")
    assert main([*RUN, "--plan", "net.ladder", "-o", "b.ladder"]) == 1
    assert "plan: 'net.ladder' keeps none" in said(capsys)[1]


def test_proof_needs_something_to_prove(here, capsys):
    """Without data or a drop."""
    assert main([*RUN[:4], "--accept", "proved", "-o", "q.ladder"]) == 1
    assert "accept 'proved' needs a max_drop" in said(capsys)[1]


# --------------------------------------------------------------------------------------------------------------- locks


def test_a_lock_holds_a_run_to_its_bytes(here, capsys):
    """Beside the recipe; what differs is named, and nothing is written."""
    (here / "r.yaml").write_text("plan: nested4\n")
    run = [*RUN, "--recipe", "r.yaml", "-o", "q.ladder", "--quiet"]
    assert main([*run, "--locked"]) == 1
    assert "locked: 'r.lock' does not exist; make it with --lock" in said(capsys)[1]
    assert main([*run, "--lock"]) == 0
    first = (here / "q.ladder").read_bytes()
    kept = json.loads((here / "r.lock").read_text())
    assert kept["made"]["bytes"] == len(first)
    assert set(kept["inputs"]) == {"network", "calibration", "evaluation"}
    assert (kept["recipe"], kept["seed"]) == ({"plan": {"*": "nested4"}}, 0)
    (here / "q.ladder").unlink()
    assert main([*run, "--locked"]) == 0
    assert (here / "q.ladder").read_bytes() == first
    assert not (here / "q.ladder.unlocked").exists()

    def refused(*more):
        (here / "q.ladder").unlink(missing_ok=True)
        assert main([*run, "--locked", *more]) == 1
        assert not (here / "q.ladder").exists()
        return said(capsys)[1]

    assert "differs in recipe low: nothing in the lock, 3 here" in refused("--low", "3")
    assert 'differs in recipe plan: {"*": "nested4"} in the lock, {"*": "int8"} here' in refused("--plan", "int8")
    assert "differs in inputs test: nothing in the lock" in refused("--test", "t.npz")
    (here / "r.lock").write_text(json.dumps(kept | {"versions": kept["versions"] | {"numpy": "1.0"}}))
    assert f"versions numpy: 1.0 in the lock, {np.__version__} here" in refused()
    (here / "r.lock").write_text(json.dumps(kept | {"machine": "PDP 11", "made": {"sha256": "0" * 64, "bytes": 1}}))
    line = refused()
    assert "the file must have SHA-256 000000000000... as 'r.lock' says" in line
    assert "(made on PDP 11, this is " in line
    assert (here / "q.ladder.unlocked").read_bytes() == first
    (here / "r.lock").write_text(json.dumps(kept))
    x, labels = images(60, 0)
    labels[3] = (labels[3] + 1) % 5
    np.savez("x.npz", x=x, y=labels)
    assert "differs in inputs calibration: " in refused()
    onnx_net("net.onnx", b2=np.zeros(5))
    assert "inputs network: " in refused()
    assert "inputs calibration: " in refused()


def test_a_lock_holds_a_run_to_its_table(here, capsys):
    """The one that was given or measured; another one, or none, is named before any work."""
    words = ["--budget", "avg_bits=5", "--criterion", "gradient", "--levels", "8,4", "--effort", "fast", "--quiet"]
    run = [*RUN[:4], *words, "-o", "q.ladder"]
    assert main([*run, "--table", "t.table", "--lock"]) == 0
    made = (here / "q.ladder").read_bytes()
    held = json.loads((here / "q.lock").read_text())["inputs"]["table"]
    assert held == hashlib.sha256((here / "t.table").read_bytes()).hexdigest()
    assert main([*run, "--table", "t.table", "--lock"]) == 0, "now it is read"
    assert json.loads((here / "q.lock").read_text())["inputs"]["table"] == held
    assert main([*run, "--table", "t.table", "--locked"]) == 0
    assert (here / "q.ladder").read_bytes() == made
    said(capsys)
    assert main([*run, "--table", "other.table", "--locked"]) == 1
    assert f"inputs table: {held[:12]}... in the lock, to be measured here" in said(capsys)[1]
    assert not (here / "other.table").exists()
    assert main([*run, "--locked"]) == 1
    assert f"inputs table: {held[:12]}... in the lock, nothing here" in said(capsys)[1]
    text = (here / "t.table").read_text()
    (here / "t.table").write_text(text.replace('"loss": ', '"loss": 1', 1))
    assert main([*run, "--table", "t.table", "--locked"]) == 1
    assert f"differs in inputs table: {held[:12]}... in the lock, " in said(capsys)[1]
    assert (here / "q.ladder").read_bytes() == made


def test_a_lock_goes_beside_the_file_where_there_is_no_recipe(here, capsys):
    """And is not read and written at once."""
    assert main([*RUN, "--plan", "int8", "-o", "q.ladder", "--quiet", "--lock"]) == 0
    assert json.loads((here / "q.lock").read_text())["recipe"] == {"plan": {"*": "int8"}}
    assert main([*RUN, "--plan", "int8", "-o", "q.ladder", "--quiet", "--lock", "--locked"]) == 1
    assert "--lock writes what --locked reads" in said(capsys)[1]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lock": 1}', '{"lock": 9, "recipe": {}, "inputs": {}, "versions": {}, "made": {}}']
)
def test_what_is_no_lock_is_refused(text, tmp_path):
    """In one line that says how to make one."""
    (tmp_path / "r.lock").write_text(text)
    with pytest.raises(ValueError, match="make it again with --lock"):
        lock.read(str(tmp_path / "r.lock"))


def test_hashes_are_of_what_is_read():
    """Not of how it lay in memory; types, shapes and names count."""
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert lock.hash_of_arrays({"a": a}) == lock.hash_of_arrays({"a": np.asfortranarray(a)})
    others = ({"b": a}, {"a": a.reshape(3, 2)}, {"a": a.view(np.int32)}, {"a": a + 1}, {"a": a, "b": a}, {})
    assert len({lock.hash_of_arrays(arrays) for arrays in ({"a": a}, *others)}) == 7
    assert lock.hash_of_graph(convnet()) == lock.hash_of_graph(convnet())
    assert lock.hash_of_graph(convnet()) != lock.hash_of_graph(convnet(meta={"labels": ["a"]}))
