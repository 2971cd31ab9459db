"""Benchmarks of speed without measuring any: what times are made into, and that both sides compute the same thing."""

import numpy as np
import pytest
import torch
from torch import nn

from bench import kernels, layers, minilm, nbits, nets, networks, race
from bench.layers import Layer, coded, distinct, one, stuffed, stuffing, transposed
from bench.race import Race, judged
from bench.result import Figure
from bitladder import timing
from bitladder.runtime.reference import run
from bitladder.timing import Times, interleaved, ratio


def times(*milliseconds):
    return Times(np.array(milliseconds) / 1e3)


def test_a_ratio_is_of_medians():
    """With an interval that holds it, and that is as wide as the times are apart; what a round met is met by both."""
    rng = np.random.default_rng(0)
    weather = 1 + rng.random(200)
    found = ratio(Times(0.5 * weather), Times(weather))
    assert found.value == found.low == found.high == 0.5
    wide = ratio(Times(rng.random(30) + 1), Times(rng.random(30) + 1))
    assert wide.low < wide.value < wide.high


def test_calls_take_turns(monkeypatch):
    """Every call once a round, each round begun by another; an untimed call before each, when it is to settle."""
    order = []
    monkeypatch.setattr(timing, "repeats", lambda call: 1)
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    for settle, wanted in ((True, "aabb" + "bbaa" + "aabb"), (False, "ab" + "ba" + "ab")):
        order.clear()
        found = interleaved(calls, 3, settle=settle)
        assert {name: len(t.samples) for name, t in found.items()} == {"a": 3, "b": 3}
        assert "".join(order) == wanted
    assert len(interleaved(calls, 1, lasting=0.02)["a"].samples) > 10


def test_a_race_is_judged_by_the_fastest_peer():
    """Of those it is held against; a row names its peer and has milliseconds."""
    found = Race("net", {"int8": times(3, 3, 3)}, {"a": times(6, 6, 6), "b": times(4, 4, 4), "c": times(1, 1, 1)})
    assert found.against("int8")[0] == "c"
    name, held = found.against("int8", ["a", "b"])
    assert (name, held.value) == ("b", 0.75)
    row = found.row("int8", "b")
    assert (row.what, row.peer_name, round(row.ours), round(row.ratio, 2)) == ("net, int8, ms", "b", 3, 0.75)
    assert len(found.rows()) == 3
    assert found.share("int8", ["nobody"]) is None


def test_without_a_core_nothing_is_judged(monkeypatch):
    """A figure of speed is not measured where the reference stood in."""
    given = {"x": Figure.at_most(0.5, 1.0)}
    monkeypatch.setattr(race, "isas", lambda: [])
    assert judged(given) == {"x": Figure(None, 1.0, False)}
    monkeypatch.setattr(race, "isas", lambda: ["avx2"])
    assert judged(given) == given


@pytest.mark.parametrize("kernel", [3, 4])
def test_zero_stuffing_computes_the_same(kernel):
    """The dense convolution on the stuffed input gives the integers of the transposed one, all of them."""
    graph = transposed(6, 5, 4, kernel)
    x = np.random.default_rng(0).normal(size=(1, 6, 4, 4)).astype(np.float32)
    ours, peer = run(graph, {"x": x})["y"], run(stuffed(graph), {"x": stuffing(x)})["y"]
    assert ours.shape == (1, 5, 8, 8)
    assert ours.std() > 0
    assert (ours == peer).all()


def hooked(module, *inputs):
    """The layers that a network runs, in order, as lines would have them."""
    found = []

    def note(name):
        def hook(layer, args, out):
            size = tuple(args[0].shape[2:]) if isinstance(layer, nn.Conv2d) else (args[0][..., 0].numel(), 1)
            if isinstance(layer, nn.Conv2d):
                conv = (layer.kernel_size[0], layer.stride[0], layer.groups)
                found.append(Layer(name, "conv", layer.in_channels, size, layer.out_channels, *conv))
                assert found[-1].outer == tuple(out.shape[2:])
            else:
                found.append(Layer(name, "linear", layer.in_features, size, layer.out_features))

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note(name))
    with torch.no_grad():
        module(*inputs)
    return found


def test_shapes_are_those_of_the_networks():
    """Every line of bench/shapes/ is a layer that runs; the multiply-accumulates are the known ones."""
    tokens = torch.zeros(1, nets.TOKENS, dtype=torch.int64)
    config = {
        "hidden_size": 384, "layer_norm_eps": 1e-12, "vocab_size": 10, "max_position_embeddings": 128,
        "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 6,
    }  # fmt: skip
    images = torch.zeros(1, 3, 224, 224)
    made = {
        "resnet50": hooked(nets.ResNet50().eval(), images),
        "mobilenet_v2": hooked(nets.MobileNetV2().eval(), images),
        "resnet20": hooked(nets.resnet.ResNet(3).eval(), torch.zeros(1, 3, 32, 32)),
        "minilm": hooked(minilm.MiniLM(config).eval(), tokens, tokens + 1),
    }
    for name, found in made.items():
        assert layers.layers(name) == found, name
    gmacs = {name: round(sum(layer.macs for layer in found) / 1e9, 2) for name, found in made.items()}
    assert gmacs == {"resnet50": 4.09, "mobilenet_v2": 0.3, "resnet20": 0.04, "minilm": 1.36}
    assert sum(count for _, count in distinct(made["resnet50"])) == len(made["resnet50"]) == 54


