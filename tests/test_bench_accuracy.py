"""Peers that quantize, without any of them: what drivers tell, what is kept, what cannot be had, what figures make of it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import accuracy, environment, quantizers, table, work
from bench.accuracy import Ours, figure, near, pair_rows
from bench.cifar import Data, Split
from bench.options import Options
from bench.quantizers import QUANTIZERS, Bench, Made, Quantizer, Setting, mean_bits, weight_bytes
from bench.work import Work

FRAME = quantizers.FRAME


@pytest.fixture
def frame():
    spec = importlib.util.spec_from_file_location("frame", FRAME)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def split(count=8):
    """Images whose class is their first pixel."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 3, 32, 32), np.float32)
    images[:, 0, 0, 0] = labels
    return Split(images, labels.astype(np.int64))


def test_bytes_are_counted_alike():
    """Whole bytes a layer, four a number of a scale; bits weigh by elements."""
    layers = [["a", 9, 3, 2], ["b", 10, 8, 0]]
    assert weight_bytes(layers) == 4 + 8 + 10
    assert np.isclose(mean_bits(layers), (27 + 80) / 19)
    graph = quantized()
    layers = accuracy.layers_of(graph)
    assert [(bits, size) for _, size, bits, _ in layers] == [(4, 27), (4, 12)]
    assert [scales for *_, scales in layers] == [3, 4]


def quantized():
    """A small network of 4-bit weights with a scale a channel."""
    import torch

    import bitladder as bl

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, bias=False), torch.nn.Flatten(), torch.nn.Linear(3, 4, bias=False)
    ).eval()
    x = np.random.default_rng(0).normal(size=(16, 1, 3, 3)).astype(np.float32)
    return bl.quantize(net, x, plan="int4").graph


def test_a_weight_of_too_many_values_is_an_error(frame):
    """A driver cannot claim fewer bits than its weights have."""
    weight = np.arange(12.0).reshape(3, 4)
    assert frame.Layer("w", weight, 2, 3).row() == ["w", 12, 2, 3]
    with pytest.raises(ValueError, match="w: 4 different weights in a channel are more than 1 bits hold"):
        frame.Layer("w", weight, 1, 3).row()


def test_classes_come_in_order(frame):
    """Batch by batch, the last one smaller."""
    images = split(2 * frame.BATCH + 3).images
    seen = []

    def predict(batch):
        seen.append(len(batch))
        return np.eye(10)[batch[:, 0, 0, 0].astype(int)]

    assert (frame.classes(predict, images) == np.arange(len(images)) % 10).all()
    assert seen == [frame.BATCH, frame.BATCH, 3]


def test_folding_changes_nothing(frame):
    """A network with its batch norms folded gives the same outputs; the one given stays as it is."""
    import torch

    from bench.resnet import ResNet

    torch.manual_seed(0)
    net = ResNet(1).eval()
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(frame.folded(net)(x), net(x), atol=1e-4)
    assert isinstance(net.bn1, torch.nn.BatchNorm2d)


def test_a_driver_that_takes_too_long_says_so():
    """Processor seconds are limited in the driver itself, also inside of a call that does not come back."""
    code = f"import sys; sys.path.insert(0, {str(FRAME.parent)!r}); import frame; frame.limit(1)\nwhile True: pass"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == {"cut": 1}


DRIVER = """
import json, sys
import numpy as np
task = json.loads(sys.stdin.read())
images = np.load(task["images"])
if task["settings"].get("cut"):
    print(json.dumps({"cut": task["most"]}))
    raise SystemExit
if task["settings"].get("fail"):
    raise SystemExit("first\\nlast")
np.savez(task["out"], classes=(images[:, 0, 0, 0] * (task["bits"] > 2)).astype(np.uint8))
print("chatter")
print(json.dumps({"seconds": 1.5, "layers": [["w", 16, task["bits"], 2]]}))
"""


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """Peers on a ResNet of no meaning, with a driver that tells classes without quantizing anything."""
    from safetensors.torch import save_file

    from bench.resnet import ResNet

    (tmp_path / "resnet_cifar10").mkdir()
    save_file(ResNet(3).state_dict(), tmp_path / "resnet_cifar10" / "resnet20_jpeg.safetensors")
    (tmp_path / "drive_numpy.py").write_text(DRIVER)
    for module in (quantizers, environment):
        monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(work, "FOLDER", tmp_path / "work")
    return Bench(Options(data=tmp_path), 20, split(2), split())


def peer(**args):
    return Quantizer("Peer", "numpy", "numpy", (Setting("plain", args),), apart=False)


def test_what_a_peer_did_is_kept(peers, monkeypatch):
    """Measured once; bytes, bits, seconds and hits are what the driver said, and other settings are measured anew."""
    made = next(peers.all(4, [peer()]))
    assert made.name == f"Peer {np.__version__}, plain"
    assert (made.bytes, made.bits, made.seconds, made.why) == (16, 4, 1.5, "")
    assert made.hits.all()
    assert next(peers.all(2, [peer()])).hits.sum() == 1
    monkeypatch.setattr(Bench, "ran", lambda *_: pytest.fail("measured again"))
    assert next(peers.all(4, [peer()])).bytes == 16
    with pytest.raises(pytest.fail.Exception):
        next(peers.all(3, [peer()]))
    assert not list(peers.all(4, [Quantizer("Peer", "numpy", "numpy", (Setting("plain", {}, (8,)),), apart=False)]))


