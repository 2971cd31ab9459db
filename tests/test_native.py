"""The border between Python and the native core: its face, its refusals, its threads."""

import ast
import inspect
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from networks import coded, fixed_points

import bitladder as bl
from bitladder import errors, file, native
from bitladder.ir.graph import Graph, Node, PerWidth, Value

core = native.core
needs_core = pytest.mark.skipif(core is None, reason=f"there is no native core: {native.why}")


def fresh(code, *argv, **env):
    """Standard output of `code` in a new interpreter with these arguments and variables."""
    env = {**os.environ, "PYTHONPATH": str(Path(bl.__file__).parents[1]), **env}
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True, env=env
    ).stdout.strip()


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
    return [arg.arg for arg in ast.parse(function.__nb_signature__[0][0] + ": ...").body[0].args.args]


@needs_core
def test_the_typed_face_is_the_module():
    """_native.pyi names just what the extension has, with the same arguments."""
    stub = ast.parse((Path(native.__file__).with_name("_native.pyi")).read_text())
    found = {}
    for name, thing in vars(core).items():
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if hasattr(value, "__nb_signature__"):
                    found[f"{name}.{member}"] = arguments(value)
                elif isinstance(value, property):
                    found[f"{name}.{member}"] = None
        elif not name.startswith("_"):
            found[name] = arguments(thing)
    assert found == face(stub)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The bytes of a file: a convolution with bias per width and a convolution, nested weights, outputs in float."""
    rng = np.random.default_rng(3)
    attrs = {"pads": ((1, 1), (1, 1)), "strides": (1, 1)}
    graph = Graph(
        inputs=(Value("image", "float32", ("batch", 2, 6, 6)),),
        outputs=("scores",),
        nodes=(
            Node("conv", ("image", "w1", "b1"), ("h1",), attrs, (0.0, None)),
            Node("conv", ("h1", "w2"), ("scores",), attrs),
        ),
        constants={
            "w1": coded("nested8", (4, 2, 3, 3), 1),
            "b1": PerWidth("w1", {b: rng.normal(size=4).astype(np.float32) for b in (2, 4, 8)}),
            "w2": coded("nested8:tree", (5, 4, 3, 3), 2),
        },
        encodings={"image": fixed_points(8, 5), "h1": fixed_points(8, 3)},
        meta={},
    )
    path = tmp_path_factory.mktemp("native") / "net.ladder"
    file.save(graph, path)
    return path.read_bytes()


@pytest.fixture
def rung(data):
    """That network at its highest widths."""
    return core.Network(data, 2, 1, "").at(0, {})


def arrays(samples=1):
    """An input and room for its output."""
    x = np.random.default_rng(samples).normal(size=(samples, 2, 6, 6)).astype(np.float32)
    return x, np.zeros((samples, 5, 6, 6), np.float32)


@needs_core
def test_a_rung_describes_and_fills_its_outputs(rung):
    """prepare says shape and dtype; run writes into the caller's array; profile gives a row per step."""
    x, y = arrays(3)
    assert rung.prepare([(3, 2, 6, 6)]) == [((3, 5, 6, 6), "float32")]
    x.flags.writeable = False
    rung.run([x], [y])
    assert y.any()
    assert rung.arena_bytes > 0
    again = np.zeros_like(y)
    rows = rung.profile([x], [again])
    assert np.array_equal(again, y)
    assert rows
    assert all(isinstance(kernel, str) and time >= 0 for _, kernel, time, _, _ in rows)


@needs_core
def test_widths_are_chosen_for_all_or_one(data):
    """Rungs share their network; an unknown weight and a width that cannot be are one line each."""
    network = core.Network(data, 1, 1, "")
    x, y = arrays()
    seen = set()
    for each in ({}, {"w1": 2}, {"w1": 2, "w2": 3}):
        network.at(0, each).run([x], [y])
        seen.add(y.tobytes())
    assert len(seen) == 3
    assert network.weight_bytes > 0
    for bad in ((-1, {}), (0, {"nobody": 4}), (0, {"w1": -77})):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            network.at(*bad)


