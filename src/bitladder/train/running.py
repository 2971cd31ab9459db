"""Running statistics taken anew once training ends: each sample counts once, as it is, with the weights as they are now.

Those that training leaves are of changed samples, and lag behind the weights; after few steps they still are of the network
that was begun with. After Wu and Johnson, "Rethinking Batch in BatchNorm" (2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from bitladder.train.group import Group
from bitladder.train.lesson import Lesson, draw
from bitladder.train.parts import Buffers, split
from bitladder.train.prepared import Prepared

SAMPLES = 2048  # that statistics are taken from, at even distances
STREAM = 10  # of randomness, beside those of lessons and of nested training


@torch.no_grad()  # type: ignore[untyped-decorator]
def taken_anew(net: Any, lesson: Lesson, parts: int, group: Group) -> None:
    """Means and variances of norms, and means of a prepared network at each of its widths; `net` is in evaluation mode then.

    Samples are mixed first: they may lie in the order of their classes. Dropout does nothing meanwhile.
    """
    prepared = isinstance(net, Prepared)
    norms = [m for m in net.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    means = net.means.names() if prepared else []
    keepers = [*norms, *([net] if means else [])]
    net.eval()
    if not keepers:
        return
    for m in norms:
        m.reset_running_stats()
    for name in means:
        net.means[name].zero_()
    batches, buffers = mixed(lesson, parts), Buffers(net, group)
    usual = [m.momentum for m in keepers]
    for m in keepers:
        m.train()
    for _ in over_widths(net) if prepared else range(1):
        for done, batch in enumerate(batches):
            for m in keepers:
                m.momentum = 1 / (done + 1)
            for mine in split(len(batch), parts, group):
                with buffers.part(len(mine) / len(batch)):
                    net(*lesson.tensors(lesson.arrays, batch[mine]))
            buffers.give()
    for m, momentum in zip(keepers, usual, strict=True):
        m.momentum = momentum
    net.eval()


def over_widths(net: Prepared) -> Iterator[int]:
    """The widths of a prepared network, which is at each in turn."""
    for bits in net.widths:
        with net.at(bits):
            yield bits


def mixed(lesson: Lesson, parts: int) -> list[np.ndarray]:
    """Batches of samples, whose parts are as large as a batch of training where there are enough."""
    samples = len(lesson.arrays[0])
    rows = np.linspace(0, samples - 1, min(samples, SAMPLES)).round().astype(int)
    rows = draw(lesson.seed, 0, STREAM).permutation(rows)
    return np.array_split(rows, max(1, len(rows) // (parts * lesson.batch)))
