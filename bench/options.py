"""What a benchmark is told on the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """quick: fewer samples. full: ResNet-56 too. network: that ResNet alone. data: holds cifar10/ and resnet_cifar10/."""

    quick: bool = False
    full: bool = False
    network: int | None = None
    data: Path = Path("../shared/data")
    threads: int = 1
    command: str = ""

    @property
    def depths(self) -> tuple[int, ...]:
        """The ResNets to measure."""
        if self.network is not None:
            return (self.network,)
        return (20, 56) if self.full else (20,)

    def named(self, bench: str) -> str:
        """What a benchmark's result is called: one network's own result leaves that of the others as it is."""
        return bench if self.network is None else f"{bench}_resnet{self.network}"

    @property
    def draws(self) -> int:
        """How many draws of calibration images accuracy figures are the mean of."""
        return 1 if self.quick else 3


def tell(text: str) -> None:
    """A line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)