def test_settings_that_learn_are_measured_where_they_are_asked_for(peers):
    """By default those that do not, alone those that do, or both."""
    from dataclasses import replace

    both = (Setting("plain", {}), Setting("patient", {"a": 1}, slow=True))
    one = [Quantizer("Peer", "numpy", "numpy", both, apart=False)]
    for slow, names in (((False,), ["plain"]), ((True,), ["patient"]), ((False, True), ["plain", "patient"])):
        assert [made.name.split(", ")[1] for made in replace(peers, slow=slow).all(4, one)] == names
    assert [made.name.split(", ")[1] for made in peers.all(4, one)] == ["plain"]


def test_what_cannot_be_had_says_why(peers, monkeypatch):
    """A cut is kept and named; a failure is one line; a peer that is not there has one row."""
    assert next(peers.all(4, [peer(cut=True)])).why == "cut at 4 bits after 1200 processor seconds"
    failed = next(peers.all(4, [peer(fail=True)]))
    assert failed.why == "numpy: plain, 4 bits: last"
    twice = (Setting("plain", {}), Setting("other", {"a": 1}))
    rows = list(peers.all(4, [Quantizer("Peer", "numpy", "no-such-package", twice, apart=False), peer()]))
    assert [row.why for row in rows] == ["not installed: numpy: pip install '.[bench]' brings it", ""]
    (peers.options.data / "numpy.txt").write_text("no-such-package==1.0\n")
    monkeypatch.setattr(environment.sys, "executable", "/nowhere/python")
    rows = list(peers.all(4, [Quantizer("Peer", "numpy", "no-such-package", twice)]))
    assert [row.why[:45] for row in rows] == ["not installed: numpy: making its environment:"]


def test_what_is_cut_at_one_width_is_not_run_at_the_next(peers, monkeypatch):
    """It learns for as many steps there; its row says so, and another setting is measured."""
    cut = "cut at 4 bits after 1200 processor seconds"
    assert next(peers.all(4, [peer(cut=True)])).why == cut
    ran, asked = Bench.ran, []
    monkeypatch.setattr(Bench, "ran", lambda self, p, bits, s: asked.append((bits, s.name)) or ran(self, p, bits, s))
    settings = (Setting("plain", {"cut": True}), Setting("other", {"a": 1}))
    rows = list(peers.all(3, [Quantizer("Peer", "numpy", "numpy", settings, apart=False)]))
    assert [row.why for row in rows] == [f"{cut}, and as much to learn here: not run", ""]
    assert asked == [(3, "other")]


def made(name, hits, size=16):
    return Made(name, size, 4.0, 1.0, np.array(hits, bool))


def test_figures_take_the_most_accurate_peer():
    """Points behind it; level is not enough, and nothing measured is not met."""
    ours, weak, strong = made("uniform", [1, 1, 1, 0]), made("a", [1, 0, 0, 0]), made("b", [1, 1, 0, 0])
    assert figure([(ours, weak), (ours, strong)]).value == -25
    assert figure([(ours, strong)]).met
    assert not figure([(ours, ours)]).met
    assert not figure([]).met
    assert figure([]).value is None
    row = table.figure_row("accuracy", "resnet20_peers_4", {"value": -25.0, "goal": 0.0, "met": True})
    assert row[1:] == ("ResNet-20, weights at 4 bits: points behind the most accurate peer at its bytes, nothing trained",
                       "-25", "below 0", "yes")  # fmt: skip


def test_rows_are_of_one_pair():
    """Accuracy with the spread of the paired difference, bytes, seconds."""
    rows = pair_rows("net, 4 bits", made("uniform", [1, 1, 0, 0]), made("peer", [1, 0, 0, 0], 32))
    assert [(r.ours, r.peer) for r in rows] == [(50, 25), (16, 32), (1, 1)]
    assert rows[0].spread > 0
    assert {r.peer_name for r in rows} == {"peer"}


def test_ours_is_chosen_on_the_choosing_images(tmp_path, monkeypatch):
    """Not on the test images; a plan of one width has the whole bits that the mean leaves room for, a coded file the bytes."""
    asked = []

    def ran(self, how):
        asked.append(how.get("budget", how["plan"]))
        coded = "budget" in how
        return np.array([8, 4, 1, 0.9 if coded else 0.8, *([0, 0, 1] if coded else [1, 1, 1])], float)

    monkeypatch.setattr(Ours, "ran", ran)
    monkeypatch.setattr(Ours, "layers", {"first": 3, "middle": 90, "last": 4})
    data = Data((split(),), split(), split(), split(3))
    ours = Ours(Options(), 20, data, split(), split(3), Work(tmp_path, "x"))
    assert ours.ranked(3.5, 1000)[0].name == "coded"
    assert ours.ranked(3.5, 1000)[0].hits.sum() == 1
    assert [made.name for made in ours.ranked(3.5, 1000)[1:]] == ["packed"]
    assert [fmt.bits for fmt in asked[0].values()] == [8, 2, 8]
    assert asked[1:] == ["1000B"]
    ours.ranked(8.0, 1000)
    assert asked[2:] == ["int8"]


def test_peers_are_told_apart():
    """Settings of a peer differ in name and in what drivers are told; a peer has a driver, and pins where it is apart."""
    for each in QUANTIZERS:
        assert each.driver.exists()
        assert len({s.name for s in each.settings}) == len(each.settings)
        assert len({(str(dict(s.args)), s.bits) for s in each.settings}) == len(each.settings)
        if each.apart:
            assert each.version() == each.environment.pins()[each.package]
    assert not any(q.apart for q in near(Options(quick=True)))
    assert list(QUANTIZERS) == near(Options())


def test_drivers_stay_in_their_folder():
    """They run where nothing of ours is installed, so they import nothing of ours but what the frame brings."""
    for driver in sorted(Path(FRAME.parent).glob("drive_*.py")):
        words = driver.read_text()
        assert "import bitladder" not in words, driver.name
        assert "from bench" not in words, driver.name
