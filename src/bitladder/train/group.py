"""The processes that learn together under torchrun: one if it was not used, and nothing else changes."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

Tensor = Any


@dataclass(frozen=True)
class Group:
    """This process's place among `size`."""

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> np.ndarray:
        """Which of `n` things this process does.

        >>> Group(1, 2).share(5)
        array([3, 4])
        """
        return np.array_split(np.arange(n), self.size)[self.rank]

    def add(self, x: Tensor) -> Tensor:
        """The sum of every process's `x`, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Every process's tensors become the first one's."""
        if self.size == 1:
            return
        for x in tensors:
            same = x.detach().contiguous()
            dist.broadcast(same, 0)
            x.detach().copy_(same)


MEETINGS = itertools.count()  # every process joins and leaves as often as the others


@functools.cache
def meeting_place() -> tuple[Any, int, int]:
    """The store that torchrun's environment names, this process's rank, and how many there are.

    It is kept until the process ends: a store made anew for each group would let a fast process meet the others at the old
    one, while the first process is still leaving, and wait there for ever.
    """
    return next(iter(dist.rendezvous("env://")))


@contextmanager
def joined() -> Iterator[Group]:
    """The group that torchrun's environment (or the caller) has set up, left again on the way out if it was joined here."""
    if dist.is_available() and dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    store, rank, size = meeting_place()
    place = dist.PrefixStore(f"bitladder/{next(MEETINGS)}", store)
    dist.init_process_group("gloo", store=place, rank=rank, world_size=size)
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def agree_on(group: Group, numbers: list[float]) -> list[float]:
    """The first process's numbers, everywhere; their count may differ between processes."""
    if group.size == 1:
        return numbers
    length = torch.tensor([len(numbers)])
    group.agree([length])
    held = torch.zeros(int(length), dtype=torch.float64)
    if group.rank == 0:
        held[:] = torch.tensor(numbers, dtype=torch.float64)
    group.agree([held])
    return [float(x) for x in held]
