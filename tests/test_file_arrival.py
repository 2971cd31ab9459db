"""Files that arrive: chunks, ranges of a web server, a file that is still being written. What is there runs, and says so."""

import http.server
import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from ladders import assert_same, reach
from networks import convnet, images

import bitladder as bl
from bitladder import file
from bitladder.errors import Malformed, Truncated
from bitladder.file import web
from bitladder.file.container import Reader

GRAPH = convnet(meta={"default_bits": {"w1": 6, "w2": 5}})
DATA = file.to_bytes(GRAPH)
X = images(8)[0]


def chunks(data, size, taken=None):
    """The bytes in pieces; `taken` counts those that were asked for."""
    for at in range(0, len(data), size):
        if taken is not None:
            taken.append(len(data[at : at + size]))
        yield data[at : at + size]


ENDS = [[s.end for s in rows] for rows in Reader(file.source(DATA)).segments]


def after(size):
    """What the network gives on the planes that lie in the first bytes, at most on its plan's."""
    there = [sum(end <= size for end in ENDS[layer]) for layer in (0, 1)]
    return bl.Model(GRAPH.at({"w1": min(there[0], 6), "w2": min(there[1], 5)}))(X)


def expected(bits):
    """What it gives at a width, at most at its plan's."""
    return after(reach(DATA, bits))


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_a_stream_is_read_until_it_runs_and_then_grows(size):
    """Not a chunk more than the narrowest width takes; then width by width in the same object, up to all of it."""
    taken = []
    model = bl.load(chunks(DATA, size, taken))
    assert reach(DATA, 1) <= sum(taken) < reach(DATA, 1) + size or sum(taken) == len(DATA)
    assert model.missing == len(DATA) - sum(taken)
    while model.missing:
        assert np.array_equal(model(X), after(sum(taken)))
        complete = model.more()
        assert complete == (model.missing == 0) == (sum(taken) == len(DATA))
    assert np.array_equal(model(X), expected(8))
    assert_same(model.whole, GRAPH)
    assert model.more() is True


def test_a_stream_is_read_as_far_as_asked():
    """`bits` when loading, `bits` when reading on."""
    taken = []
    model = bl.load(chunks(DATA, 9, taken), 2)
    assert reach(DATA, 2) <= sum(taken) < reach(DATA, 2) + 9
    assert_same(model.whole, GRAPH.at(2))
    assert not model.more(bits=4)
    assert reach(DATA, 4) <= sum(taken) < reach(DATA, 4) + 9
    assert_same(model.whole.at(4), GRAPH.at(4))
    assert model.more(bits=8)


def test_bytes_that_somebody_else_fetched_are_taken():
    """One piece or several; too few for a further plane change nothing."""
    model = bl.load(DATA[: reach(DATA, 3)])
    whole, engine = model.whole, model.engine
    assert not model.more(DATA[reach(DATA, 3) : reach(DATA, 3) + 5])
    assert model.whole is whole
    assert model.engine is engine
    assert model.missing == len(DATA) - reach(DATA, 3) - 5
    rest = DATA[reach(DATA, 3) + 5 :]
    assert model.more([rest[:60], b"", rest[60:]])
    assert np.array_equal(model(X), expected(8))
    with pytest.raises(Malformed, match="1 bytes after its end"):
        model.more(b"!")


def test_a_stream_that_ends_early_says_how_long_it_must_be():
    """Before it runs: no network. After: it goes on with what it has."""
    for end in (0, 50, 300, reach(DATA, 1) - 1):
        with pytest.raises(Truncated, match="ends after") as caught:
            bl.load(chunks(DATA[:end], 13))
        assert end < caught.value.needed <= reach(DATA, 1)
    model = bl.load(chunks(DATA[: reach(DATA, 3) + 1], 13))
    model.more(bits=3)
    with pytest.raises(Truncated, match="ends after") as caught:
        model.more()
    assert caught.value.needed == reach(DATA, 4)
    assert np.array_equal(model(X), expected(3))
    with pytest.raises(Truncated):
        model.more(bits=7)
    assert model.missing == len(DATA) - reach(DATA, 3) - 1


def test_a_model_narrowed_stays_as_it_was():
    """What `at` gave before does not change; both may be asked again."""
    model = bl.load(chunks(DATA, 50))
    narrow = model.at(1)
    before = narrow(X)
    model.more(bits=8)
    assert np.array_equal(narrow(X), before)
    assert np.array_equal(model.at(1)(X), before)
    assert model.graph.constants["w1"].format.bits == 6
    assert narrow.graph.constants["w1"].format.bits == 1


def test_a_network_from_no_file_has_nothing_to_read_on():
    """One line."""
    model = bl.Model(GRAPH)
    assert model.missing == 0
    with pytest.raises(ValueError, match="came from no file"):
        model.more()
    with pytest.raises(TypeError, match="must be a path, bytes, a file, chunks of bytes or an address, got int"):
        bl.load(3)


