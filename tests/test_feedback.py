"""Rounding with error feedback: less output error than rounding to the nearest, and every prefix of a nested code a code."""

import numpy as np
import pytest

from bitladder.formats import Codebook, Fixed, Int, Nested, Product, QTensor, Ternary, fit
from bitladder.ir.graph import Graph, Node, Value
from bitladder.ptq import blocks, feedback
from bitladder.ptq.bake import bake
from bitladder.ptq.feedback import climb, columns, damped, decoded, feed, grams, rounded, settle, spread_factor
from bitladder.runtime.reference import run

FORMATS = [Fixed(4), Fixed(8), Int(4), Int(2), Int(4, group=8), Ternary(), Codebook(4), Codebook(2, 3)]
NESTED = [Nested(8), Nested(4), Nested(8, "tree"), Nested(8, "sign")]


def random(seed):
    return np.random.default_rng(seed)


def layer(seed, outputs=12, inputs=27, rows=400, groups=1):
    """A weight (outputs, inputs) and the gram matrices of inputs that resemble each other, as neighbouring pixels do."""
    draw = random(seed)
    mix = draw.normal(size=(groups, inputs, inputs)) * np.geomspace(1, 0.05, inputs)
    x = np.maximum(draw.normal(size=(groups, rows, inputs)) @ mix, 0)
    return draw.normal(0, 0.1, (outputs, inputs)).astype(np.float32), np.matmul(x.swapaxes(1, 2), x)


def error(w, q, gram):
    """The squared output error, summed over groups."""
    e = (w.astype(np.float64) - q.decode()).reshape(len(gram), -1, gram.shape[-1])
    return float(np.einsum("goi,gij,goj->", e, gram, e))


@pytest.mark.parametrize("fmt", [*FORMATS, *(Nested(b, matter={b: 1.0}) for b in (2, 4, 8))], ids=str)
def test_outputs_err_less_than_with_the_nearest_codes(fmt):
    """On every random layer, under the gram matrix of its inputs."""
    for seed in range(4):
        w, gram = layer(seed)
        encoding = fit(fmt, w)
        ours, nearest = rounded(w, encoding, gram), QTensor.of(w, encoding)
        assert error(w, ours, gram) <= error(w, nearest, gram)
        low, high = fmt.span()
        assert ours.codes.min() >= low
        assert ours.codes.max() <= high


@pytest.mark.parametrize("scheme", ["midrise", "tree", "sign"])
def test_the_lowest_width_errs_less_than_the_nearest_prefix(scheme):
    """Although its codes are held to their weights for the widths that follow."""
    for seed in range(4):
        w, gram = layer(seed)
        encoding = fit(Nested(8, scheme), w)
        assert error(w, rounded(w, encoding, gram).at(2), gram) < error(w, QTensor.of(w, encoding).at(2), gram)


@pytest.mark.parametrize("scheme", ["midrise", "tree", "sign"])
def test_holding_on_to_weights_helps_the_widths_that_follow(scheme, monkeypatch):
    """Each further width errs less, and the last one less than if low widths had only looked at themselves."""
    held, free = np.zeros(4), np.zeros(4)
    for share, sums in ((feedback.HOLD, held), (0.0, free)):
        monkeypatch.setattr(feedback, "HOLD", share)
        for seed in range(4):
            w, gram = layer(seed)
            q = rounded(w, fit(Nested(8, scheme), w), gram)
            sums += [error(w, q.at(bits), gram) for bits in (2, 3, 4, 8)]
    assert (np.diff(held) < 0).all()
    assert held[-1] < free[-1]


