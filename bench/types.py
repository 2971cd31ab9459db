"""Fractional lengths that types of densities choose (S7), from ten images: how near they are to the best ones.

The share of channels whose error is within 0.3 dB of that of the exhaustive choice, on the same ten images; what the same
choices lose on 512 other images of the training set, mean decibels; and what networks lose whose activations are covered so.
Channels that have fewer than 64 values other than zero in ten images are left out: there the rule is `max`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import bitladder as bl
from bench import cifar, resnet
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Judge, about, evenly, loss
from bench.work import Work
from bitladder.convert.from_torch import from_torch
from bitladder.formats import Fixed
from bitladder.formats.uniform import COVERS
from bitladder.ir.graph import Graph
from bitladder.ir.rewrite import simplify
from bitladder.ptq.calibrate import channelwise, feature_maps, observe, placement, torch_ops
from bitladder.ptq.correct import with_biases
from bitladder.runtime.reference import run
from bitladder.stats.baselines import always, by_kurtosis, by_likelihood, by_name
from bitladder.stats.histogram import Histogram
from bitladder.stats.types import Rule, enough, reach, shares

IMAGES = 10
WIDTHS = (4, 6, 8)
TRIED = np.arange(-3, 6)  # fractional lengths, beside the longest that clips nothing
NEAR = 0.3  # decibels
TEST_IMAGES = 2000  # with --quick
PLANS = ("fixed8,a=fixed8", "fixed8,a=fixed6")


def rows_of(graph: Graph, names: set[str], images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The values (channels, n) of feature maps, some images at a time."""
    import torch

    maps, found = feature_maps(graph), dict[str, np.ndarray]()

    def watch(name: str, value: object) -> None:
        x = np.asarray(value)
        if name in names and x.ndim == 4 and channelwise(graph, maps, name, x.ndim):
            found[name] = x.swapaxes(0, 1).reshape(x.shape[1], -1)

    for at in range(0, len(images), 64):
        batch = {graph.inputs[0].name: torch.from_numpy(images[at : at + 64])}
        for name, x in batch.items():
            watch(name, x)
        run(graph, batch, ops=torch_ops(), watch=watch)
        yield from found.items()


@dataclass(frozen=True)
class Choice:
    """Formats, their spans and the fractional lengths (channels,) that clip nothing of what was seen."""

    fmt: Fixed
    longest: np.ndarray

    @classmethod
    def of(cls, bits: int, histogram: Histogram) -> Choice:
        fmt = Fixed(bits, unsigned=bool((histogram.low >= 0).all()))
        return cls(fmt, fmt.fit(histogram.points(), "max")["fl"])

    def errors(self, x: np.ndarray) -> np.ndarray:
        """Squared errors (channels, tried lengths), summed."""
        bottom, top = self.fmt.span()
        scales = [np.exp2(self.longest + k).astype(np.float32)[:, None] for k in TRIED]
        return np.stack(
            [((np.clip(np.round(x * s), bottom, top) / s - x) ** 2).sum(1, dtype=np.float64) for s in scales], axis=1
        )

    def tried(self, fl: np.ndarray) -> np.ndarray:
        """The columns of chosen lengths."""
        return np.clip(fl - self.longest - TRIED[0], 0, len(TRIED) - 1).astype(int)

    def by(self, rule: Rule, histogram: Histogram) -> np.ndarray:
        """The columns that a rule of types chooses."""
        bottom, top = self.fmt.span()
        assert histogram.profile is not None
        low, high = reach(histogram.profile, bottom, top, True, rule)
        widest = np.maximum(np.maximum(high / top, low / bottom if bottom else 0), 1e-30)
        return self.tried(-np.ceil(np.log2(widest)))


def decibels(errors: np.ndarray) -> np.ndarray:
    """How far each tried length is from the best."""
    return 10 * np.log10(np.maximum(errors, 1e-30) / np.maximum(errors.min(1, keepdims=True), 1e-30))


