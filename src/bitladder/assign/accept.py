"""Whether a finished network loses no more than allowed: it and the float network on the same samples, with an interval.

Where a sample is right or wrong, the interval has every loss that the paired samples do not refute, by exact probabilities
at the share of differing samples that is likeliest with that loss. Other scores are resampled in pairs (bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from typing import Any

import numpy as np

from bitladder.assign.score import Score, runner
from bitladder.assign.search import SLACK
from bitladder.ir.graph import Graph
from bitladder.model import Model, by_plan

LEVEL = 0.95  # of all intervals
SIDE = (1 - LEVEL) / 2  # what may lie beyond either end
FINE = 1e-6  # ends of intervals are found to this, outwards
DRAWS = 2000  # of the bootstrap
TELLS = 1.959964 + 0.841621  # normal quantiles of SIDE and of a test that finds 4 in 5 of such drops

# What a loss that is allowed asks of the interval of the loss that was found.
RULES: dict[str, Callable[[float, float, float], bool]] = {
    "plausible": lambda low, high, allowed: low <= allowed + SLACK,
    "proved": lambda low, high, allowed: high <= allowed + SLACK,
}


@dataclass(frozen=True)
class Loss:
    """What a network lost against float on the same samples, and the ends of its 95 % interval.

    worse, better: samples that only the float network has right, and only the other; None where none is right or wrong. Where
    the float network is the measure there are none better, so that is None too. p: McNemar's, where both counts are there.
    spread: about the standard deviation of what one sample adds.
    """

    loss: float
    low: float
    high: float
    samples: int
    spread: float
    worse: int | None = None
    better: int | None = None
    p: float | None = None

    def needed(self, drop: float) -> int | None:
        """About how many samples tell such a drop from none in 4 of 5 cases; None where none would."""
        return math.ceil((TELLS * self.spread / drop) ** 2) if drop > 0 else None

    @property
    def resolved(self) -> float:
        """About the least drop that so many samples tell from none in 4 of 5 cases."""
        return TELLS * self.spread / math.sqrt(self.samples)


def lost(score: Score, plain: Callable[..., Any] | None, net: Callable[..., Any], seed: int = 0) -> Loss:
    """What `net` lost by `score` against `plain`, the float network, which is not run where the score knows its answers."""
    before = score.truth if score.truth is not None or plain is None else score.each(plain)
    assert before is not None
    after = score.each(net)
    loss, n = score.whole(before) - score.whole(after), len(before)
    if before.dtype == bool:
        worse, better = int((before & ~after).sum()), int((after & ~before).sum())
        spread = math.sqrt((worse + better + 1) / (n + 1) - ((worse - better) / (n + 1)) ** 2)  # none seen is not none
        if score.truth is not None:
            return Loss(loss, *share_of(worse, n), n, spread, worse)
        return Loss(loss, *interval(worse, better, n), n, spread, worse, better, mcnemar(worse, better))
    drawn = resampled(before, after, score.whole, seed)
    low, high = np.quantile(drawn, (SIDE, 1 - SIDE))
    return Loss(loss, float(low), float(high), n, float(drawn.std()) * math.sqrt(n))


def resampled(before: np.ndarray, after: np.ndarray, whole: Callable[[np.ndarray], float], seed: int) -> np.ndarray:
    """Losses on samples drawn with repetition from those there are."""
    draw, n = np.random.default_rng(seed), len(before)
    picks = (draw.integers(n, size=n) for _ in range(DRAWS))
    return np.array([whole(before[at]) - whole(after[at]) for at in picks])


# ------------------------------------------------------------------------------------------------------------ exactly


def mcnemar(worse: int, better: int) -> float:
    """How often a fair coin, thrown once for each sample that the two differ on, is as uneven: two sides, in whole numbers.

    >>> mcnemar(8, 2)
    0.109375
    """
    n, k = worse + better, max(worse, better)
    ways = term = math.comb(n, k)
    for i in range(k, n):
        term = term * (n - i) // (i + 1)
        ways += term
    return min(1.0, 2 * ways / 2**n)


def at_least(k: int, n: int, up: float, down: float = 0.0) -> float:
    """The probability that n steps, each +1 with probability `up`, -1 with `down`, else 0, lead to k or beyond.

    >>> round(at_least(2, 3, 0.5), 12)
    0.5
    """
    mean, sd = n * (up - down), math.sqrt(n * max(up + down - (up - down) ** 2, 0.0))
    size = 1 << math.ceil(24 * sd + 80).bit_length()  # what lies further from the mean is below 1e-16
    turn = np.exp(-2j * np.pi / size * np.arange(size // 2 + 1))
    chances = np.fft.irfft((1 - up - down + up * turn + down / turn) ** n, size)
    places = round(mean) - size // 2 + np.arange(size)
    return float(np.clip(chances[places[places >= k] % size].sum(), 0.0, 1.0))


def border(possible: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where what is possible ends, between a place inside and one outside; itself outside, or `outside` if that is possible."""
    if possible(outside):
        return outside
    while abs(inside - outside) > FINE:
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return outside


