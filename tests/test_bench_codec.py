"""The benchmark of coders without its data: curves, general compressors, the way to NNCodec and back, and what figures say."""

import sys
import types

import numpy as np
import pytest
import torch

from bench import codec, coded, compressors, curve, environment, nncodec, resnet
from bench.codec import Found, figures, tried
from bench.coded import Codes
from bench.curve import Point, bytes_at
from bench.environment import Unavailable
from bench.nncodec import ENVIRONMENT
from bitladder.codec.parts import Kind
from bitladder.formats import Int, Nested


def point(name, size, right, count=1000):
    """A network that gets the first `right` images right."""
    return Point(name, size, np.arange(count) < right)


def test_a_curve_is_a_lower_hull():
    """Between two networks bytes are interpolated, networks above that do not matter, nothing is promised beyond the ends."""
    lost, sizes = np.array([0.0, 0.5, 1.0, 2.0]), np.array([300.0, 290.0, 200.0, 150.0])
    assert bytes_at(lost, sizes, 0.5) == 250.0
    assert bytes_at(lost, sizes, 1.5) == 175.0
    assert bytes_at(lost, sizes, 5.0) == 150.0
    assert bytes_at(lost, sizes, -0.1) == np.inf
    assert bytes_at(np.array([0.0, 1.0]), np.array([100.0, 300.0]), 0.5) == 100.0


def test_bytes_at_a_loss():
    """Of networks: the loss is against the float network, and a curve that loses more everywhere has no such network."""
    plain = np.arange(1000) < 900
    points = [point("a", 400, 900), point("b", 200, 890), point("c", 50, 500)]
    assert curve.at(points, plain, 0.5) == pytest.approx(300)
    assert curve.at(points[2:], plain, 0.5) is None
    assert curve.at([], plain, 0.5) is None


def test_the_interval_of_a_ratio():
    """It is as wide as images make it, nothing for the same curve, and not given where most draws have no network."""
    rng = np.random.default_rng(0)
    plain = rng.random(2000) < 0.9
    ours = [Point("a", 100, plain), Point("b", 50, plain & (rng.random(2000) < 0.97))]
    theirs = [Point("a", 200, plain), Point("b", 80, plain & (rng.random(2000) < 0.97))]
    assert curve.half(ours, ours, plain, 1.0) == 0.0
    found = curve.half(ours, theirs, plain, 1.0)
    assert 0 < found < 0.5
    assert found == curve.half(ours, theirs, plain, 1.0)
    assert curve.half(ours[1:], theirs, plain, 0.5) is None


def test_general_compressors_give_codes_back():
    """Each that is there is smaller than raw on codes that are mostly zero, and none beats the entropy of the codes."""
    codes = {"a": np.random.default_rng(0).binomial(6, 0.5, (64, 400)) - 3, "b": np.zeros((1, 9), int)}
    made = compressors.peers(codes, b"packed" * 100)
    entropy = made.pop("order-0 entropy of each tensor").bytes
    assert {"xz -9e, codes as bytes", "xz -9e, codes packed"} <= set(made)
    for name, found in made.items():
        assert found.encode > 0
        assert found.decode > 0
        assert name.endswith("packed") or entropy < found.bytes < 64 * 400
    assert entropy == pytest.approx(64 * 400 * 2.333 / 8, rel=0.01)
    with pytest.raises(AssertionError, match="not what was encoded"):
        compressors.squeezed(b"abc", lambda d: d, lambda d: d + b"!")


def tensors():
    w = {"w": np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)}
    return {str(fmt): coded.rounded(w, fmt)["w"] for fmt in (Int(4), Int(8), Nested(8), Nested(8, "sign"))}


def test_codes_go_there_and_back():
    """In every format and coder, tile by tile, and a coder that is wrong is found out."""
    for name, tensor in tensors().items():
        codes = coded.codes_of(tensor)
        assert codes.codes.shape == (6, 27)
        assert codes.nested == name.startswith("nested")
        assert codes.sign == name.endswith("sign")
        for coder in ("raw", "fast", "best"):
            assert np.array_equal(coded.decode(codes, coded.encode(codes, coder)), codes.codes)
        assert coded.length(coded.encode(codes, "raw")) == len(coded.packed({"w": codes}))
    tall = Codes(np.arange(3 * 2**19).reshape(3, 2**19) % 16, Kind(4, 0, 15))
    assert [tile.shape[0] for tile in tall.tiles()] == [2, 1]
    assert len(coded.encode(tall, "raw")) == 2


