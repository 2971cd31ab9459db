"""A table of what each width of a network achieves and costs, and the choice of a width from what is required.

The table is measured once (`measure_rungs`), kept in the network's own file (`rungs.kept(model)`) or as JSON, and asked often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from bitladder.device import Terminal, Times, measure, weight_bytes
from bitladder.model import Model
from bitladder.table import table

META = "rungs"  # where a network's own file keeps the table
COSTS = {"milliseconds": "milliseconds", "nbytes": "bytes"}


@dataclass(frozen=True)
class Rung:
    """One width: accuracy as a fraction, milliseconds of a call, bytes of the weights read; None where not measured.

    spread: half of the 95 % interval of the accuracy. low, high: quartiles of the milliseconds.
    """

    bits: int
    accuracy: float | None = None
    milliseconds: float | None = None
    nbytes: int | None = None
    spread: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rungs:
    """Rungs from narrow to wide, each width once."""

    rungs: tuple[Rung, ...]

    def __post_init__(self) -> None:
        by_width = tuple(sorted(self.rungs, key=lambda r: r.bits))
        if not by_width or len({r.bits for r in by_width}) < len(by_width):
            raise ValueError(f"rungs: must hold each width once, at least one, got {[r.bits for r in by_width]}")
        object.__setattr__(self, "rungs", by_width)

    def __iter__(self) -> Iterator[Rung]:
        return iter(self.rungs)

    def __str__(self) -> str:
        cells = [(r.bits, r.accuracy, r.spread, r.milliseconds, r.nbytes) for r in self]
        return table(("bits", "accuracy", "+-", "milliseconds", "bytes"), cells)

    def timed(self, times: Times) -> Rungs:
        """The same with the times of another terminal; a width that was not timed there has none."""
        return Rungs(tuple(Rung(r.bits, r.accuracy, nbytes=r.nbytes, spread=r.spread, **timing(times, r.bits)) for r in self))

    def unbeaten(self) -> Rungs:
        """Without the rungs that a wider one equals or beats in time and accuracy; nothing changes where one is not known."""
        return Rungs(tuple(r for r in self if not any(beats(w, r) for w in self if w.bits > r.bits)))

    def json(self) -> list[dict[str, Any]]:
        """Plain values, one object for each width."""
        return [asdict(r) for r in self]

    @classmethod
    def of_json(cls, said: Any) -> Rungs:
        """The table that `json` described."""
        try:
            return cls(tuple(rung(**r) for r in said))
        except TypeError as error:
            raise ValueError(f"rungs: must be a list of objects that Rungs.json gave ({error}); measure them again") from None

    @classmethod
    def of(cls, model: Model) -> Rungs:
        """The table that the network keeps in its meta."""
        if META not in model.graph.meta:
            raise ValueError(
                "rungs: this network keeps none; measure them with bitladder.dial.measure_rungs and save rungs.kept(model)"
            )
        return cls.of_json(model.graph.meta[META])

    def kept(self, model: Model) -> Model:
        """The same network with the table in its meta, where `save` writes it."""
        return replace(model, whole=model.whole.with_(meta={**model.whole.meta, META: self.json()}))


def rung(bits: Any, **known: Any) -> Rung:
    """A rung of plain numbers, which a file may have given."""
    numbers = {name: value for name, value in known.items() if value is not None}
    if not isinstance(bits, int) or bits < 1 or not all(isinstance(v, int | float) for v in numbers.values()):
        raise TypeError(f"bits must be a whole number from 1 up and the rest numbers, got {bits!r}, {known}")
    return Rung(bits, **numbers)


def timing(times: Times | None, bits: int) -> dict[str, float | None]:
    """The fields of a rung that times fill."""
    time = None if times is None else times.widths.get(bits)
    if time is None:
        return {"milliseconds": None, "low": None, "high": None}
    return {"milliseconds": time.milliseconds, "low": time.low, "high": time.high}


def beats(wide: Rung, narrow: Rung) -> bool:
    """Whether the wider rung is known to be no slower and no worse."""
    if None in (wide.milliseconds, narrow.milliseconds, wide.accuracy, narrow.accuracy):
        return False
    return (wide.milliseconds or 0) <= (narrow.milliseconds or 0) and (wide.accuracy or 0) >= (narrow.accuracy or 0)


def measure_rungs(
    model: Model,
    score: Callable[[Model], Any],
    example: Any = None,
    *,
    widths: Sequence[int] | None = None,
    repeats: int = 30,
    seed: int = 0,
) -> Rungs:
    """What every width of a model achieves and costs.

    score: from a model to its accuracy, or to one number for each sample, which gives an interval too. example: what calls
    are timed with (an array, a tuple, a dict); without it there are no times. widths: all the model has if not given.
    """
    widths = list(model.widths if widths is None else widths)
    times = None if example is None else measure(model, widths, example, repeats=repeats, seed=seed)
    rungs = []
    for bits in widths:
        at = model.at(bits)
        each = np.asarray(score(at), np.float64)
        spread = float(1.96 * each.std() / np.sqrt(each.size)) if each.size > 1 else None
        rungs.append(Rung(bits, float(each.mean()), nbytes=weight_bytes(at), spread=spread, **timing(times, bits)))
    return Rungs(tuple(rungs))


# ------------------------------------------------------------------------------------------------------------ choosing


def choose(
    rungs: Rungs,
    *,
    milliseconds: float | None = None,
    accuracy: float | None = None,
    difficulty: float | None = None,
    terminal: Terminal | None = None,
    max_bytes: int | None = None,
) -> int:
    """The width for what is required; more required speed never gives more bits, more accuracy or difficulty never fewer.

    Limits (`milliseconds`, `max_bytes`, the terminal's memory) leave the widths up to the first that exceeds one: a width
    counts as no cheaper than those below it. Of these,

    - where accuracy or difficulty is given, the narrowest width that reaches it;
    - else the most accurate (the narrowest of equals, the widest where accuracy was not measured), and with a terminal only
      among those whose weights fit its last cache; the narrowest if none does, since then every byte comes from memory.

    difficulty: 0 for a task that the narrowest width is good enough for, 1 for one that needs the best there is; in between,
    the width that has to recover this share of what the best gains over the narrowest.

    >>> rungs = Rungs((Rung(2, 0.86, 1.0, 250), Rung(4, 0.88, 1.5, 500), Rung(8, 0.88, 2.0, 1000)))
    >>> choose(rungs, milliseconds=1.6), choose(rungs, accuracy=0.87), choose(rungs, difficulty=0.0), choose(rungs)
    (4, 4, 2, 4)
    """
    memory = None if terminal is None else terminal.memory
    room = min((n for n in (max_bytes, memory) if n is not None), default=None)
    limits = {"milliseconds": milliseconds, "nbytes": room}
    within = affordable(rungs, {name: limit for name, limit in limits.items() if limit is not None})
    wanted = needed(rungs, accuracy, difficulty)
    if wanted:
        return checked(max(wanted, key=lambda r: r.bits), within).bits
    cache = None if terminal is None or not terminal.caches else terminal.caches[-1]
    if cache is not None:
        within = affordable(rungs, {"nbytes": cache}, within[:1])[: len(within)]
    return most_accurate(within).bits


def affordable(rungs: Rungs, limits: Mapping[str, float], otherwise: Sequence[Rung] = ()) -> list[Rung]:
    """The rungs up to the first that exceeds a limit; `otherwise`, or an error that names the cheapest, where none is left."""
    for name in limits:
        if any(getattr(r, name) is None for r in rungs):
            raise ValueError(f"choose: the rungs do not all have {COSTS[name]}; measure them with measure_rungs")
    left = list(takewhile(lambda r: all(getattr(r, name) <= limit for name, limit in limits.items()), rungs))
    if left or otherwise:
        return left or list(otherwise)
    first = rungs.rungs[0]
    name, limit = next((name, limit) for name, limit in limits.items() if getattr(first, name) > limit)
    least = getattr(first, name)
    raise ValueError(f"choose: {COSTS[name]} must be at least {least:g}, which {first.bits} bits take, got {limit:g}")


def needed(rungs: Rungs, accuracy: float | None, difficulty: float | None) -> list[Rung]:
    """The narrowest rung that each of the two demands allows."""
    found = []
    if difficulty is not None:
        if not 0 <= difficulty <= 1:
            raise ValueError(f"choose: difficulty must be from 0 (easy) to 1 (hard), got {difficulty:g}")
        found.append(for_difficulty(rungs, difficulty))
    if accuracy is not None:
        if any(r.accuracy is None for r in rungs):
            raise ValueError("choose: the rungs do not all have an accuracy; measure them with measure_rungs")
        best = most_accurate(rungs.rungs)
        if not accuracy <= known(best):
            raise ValueError(
                f"choose: accuracy must be at most {best.accuracy:g}, which {best.bits} bits reach, got {accuracy:g}"
            )
        found.append(next(r for r in rungs if known(r) >= accuracy))
    return found


def for_difficulty(rungs: Rungs, difficulty: float) -> Rung:
    """The narrowest rung that recovers this share of the gain over the narrowest, or stands so high where nothing is known."""
    if any(r.accuracy is None for r in rungs):
        return rungs.rungs[round(difficulty * (len(rungs.rungs) - 1))]
    best = most_accurate(rungs.rungs)
    first = known(rungs.rungs[0])
    goal = min(known(best), first + difficulty * (known(best) - first))  # rounding must not ask for more than there is
    return best if difficulty == 1 else next(r for r in rungs if known(r) >= goal)


def most_accurate(rungs: Sequence[Rung]) -> Rung:
    """The narrowest of the most accurate, the widest where accuracy was not measured."""
    if any(r.accuracy is None for r in rungs):
        return rungs[-1]
    return max(rungs, key=lambda r: (known(r), -r.bits))


def known(rung: Rung) -> float:
    assert rung.accuracy is not None
    return rung.accuracy


def checked(wanted: Rung, within: Sequence[Rung]) -> Rung:
    """`wanted`, if the limits leave it."""
    if wanted in within:
        return wanted
    best = most_accurate(within)
    reached = "" if best.accuracy is None else f", accuracy {best.accuracy:g}"
    raise ValueError(
        f"choose: what is required needs {wanted.bits} bits, the limits leave {best.bits}{reached}; "
        f"allow {cost_text(wanted)} or ask for less"
    )


def cost_text(rung: Rung) -> str:
    """What a rung costs, in words."""
    parts = [f"{getattr(rung, name):g} {unit}" for name, unit in COSTS.items() if getattr(rung, name) is not None]
    return " and ".join(parts)
