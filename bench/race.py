"""What was timed in turns, as rows: milliseconds of medians, ours against each peer, with the interval of the ratio."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from bench.options import Options
from bench.ours import isas
from bench.result import Figure, Row
from bitladder.timing import ROUNDS, Ratio, Run, Times, fastest, interleaved, ratio

FEW = 3  # rounds of the reference
LASTING = 3.0  # seconds that a race of short calls goes on
PAUSE = 0.005  # seconds until the threads of the runtime before have stopped looking for work


def rounds(options: Options) -> int:
    """As many rounds as a comparison wants; few where the reference stands in for the compiled core."""
    return FEW if not isas() else ROUNDS if options.quick else 3 * ROUNDS


@dataclass(frozen=True)
class Race:
    """Times of our calls and of the peers' from one interleaved run."""

    what: str
    ours: Mapping[str, Times]
    peers: Mapping[str, Times]

    def against(self, ours: str, among: Container[str] | None = None) -> tuple[str, Ratio] | None:
        """The fastest peer, of those named if any are, and how our call stands to it; None where there is no peer."""
        peers = {name: t for name, t in self.peers.items() if among is None or name in among}
        if not peers:
            return None
        best = fastest(peers)
        return best, ratio(self.ours[ours], peers[best])

    def share(self, ours: str, among: Container[str] | None = None) -> float | None:
        """Our time over the fastest peer's; None where there is no peer."""
        found = self.against(ours, among)
        return None if found is None else found[1].value

    def rows(self) -> list[Row]:
        """A row for each of our calls and each peer, in milliseconds."""
        return [self.row(ours, peer) for ours in self.ours for peer in self.peers] or [
            Row(f"{self.what}, {name}, ms", 1e3 * t.median) for name, t in self.ours.items()
        ]

    def row(self, ours: str, peer: str) -> Row:
        a, b = self.ours[ours], self.peers[peer]
        return Row.of(f"{self.what}, {ours}, ms", 1e3 * a.median, 1e3 * b.median, peer, ratio(a, b).half)


def race(
    what: str, ours: Mapping[str, Run], peers: Mapping[str, Run], rounds: int = ROUNDS, *, threads: int = 1, settle: bool = True
) -> Race:
    """All calls timed in turns; names of ours and of peers differ."""
    pause = PAUSE if threads > 1 else 0.0
    times = interleaved({**ours, **peers}, rounds, lasting=LASTING if isas() else 0.0, settle=settle, pause=pause)
    return Race(what, {n: times[n] for n in ours}, {n: times[n] for n in peers})


def threaded(threads: int) -> str:
    """A number of threads in words.

    >>> threaded(1), threaded(2)
    ('1 thread', '2 threads')
    """
    return f"{threads} thread{'s'[: threads > 1]}"


def judged(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """The figures as they are, or none measured where the reference stood in for the compiled core."""
    return dict(figures) if isas() else {name: Figure(None, figure.goal, False) for name, figure in figures.items()}
