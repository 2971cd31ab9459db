"""How well a sensitivity table ranks plans it has not seen: predicted against measured losses of random plans.

Losses of layers are from calibration images, plans are measured on test images, both as divergence from the float network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench import cifar
from bench.cifar import Split
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.subject import Subject, about, evenly, subject
from bench.work import Work
from bitladder.assign.probe import METHODS, Probe
from bitladder.assign.score import divergence, outputs_of
from bitladder.assign.solve import Problem
from bitladder.formats import Format, Nested

WIDTHS = (8, 6, 5, 4, 3, 2)
PLANS, SEED = 30, 0
TEST = 2000  # test images that plans are measured on
GOAL = 0.9
MAIN = "divergence"  # the criterion that tables use unless another is asked for


@dataclass(frozen=True)
class Predictions:
    """Plans as places in the row of widths, and how to get what a network of each loses."""

    on: Subject
    test: Split
    work: Work

    @property
    def plans(self) -> np.ndarray:
        """Random plans (plans, layers): every layer's width is drawn evenly."""
        return np.random.default_rng(SEED).integers(0, len(WIDTHS), (PLANS, len(self.on.names())))

    def probe(self) -> Probe:
        """The network ready to be measured on its calibration images."""
        samples = self.on.batches.some(512)[0]
        ways = {n: [Nested(b) for b in WIDTHS] for n in self.on.names()}
        return Probe(self.on.feedback, ways, self.on.feedback.network, samples, SEED)

    def predicted(self, criterion: str, probe: Probe) -> tuple[np.ndarray, np.ndarray, float]:
        """What a table expects of every plan, the same without pairs, and the processor seconds that its losses took."""
        layers = len(probe.ways)

        def go() -> np.ndarray:
            tell(f"losses by {criterion}")
            losses, pairs, _ = METHODS[criterion](probe)
            names, both = list(probe.ways), np.zeros((layers, layers))
            for (a, b), share in pairs.items():
                both[names.index(a), names.index(b)] = both[names.index(b), names.index(a)] = share
            return np.concatenate([[[mean for mean, _, _ in losses[n]] for n in names], both], axis=1)

        found = self.work(f"losses by {criterion}", go)
        losses, both = found.value[:, : len(WIDTHS)], found.value[:, len(WIDTHS) :]
        paired, single = Problem(losses, losses, both), Problem(losses, losses, 0 * both)
        return *(np.array([p.loss(picks) for picks in self.plans]) for p in (paired, single)), found.seconds  # type: ignore[return-value]

    def measured(self, probe: Probe) -> np.ndarray:
        """The divergence and the errors of every plan's network on the test images (plans, 2)."""
        known: list[list[np.ndarray]] = []
        samples = {self.on.plain.inputs[0].name: self.test.images}

        def go(number: int) -> np.ndarray:
            tell(f"plan {number + 1} of {PLANS}")
            if not known:
                known.append(outputs_of(self.on.plain, samples))
            formats: dict[str, Format] = {
                n: Nested(WIDTHS[k]) for n, k in zip(probe.ways, self.plans[number].tolist(), strict=True)
            }
            made = outputs_of(probe.network(formats), samples)
            wrong = made[0].argmax(1) != self.test.labels
            return np.array([divergence(known[0], made).mean(), wrong.mean()])

        return np.stack([self.work(f"plan {i}", lambda i=i: go(i)).value for i in range(PLANS)])


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation.

    >>> rank(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    from scipy.stats import spearmanr

    return round(float(spearmanr(a, b).statistic), 6)


def rows(net: str, on: Subject, test: Split, work: Work) -> tuple[list[Row], Figure]:
    """A row for each criterion, with and without pairs, and the figure that was asked for."""
    of = Predictions(on, test, work)
    probe = of.probe()
    measured = of.measured(probe)
    out, main = [], 0.0
    for criterion in METHODS:
        paired, single, seconds = of.predicted(criterion, probe)
        what = f"{net}, rank correlation over {PLANS} random plans, {criterion}"
        out.append(
            Row(f"{what}, with the measured divergence", rank(paired, measured[:, 0]), rank(single, measured[:, 0]), "no pairs")
        )
        out.append(
            Row(f"{what}, with the measured errors", rank(paired, measured[:, 1]), rank(single, measured[:, 1]), "no pairs")
        )
        out.append(Row(f"{net}, processor seconds for the losses of a table, {criterion}", seconds))
        main = rank(paired, measured[:, 0]) if criterion == MAIN else main
    return out, Figure.at_least(main, GOAL)


def bench(options: Options) -> Result:
    """Rows of ResNet-20 and the figure; `criteria --full` has them too."""
    import torch

    torch.set_num_threads(options.threads)
    tell("reading images")
    data = cifar.load(options.data)
    test = evenly(data.test, TEST)
    work = Work.of("predicted", about(options, test), SEED)
    found, figure = rows("resnet20", subject(options, 20, data.draws[0]), test, work)
    asked = {"rank_of_predicted_losses": figure}
    return Result("predicted", tuple(found), asked, machine(options.threads, options.command), versions())
