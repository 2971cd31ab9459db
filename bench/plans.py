"""Plans of one width for networks under test: the ends at eight bits, the mean no more than was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitladder.formats import Fixed, Format, Int, Nested

ENDS = 8  # bits of the first and the last layer
KINDS: dict[str, Callable[[int], Format]] = {"mid-rise": lambda b: Nested(b, matter={b: 1.0}), "int": Int, "fixed": Fixed}


def one_width(sizes: Mapping[str, int], kind: str, bits: int) -> dict[str, Format]:
    """Every layer at one width, the ends at eight; of mid-rise codes the last of the largest layers has a bit less.

    sizes: elements of every weight, in the order of the network.

    >>> [fmt.bits for fmt in one_width({"first": 4, "a": 90, "b": 90, "last": 5}, "mid-rise", 4).values()]
    [8, 4, 3, 8]
    """
    names = list(sizes)
    payer = max(names, key=lambda name: (sizes[name], names.index(name)))
    width = dict.fromkeys(names, bits) | {names[0]: ENDS, names[-1]: ENDS}
    width |= {payer: bits - 1} if kind == "mid-rise" else {}
    return {name: KINDS[kind](width[name]) for name in names}


def average(sizes: Mapping[str, int], formats: Mapping[str, Format]) -> float:
    """Bits a weight."""
    return sum(fmt.bits * sizes[name] for name, fmt in formats.items()) / sum(sizes.values())
