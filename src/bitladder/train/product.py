"""Iterative product quantization: weights become codes of blocks one group after another, and centroids go on learning (S11).

Which centroid a block has is settled when its weight is frozen (k-means). From then on the table alone learns: a centroid by
the mean of its blocks' gradients, in the int8 steps that files hold, so what is trained is what is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from bitladder.formats import Encoding, Product, QTensor, fit, parse
from bitladder.formats.cells import GRID
from bitladder.formats.product import joined
from bitladder.formats.tensor import spread, store

Tensor = Any


@dataclass
class Frozen:
    """One weight as codes and a table that learns.

    `codes` are those of its blocks, `members` how many blocks each centroid has, `scale` what an int8 step is worth in each
    channel, and `table` the centroids in steps of the mean scale, which makes rates those of weights.
    """

    format: Product
    codes: Tensor
    scale: Tensor
    table: Tensor
    axes: tuple[int, ...]

    @classmethod
    def of(cls, weight: Tensor, fmt: Product) -> Frozen:
        """A weight frozen: centroids by k-means, each block at the nearest."""
        x = weight.detach().cpu().float().numpy()
        encoding = fit(fmt, x)
        found = {k: torch.from_numpy(v).to(weight.device) for k, v in encoding.params.items()}
        codes = torch.from_numpy(encoding.encode(x)).long().to(weight.device)
        table = found["centroids"].float() * found["scale"].double().mean().float()
        return cls(fmt, codes, found["scale"], table.requires_grad_(), encoding.axes)

    @property
    def members(self) -> Tensor:
        """How many blocks each centroid stands for, at least one."""
        return torch.bincount(self.codes.reshape(-1), minlength=self.format.count).clamp(min=1)

    def integers(self) -> Tensor:
        """The centroids as int8 steps, of floats."""
        return (self.table.detach() / self.scale.double().mean().float()).round().clip(-GRID, GRID)

    def value(self) -> Tensor:
        """The weight. Its gradient reaches the table straight through the rounding, as a mean over each centroid's blocks."""
        mean = self.scale.double().mean().float()
        exact = self.integers() + (self.table - self.table.detach()) / mean
        if exact.requires_grad:
            members = self.members[:, None]
            exact.register_hook(lambda gradient: gradient / members)  # what arrives is the sum over blocks
        rows = joined(exact[self.codes])
        return rows * torch.from_numpy(spread(self.scale.cpu().numpy(), tuple(rows.shape), self.axes, None)).to(rows.device)

    def stored(self) -> QTensor:
        """What a file holds."""
        centroids = self.integers().to(torch.int8).cpu().numpy()
        params = {"scale": self.scale.cpu().numpy(), "centroids": centroids}
        return QTensor(Encoding(self.format, params, self.axes), store(self.codes.cpu().numpy(), self.format))

    def nbytes(self) -> int:
        """Bytes of codes packed, of the centroids and of the scales, before entropy coding."""
        return (self.codes.numel() * self.format.bits + 7) // 8 + self.format.count * self.format.dim + 4 * self.scale.numel()


class Products:
    """A module whose weights are frozen into product codebooks group by group; call it like the module.

    The module's own parameters are never written to: those of frozen weights no longer matter.
    """

    def __init__(self, module: Any):
        self.module = module
        self.frozen: dict[str, Frozen] = {}

    def freeze(self, pattern: str, fmt: Product | str = Product()) -> list[Tensor]:  # noqa: B008
        """Freeze the weights whose names match and that are not frozen yet; the answer is their tables, to be learned."""
        form = parse(fmt) if isinstance(fmt, str) else fmt
        if not isinstance(form, Product):
            raise ValueError(f"freeze: the format must be productDxK, got {fmt}")
        new = {
            n: p for n, p in self.module.named_parameters() if p.ndim > 1 and fnmatchcase(n, pattern) and n not in self.frozen
        }
        if not new:
            raise ValueError(
                f"freeze: {pattern!r} must match a weight that is not frozen yet; names are as in named_parameters()"
            )
        found = {name: Frozen.of(p, fitting(form, p.shape)) for name, p in new.items()}
        self.frozen.update(found)
        return [f.table for f in found.values()]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module says with its frozen weights."""
        return functional_call(self.module, self.weights(), args, kwargs)

    def weights(self) -> dict[str, Tensor]:
        """The frozen weights by name, for `torch.func.functional_call`."""
        return {name: f.value() for name, f in self.frozen.items()}

    def tables(self) -> list[Tensor]:
        """The centroids that learn."""
        return [f.table for f in self.frozen.values()]

    def rest(self) -> list[Tensor]:
        """The parameters that are not frozen: weights to come, biases, norms."""
        return [p for n, p in self.module.named_parameters() if n not in self.frozen]

    def stored(self) -> dict[str, QTensor]:
        """The frozen weights as a file holds them."""
        return {name: f.stored() for name, f in self.frozen.items()}

    def nbytes(self) -> int:
        """Bytes of the whole network: frozen weights, and floats of 4 bytes."""
        return sum(f.nbytes() for f in self.frozen.values()) + sum(4 * p.numel() for p in self.rest())

    def state_dict(self) -> dict[str, Any]:
        """What was frozen, and the tables as they are now; the other parameters are the module's."""
        return {
            name: {
                "format": str(f.format),
                "axes": list(f.axes),
                "codes": f.codes,
                "scale": f.scale,
                "table": f.table.detach().clone(),
            }
            for name, f in self.frozen.items()
        }

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Go on from a state. Tables that are there take its values; others are new, for the optimizer made next."""
        names = {n for n, _ in self.module.named_parameters()}
        if strange := sorted(set(kept) - names):
            raise ValueError(f"products: the state must be of this module, got {strange[0]!r}, which it does not have")
        found = {name: restored(held) for name, held in kept.items()}
        for name, then in found.items():
            if name in self.frozen and self.frozen[name].table.shape == then.table.shape:
                table = self.frozen[name].table
                table.data.copy_(then.table.detach())
                then.table = table
        self.frozen = found


def restored(kept: Mapping[str, Any]) -> Frozen:
    """A frozen weight of its state."""
    fmt = parse(kept["format"])
    assert isinstance(fmt, Product)
    return Frozen(
        fmt, kept["codes"].clone(), kept["scale"].clone(), kept["table"].clone().requires_grad_(), tuple(kept["axes"])
    )


def fitting(fmt: Product, shape: Sequence[int]) -> Product:
    """The format with no more centroids than the weight has blocks."""
    count = max(min(fmt.count, int(np.prod(shape)) // fmt.dim), 2)
    return Product(fmt.dim, count, fmt.per)
