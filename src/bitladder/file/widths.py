"""How many planes a width needs, and in which segment of its layer each plane and each version of a constant lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bitladder.formats import Format

Bits = int | Mapping[str, int] | str | None  # a width, one per weight, "auto" for what the file marks as its default, or all


def planes_wanted(name: str, fmt: Format, bits: int | Mapping[str, int] | None, floors: Mapping[str, int]) -> int:
    """How many planes of a nested tensor a reader of `bits` needs: what `Graph.at` would leave of it."""
    wanted = fmt.bits if bits is None else (bits if isinstance(bits, int) else bits.get(name, fmt.bits))
    wanted = max(wanted, int(floors.get(name, 1)))
    return fmt.bits if wanted >= fmt.bits else int(fmt.at(wanted).bits)  # type: ignore[attr-defined]


def is_nested(fmt: Format) -> bool:
    """Whether codes of a format are stored as planes: those of which a prefix is a code."""
    return hasattr(fmt, "at")


@dataclass(frozen=True)
class Steps:
    """The segments of a layer whose nested tensors have these planes: by name, the fewest they run at and all of them.

    Segment 0 has what every width needs; each further number of planes that any of the tensors can have is one more.

    >>> steps = Steps({"w": (2, 4), "v": (1, 1)})
    >>> steps.count, [steps.plane("w", p) for p in (1, 2, 3, 4)], steps.versions("w", [1, 2, 4])
    (3, [0, 0, 1, 2], [0, 0, 1])
    """

    spans: Mapping[str, tuple[int, int]]

    @cached_property
    def rises(self) -> dict[int, int]:
        """The segment of each number of planes above the fewest."""
        numbers = sorted({p for least, stored in self.spans.values() for p in range(least + 1, stored + 1)})
        return {p: 1 + place for place, p in enumerate(numbers)}

    @property
    def count(self) -> int:
        """How many segments there are."""
        return 1 + len(self.rises)

    def plane(self, name: str, number: int) -> int:
        """The segment of plane `number`, from 1, of a tensor."""
        return 0 if number <= self.spans[name][0] else self.rises[number]

    def versions(self, of: str, bits: Sequence[int]) -> list[int]:
        """The segments of the versions of a constant for the widths `bits` of the tensor `of`, each where it is first used."""
        if of not in self.spans:
            return [0] * len(bits)
        stored = self.spans[of][1]
        return [0, *(self.plane(of, min(b + 1, stored)) for b in bits[:-1])]

    def planes(self, name: str, segments: int) -> int:
        """How many planes of a tensor lie in the first `segments` segments."""
        return sum(self.plane(name, p) < segments for p in range(1, self.spans[name][1] + 1))
