"""The integer words of a training run: each weight tensor as codes, a finer rest, and what one code is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from bitladder.formats import Encoding, Fixed, Int, QTensor, fit, parse
from bitladder.formats.tensor import store
from bitladder.formats.uniform import code_span
from bitladder.train.carry import deployed, toward_zero
from bitladder.train.carry import nearest as to_nearest

Tensor = Any
ROUNDINGS = ("rne", "trunc", "stochastic")
KINDS = {8: torch.int8, 16: torch.int16, 32: torch.int32}
FULL = 256  # steps double when more than one in so many codes is cut off
TENSORS = ("codes", "rest", "step")
COUNTS = ("updates", "clipped", "lost", "written")


def rounded(x: Tensor, rounding: str = "rne", seed: tuple[int, ...] = ()) -> Tensor:
    """Reals as int64: to the nearest, half to even; toward zero; or up as often as the fraction says, by a seed.

    >>> rounded(torch.tensor([0.5, 1.5, -1.7])).tolist(), rounded(torch.tensor([-1.7]), "trunc").tolist()
    ([0, 2, -2], [-1])
    """
    if rounding == "stochastic":
        draw = torch.Generator(x.device).manual_seed(hash(seed) % 2**63)  # a hash of integers is the same everywhere
        return (x + torch.rand(x.shape, generator=draw, dtype=x.dtype, device=x.device)).floor().long()
    return (x.trunc() if rounding == "trunc" else x.round()).long()


def smallest(bits: int) -> torch.dtype:
    """The integer type of so many bits."""
    return next(kind for width, kind in KINDS.items() if bits <= width)


@dataclass
class Word:
    """One tensor: its value is `codes * step`, a unit of `rest` is `step / 2^finer`.

    `calm` counts checks in which the rests were small, `moves` those of a binary point: each may round by half a unit.
    """

    form: str
    bits: int
    codes: Tensor
    rest: Tensor
    step: Tensor
    finer: int
    calm: int = 0
    moves: int = 0

    @classmethod
    def of(cls, x: Tensor, form: str, *, finer: int, wide: int) -> Word:
        """The word nearest to `x`: `form` is a signed `fixedB` or `intB`, its steps fitted to cover all of `x`."""
        fmt = parse(form)
        if not isinstance(fmt, (Fixed, Int)) or fmt.unsigned or fmt.group:
            raise ValueError(
                f"train: weights learn in fixedB or intB, per tensor or channel, got {form!r}; choose one of those"
            )
        if wide not in KINDS or not 0 <= finer < wide:
            raise ValueError(f"train: wide must be 8, 16 or 32 and finer 0 to wide - 1, got wide {wide}, finer {finer}")
        values = x.detach().cpu().float()
        encoding = fit(fmt, values.numpy(), cover="max")
        step = torch.from_numpy(encoding.step(tuple(values.shape))).to(x.device)
        fine = (values.double() / step.cpu().double() * 2**finer).round().long()
        low, high = code_span(fmt.bits, False)
        codes = to_nearest(fine, finer).clip(low, high)
        most = (1 << finer) - 1
        rest = (fine - (codes << finer)).clip(-most, most)
        return cls(form, fmt.bits, codes.to(smallest(fmt.bits)).to(x.device), rest.to(smallest(wide)).to(x.device), step, finer)

    def value(self) -> Tensor:
        """What the network computes with."""
        return self.codes * self.step

    def stored(self, *, nearest: bool = False) -> QTensor:
        """What a file holds of the tensor: its codes in their format; `nearest` rounds residuals into them."""
        fmt, codes = parse(self.form), self.codes.long()
        assert fmt is not None
        if nearest:
            codes = deployed(codes, self.rest.long(), finer=self.finer, bits=self.bits)
        axes = (0,) if self.step.ndim else ()
        step = self.step.cpu().numpy().reshape([len(self.codes)] if axes else [])
        params = {"fl": -np.log2(step)} if isinstance(fmt, Fixed) else {"scale": step, "zero_point": np.zeros_like(step)}
        return QTensor(Encoding(fmt, params, axes), store(codes.cpu().numpy(), fmt))

    def unit(self) -> Tensor:
        """What one of `rest` is worth."""
        return self.step.double() * 2.0**-self.finer

    def totals(self) -> Tensor:
        """Code and rest in fine units, int64."""
        return (self.codes.long() << self.finer) + self.rest.long()

    def most(self) -> int:
        """The largest rest that can be stored."""
        return int(torch.iinfo(self.rest.dtype).max)

    def too_full(self, clipped: int) -> bool:
        """Whether so many codes were cut off in one update that the step must grow: a few are better cut off for good."""
        return clipped * FULL > self.codes.numel()

    def point(self, by: int) -> None:
        """Move the rest's binary point: `by` more digits below the code's last, or fewer."""
        rest = self.rest.long()
        moved = rest << by if by > 0 else to_nearest(rest, -by)
        self.finer, self.calm, self.moves = self.finer + by, 0, self.moves + 1
        self.rest.copy_(moved.clip(-self.most(), self.most()))

    def fits(self, finer: int) -> bool:
        """Whether a rest of so many digits can be stored."""
        return (1 << finer) - 1 <= self.most()

    def coarser(self, n: int = 0) -> None:
        """Steps twice as large, for codes that are full; totals stay, or round where the rest has no digit left."""
        if not self.fits(self.finer + n + 1):
            self.point(-1)
        totals = self.totals()
        self.step, self.finer, self.moves = self.step * 2, self.finer + 1, self.moves + 1
        codes = toward_zero(totals, self.finer)
        self.codes.copy_(codes)
        self.rest.copy_(totals - (codes << self.finer))

    def state(self) -> dict[str, Any]:
        """Everything, to be kept; tensors are copies."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: x.clone() if name in TENSORS else x for name, x in held.items()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Become what was kept."""
        for f in fields(self):
            now, then = getattr(self, f.name), kept[f.name]
            if f.name in TENSORS and (now.shape != then.shape or now.dtype != then.dtype):
                raise ValueError(
                    f"train: kept {f.name} must be {now.dtype} {tuple(now.shape)}, got {then.dtype} {tuple(then.shape)}"
                )
            setattr(self, f.name, then.clone().to(now.device) if f.name in TENSORS else then)