@pytest.mark.parametrize("scheme", ["midrise", "tree", "sign"])
def test_each_width_is_a_child_of_the_one_before(scheme, monkeypatch):
    """The prefix of the final codes at every width that matters is the code that was rounded at that width."""
    made = {}

    def noted(w, codes, fmt, *rest):
        made[fmt.bits] = settle(w, codes, fmt, *rest)
        return made[fmt.bits]

    monkeypatch.setattr(feedback, "settle", noted)
    w, gram = layer(5)
    climb(w.astype(np.float64), fit(Nested(8, scheme), w), w.shape, slice(0, len(w)), gram[0])
    assert sorted(made) == [2, 3, 4, 8]
    for bits, codes in made.items():
        assert np.array_equal(made[8] >> (8 - bits), codes)


@pytest.mark.parametrize("fmt", [*FORMATS, *NESTED], ids=str)
@pytest.mark.parametrize("inputs", [5, 64, 70])
def test_settling_never_adds_error(fmt, inputs):
    """From codes with feedback and from any other codes; it ends where no single code can be bettered, or nearer to it."""
    w, gram = layer(7, inputs=inputs)
    encoding, held = fit(fmt, w), damped(gram[0])
    p = columns(encoding, w.shape, slice(0, len(w)), np.arange(inputs))
    wide = w.astype(np.float64)

    def cost(codes):
        e = wide - decoded(codes, fmt, p)
        return np.einsum("oi,ij,oj->o", e, held, e)

    low, high = fmt.span()
    for codes in (feed(wide, fmt, p, spread_factor(held), None, 0), random(1).integers(low, high, w.shape, endpoint=True)):
        once = settle(wide, codes, fmt, p, held, None, 0)
        assert (cost(once) <= cost(codes) * (1 + 1e-6) + 1e-9).all()


def test_blocks_change_nothing(monkeypatch):
    """Codes are the same however many inputs are rounded before their errors are spread over the rest."""
    w, gram = layer(3, inputs=50)
    encoding = fit(Int(3), w)
    whole = rounded(w, encoding, gram).codes
    monkeypatch.setattr(feedback, "BLOCK", 7)
    assert (rounded(w, encoding, gram).codes != whole).mean() < 0.01  # sums in another order may turn a tie


def test_independent_inputs_are_rounded_to_the_nearest():
    """With a diagonal gram matrix there is nothing to make up for."""
    w, _ = layer(2)
    for fmt in (Int(4), Fixed(4), Nested(4)):
        encoding = fit(fmt, w)
        near = QTensor.of(w, encoding)
        ours = rounded(w, encoding, np.diag(np.linspace(1, 2, w.shape[1]))[None])
        assert np.array_equal(ours.codes, near.codes)


@pytest.mark.parametrize("fmt", [Int(4), Nested(8)], ids=str)
def test_dead_inputs_and_singular_grams(fmt):
    """Inputs that are always zero, copies of each other, or all of them zero: codes in range, nothing infinite."""
    w, gram = layer(1)
    dead = gram.copy()
    dead[:, :5], dead[:, :, :5] = 0, 0
    one = np.ones((1, 27, 27))
    for g in (dead, one, np.zeros_like(gram)):
        q = rounded(w, fit(fmt, w), g)
        assert np.isfinite(q.decode()).all()


def test_constant_weights():
    """All weights zero, or all the same."""
    _, gram = layer(1)
    for w in (np.zeros((12, 27), np.float32), np.full((12, 27), 0.5, np.float32)):
        assert np.isfinite(rounded(w, fit(Nested(8), w), gram).decode()).all()
        assert np.abs(rounded(w, fit(Int(8), w), gram).decode() - w).max() < 0.02


