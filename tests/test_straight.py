"""Fake quantization: forward is the format, backward is straight through, and the core does what torch does."""

import numpy as np
import pytest
import torch

import bitladder as bl
from bitladder import native
from bitladder.formats import fit, parse
from bitladder.train import straight
from bitladder.train.straight import rounded

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("text", ["int4", "int4/8", "fixed8", "fixed4/tensor", "ternary", "nested8", "nested8:tree",
                                  "nested8:sign", "codebook3", "log4"])  # fmt: skip
def test_going_forward_is_what_the_format_holds(text):
    """Fake quantization is `decode(encode(x))` of the format, to the bit; gradients of weights pass as they are."""
    w = np.random.default_rng(0).normal(size=(6, 24)).astype(np.float32)
    encoding = fit(parse(text), w)
    for narrow in [encoding, *([encoding.at(3)] if text.startswith("nested") else [])]:
        params = {k: torch.tensor(p) if p.dtype == np.float32 and k != "levels" else p for k, p in narrow.params.items()}
        x = torch.tensor(w, requires_grad=True)
        made = rounded(x, narrow.format, params, narrow.axes)
        assert np.array_equal(made.detach().numpy(), narrow.decode(narrow.encode(w)))
        upstream = torch.randn(x.shape, generator=torch.manual_seed(1))
        made.backward(upstream)
        assert torch.equal(x.grad, upstream)


def test_gradients_of_scales():
    """A scale gets the rounding error inside the range and the end of the range outside, against differences by hand."""
    w = torch.tensor([[0.30, -0.62, 5.0, -7.0]], dtype=torch.float32)
    scale = torch.tensor([0.25], requires_grad=True)
    fmt = parse("int4")
    rounded(w, fmt, {"scale": scale, "zero_point": torch.zeros(1)}, (0,)).sum().backward()
    by_hand = (1 - 0.30 / 0.25) + (-2 + 0.62 / 0.25) + 7 - 8
    assert scale.grad.item() == pytest.approx(by_hand * (1 / 4 / 8) ** 0.5, rel=1e-5)


def test_activations_outside_their_range_get_no_gradient():
    x = torch.tensor([-1.0, 0.5, 3.0], requires_grad=True)
    fmt = bl.Int(4, per="tensor", unsigned=True)
    rounded(x, fmt, {"scale": torch.tensor(0.1), "zero_point": torch.tensor(0.0)}, (), cut=True).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def activations(text, shape, layout):
    """Values of which many lie on a tie, at an end of the range or nowhere, a format with its parameters, and gradients."""
    random = np.random.default_rng(len(text) * 100 + len(shape))
    fmt = parse(text)
    scale = np.float32(2.0**-5 if "fixed" in text else 0.037)
    low, high = fmt.span()
    codes = random.integers(low - 40, high + 40, shape).astype(np.float32)
    x = np.where(random.random(shape) < 0.3, (codes + np.float32(0.5)) * scale, random.normal(size=shape) * high * scale)
    odd = random.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e-40], shape)
    x = torch.tensor(np.where(random.random(shape) < 0.02, odd, x).astype(np.float32))
    params = {"fl": torch.tensor(5.0)}
    if "int" in text:
        zero = float(random.integers(0, 9)) if text.startswith("u") else 0.0
        params = {"scale": torch.tensor(scale, requires_grad=True), "zero_point": torch.tensor(zero)}
    gradient = torch.tensor(random.normal(size=shape).astype(np.float32))
    if layout == "pixels":
        x = x.contiguous(memory_format=torch.channels_last)
    return x, fmt, params, gradient


def passed(x, fmt, params, gradient):
    """Values, gradients of x, and that of the scale, if it has one."""
    x = x.clone().requires_grad_()
    for p in params.values():
        p.grad = None
    y = rounded(x, fmt, params, (), cut=True)
    y.backward(gradient)
    return y.detach(), x.grad, params["scale"].grad if "scale" in params else None


@pytest.mark.skipif(native.core is None, reason="no native core")
@pytest.mark.parametrize("layout", ["planes", "pixels"])
@pytest.mark.parametrize("text", ["uint8/tensor", "uint2/tensor", "int4/tensor", "int16/tensor", "fixed8/tensor"])
def test_the_core_does_what_torch_does(monkeypatch, text, layout):
    """Values and gradients to the bit on every instruction set and for any threads; the scale's gradient to 1e-5."""
    for shape in ((3, 5, 4, 4), (2, 16, 64, 64)):
        given = activations(text, shape, layout)
        finite = given[0].isfinite()
        with monkeypatch.context() as without:
            without.setattr(straight, "core", None)
            wanted = passed(*given)
        found = {}
        for isa in native.isas():
            for threads in (1, 2):
                monkeypatch.setenv("BITLADDER_ISA", isa)
                torch.set_num_threads(threads)
                value, to_x, to_scale = found[isa, threads] = passed(*given)
                assert value.stride() == given[0].stride()
                assert torch.equal(value.nan_to_num(7), wanted[0].nan_to_num(7))
                assert torch.equal(to_x, wanted[1])
                same = next(iter(found.values()))[2]
                assert (to_scale is None) == (same is None) == (wanted[2] is None)
                if same is not None:
                    assert np.array_equal(to_scale, same, equal_nan=True)
        clean = given[0].where(finite, torch.zeros(())), *given[1:]
        with monkeypatch.context() as without:
            without.setattr(straight, "core", None)
            wanted = passed(*clean)[2]
        if wanted is not None:
            assert passed(*clean)[2].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.skipif(native.core is None, reason="no native core")
def test_what_the_core_does_not_take_goes_through_torch():
    """Other precisions, gaps between values, formats of uneven levels, and nothing at all."""
    fmt, params = parse("uint8/tensor"), {"scale": torch.tensor(0.1), "zero_point": torch.tensor(3.0)}
    dense = torch.randn(4, 6, generator=torch.manual_seed(0))
    assert straight.levels_of(dense, fmt, params) is not None
    for other in (dense.double(), dense[:, ::2], dense[:0]):
        assert straight.levels_of(other, fmt, params) is None
        made = rounded(other, fmt, params, (), cut=True)
        assert torch.allclose(made.float(), rounded(other.float().contiguous(), fmt, params, (), cut=True), atol=1e-6)
    assert straight.levels_of(dense, parse("log4"), {"scale": torch.tensor(1.0)}) is None
    assert straight.levels_of(dense, parse("fixed24/tensor"), {"fl": torch.tensor(3.0)}) is None