@pytest.mark.parametrize("text", ["nested8", "nested8:tree", "int8", "int4", "int4/32"])
def test_random_codes_are_codes(text):
    """A matrix of random codes runs, has the format and the bytes it says, and its outputs differ."""
    w = coded(text, (32, 64))
    assert w.nbytes == 32 * 64 * w.format.bits // 8
    y = run(one("linear", (1, 64), w), {"x": kernels.vector(64)})["y"]
    assert y.shape == (1, 32)
    assert len(np.unique(y)) > 16


def test_a_layer_alone_has_its_shape():
    """Stride, groups and padding as the line says."""
    layer = Layer("x", "conv", 8, (7, 7), 16, 3, 2, 4)
    graph = layer.graph()
    out = run(graph, {"x": np.ones(graph.inputs[0].shape, np.float32)})["y"]
    assert out.shape == (1, 16, *layer.outer) == (1, 16, 4, 4)
    assert layer.macs == 16 * 4 * 4 * 2 * 9


def test_padding_does_not_matter_to_the_encoder():
    """Tokens behind the mask change nothing."""
    torch.manual_seed(0)
    config = {
        "hidden_size": 24, "layer_norm_eps": 1e-12, "vocab_size": 10, "max_position_embeddings": 16,
        "num_attention_heads": 3, "intermediate_size": 48, "num_hidden_layers": 2,
    }  # fmt: skip
    net = minilm.MiniLM(config).eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        short = net(ids, torch.ones_like(ids))
        long = net(torch.cat([ids, ids + 5], 1), torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]]))
    assert torch.allclose(short, long, atol=1e-6)
    assert not torch.allclose(short, net(ids + 1, torch.ones_like(ids)), atol=1e-3)


def test_seeded_networks_neither_explode_nor_fade():
    """After batch norm is settled outputs have the scale of ones, and two runs make the same network."""
    small = lambda: nn.Sequential(*(nets.unit(3, 3, 3, act=nn.ReLU()) for _ in range(20)))
    first, second = nets.seeded(small, 32), nets.seeded(small, 32)
    x = torch.from_numpy(nets.images(2, 32))
    with torch.no_grad():
        assert 0.1 < first(x).std() < 10
        assert (first(x) == second(x)).all()


def test_the_peer_multiplies_what_it_was_given():
    """A model of few bits is one that ONNX Runtime loads: every width, with outputs that depend on the input."""
    ort = pytest.importorskip("onnxruntime")
    for bits in kernels.WIDTHS:
        session = ort.InferenceSession(nbits.model(64, 32, nbits.Setting(bits)), providers=["CPUExecutionProvider"])
        y = session.run(None, {"x": kernels.vector(64)})[0]
        assert y.shape == (1, 32)
        assert np.isfinite(y).all()
        assert y.std() > 0


def matrix_race(**milliseconds):
    peers = {str(s): times(t) for s, t in zip(kernels.SETTINGS, (4, 3, 2, 2.5, 1, 0.5), strict=True)}
    return Race("m", {f"nested8 at {b[1:]} bits": times(t) for b, t in milliseconds.items()}, peers)


def test_figures_of_matrices():
    """From memory against our own 8 bits; from the cache against the peer's best setting, and blocks of 32 apart."""
    made = kernels.matrix_figures(matrix_race(b8=3.0, b4=1.0, b2=0.6), matrix_race(b8=10.0, b4=5.0, b2=5.0))
    assert {n: (round(f.value, 3), f.met) for n, f in made.items()} == {
        "matvec_memory_4_vs_8": (0.5, True),
        "matvec_memory_2_vs_8": (0.5, False),
        "matvec_cache_8": (1.0, True),
        "matvec_cache_8_blocks_32": (0.75, True),
        "matvec_cache_4": (0.5, True),
        "matvec_cache_4_blocks_32": (0.5, True),
        "matvec_cache_2": (1.2, False),
        "matvec_cache_2_blocks_32": (0.6, True),
    }
    rows = [row for bits in kernels.WIDTHS for row in kernels.of_width(matrix_race(b8=3.0, b4=1.0, b2=0.6), bits)]
    assert len(rows) == 6


def test_the_heap_grows_by_what_is_held():
    """Bytes of large and small arrays alike; nothing is said where the C library does not tell."""
    before = networks.heap()
    if before is None:
        pytest.skip("this C library does not say")
    held = [np.ones(1 << 20, np.uint8), np.ones(1 << 26, np.uint8)]
    grown = networks.heap() - before
    assert sum(a.nbytes for a in held) <= grown < 1.1 * sum(a.nbytes for a in held)


def test_short_calls_are_repeated():
    """So that a sample lasts as long as the clock needs."""
    assert timing.repeats(lambda: None) > 100
    assert timing.repeats(lambda: sum(range(200_000))) < 10
