"""The demo is the first thing a newcomer runs: it must reach the end, and its widths must be worth showing."""

import json

import pytest

from bitladder import load
from bitladder.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory, request):
    """One run of the command, with what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        import contextlib
        import io

        words = io.StringIO()
        with contextlib.redirect_stdout(words):
            status = main(["demo", "-o", str(folder), "--json", "--quiet"])
    return status, json.loads(words.getvalue().splitlines()[-1]), folder


def test_the_demo_reaches_its_goal(demo):
    status, said, folder = demo
    assert status == 0
    assert said["goal_met"]
    assert said["float_accuracy"] > 0.94
    assert (folder / "digits.ladder").exists()
    assert "<svg" in (folder / "report.html").read_text()


def test_fewer_bits_are_fewer_bytes(demo):
    """Accuracy stays near float down to 4 bits, and every width reads less of the file than the one above."""
    _, said, folder = demo
    by_bits = {row["bits"]: row for row in said["widths"]}
    for bits in (8, 6, 4):
        assert by_bits[bits]["accuracy"] > said["float_accuracy"] - 0.02
    read = [by_bits[b]["bytes_read"] for b in (8, 6, 4, 3, 2)]
    assert read == sorted(read, reverse=True)
    assert len(set(read)) == 5
    assert load(folder / "digits.ladder", bits=3).average_bits < 4
