"""The same words make the same bytes: with one thread and two, whatever Python's hashes are."""

import re
import sys

import numpy as np
import pytest

import bitladder as bl
from bench.robust import jobs, repeats
from bitladder.assign.criteria import CRITERIA
from bitladder.formats import GRAMMAR
from bitladder.formats.uniform import COVERS
from bitladder.recipe import ROUNDINGS


def test_every_kind_is_tried():
    """Criteria, covers, roundings and families of formats, those that come later too."""
    kinds = " ".join(jobs.KINDS)
    for some, names in (("criterion", CRITERIA), ("cover", COVERS), ("rounding", ROUNDINGS)):
        assert all(f"{some} {name}" in kinds for name in names)
    for pattern, _ in GRAMMAR:
        assert any(re.fullmatch(pattern, text.partition(",")[0]) for text in jobs.FAMILIES), pattern


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_threads_and_hashes_change_nothing():
    """Two processes, with other threads and hashes, make the same files and tables of every job."""
    pytest.importorskip("onnx_ir")
    pytest.importorskip("torch")
    count = repeats.repeated()
    assert count.failures == 0, "\n".join(count.lines)
    assert count.trials == len(jobs.KINDS)


def test_differences_are_noticed():
    """Other bytes, and none at all."""
    assert repeats.wrong("a", ["0 abc", "0 abc"]) is None
    assert repeats.wrong("a", ["0 abc", "0 abd"]) == "a: makes 0 abc and 0 abd"
    assert repeats.wrong("a", ["1", "1"]) == "a: makes no file, status 1"


def test_threads_share_no_sums_of_learning():
    """On layers large enough for torch to share them, learning still moves weights by the same differences."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)).eval()
    x = np.random.default_rng(0).normal(size=(128, 3, 20, 20)).astype(np.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made = bl.quantize(net, x, count=1, cycles=3, plan="fixed8", effort="fast")
            found.append(made.graph.meta["result"]["ranking"])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
