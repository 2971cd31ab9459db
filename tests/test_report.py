"""The report: one page that needs nothing else, whatever the network's meta holds or lacks."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from networks import convnet

from bitladder import file
from bitladder.model import Model
from bitladder.report import page, write

RESULT = {
    "goal_met": True,
    "metric": "top-1 accuracy",
    "samples": 400,
    "float": 0.91,
    "reference": 0.905,
    "score": 0.902,
    "max_drop": 0.01,
    "evaluations": 3,
    "low": "nested4",
    "high": "nested8",
    "criterion": "weight_difference",
    "statistic": "mean_square",
    "search": "bisection",
    "ranking": [
        {"layer": "w2", "value": 1e-7, "chosen": True, "note": ""},
        {"layer": "w1", "value": 3e-6, "chosen": False, "note": ""},
        {"layer": "w3", "value": 0.0, "chosen": False, "note": "did not learn"},
    ],
    "trace": [[2, 0.03], [1, 0.008]],
    "notes": ["a note <b>in brackets</b>"],
}
WIDTHS = [{"bits": b, "score": 0.9 - 0.01 * (8 - b), "bytes": 100 * b} for b in range(8, 1, -1)]
PARTS = {"result": RESULT, "widths": WIDTHS}


class Loads(HTMLParser):
    """Everything on a page that would have to be fetched, and every tag."""

    def __init__(self):
        super().__init__()
        self.fetched, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("#", "data:"))]

    def handle_data(self, text):
        self.text.append(text)


def read(html):
    loads = Loads()
    loads.feed(html)
    return loads


@pytest.mark.parametrize("meta", [{}, {"result": RESULT}, {"widths": WIDTHS}, PARTS], ids=["bare", "result", "widths", "all"])
def test_the_page_stands_alone(meta):
    """No script, style, image or font from elsewhere; every drawing is well-formed and says what it shows."""
    html = page(convnet(meta=meta).with_(meta=meta), "net")
    loads = read(html)
    assert loads.fetched == []
    assert "link" not in loads.tags
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    drawings = re.findall(r"<svg.*?</svg>", html, re.S)
    assert drawings
    for svg in drawings:
        tree = ET.fromstring(svg)
        if tree.get("aria-hidden") == "true":  # a swatch beside its word
            continue
        assert tree.find("{http://www.w3.org/2000/svg}title") is not None or tree.find("title") is not None
    assert len(html) < 200_000


def test_everything_is_on_it():
    """Layers, formats, the ranking, the notes, every width."""
    text = " ".join(" ".join(read(page(convnet().with_(meta=PARTS), "my network")).text).split())
    for word in (
        "my network",
        "Goal met",
        "w1",
        "nested8:tree",
        "int4",
        "90.20",
        "did not learn",
        "weight difference",
        "bisection",
    ):
        assert word in text, word


def test_what_is_missing_is_said():
    """A network that was quantized by a plan alone has no search to show, and the page says so."""
    bare = " ".join(" ".join(read(page(convnet(), "net")).text).split())
    assert "Goal met" not in bare
    assert "does not say what it gives at other widths" in bare
    assert "holds no ranking" in bare
    assert "holds no search" in bare


ACCEPTED = {
    "loss": 0.0042, "low": 0.0009, "high": 0.0075, "samples": 10_000, "spread": 0.166, "worse": 158, "better": 116, "p": 0.013,
    "held_out": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            {"allowed": 0.01, "rule": "proved"},
            ("0.42 points", "0.09 points to 0.75 points", "p = 0.013", "158 worse, 116 better", "surely within", "about 2,163"),
        ),
        ({"allowed": 0.005, "rule": "plausible"}, ("not settled", "asked: not surely more", "about 8,652", "there are 10,000")),
        ({"allowed": 0.0005, "rule": "plausible"}, ("surely more", "that nothing was chosen by")),
        ({"allowed": 0.0, "rule": "plausible", "held_out": False}, ("surely more", "to choose by, on which a search looks")),
        ({}, ("So many samples tell", "0.47 points from no loss")),
        ({"better": None, "p": None}, ("158 differ", "share of samples that differ, exact")),
        ({"worse": None, "better": None, "p": None}, ("samples drawn again in pairs",)),
    ],
)
def test_the_acceptance_is_shown(said, shown):
    """Test, interval, verdict, and the samples that it takes; without one there is no such part."""
    meta = {"result": {**RESULT, "accepted": {**ACCEPTED, **said}}}
    html = page(convnet().with_(meta=meta), "net")
    text = " ".join(" ".join(read(html).text).split())
    for words in (*shown, "Acceptance", "10,000"):
        assert words in text, words
    assert 'id="acceptance-t"' in html
    assert "Acceptance" not in page(convnet().with_(meta=PARTS), "net")


@pytest.mark.parametrize(
    "junk",
    ["x", {}, {**ACCEPTED, "loss": "1"}, {**ACCEPTED, "samples": 0}, {**ACCEPTED, "high": 1e300}, {**ACCEPTED, "worse": 0.5}],
)
def test_an_acceptance_that_is_none_is_left_out(junk):
    meta = {"result": {**RESULT, "accepted": junk}}
    assert "Acceptance" not in page(convnet().with_(meta=meta), "net")


def test_names_are_escaped():
    """Nothing that a file says becomes markup."""
    evil = "<script>alert(1)</script>"
    meta = {"result": {**RESULT, "notes": [evil], "metric": evil}, "widths": WIDTHS}
    html = page(convnet().with_(meta=meta), evil)
    assert evil not in html
    assert html.count("<script") == page(convnet().with_(meta=PARTS), "net").count("<script")


def test_missed_goals_are_called_missed():
    meta = {"result": {**RESULT, "goal_met": False}}
    assert "Goal missed" in page(convnet().with_(meta=meta), "net")


@pytest.mark.parametrize(
    "junk", [{"result": "x"}, {"result": {"trace": [["a"]], "ranking": [1]}}, {"widths": [{"bits": "?"}]}, {"widths": 3}]
)
def test_strange_meta_does_not_break_it(junk):
    """The page shows what it understands of a file made by somebody else."""
    assert "</html>" in page(convnet().with_(meta=junk), "net")


def test_written_whole_or_not_at_all(tmp_path):
    out = write(Model(convnet().with_(meta=PARTS)), tmp_path / "page.html")
    assert out.read_text().rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError, match="nowhere"):
        write(Model(convnet()), tmp_path / "nowhere" / "page.html")


def test_bytes_are_those_of_the_file(tmp_path):
    """Where there is one: coded bytes and bits of each weight, and what each width reads."""
    graph = convnet().with_(meta=PARTS)
    file.save(graph, tmp_path / "net.ladder")
    stored, reads = file.sizes(tmp_path / "net.ladder")
    there = page(graph, "net", tmp_path / "net.ladder")
    packed = page(graph, "net")
    assert "as stored, coded" in there
    assert "packed, before coding" in packed
    assert f'data-v="{stored["w2"]}"' in there
    assert f'data-v="{graph.constants["w2"].nbytes}"' in packed
    assert f"8 bits {reads[8]:,} bytes" in there