def test_a_coder_that_loses_codes_is_found_out(monkeypatch):
    """Speed is only measured of what comes back."""
    codes = {"w": coded.codes_of(tensors()["int4"])}
    found = coded.speed(codes, "raw", 1)
    assert found.bytes == 81
    assert min(found.encode, found.decode) > 0
    monkeypatch.setattr(coded, "decode", lambda c, made: c.codes + 1)
    with pytest.raises(AssertionError, match="w is not what was encoded"):
        coded.speed(codes, "raw", 1)


def test_rows_of_codes():
    """Every coder against every compressor, in bits a weight."""
    codes = {"w": coded.codes_of(tensors()["int4"])}
    rows = coded.code_rows("net", codes, {"raw": coded.Speed(81, 1.0, 0.5)})
    bits = [r for r in rows if r.what == "net, raw, bits a weight"]
    assert {r.ours for r in bits} == {4.0}
    assert "order-0 entropy of each tensor" in {r.peer_name for r in bits}
    assert rows[-1].ours == 162 / 0.5 / 1e6
    more = coded.code_rows("net", codes, {"raw": coded.Speed(81, 1.0, 0.5)}, {"other": compressors.Squeezed(40.5, 4.0, 2.0)})
    assert [(r.what, r.ratio) for r in more if r.peer_name == "other"] == [
        ("net, raw, bits a weight", 2.0),
        ("net, raw, encode, s", 0.25),
        ("net, raw, decode, s", 0.25),
    ]


# --------------------------------------------------------------------------------------------------------- NNCodec


def test_a_folded_network_is_the_same_network():
    """What NNCodec makes of batch norm (scale in the weight, one bias) gives the same scores under the network's names."""
    net = resnet.ResNet(1)
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        for i, value in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            torch.nn.init.uniform_(value, 0.5, 1.5, torch.Generator().manual_seed(i))
    net.eval()
    state = nncodec.stored(net.state_dict())
    kinds = nncodec.blocks(state)
    folded = dict(state)
    for name, kind in kinds["parameter_type"].items():
        if kind == "bn.gamma":
            norm, conv = name.removesuffix(".weight"), kinds["block_identifier"][name]
            gain = folded.pop(name) / np.sqrt(folded.pop(f"{norm}.running_var") + nncodec.BN_EPS)
            folded[f"{conv}.weight"] = folded[f"{conv}.weight"] * gain[:, None, None, None]
            folded[f"{conv}.weight.bias"] = folded.pop(f"{norm}.bias") - folded.pop(f"{norm}.running_mean") * gain
    again = resnet.ResNet(1)
    again.load_state_dict(net.state_dict() | {n: torch.from_numpy(w) for n, w in nncodec.restored(folded).items()})
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    with torch.inference_mode():
        np.testing.assert_allclose(again.eval()(x), net(x), atol=1e-4)
    assert not any(np.shares_memory(w, net.state_dict()[n].numpy()) for n, w in state.items())


def test_its_settings_differ():
    """No two are the same, and its defaults are among them."""
    made = list(nncodec.settings().values())
    assert all(a not in made[:i] for i, a in enumerate(made))
    assert {"qp": -24, "use_dq": True} in made


