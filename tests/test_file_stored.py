"""Codes that stay in their file: read again whenever they are asked for, the same or refused."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ladders import MAKERS, assert_same
from networks import convnet

from bitladder import file
from bitladder.errors import Malformed
from bitladder.formats import QTensor


@pytest.fixture
def ladder(tmp_path):
    """A saved network, its graph and its path."""
    graph = convnet()
    file.save(graph, tmp_path / "net.ladder")
    return graph, tmp_path / "net.ladder"


def damaged_at(path, position):
    """One byte of a file changed where it lies."""
    with open(path, "r+b") as f:
        f.seek(position)
        old = f.read(1)
        f.seek(position)
        f.write(bytes([old[0] ^ 0x20]))


@pytest.mark.parametrize("make", MAKERS)
def test_codes_that_stay_in_the_file_are_the_same(make, tmp_path):
    """At all planes, at fewer, narrowed twice, and in what is saved again; none of them is kept."""
    file.save(make(), tmp_path / "a.ladder", coder="raw")
    arrival = file.attach(tmp_path / "a.ladder")
    graph, whole = arrival.graph, file.load(tmp_path / "a.ladder")
    assert_same(graph, whole)
    assert arrival.again() == file.to_bytes(graph) == (tmp_path / "a.ladder").read_bytes()
    for bits in range(1, 9):
        assert_same(graph.at(bits), whole.at(bits))
        assert_same(graph.at(bits + 1).at(bits), whole.at(bits + 1).at(bits))
        assert_same(file.attach(tmp_path / "a.ladder", bits).graph, whole.at(bits))
    tensors = [c for c in [*graph.constants.values(), *graph.at(2).constants.values()] if isinstance(c, QTensor)]
    assert tensors
    assert not any(isinstance(c.place, np.ndarray) for c in tensors)
    assert [c.nbytes for c in tensors[:3]] == [c.held().nbytes for c in tensors[:3]]


@pytest.mark.parametrize("then", ["deleted", "replaced"])
def test_a_file_that_loses_its_name_is_still_read(then, ladder):
    """What is open stays what it was, whatever has its name now."""
    graph, path = ladder
    arrival = file.attach(path)
    data = path.read_bytes()
    if then == "deleted":
        path.unlink()
    else:
        file.save(convnet(classes=9), path)
    assert_same(arrival.graph, graph)
    assert arrival.again() == data


def readable(c):
    """Whether the codes of a tensor can be had."""
    try:
        return c.codes is not None
    except Malformed:
        return False


def test_damage_after_loading_is_refused(ladder):
    """Whatever byte of a plane changes: the codes that need it are refused, the others are read."""
    graph, path = ladder
    attached = file.attach(path).graph
    last = path.stat().st_size - 1
    damaged_at(path, last)
    good = [name for name, c in attached.constants.items() if isinstance(c, QTensor) and readable(c)]
    assert len(good) == 2
    assert_same(attached.at(4), graph.at(4))  # the last plane is not needed
    damaged_at(path, last)
    assert_same(attached, graph)


def test_a_file_that_is_written_over_is_refused(ladder):
    """Another network in the same place, or less of this one, is not taken for it."""
    graph, path = ladder
    arrival = file.attach(path)
    data = path.read_bytes()
    file.save(convnet(classes=9), path.with_name("other"))
    for other in (path.with_name("other").read_bytes(), data[:-1], data[:40], b""):
        path.write_bytes(other)
        with pytest.raises(Malformed, match="changed since it was opened"):
            arrival.again()
        with pytest.raises(Malformed, match=r"load: .*net\.ladder"):
            file.to_bytes(arrival.graph)
    path.write_bytes(data)
    assert_same(arrival.graph, graph)


def test_copies_of_tensors_in_a_file_are_whole(ladder):
    """A pickle and a deep copy hold the codes, so that they go where the file does not."""
    graph, path = ladder
    attached = file.attach(path).graph
    there, copied = pickle.dumps(attached), copy.deepcopy(attached)
    path.write_bytes(b"")
    assert_same(pickle.loads(there), graph)
    assert_same(copied, graph)


def test_two_loads_of_a_file_are_independent(ladder):
    """Each has a descriptor of its own, closed when nothing needs it."""
    graph, path = ladder
    one, two = file.attach(path).graph, file.attach(path).graph
    source = one.constants["w1"].place.reader.source
    assert source is not two.constants["w1"].place.reader.source
    opened = source.f
    del one, source
    gc.collect()
    assert opened.closed
    assert_same(two, graph)


def test_threads_share_an_open_file(ladder):
    """Reads that overlap do not disturb each other: of a path, of a file object, of bytes."""
    graph, path = ladder
    with open(path, "rb") as f:
        for place in (path, f, path.read_bytes()):
            attached = file.attach(place).graph.constants["w1"]
            with ThreadPoolExecutor(4) as pool:
                codes = list(pool.map(lambda w, _: w.codes, [attached] * 200, range(200)))
            assert all(np.array_equal(c, graph.constants["w1"].codes) for c in codes)