def conv_graph(groups, outputs=6, channels=6, strides=(1, 1), dilations=(1, 1)):
    w = random(4).normal(0, 0.2, (outputs, channels // groups, 3, 3)).astype(np.float32)
    attrs = {"groups": groups, "strides": strides, "dilations": dilations, "pads": ((1, 1), (1, 1))}
    node = Node("conv", ("x", "w"), ("y",), attrs)
    return Graph((Value("x", "float32", ("batch", channels, 8, 8)),), ("y",), (node,), {"w": w})


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("fmt", [Int(3), Fixed(3), Nested(3, matter={3: 1.0})], ids=str)
def test_grouped_and_depthwise_convolutions(groups, fmt):
    """Outputs of the baked network err less with feedback, whatever the groups."""
    graph = conv_graph(groups)
    x = np.cumsum(random(0).normal(size=(64, 6, 8, 8)), axis=3).astype(np.float32)
    g = grams(graph, [{"x": x[:32]}, {"x": x[32:]}])
    assert g["w"].shape == (groups, 54 // groups, 54 // groups)
    truth = run(graph, {"x": x})["y"]

    def output_error(found):
        return float(np.square(run(bake(graph, {"w": fmt}, {}, grams=found), {"x": x})["y"] - truth).sum())

    assert output_error(g) < output_error(None)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 2)])
def test_gram_matrices_give_the_output_error(strides, dilations):
    """Where all positions are looked at, tr(E G E^T) is the squared error of the convolution's outputs."""
    graph = conv_graph(2, strides=strides, dilations=dilations)
    x = random(0).normal(size=(3, 6, 8, 8)).astype(np.float32)
    gram = grams(graph, [{"x": x}])["w"]
    e = graph.constants["w"].reshape(2, 3, -1).astype(np.float64)
    out = run(graph, {"x": x})["y"]
    assert np.isclose(np.einsum("goi,gij,goj->", e, gram, e), np.square(out.astype(np.float64)).sum(), rtol=1e-4)


def test_gram_matrices_are_a_fold():
    """The sum over batches, however the samples are cut."""
    graph = conv_graph(1)
    x = random(0).normal(size=(8, 6, 8, 8)).astype(np.float32)
    whole, parts = grams(graph, [{"x": x}])["w"], grams(graph, [{"x": x[:3]}, {"x": x[3:]}])["w"]
    assert np.allclose(whole, parts, rtol=1e-5, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", [(12, 8), (12, 4, 3, 2)])
def test_blocks_make_up_for_each_other(shape, groups):
    """Product codebooks rounded with feedback err less than nearest centroids do, and choosing again never adds error."""
    fmt, inputs = Product(2, 16), int(np.prod(shape[1:]))
    for seed in range(4):
        w, gram = layer(seed, shape[0], inputs, groups=groups)
        w = w.reshape(shape)
        encoding = fit(fmt, w)
        ours = blocks.rounded(w, encoding, gram)
        assert ours.shape == shape
        assert error(w, ours, gram) < error(w, QTensor.of(w, encoding), gram)


def test_choosing_blocks_again_never_adds_error():
    """Nor does it, block by block, choose anything but the best of all centroids."""
    w, gram = layer(0, 6, 12)
    table = random(1).integers(-100, 100, (9, 3)).astype(np.float64)
    scale, gram = np.full(6, 0.002), damped(gram[0])
    codes = blocks.feed(w.astype(np.float64), scale, table, gram)
    again = blocks.settle(w.astype(np.float64), codes, scale, table, gram)

    def cost(found):
        e = w - table[found].reshape(w.shape) * scale[:, None]
        return np.einsum("oi,ij,oj->o", e, gram, e)

    assert (cost(again) <= cost(codes) * (1 + 1e-9)).all()
    for k in range(again.shape[1]):
        for other in range(len(table)):
            changed = again.copy()
            changed[:, k] = other
            if k == again.shape[1] - 1:  # the last one chosen is best given all others
                assert (cost(again) <= cost(changed) * (1 + 1e-9)).all()


def test_blocks_of_one_kind_are_cut_as_formats_cut_them():
    """Columns of a block are the weights that a code stands for."""
    w = random(2).normal(size=(5, 6, 2, 2)).astype(np.float32)
    q = QTensor.of(w, fit(Product(3, 8), w))
    flat, codes = q.integers().reshape(5, -1), q.codes.reshape(5, -1)
    for place, columns_of in enumerate(blocks.block_columns(6, 4, 3)):
        assert np.array_equal(flat[:, columns_of], q.encoding.params["centroids"][codes[:, place]])