WRONG = {
    "another dtype": (
        lambda x, y: ([x.astype("f8")], [y]),
        ValueError,
        "input 'image' must be an array of float32, got float64",
    ),
    "big-endian": (lambda x, y: ([x.astype(">f4")], [y]), ValueError, "'image' must be an array of float32, got elements of"),
    "complex": (lambda x, y: ([x.astype("c8")], [y]), ValueError, "'image' must be an array of float32, got elements of"),
    "dates": (lambda x, y: ([x.astype("i8").view("M8[s]")], [y]), ValueError, "input 0 must be an array of numbers"),
    "no array": (lambda x, y: ([1.5], [y]), TypeError, "input 0 must be an array"),
    "no list": (lambda x, y: (x, [y]), TypeError, "incompatible function arguments"),
    "None": (lambda x, y: ([None], [y]), TypeError, "input 0 must be an array"),
    "Fortran order": (lambda x, y: ([np.asfortranarray(x)], [y]), ValueError, "'image' must be in C order without gaps"),
    "gaps": (lambda x, y: ([np.repeat(x, 2, 3)[..., ::2]], [y]), ValueError, "'image' must be in C order without gaps"),
    "backwards": (lambda x, y: ([x[..., ::-1]], [y]), ValueError, "'image' must be in C order without gaps"),
    "a size": (lambda x, y: ([x[:, :1].copy()], [y]), ValueError, r"must have shape \(any, 2, 6, 6\), got \(1, 1, 6, 6\)"),
    "a rank": (lambda x, y: ([x[0]], [y]), ValueError, r"got \(2, 6, 6\)"),
    "too few inputs": (lambda x, y: ([], [y]), ValueError, "must have 1 inputs, got 0"),
    "too many inputs": (lambda x, y: ([x, x], [y]), ValueError, "must have 1 inputs, got 2"),
    "no output": (lambda x, y: ([x], []), ValueError, "must have 1 outputs, got 0"),
    "a short output": (
        lambda x, y: ([x], [y[:, :4].copy()]),
        ValueError,
        r"shape \(1, 5, 6, 6\), got \(1, 4, 6, 6\)",
    ),
    "an output of gaps": (lambda x, y: ([x], [np.zeros((1, 10, 6, 6), "f4")[:, ::2]]), ValueError, "must be in C order"),
    "an output of bytes": (lambda x, y: ([x], [bytes(720)]), ValueError, "output 0 must be an array .* written to"),
    "another output dtype": (lambda x, y: ([x], [y.astype("i4")]), ValueError, "must be an array of float32, got int32"),
}


@needs_core
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused(rung, case):
    """Each with what it must be, before the core sees it; nothing is written, and the next run is well."""
    make, kind, text = WRONG[case]
    x, y = arrays()
    with pytest.raises(kind, match=text):
        rung.run(*make(x, y))
    assert not y.any()
    rung.run([x], [y])
    assert y.any()


@needs_core
def test_wrong_shapes_are_refused(rung):
    """Also those that no memory could hold."""
    for shapes in ([], [(1, 2, 6)], [(1, 2, 6, 7)], [(-1, 2, 6, 6)], [(2**62, 2, 6, 6)], [(2**40, 2, 6, 6)]):
        with pytest.raises((ValueError, MemoryError)):
            rung.prepare(shapes)
    with pytest.raises(TypeError):
        rung.prepare([(2**80, 2, 6, 6)])


@needs_core
def test_wrong_files_are_refused(data):
    """As what they are: no file, cut off, more than there is, not even bytes."""
    with pytest.raises(errors.Malformed):
        core.Network(b"no file at all" * 99, 1, 1, "")
    with pytest.raises(errors.Truncated) as cut:
        core.Network(data[: len(data) // 2], 1, 1, "")
    assert len(data) // 2 < cut.value.needed <= len(data)
    core.Network(bytearray(data), 1, 1, "")
    core.Network(memoryview(data), 1, 1, "")
    with pytest.raises(TypeError):
        core.Network("a path", 1, 1, "")
    for threads, batch, isa in ((-1, 1, ""), (10**6, 1, ""), (1, -1, ""), (1, 1, "sparc")):
        with pytest.raises(ValueError, match=r"open: .* got"):
            core.Network(data, threads, batch, isa)


@needs_core
def test_an_instance_nobody_made_is_refused():
    """Python can make empty instances; calling one is an error and no crash."""
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        core.Rung.__new__(core.Rung).run([], [])
    with pytest.raises(TypeError):
        core.Rung()


@needs_core
def test_threads_run_one_rung_at_once(data):
    """Results are those of one thread, whatever number of threads run and however many each run has."""
    alone = core.Network(data, 1, 1, "").at(0, {})
    shared = core.Network(data, 3, 1, "").at(0, {})
    cases = [arrays(samples) for samples in (1, 2, 5, 16)]
    wanted = []
    for x, y in cases:
        alone.run([x], [y])
        wanted.append(y.copy())
    wrong = []

    def work(first):
        for k in range(40):
            x, y = cases[(first + k) % 4]
            y = np.zeros_like(y)
            shared.run([x], [y])
            if not np.array_equal(y, wanted[(first + k) % 4]):
                wrong.append((first, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_core
def test_every_instruction_set_gives_the_same(data):
    """To the bit."""
    x, y = arrays(7)
    seen = set()
    for isa in native.isas():
        core.Network(data, 1, 1, isa).at(0, {}).run([x], [y])
        seen.add(y.tobytes())
    assert len(seen) == 1


@needs_core
def test_a_network_may_go_before_its_rungs(data):
    """A rung keeps what it needs."""
    network = core.Network(data, 2, 1, "")
    rung = network.at(4, {})
    del network
    x, y = arrays()
    rung.run([x], [y])
    assert y.any()


@needs_core
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_runs(data):
    """Without the workers of its parent, with the same result."""
    code = """
import os, sys, numpy as np
from bitladder import native
rung = native.core.Network(open(sys.argv[1], "rb").read(), 3, 1, "").at(0, {})
x, y, z = np.ones((4, 2, 6, 6), "f4"), np.zeros((4, 5, 6, 6), "f4"), np.zeros((4, 5, 6, 6), "f4")
rung.run([x], [y])
child = os.fork()
if not child:
    rung.run([x], [z])
    os._exit(0 if (y == z).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with tempfile.NamedTemporaryFile(suffix=".ladder") as f:
        f.write(data)
        f.flush()
        assert fresh(code, f.name) == "0"
