"""What a benchmark is told on the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """quick: fewer samples. full: ResNet-56 too. data: the folder that holds cifar10/ and resnet_cifar10/."""

    quick: bool = False
    full: bool = False
    data: Path = Path("../shared/data")
    threads: int = 1
    command: str = ""

    @property
    def depths(self) -> tuple[int, ...]:
        """The ResNets to measure."""
        return (20, 56) if self.full else (20,)

    @property
    def draws(self) -> int:
        """How many draws of calibration images accuracy figures are the mean of."""
        return 1 if self.quick else 3


def tell(text: str) -> None:
    """A line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)