def share_of(hits: int, n: int) -> tuple[float, float]:
    """The interval of a share of which `hits` in n were seen (Clopper and Pearson).

    >>> low, high = share_of(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    low = border(lambda p: at_least(hits, n, p) > SIDE, 0.0, hits / n)
    high = border(lambda p: at_least(n - hits, n, 1 - p) > SIDE, 1.0, hits / n)
    return low, high


def interval(worse: int, better: int, n: int) -> tuple[float, float]:
    """The interval of the loss of a network that has `worse` of n samples wrong that float has right, and `better` right.

    >>> [round(end, 4) for end in interval(158, 116, 10_000)]
    [0.0009, 0.0075]
    """
    return least(worse, better, n), -least(better, worse, n)


def least(up: int, down: int, n: int) -> float:
    """The smallest expected (up - down) / n that the counts do not refute."""

    def possible(loss: float) -> bool:
        differ = likeliest(up, down, n, loss)
        return at_least(up - down, n, (differ + loss) / 2, (differ - loss) / 2) > SIDE

    return border(possible, -1.0, (up - down) / n)


def likeliest(up: int, down: int, n: int, loss: float) -> float:
    """The share of samples that differ which makes the counts likeliest, the expected (up - down) / n being `loss` (Tango)."""
    a, b, c = 2 * n, (2 * n - up + down) * loss - up - down, -down * loss * (1 - loss)
    fewer = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return 2 * min(max(fewer, -loss, 0.0), (1 - loss) / 2) + loss


# ------------------------------------------------------------------------------------------------------------ results


def accepted(
    model: Model, plain: Graph, score: Any, *, allowed: float | None = None, rule: str = "plausible", held_out: bool = False
) -> Model:
    """The model with what it lost against `plain`, the float network, in its result, and whether `rule` accepts that.

    A score that is a mere function says nothing of single samples; then the model comes back as it is. held_out: nothing was
    chosen by the samples of this score.
    """
    if not isinstance(score, Score):
        return model
    found = lost(score, None if score.truth is not None else runner(plain), runner(model.graph))
    said: dict[str, Any] = {name: rounded(value) for name, value in asdict(found).items() if value is not None}
    said["held_out"] = held_out
    result = dict(model.whole.meta.get("result", {}))
    if allowed is not None:
        said |= {"allowed": allowed, "rule": rule, "met": RULES[rule](found.low, found.high, allowed)}
        result["goal_met"] = bool(result.get("goal_met", True) and said["met"])
    whole = model.whole
    return by_plan(whole.with_(meta={**whole.meta, "result": {**result, "accepted": said}}))


def rounded(value: float) -> float:
    """As a file says it: no finer than the ends of intervals are found, small ones to two digits."""
    return value if isinstance(value, int) else round(value, 6) if abs(value) > 1e-4 else float(f"{value:.2g}")


def check_rule(rule: str, allowed: float | None, score: Any) -> None:
    """Return if `rule` is one, and can be held against something."""
    if rule not in RULES:
        raise ValueError(f"quantize: accept must be one of {', '.join(RULES)}, got {rule!r}")
    if rule == "proved" and (allowed is None or not isinstance(score, Score)):
        what = "a max_drop" if allowed is None else "a score of single samples, such as bitladder.assign.score.accuracy"
        raise ValueError(f"quantize: accept 'proved' needs {what} to prove anything; give it")


def line(result: Mapping[str, Any]) -> list[str]:
    """What an acceptance found, in a line, if there was one."""
    of, said = found_in(result), result.get("accepted")
    if of is None or not isinstance(said, Mapping):
        return []
    where = "samples that nothing was chosen by" if said.get("held_out") else "samples to choose by"
    text = f"loss against float on {of.samples:,} {where}: {of.loss:.4f}, 95 % interval {of.low:.4f} to {of.high:.4f}"
    return [text + counted(of) + verdict(of, said.get("allowed"))]


def found_in(result: Mapping[str, Any]) -> Loss | None:
    """The loss that an acceptance wrote down; None if there was none, or what is there is none: a file may say anything."""
    said = result.get("accepted")
    if not isinstance(said, Mapping):
        return None
    numbers = {f.name: said[f.name] for f in fields(Loss) if said.get(f.name) is not None}
    allowed = 0 if said.get("allowed") is None else said["allowed"]
    whole = ("samples", "worse", "better")
    if not all(map(likely, [*numbers.values(), allowed])) or not all(isinstance(numbers.get(name, 0), int) for name in whole):
        return None
    try:
        found = Loss(**numbers)
    except TypeError:
        return None
    return found if found.samples > 0 and (allowed == 0 or allowed > FINE * FINE) else None


def likely(value: Any) -> bool:
    """Whether something is a number of a size that an acceptance may have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def counted(of: Loss) -> str:
    """The samples behind a loss, and how likely chance alone makes such a difference."""
    if of.worse is None:
        return ""
    if of.better is None or of.p is None:
        return f" ({of.worse:,} samples differ)"
    return f" ({of.worse:,} samples worse, {of.better:,} better, McNemar p = {of.p:.2g})"