@dataclass
class Words:
    """Words of one format as one run of integers: an update is a few operations however many tensors there are.

    `updates` counts codes that changed, `clipped` those that would have left their format, `lost` what was beyond the
    integers it is stored in, and `written` the passes over the codes.
    """

    words: list[Word]
    bits: int = 0
    updates: int = 0
    clipped: int = 0
    lost: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self.bits = self.words[0].bits
        self.sizes = [w.codes.numel() for w in self.words]
        self.measure()

    def measure(self) -> None:
        """Digits and steps, one for each element: anew whenever a binary point has moved."""
        digits = torch.tensor([w.finer for w in self.words], device=self.words[0].codes.device)
        self.finer = digits.repeat_interleave(torch.tensor(self.sizes, device=digits.device))
        self.step = run([w.step.expand(w.codes.shape) for w in self.words])

    def unit(self) -> Tensor:
        """What one of each rest is worth."""
        return torch.ldexp(self.step.double(), -self.finer)

    def codes(self) -> Tensor:
        return run([w.codes for w in self.words]).long()

    def rest(self) -> Tensor:
        return run([w.rest for w in self.words]).long()

    def parts(self, x: Tensor) -> list[Tensor]:
        """A run cut into the tensors it is of, sharing memory."""
        return [part.view(w.codes.shape) for part, w in zip(x.split(self.sizes), self.words, strict=True)]

    def put(self, codes: Tensor, rest: Tensor) -> list[int]:
        """Take new codes and rests. Rests that cannot be stored are cut off; how many of each word is the answer."""
        most = self.words[0].most()
        cut = rest.abs() > most
        torch._foreach_copy_([w.codes for w in self.words], self.parts(codes))
        torch._foreach_copy_([w.rest for w in self.words], self.parts(rest.clip(-most, most)))
        self.written += 1
        lost = self.count(cut)
        self.lost += sum(lost)
        return lost

    def count(self, where: Tensor) -> list[int]:
        """How many elements of each word are marked."""
        if not bool(where.any()):
            return [0] * len(self.words)
        return [int(part.sum()) for part in self.parts(where)]

    def state(self) -> dict[str, Any]:
        """Everything, to be kept."""
        counts = {name: getattr(self, name) for name in COUNTS}
        return {"words": [w.state() for w in self.words], **counts}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Become what was kept."""
        if len(kept["words"]) != len(self.words):
            raise ValueError(
                f"train: the state must be of {len(self.words)} tensors, got {len(kept['words'])}; "
                "make the optimizer with the same groups"
            )
        for word, then in zip(self.words, kept["words"], strict=True):
            word.restore(then)
        for name in COUNTS:
            setattr(self, name, kept[name])
        self.measure()


def run(tensors: list[Tensor]) -> Tensor:
    """Tensors one after the other in one dimension."""
    return torch.cat([x.reshape(-1) for x in tensors])


def by_shape(module: Any, weights: str = "fixed8", rest: str | None = "fixed16/tensor") -> list[dict[str, Any]]:
    """Parameter groups: what has two axes or more learns as `weights`, biases and norms as `rest` (None: as floats)."""
    learning = [p for p in module.parameters() if p.requires_grad]
    split = [(weights, [p for p in learning if p.ndim > 1]), (rest, [p for p in learning if p.ndim < 2])]
    return [{"params": found, "format": form} for form, found in split if found]
