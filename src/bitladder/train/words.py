"""The integer words of a training run: each weight tensor as codes, a finer rest, and what one code is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from bitladder.formats import Fixed, Int, fit, parse
from bitladder.formats.uniform import code_span
from bitladder.train.carry import nearest, toward_zero

Tensor = Any
ROUNDINGS = ("rne", "trunc", "stochastic")
KINDS = {8: torch.int8, 16: torch.int16, 32: torch.int32}
FULL = 256  # steps double when more than one in so many codes is cut off
TENSORS = ("codes", "rest", "step")


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

    `updates` counts codes that changed, `clipped` those that would have left their format, `lost` rests that overflowed,
    and `written` passes over the codes. `calm` counts checks in which the rests were small.
    """

    bits: int
    codes: Tensor
    rest: Tensor
    step: Tensor
    finer: int
    calm: int = 0
    updates: int = 0
    clipped: int = 0
    lost: int = 0
    written: int = 0
    moves: int = field(default=0)  # of a binary point, each of which may round the rest by half a unit

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
        codes = nearest(fine, finer).clip(low, high)
        most = (1 << finer) - 1
        rest = (fine - (codes << finer)).clip(-most, most)
        return cls(fmt.bits, codes.to(smallest(fmt.bits)).to(x.device), rest.to(smallest(wide)).to(x.device), step, finer)

    def value(self) -> Tensor:
        """What the network computes with."""
        return self.codes * self.step

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

    def put(self, codes: Tensor, rest: Tensor) -> None:
        """Take new codes and rests, rests that do not fit cut off and counted."""
        kept = rest.clip(-self.most(), self.most())
        self.lost += int((kept != rest).sum())
        self.codes.copy_(codes)
        self.rest.copy_(kept)
        self.written += 1

    def point(self, by: int) -> None:
        """Move the rest's binary point: `by` more digits below the code's last, or fewer."""
        rest = self.rest.long()
        moved = rest << by if by > 0 else nearest(rest, -by)
        self.finer, self.calm, self.moves = self.finer + by, 0, self.moves + 1
        self.rest.copy_(moved.clip(-self.most(), self.most()))

    def coarser(self) -> None:
        """Steps twice as large, for codes that are full; totals stay, or round where the rest has no digit left."""
        if (2 << self.finer) - 1 > self.most():
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


def by_shape(module: Any, weights: str = "fixed8", rest: str | None = "fixed16/tensor") -> list[dict[str, Any]]:
    """Parameter groups: what has two axes or more learns as `weights`, biases and norms as `rest` (None: as floats)."""
    learning = [p for p in module.parameters() if p.requires_grad]
    split = [(weights, [p for p in learning if p.ndim > 1]), (rest, [p for p in learning if p.ndim < 2])]
    return [{"params": found, "format": form} for form, found in split if found]
