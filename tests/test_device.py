"""The terminal: what the system says of it, read from a made-up system; and times of widths that can be kept."""

import doctest
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from networks import convnet

import bitladder as bl
from bitladder import device, native

X = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)


def system(root, files):
    """A folder with the files of a system under it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CACHE = "sys/devices/system/cpu/cpu0/cache"
KINDS = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K"), ("3", "Unified", "32M"))
CACHES = {
    f"{CACHE}/index{i}/{what}": text
    for i, kind in enumerate(KINDS)
    for what, text in zip(("level", "type", "size"), kind, strict=True)
}


@pytest.mark.parametrize("name", ["device", "device.machine", "device.times"])
def test_examples_run(name):
    """What docstrings show is true."""
    done = doctest.testmod(importlib.import_module(f"bitladder.{name}"))
    assert done.attempted
    assert not done.failed


def test_this_machine_has_a_core():
    """Whatever the system, there is something to run on, and nothing here raises."""
    here = device.terminal()
    assert here.cores >= 1
    assert list(here.caches) == sorted(here.caches)
    assert here == device.Terminal.of_json(here.json())


def test_caches_of_data_are_read_nearest_first(tmp_path):
    """Instruction caches are left out; what is given by name wins."""
    root = system(tmp_path, CACHES)
    assert device.terminal(root).caches == (48 << 10, 1 << 20, 32 << 20)
    assert device.terminal(root, caches=(7,), memory=9).caches == (7,)
    assert device.terminal(tmp_path / "nothing").caches == ()
    assert device.terminal(tmp_path / "nothing").memory is None


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1, 8 << 20),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1, 8 << 20),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 4, 8 << 20),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "4096\n"}, 4, 4096),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 4, 8 << 20),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n3:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
            },
            3,
            5000,
        ),
        ({"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}, 4, 8 << 20),
    ],
)
def test_control_groups_limit_cores_and_memory(files, cores, memory, tmp_path, monkeypatch):
    """Of both versions, in the group itself or in one around it; parts of a processor are not counted."""
    monkeypatch.setattr("bitladder.device.machine.usable_cores", lambda: 4)
    here = device.terminal(system(tmp_path, {"proc/meminfo": "MemTotal:        8192 kB\nMemFree: 1 kB\n", **files}))
    assert (here.cores, here.memory) == (cores, memory)


def test_instruction_sets_come_from_the_core(monkeypatch):
    """Those of the compiled core, best first; none without it."""
    monkeypatch.setattr(native, "core", SimpleNamespace(isas=lambda: ["avx2", "scalar"]))
    assert device.terminal().isas == ("avx2", "scalar")
    monkeypatch.setattr(native, "core", None)
    assert device.terminal().isas == ()


def test_weights_fit_a_cache_or_none():
    """Fewer bits fit nearer caches; what counts is packed codes with their parameters."""
    model = bl.Model(convnet())
    few, all_ = (device.weight_bytes(model.at(b)) for b in (2, 8))
    assert few < all_
    assert all_ == sum(row.nbytes for row in model.rows())
    small = device.Terminal(caches=(few, all_))
    assert [small.fits(model, b) for b in (2, 8)] == [1, 2]
    assert small.fits(model) == 2
    assert device.Terminal(caches=(few - 1,)).fits(model, 2) is None
    assert device.Terminal().fits(model, 2) is None


def test_times_are_taken_in_turns_and_kept(tmp_path):
    """Each width once a round; the table comes back from its file as it was."""
    model = bl.Model(convnet())
    times = device.measure(model, [2, 8], X, repeats=3)
    assert sorted(times.widths) == [2, 8]
    assert all(0 < t.low <= t.milliseconds <= t.high for t in times.widths.values())
    times.save(tmp_path / "times.json")
    assert device.Times.load(tmp_path / "times.json") == times


def test_times_of_layers_are_medians_by_weight(monkeypatch, tmp_path):
    """Of the steps that the engine says, those that are a layer; by the name of the weight and the width."""
    model, rounds = bl.Model(convnet()), []

    def said(engine, feeds, bits):
        rounds.append(bits)
        steps = {"h1": bits + 10.0 * len(rounds), "h3": 1.0, "h2, h3": 2.0, "scores": 0.5}
        return [SimpleNamespace(node=name, milliseconds=ms) for name, ms in steps.items()]

    monkeypatch.setattr(type(model.engine), "profile", said)
    times = device.measure(model, [2], X, repeats=3, layers=True)
    assert times.layers == {"w1": {2: 22.0}, "w3": {2: 0.5}}
    times.save(tmp_path / "times.json")
    assert device.Times.load(tmp_path / "times.json") == times


def test_times_of_layers_as_this_machine_has_them():
    """Weights of the network and nothing else, at every width."""
    model = bl.Model(convnet())
    times = device.measure(model, [2, 8], X, repeats=2, layers=True)
    assert set(times.layers) <= set(model.plan)
    assert all(set(each) == {2, 8} and min(each.values()) > 0 for each in times.layers.values())


def test_times_take_what_a_model_takes():
    """One array, a tuple of arrays, or a dict."""
    model = bl.Model(convnet())
    for example in (X, (X,), {"image": X}):
        assert 8 in device.measure(model, [8], example, repeats=1).widths


@pytest.mark.parametrize("text", ["", "[]", '{"widths": {"8": {}}}', '{"widths": 3}'])
def test_other_files_are_no_times(text, tmp_path):
    """One line that names the file and says what to do."""
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=r"times: .*t.json' must be a table that Times.save wrote, .*; measure again"):
        device.Times.load(tmp_path / "t.json")


def test_nothing_to_measure_is_an_error():
    """No width, or no round."""
    with pytest.raises(ValueError, match="measure: needs a width"):
        device.measure(bl.Model(convnet()), [], X)
    with pytest.raises(ValueError, match="repeats from 1 up"):
        device.measure(bl.Model(convnet()), [8], X, repeats=0)