def test_what_it_cannot_do_is_one_line(monkeypatch, tmp_path):
    """A command that fails, takes too long or is not there; the environment is not half made after that."""
    for command in (["false"], ["/nowhere/python"], [sys.executable, "-c", "raise SystemExit('first\\nlast')"]):
        with pytest.raises(Unavailable, match=r"^nncodec: trying: [^\n]+$"):
            ENVIRONMENT.run(command, "trying")
    monkeypatch.setattr(environment, "MOST_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="timed out"):
        ENVIRONMENT.run([sys.executable, "-c", "import time; time.sleep(5)"], "trying")
    monkeypatch.setattr(environment.work, "FOLDER", tmp_path)
    monkeypatch.setattr(environment.sys, "executable", "/nowhere/python")
    environment.made.cache_clear()
    made, why = tried(ENVIRONMENT.interpreter)
    assert made is None
    assert why.startswith("nncodec: making its environment: ")
    assert not list(tmp_path.rglob("ready"))


def test_its_driver_times_what_it_codes(monkeypatch):
    """The least of the repeats; blocks are told only when batch norm is folded; a module it does not need stays away."""
    scope = {"__name__": "drive"}
    exec(compile(nncodec.DRIVER.read_text(), str(nncodec.DRIVER), "exec"), scope)
    told = []

    def compress(weights, path, *, block_id_and_param_type, return_bitstream, qp, bnf=False, quantize_only=False):
        told.append((path, block_id_and_param_type, quantize_only))
        return bytearray(b"12345")

    def decompress(stream, *, block_id_and_param_type, reconstruct_lsa, reconstruct_bnf):
        assert isinstance(stream, bytearray)
        assert reconstruct_lsa == reconstruct_bnf == (block_id_and_param_type is not None)
        return {"w": np.zeros(3, np.float32)}

    nnc = types.SimpleNamespace(compress=compress, decompress=decompress)
    decoded, cost = scope["run"](nnc, {"w": np.ones(3, np.float32)}, {"x": 1}, {"qp": -3}, 2)
    assert told == [(None, None, False)] * 2 + [(None, None, True)] * 2
    assert list(decoded) == ["w"]
    assert cost["bytes"] == 5
    assert min(cost["encode"], cost["quantize"], cost["decode"]) >= 0
    scope["run"](nnc, {}, {"x": 1}, {"qp": -3, "bnf": True}, 1)
    assert told[-1] == (None, {"x": 1}, True)


# --------------------------------------------------------------------------------------------------------- figures


def test_figures_are_there_measured_or_not():
    """One for everything that was asked for; what was not measured is null and missed."""
    nothing = figures(Found())
    assert all(f.value is None and not f.met for f in nothing.values())
    share = {(20, 0.3): 0.74, (20, 1.0): 0.71, (56, 0.3): None}
    speeds = {"fast_int4": 3e8, "best_nested8": 1e7, "resnet56_best_int8": 2.1e7}
    made = figures(Found(share, {20: 1.08, 56: 1.06}, 1.01, 0.004, 0.9, speeds))
    assert set(made) == set(nothing)
    assert {name for name, f in made.items() if f.met} == {
        "resnet20_bytes_at_0.3_lost", "planes_over_symbols", "header_overhead", "decode_fast_int4",
        "decode_resnet56_best_int8",
        "encode_resnet56_vs_nncodec", "resnet20_all_widths",
    }  # fmt: skip


def test_rows_at_equal_loss_name_their_peer():
    """With both curves a ratio and its interval; without NNCodec the reason."""
    plain = np.arange(1000) < 900
    ours, theirs = [point("a", 100, 900), point("b", 50, 880)], [point("a", 200, 900), point("b", 80, 880)]
    rows = codec.equal_rows("net", ours, theirs, plain, "")
    assert [r.what for r in rows] == ["net, bytes at 0.3 points lost", "net, bytes at 1 points lost"]
    assert rows[1].ratio == pytest.approx(75 / 140)
    assert rows[1].spread > 0
    assert "needs no data" in rows[1].peer_name
    alone = codec.equal_rows("net", ours, [], plain, "nncodec: installing it: no network")
    assert (alone[0].peer, alone[0].ratio, alone[0].peer_name) == (None, None, "NNCodec: nncodec: installing it: no network")
    pairs = {p.name: (p, np.zeros(3)) for p in theirs}
    assert codec.streams(pairs) == {}
    timed = codec.streams({"dq, qp -24": (theirs[0], np.array([3.0, 1.0, 0.5]))})
    assert list(timed.values()) == [compressors.Squeezed(200, 2.0, 0.5)]
    assert len(codec.curve_rows("net", ours, pairs, plain)) == 1 + 2 * 2 + 2 * 2