def chosen(choice: Choice, histogram: Histogram, own: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of every rule; `own` are the errors on what it saw."""
    rules: Mapping[str, Rule] = {
        "types": shares,
        "first type alone": by_name,
        "likelihood": by_likelihood(histogram),
        "kurtosis": by_kurtosis,
        "normal for all": always("normal"),
    }
    covers = {f"cover {c}": choice.tried(choice.fmt.fit(histogram.points(), c)["fl"]) for c in COVERS if c != "pdf"}
    return {name: choice.by(rule, histogram) for name, rule in rules.items()} | covers | {"exhaustive": own.argmin(1)}


@dataclass(frozen=True)
class Lost:
    """Decibels of each channel at one width: on the images that were profiled, and on others."""

    own: np.ndarray
    others: np.ndarray


def channels(graph: Graph, few: np.ndarray, many: np.ndarray) -> dict[tuple[int, str], Lost]:
    """What every rule loses at every width."""
    names = set(placement(graph, [name for name, _ in graph.weights()]))
    seen = observe(graph, [{graph.inputs[0].name: few}], names, per_channel=True, profiled=True)
    choices, sums = {}, dict[tuple[str, int, bool], np.ndarray]()
    for images, same in ((few, True), (many, False)):
        tell(f"errors on {len(images)} images")
        for name, x in rows_of(graph, names, images):
            for bits in WIDTHS:
                key = (name, bits)
                choices[key] = choices.get(key) or Choice.of(bits, seen[name])
                sums[*key, same] = sums.get((*key, same), 0) + choices[key].errors(x)
    found: dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for (name, bits), choice in choices.items():
        own, others = sums[name, bits, True], sums[name, bits, False]
        profile = seen[name].profile
        assert profile is not None
        use, each = enough(profile), np.arange(len(own))
        for rule, column in chosen(choice, seen[name], own).items():
            pair = decibels(own)[each, column][use], decibels(others)[each, column][use]
            found.setdefault((bits, rule), []).append(pair)
    return {key: Lost(*(np.concatenate(part) for part in zip(*pairs, strict=True))) for key, pairs in found.items()}


def channel_rows(net: str, lost: Mapping[tuple[int, str], Lost]) -> list[Row]:
    """Shares and means, ours beside every other rule."""
    rows = []
    for bits in WIDTHS:
        ours = lost[bits, "types"]
        for (width, rule), theirs in lost.items():
            if width == bits and rule != "types":
                what = f"{net}, {bits} bits, {len(ours.own)} channels"
                near, peer = ((x.own <= NEAR).mean() for x in (ours, theirs))
                rows.append(Row(f"{what}: share within {NEAR} dB on the same images", float(near), float(peer), rule))
                rows.append(Row(f"{what}: dB lost on the same images", ours.own.mean(), theirs.own.mean(), rule))
                rows.append(Row(f"{what}: dB lost on other images", ours.others.mean(), theirs.others.mean(), rule))
    return rows


def figures(lost: Mapping[tuple[int, str], Lost]) -> dict[str, Figure]:
    """Shares per width, and how much better than normal for all."""
    near = {f"types_near_{bits}": Figure.at_least(float((lost[bits, "types"].own <= NEAR).mean()), 0.95) for bits in WIDTHS}
    gain = np.mean([lost[b, "normal for all"].own.mean() - lost[b, "types"].own.mean() for b in WIDTHS])
    return near | {"types_over_normal": Figure.at_least(float(gain), 0.5)}


def network_rows(net: str, raw: Graph, few: cifar.Split, judge: Judge) -> list[Row]:
    """Points that networks lose against float, activations covered by types and by each other rule."""
    rows, base = [], judge("float", lambda: raw).value
    for plan in PLANS:
        hits = {}
        for cover in COVERS:
            options = {"plan": plan, "cover": cover, "effort": "fast", "rounding": "nearest"}
            key = f"{plan}, {cover}"
            hits[cover] = judge(key, lambda options=options: bl.quantize(raw, few.images, **options).graph).value
        ours = loss([hits["pdf"]], [base])
        for cover in COVERS[:-1]:
            between = loss([hits["pdf"]], [hits[cover]])
            peer = loss([hits[cover]], [base]).mean
            rows.append(
                Row(f"{net}, {plan}, {IMAGES} images: points lost", ours.mean, peer, f"cover {cover}", None, between.half)
            )
    return rows


def bench(options: Options) -> Result:
    """Rows of channels and of networks, and figures of ResNet-20."""
    import torch

    torch.set_num_threads(options.threads)
    train, test = cifar.some(options.data, TEST_IMAGES if options.quick else 10_000)
    few, rows, found = evenly(train, IMAGES), [], {}
    work = Work.of("types", IMAGES, WIDTHS, options.quick, about(options, test))
    for depth in options.depths:
        net = f"resnet{depth}"
        raw = from_torch(resnet.load(options.data, depth), (torch.from_numpy(few.images),))
        lost = channels(with_biases(simplify(raw)), few.images, train.images)
        rows += channel_rows(net, lost)
        found = found or figures(lost)
        rows += network_rows(net, raw, few, Judge(net, test, lambda raw=raw: with_biases(simplify(raw)), work))
    result = Result("types", tuple(rows), found, machine(options.threads, options.command), versions())
    work.done()
    return result