def test_a_file_still_being_written_is_looked_at_again(tmp_path):
    """`more` sees what has come since; bytes cannot be given to a file."""
    path = tmp_path / "a.ladder"
    path.write_bytes(DATA[: reach(DATA, 2)])
    model = bl.load(path)
    assert model.missing == len(DATA) - reach(DATA, 2)
    with pytest.raises(Truncated, match="must have at least"):
        model.more()
    with open(path, "ab") as f:
        f.write(DATA[reach(DATA, 2) : reach(DATA, 5)])
    assert not model.more()
    assert np.array_equal(model(X), expected(5))
    with pytest.raises(TypeError, match="grows by itself"):
        model.more(b"abc")
    path.write_bytes(DATA)
    assert model.more()


def test_file_objects_are_read_where_they_lie(tmp_path):
    """Any that can seek, no more of it than is needed."""
    (tmp_path / "a").write_bytes(DATA)
    with open(tmp_path / "a", "rb") as f:
        assert np.array_equal(bl.load(f)(X), expected(8))
    assert np.array_equal(bl.load(io.BytesIO(DATA), 3).at(3)(X), expected(3))


def test_file_objects_that_cannot_seek_are_streams():
    """A pipe, the body of an answer."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.rest = DATA

        def readable(self):
            return True

        def read(self, size):
            given, self.rest = self.rest[: min(size, 10)], self.rest[min(size, 10) :]
            return given

    model = bl.load(Pipe())
    assert 0 < model.missing <= len(DATA) - reach(DATA, 1)
    assert model.more(bits=8)
    assert np.array_equal(model(X), expected(8))


def test_threads_call_while_the_network_grows():
    """Every call gives what one of the widths gives; in the end all give the widest."""
    model = bl.load(chunks(DATA, 11))
    good = {after(end).tobytes() for rows in ENDS for end in rows}
    stop = threading.Event()

    def call():
        seen = set()
        while not stop.is_set():
            seen.add(model(X).tobytes())
        return seen

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call) for _ in range(2)]
        growth = pool.submit(lambda: [model.more() for _ in iter(lambda: model.missing, 0)])
        growth.result(60)
        stop.set()
        assert all(c.result(60) <= good for c in calls)
    assert np.array_equal(model(X), expected(8))


# -------------------------------------------------------------------------------------------------------------- web


class Server(http.server.BaseHTTPRequestHandler):
    """Gives DATA, in ranges or whole, and notes what was asked."""

    knows_ranges, asked, data, status = True, [], DATA, 200

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append(asked)
        if self.status != 200:
            self.send_error(self.status)
            return
        body, begin = self.data, 0
        if asked and self.knows_ranges:
            begin, end = map(int, asked.removeprefix("bytes=").split("-"))
            if begin >= len(self.data):
                self.send_error(416)
                return
            body = self.data[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{len(self.data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@contextmanager
def serving(**settings):
    """The address of a server on this machine, and the ranges it was asked for."""
    kind = type("One", (Server,), {"asked": [], **settings})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/net.ladder", kind.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Small requests, so that ranges matter; and no waiting for a server that says nothing."""
    monkeypatch.setattr(web, "AHEAD", 64)
    monkeypatch.setattr(web, "SECONDS", 5.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_an_address_is_read_by_ranges():
    """As much as the width asked for takes, in a few requests, each where the last one ended; then the rest."""
    with serving() as (url, asked):
        model = bl.load(url, 3)
        assert_same(model.whole, GRAPH.at(3))
        spans = [tuple(map(int, a.removeprefix("bytes=").split("-"))) for a in asked]
        assert spans[0][0] == 0
        assert all(b == a + 1 for (_, a), (b, _) in itertools.pairwise(spans))
        assert reach(DATA, 3) <= spans[-1][1] + 1 < reach(DATA, 3) + 64
        assert len(spans) <= 4
        assert model.more(bits=8)
        assert_same(model.whole, GRAPH)
        assert_same(bl.load(url).whole, GRAPH)
        assert file.identity(url) == file.identity(DATA)
        assert_same(file.load(url, 2), GRAPH.at(2))


def test_a_server_without_ranges_is_read_from_the_start():
    """In one request."""
    with serving(knows_ranges=False) as (url, asked):
        model = bl.load(url)
        assert_same(model.whole, GRAPH)
        assert len(asked) == 1


def test_servers_that_fail_say_so():
    """Not there, cut short, something else, nobody at home: one line each."""
    with serving(status=404) as (url, _), pytest.raises(OSError, match=r"answers 404 .*; check the address"):
        bl.load(url)
    with serving(data=DATA[:-3]) as (url, _):
        assert bl.load(url).missing == 3
    with serving(data=DATA[:99]) as (url, _), pytest.raises(Truncated, match="ends after 99 bytes"):
        bl.load(url)
    with serving(data=b"<html>") as (url, _), pytest.raises(Malformed, match="does not begin like"):
        bl.load(url)
    with pytest.raises(OSError, match="cannot be read"):
        bl.load(url)
