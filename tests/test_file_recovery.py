"""What can be worked around in a damaged file, what it costs, and that it is said."""

import pytest
from ladders import MAKERS, assert_same, changed, refused, same_constants, setting
from networks import convnet, odd_graph

from bitladder import file
from bitladder.errors import Malformed
from bitladder.file.container import PRELUDE, Reader


def where(data):
    """Where the table and the headers of layers of a file begin, and its segments."""
    reader = Reader(file.source(data))
    table_at = PRELUDE + reader.prelude.network
    return reader, table_at, table_at + reader.prelude.table


def flipped(data, position):
    """The file with a byte changed."""
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


@pytest.mark.parametrize("make", MAKERS)
def test_a_damaged_table_is_found_again(make):
    """By start codes that checksums confirm; the network is whole, and says what was worked around."""
    graph = make()
    data = file.to_bytes(graph)
    _, table_at, records_at = where(data)
    for position in range(table_at, records_at):
        bad = flipped(data, position)
        refused(bad, "table of .* wrong checksum", Malformed)
        back = file.load(bad, recover=True)
        notes = back.meta["recovered"]
        assert notes == ["the identity does not match", "the table of layers was damaged and has been rebuilt"]
        assert_same(back.with_(meta=graph.meta), graph)


def test_start_codes_in_the_middle_of_a_header_do_not_mislead():
    """A name that looks like the start of the next layer is not taken for it."""
    graph = convnet()
    code = b"NQ\1\0" * 4  # of layer 1, in the header of layer 0
    data = changed(file.to_bytes(graph), setting("layers", 0, "tensors", 1, "versions", 1, "bytes", value=code))
    _, table_at, _ = where(data)
    back = file.load(flipped(data, table_at), recover=True)
    assert back.constants["b1"].arrays[4].tobytes() == code
    assert same_constants(back.constants["w3"], graph.constants["w3"])


@pytest.mark.parametrize("policy", ["layer", "plane"])
def test_a_damaged_segment_costs_its_layer_the_planes_from_it_on(policy, tmp_path):
    """Others keep theirs; what was lost is said; the first segment cannot be done without."""
    graph = convnet()
    file.save(graph, tmp_path / "a", order=policy, coder="raw")
    data = (tmp_path / "a").read_bytes()
    reader = Reader(file.source(data))
    bad = flipped(data, reader.segments[1][3].begin)
    refused(bad, "segment 3 of layer 1 .'h2'. of .* wrong checksum", Malformed)
    back = file.load(bad, recover=True)
    assert back.meta["recovered"] == ["layer 1 ('h2') runs without its segments from 3 on, the first of which is damaged"]
    assert_same(back.with_(meta={}).at(8), graph.at({"w2": 3}).at({"w1": 8}))
    assert_same(file.load(bad, 3), graph.at(3))
    assert_same(file.load(bad, 5, recover=True).with_(meta={}), graph.at({"w1": 5, "w2": 3}))
    for layer in (0, 1, 2):
        if reader.segments[layer][0].size:
            refused(flipped(data, reader.segments[layer][0].begin), "segment 0 of layer", Malformed, recover=True)


def test_what_cannot_be_worked_around_is_refused():
    """The prelude, the network header, a layer's header."""
    data = file.to_bytes(convnet())
    _, table_at, records_at = where(data)
    for position in (20, 60, 86, PRELUDE, table_at - 1, records_at, records_at + 50):
        refused(flipped(data, position), None, Malformed, recover=True)


def test_a_good_file_has_nothing_to_recover():
    """And is the same network."""
    for make in (convnet, odd_graph):
        assert_same(file.load(file.to_bytes(make()), recover=True), make())
