"""Quantization noise: in each step a drawn part of the weights passes through its format, the rest is exact (S11).

After US20230222334. The network computes with temporaries; the parameters that learn are never written to. On the drawn part
the gradient passes straight through, elsewhere it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from bitladder.formats import Encoding, Format, QTensor, fit, parse
from bitladder.formats.tensor import width_of
from bitladder.train.lesson import draw

Tensor = Any
Plan = Mapping[str, Format | str | None]
WIDTHS = 2**63 - 1  # the stream of draws that is no tensor's


class Noise:
    """A module whose planned weights pass through their formats in a drawn part of their blocks, anew in each step.

    plan: formats by patterns of parameter names, the last match wins; what has fewer than two axes, biases and norms, is
    left alone. A block is a weight, or what one code of a product codebook stands for. rate: how likely a block is drawn, or
    a function of the step that says it; 0 is plain training, 1 is quantization-aware training. every: steps between two fits
    of scales or centroids to the weights (`cover` as in `formats.fit`). drop: drawn blocks become zero, a cheap stand-in for
    product codebooks. widths: of nested formats, those of which each step draws one.

    Call it like the module, then `step()` once per step of the optimizer. Not in training mode everything is quantized.
    """

    def __init__(
        self,
        module: Any,
        plan: Plan,
        rate: float | Callable[[int], float] = 0.5,
        *,
        seed: int = 0,
        every: int = 100,
        cover: str = "max",
        drop: bool = False,
        widths: Sequence[int] = (),
    ):
        if every < 1:
            raise ValueError(f"noise: every must be at least 1 step, got {every}")
        self.module, self.asked, self.seed, self.every, self.cover, self.drop = module, rate, seed, every, cover, drop
        self.widths = tuple(widths)
        self.formats = planned(module, plan)
        if self.widths and (other := [n for n, f in self.formats.items() if not hasattr(f, "at")]):
            raise ValueError(f"noise: drawn widths need nested formats, got {self.formats[other[0]]} for {other[0]!r}")
        self.encodings: dict[str, Encoding] = {}
        self.steps = 0
        _ = self.rate  # which is checked

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module says with this step's weights."""
        weights = self.weights() if self.module.training else self.quantized()
        return functional_call(self.module, weights, args, kwargs)

    @property
    def rate(self) -> float:
        """How likely a block is drawn in this step."""
        rate = self.asked(self.steps) if callable(self.asked) else self.asked
        if not 0 <= rate <= 1:
            raise ValueError(f"noise: rate must be 0 to 1, got {rate}")
        return rate

    def step(self) -> None:
        """The next draw from now on."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.encodings.clear()

    def weights(self) -> dict[str, Tensor]:
        """This step's weights by name: equal to the parameters, but for the drawn blocks. Tied weights are there once."""
        bits = self.width()
        held = dict(self.module.named_parameters())
        return {name: self.noisy(i, name, held[name], bits) for i, name in enumerate(self.formats)}

    def noisy(self, number: int, name: str, weight: Tensor, bits: int | None) -> Tensor:
        """One weight with this step's noise."""
        if self.rate == 0:
            return weight
        exact = weight.detach()
        with torch.no_grad():
            coded = torch.zeros_like(exact) if self.drop else through(self.encoding(name, exact), exact, bits)
            mixed = torch.where(self.mask(number, name), coded, exact)
        return mixed + (weight - exact)  # exactly `mixed`, with the gradient of `weight`

    def mask(self, number: int, name: str) -> Tensor:
        """Which elements of a weight are drawn in this step; the same in every process."""
        weight = self.module.get_parameter(name)
        rows, inputs, *taps = weight.shape
        dim = width_of(self.formats[name])
        random = draw(self.seed, self.steps, number).random((rows, -(-inputs // dim), *taps), dtype=np.float32)
        drawn = torch.from_numpy(random < self.rate).to(weight.device)
        return drawn if dim == 1 else drawn.repeat_interleave(dim, 1)[:, :inputs]

    def width(self) -> int | None:
        """The width of this step, if one is drawn."""
        return int(draw(self.seed, self.steps, WIDTHS).choice(self.widths)) if self.widths else None

    def encoding(self, name: str, weight: Tensor) -> Encoding:
        """How a weight was last seen to be coded best."""
        if name not in self.encodings:
            self.encodings[name] = fit(self.formats[name], weight.cpu().float().numpy(), cover=self.cover)
        return self.encodings[name]

    def stored(self, cover: str | None = None) -> dict[str, QTensor]:
        """All planned weights in their formats, fitted now: what a file holds."""
        out = {}
        for name, fmt in self.formats.items():
            x = self.module.get_parameter(name).detach().cpu().float().numpy()
            out[name] = QTensor.of(x, fit(fmt, x, cover=cover or self.cover))
        return out

    def quantized(self, bits: int | None = None) -> dict[str, Tensor]:
        """What the stored weights stand for, or the leading `bits` of nested ones; for `torch.func.functional_call`."""
        found = self.stored()
        held = {name: q.at(bits) if bits else q for name, q in found.items()}
        return {name: like(self.module.get_parameter(name), q.decode()) for name, q in held.items()}

    def state_dict(self) -> dict[str, Any]:
        """What steps change here; the parameters are the module's."""
        fits = {n: {k: torch.from_numpy(np.array(v)) for k, v in e.params.items()} for n, e in self.encodings.items()}
        axes = {n: list(e.axes) for n, e in self.encodings.items()}
        return {"steps": self.steps, "fits": fits, "axes": axes}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if strange := set(kept["fits"]) - set(self.formats):
            raise ValueError(
                f"noise: the state must be of {list(self.formats)}, got {sorted(strange)}; make it with the same plan"
            )
        self.steps = int(kept["steps"])
        self.encodings = {
            name: Encoding(self.formats[name], {k: v.cpu().numpy() for k, v in params.items()}, tuple(kept["axes"][name]))
            for name, params in kept["fits"].items()
        }


def planned(module: Any, plan: Plan) -> dict[str, Format]:
    """The format of each parameter that a plan quantizes, once for tied ones."""
    out = {}
    for name, p in module.named_parameters():
        formats = [f for pattern, f in plan.items() if fnmatchcase(name, pattern)]
        found = formats[-1] if formats and p.ndim > 1 else None
        fmt = parse(found) if isinstance(found, str) else found
        if fmt is not None:
            out[name] = fmt
    if not out:
        raise ValueError(f"noise: the plan must name a weight of two axes or more, got {', '.join(plan) or 'no pattern'}")
    return out


def through(encoding: Encoding, x: Tensor, bits: int | None = None) -> Tensor:
    """The value of the code nearest to each of `x`, or of that code's leading `bits`."""
    codes = encoding.encode(x)
    if bits is not None and bits < encoding.format.bits:
        codes = (codes / 2 ** (encoding.format.bits - bits)).floor()
        encoding = encoding.at(bits)
    return encoding.decode(codes).to(x.dtype)


def like(x: Tensor, values: np.ndarray) -> Tensor:
    """Values as a tensor where `x` is and of its kind."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(x.device, x.dtype)