def verdict(of: Loss, allowed: float | None) -> str:
    """What the interval says of the allowed loss, and what it would take where it says nothing."""
    if allowed is None:
        return f"; so many samples tell {of.resolved:.2g} from no loss"
    if RULES["proved"](of.low, of.high, allowed):
        return f"; surely within {allowed:g}"
    if not RULES["plausible"](of.low, of.high, allowed):
        return f"; surely more than {allowed:g}"
    need = of.needed(allowed)
    more = f": it takes about {need:,} samples to tell {allowed:g} from no loss" if need and need > of.samples else ""
    return f"; neither surely within {allowed:g} nor surely more{more}"


# -------------------------------------------------------------------------------------------------------------- leaks


def prints(feeds: Mapping[str, np.ndarray]) -> list[bytes]:
    """A hash of every sample: equal where all inputs are, byte for byte. Inputs without a batch axis belong to all samples."""
    arrays = [np.ascontiguousarray(feeds[name]) if feeds[name].ndim else feeds[name][None] for name in sorted(feeds)]
    rows = max(map(len, arrays), default=0)
    return [b"".join(blake2b(a[min(i, len(a) - 1)].tobytes(), digest_size=16).digest() for a in arrays) for i in range(rows)]


def leaked(feeds: Mapping[str, np.ndarray], known: Iterable[bytes]) -> int:
    """How many samples are among those of `known`, which are `prints`.

    >>> leaked({"x": np.arange(3)}, prints({"x": np.arange(2, 9)}))
    1
    """
    seen = frozenset(known)
    return sum(one in seen for one in prints(feeds))


def leaks(sets: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[dict[str, int], list[str]]:
    """How many samples of each set are in one before it, by the names of both, and a line on each such pair.

    >>> counts, lines = leaks({"calibration": {"x": np.arange(9)}, "evaluation": {"x": np.arange(7, 12)}})
    >>> counts
    {'evaluation in calibration': 2}
    >>> lines[0].partition(",")[0]
    '2 of 5 samples of the evaluation data are in the calibration data'
    """
    counts, lines = {}, []
    known = {name: prints(feeds) for name, feeds in sets.items()} if len(sets) > 1 else {}
    for name, before in ((a, b) for i, a in enumerate(sets) for b in list(sets)[:i]):
        if count := leaked(sets[name], known[before]):
            counts[f"{name} in {before}"] = count
            lines.append(
                f"{count:,} of {len(known[name]):,} samples of the {name} data are in the {before} data, byte for byte; "
                "what is measured on them looks too good"
            )
    return counts, lines
