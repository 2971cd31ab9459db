"""Beginnings of a file: the first T bytes run as the rule says or are refused as too few, and no border loses by being longer.

A border is where a segment ends. Its accuracy is held against that of the best shorter beginning, image by image: it may not be
surely (p < 0.001, one-sided) more than half a point below. `python -m bench.robust.prefixes MANY SEED` tries the digits of the
demo.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.options import Options
from bench.robust.count import Count, counted, tell_count
from bench.robust.damage import planes_within, shortest
from bench.robust.subjects import alike
from bitladder import file
from bitladder.errors import Truncated
from bitladder.file.container import Reader
from bitladder.file.source import of_bytes
from bitladder.file.writing import to_file
from bitladder.formats import QTensor
from bitladder.ir.graph import Graph
from bitladder.model import Model

MARGIN = 0.5  # points
QUICK, TEST = 1000, 10_000  # test images
BATCH = 100
SURE = 3.0902  # standard deviations that chance goes beyond once in a thousand, on one side

Judge = Callable[[Graph], np.ndarray]  # which images a network gets right


@dataclass(frozen=True)
class Border:
    """A beginning of a file that ends with a segment, and the images it gets right."""

    size: int
    hits: np.ndarray

    @property
    def percent(self) -> float:
        return 100 * float(self.hits.mean())


@dataclass(frozen=True)
class Dip:
    """How far a border lies below the best shorter one: in points, and in standard deviations beyond the margin."""

    size: int
    points: float
    beyond: float

    @property
    def sure(self) -> bool:
        return self.points > MARGIN and self.beyond > SURE


def dip(best: Border, border: Border) -> Dip:
    """`border` against a shorter one, paired image by image (McNemar's test, its zero moved to the margin).

    >>> a = np.arange(1000) < 900
    >>> dip(Border(1, a), Border(2, a)).sure, dip(Border(1, a), Border(2, a & (np.arange(1000) >= 40))).sure
    (False, True)
    """
    lost = best.hits.astype(np.int8) - border.hits.astype(np.int8)
    points = 100 * float(lost.mean())
    spread = 100 * float(lost.std()) / math.sqrt(len(lost))
    above = points - MARGIN
    return Dip(border.size, points, above / spread if spread else math.copysign(math.inf, above))


def dips(borders: Sequence[Border]) -> list[Dip]:
    """Every border but the first against the best of those before it."""
    out, best = [], borders[0]
    for border in borders[1:]:
        out.append(dip(best, border))
        best = max(best, border, key=lambda b: b.percent)
    return out


def ends(reader: Reader) -> list[int]:
    """Where segments end, from the shortest beginning that is a network on."""
    least = shortest(reader)
    return sorted({s.end for rows in reader.segments for s in rows if s.end >= least} | {least})


def problem(reader: Reader, whole: Graph, data: bytes, size: int, judge: Judge | None = None) -> str | None:
    """What is wrong with the first `size` bytes of a file; nothing if they run by the rule, or are refused as too few."""
    planes = planes_within(reader, size)
    try:
        graph = file.load(data[:size])
    except Truncated as error:
        return None if planes is None and size < error.needed else f"the first {size} bytes: {error}"
    except Exception as error:
        return f"the first {size} bytes: {type(error).__name__}: {error}"
    if planes is None:
        return f"the first {size} bytes run, and are no network"
    has = {k: c.format.bits for k in planes if isinstance(c := graph.constants[k], QTensor)}
    if has != planes or not alike(graph.at(planes), whole.at(planes)):
        return f"the first {size} bytes run as another network"
    if judge is not None:
        judge(graph)
    return None


def tries(data: bytes, sizes: Iterable[int], judge: Judge | None = None) -> Iterator[str | None]:
    """What is wrong with beginnings of these lengths."""
    reader, whole = Reader(of_bytes(data)), file.load(data)
    for size in sizes:
        yield problem(reader, whole, data, size, judge)


def judged(data: bytes, judge: Judge) -> list[Border]:
    """Every border of a file."""
    return [Border(size, judge(file.load(data[:size]))) for size in ends(Reader(of_bytes(data)))]


def of_borders(name: str, borders: Sequence[Border]) -> Count:
    """The count of borders, those that are surely below a shorter one failing; values and note say how far the worst is."""
    found = dips(borders)
    worst = max(found, key=lambda d: d.points)
    first, last, best = borders[0], borders[-1], max(borders, key=lambda b: b.percent)
    note = (
        f"{name}: {first.percent:.2f} % with {first.size} bytes, {last.percent:.2f} % with all {last.size}, "
        f"the best {best.percent:.2f} % with {best.size}; at worst {worst.points:.2f} points below a shorter one"
    )
    lines = (f"{name}: {d.size} bytes are {d.points:.2f} points below fewer" if d.sure else None for d in found)
    return Count.of(lines, note, {"border_dip": worst.points, "borders_below": float(sum(d.sure for d in found))})


# ------------------------------------------------------------------------------------------------------- the digits


def digits() -> tuple[bytes, Judge, Judge]:
    """The file of the demo's network in order of importance; what judges networks by all test images, and by a few."""
    import torch

    from bitladder import demo
    from bitladder.convert.evaluate import Evaluator
    from bitladder.recipe import quantize

    torch.set_num_threads(1)
    images = demo.Digits.load()
    net = demo.trained(images, lambda stage, done, total: None)
    model = quantize(net, {"x": images.calib[0]}, labels=images.calib[1], plan="nested8", keep=8)
    data = importance(model.whole, {model.whole.inputs[0].name: images.calib[0][:64]})

    def judge(count: int) -> Judge:
        x, y = images.test[0][:count], images.test[1][:count]
        return lambda graph: np.asarray(Evaluator(graph)(x)).argmax(1) == y

    return data, judge(len(images.test[1])), judge(8)


def importance(whole: Graph, samples: dict[str, np.ndarray]) -> bytes:
    """The file of a network, its planes in order of what they are worth on some samples."""
    from bitladder.assign.gains import OCTAVE, gains

    model = Model(whole)
    worth = {}
    for name, octaves in gains(model, samples).items():
        stored = whole.constants[name].format.bits  # type: ignore[union-attr]
        first = stored - len(octaves) + 1
        worth |= {(name, first + k): 2.0 ** (o / OCTAVE) for k, o in enumerate(octaves)}
    return to_file(whole, "best", "importance", worth)


def trials(arguments: Sequence[str]) -> Count:
    """Random beginnings of the digits, each run on a few images; if asked for, every border too, each judged on all images."""
    many, seed, *with_borders = arguments
    data, judge, brief = digits()
    rng = random.Random(int(seed))
    found = Count.of(tries(data, (rng.randrange(len(data)) for _ in range(int(many))), brief))
    if not with_borders:
        return found
    return found + Count.of(tries(data, ends(Reader(of_bytes(data))), brief)) + of_borders("digits", judged(data, judge))


def prefixes(many: int, seed: int) -> Count:
    """The same, in a process of its own."""
    return counted("bench.robust.prefixes", many, seed)


def digits_borders() -> Count:
    """Every border of the digits, in a process of its own."""
    return counted("bench.robust.prefixes", 0, 0, "judged")


def resnet_borders(options: Options) -> Count:
    """Every border of ResNet-20, nested and in order of importance, judged on the test images."""
    import torch

    from bench import cifar
    from bench.nested import nested_graph
    from bench.subject import about, subject
    from bench.work import Work, digest

    torch.set_num_threads(options.threads)
    calib, test = cifar.some(options.data, QUICK if options.quick else TEST)
    whole = nested_graph(subject(options, 20, calib), "midrise")
    data = importance(whole, {whole.inputs[0].name: calib.images[:64]})
    work, model = Work.of("robustness", about(options, test), digest([data])), Model(whole)

    def hits(planes: dict[str, int]) -> np.ndarray:
        parts = [model.at(planes)(test.images[at : at + BATCH]).argmax(1) for at in range(0, len(test), BATCH)]
        return np.concatenate(parts) == test.labels

    def judge(graph: Graph) -> np.ndarray:
        planes = {k: c.format.bits for k, c in graph.constants.items() if isinstance(c, QTensor)}
        return work(repr(planes), lambda: hits(planes)).value

    found = of_borders("resnet20", judged(data, judge))
    work.done()
    return found


if __name__ == "__main__":
    tell_count(trials)
