"""The benchmark of quantization noise: the model cannot look ahead, runs resume to the bit, figures say what was missed."""

import math

import numpy as np
import pytest
import torch

from bench import source
from bench import train_noise as bench
from bench.result import Row
from bitladder.formats import Product

SMALL = bench.Size(16, 1, 16, 4, 8, 6, Product(4, 8, "tensor"), Product(2, 8, "tensor"), 8)
TEXT = source.Code(*(np.random.default_rng(s).integers(0, 128, 4000).astype(np.uint8) for s in (0, 1, 2)))
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_text_is_the_standard_librarys_and_test_files_are_others():
    code = source.code()
    assert len(code.learn) > 4 * len(code.test) > 100_000
    assert len(code.learn) > 4 * len(code.choose) > 100_000
    assert code.learn.max() < source.SYMBOLS
    assert b"def " in code.test.tobytes()


def test_a_byte_depends_on_those_before_it_alone():
    torch.manual_seed(0)
    net = source.Writer(16, 2, 16)
    text = torch.randint(0, 128, (2, 16))
    other = text.clone()
    other[:, 9:] = 5
    assert torch.equal(net(text)[:, :9], net(other)[:, :9])
    assert not torch.equal(net(text)[:, 9:], net(other)[:, 9:])


def test_a_model_that_knows_nothing_has_the_perplexity_of_all_symbols():
    found = source.nats(lambda x: torch.zeros(*x.shape, source.SYMBOLS), TEXT.test, 16, 8)
    assert math.exp(found.mean()) == pytest.approx(source.SYMBOLS)


def test_code_is_completed_by_its_likeliest_bytes():
    """A model that says the byte after the last one counts on, however far."""
    said = source.completed(lambda x: torch.nn.functional.one_hot((x + 1) % 128, 128).float(), "0123", 6, 3)
    assert said == "0123456789"


@pytest.mark.parametrize("method", ["in_products", "in_int4"])
def test_an_interrupted_run_goes_on_to_the_same_answers(tmp_path, monkeypatch, method):
    """Interrupted whenever a state was kept, a run ends in the same numbers."""
    monkeypatch.setattr(bench, "EVERY", 2)
    torch.manual_seed(0)
    begun = source.Writer(SMALL.width, SMALL.layers, SMALL.length)

    def made(folder):
        task = bench.Task(SMALL, TEXT, tmp_path / folder)
        return (
            bench.in_products(task, begun, begun)
            if method == "in_products"
            else bench.in_int4(task, begun, task.after(6), bench.growing(6))
        )

    whole = made("whole")
    keep, stops = bench.keep, 0

    def interrupted(*of):
        keep(*of)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "keep", interrupted)
    while True:
        try:
            found = made("cut")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 2
    assert np.array_equal(whole, found)


def test_figures_say_what_was_missed():
    """Each int4 network must be better than the one before it, products within 15 % and 20 times smaller."""

    def met(post, aware, noise, products, times):
        rows = [
            Row.of("", post, 3.0),
            Row.of("", aware, 3.0),
            Row.of("", noise, 3.0),
            Row.of("", products, 3.0),
            Row.of("", times),
        ]
        return [f.met for f in bench.figures(rows).values()]

    assert met(4.0, 3.5, 3.2, 3.4, 21.0) == [True] * 4
    assert met(3.0, 3.5, 3.6, 3.5, 19.0) == [False] * 4
