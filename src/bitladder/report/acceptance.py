"""What the page says of the acceptance: the loss against float with its interval, what that proves, what more it would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitladder.assign.accept import RULES, Loss, found_in
from bitladder.report.facts import number, words
from bitladder.report.figures import HALF, drop
from bitladder.report.svg import bar, bottom_axis, dot, figure, linear, rule, text

ASKS = {"plausible": "asked: not surely more", "proved": "asked: surely within"}
EDGE, MIDDLE, FLOOR = 30.0, 52.0, 84.0  # room beside the axis; heights of the interval and of the axis under it


@dataclass(frozen=True)
class Acceptance:
    """A loss, what was allowed, by which rule, and whether nothing was chosen by the samples; `share`: samples are right or
    wrong, so that a hundredth is a point."""

    loss: Loss
    allowed: float | None
    rule: str
    held_out: bool
    share: bool

    @classmethod
    def of(cls, meta: Mapping[str, Any], fraction: bool) -> Acceptance | None:
        """What the file tells; None if there was none."""
        result = meta.get("result")
        found = found_in(result) if isinstance(result, Mapping) else None
        if found is None or not isinstance(result, Mapping):
            return None
        said = result["accepted"]
        share = fraction or found.worse is not None
        return cls(found, number(said.get("allowed")), words(said.get("rule")), said.get("held_out") is True, share)

    @property
    def sentence(self) -> str:
        """On what it rests."""
        where = "that nothing was chosen by" if self.held_out else "to choose by, on which a search looks better than it is"
        return f"The finished network against the float network, sample by sample, on {self.loss.samples:,} samples {where}."

    @property
    def verdict(self) -> str:
        """What the interval says of the allowed loss."""
        if self.allowed is None:
            return "no limit was set"
        if RULES["proved"](self.loss.low, self.loss.high, self.allowed):
            return "surely within"
        return "not settled" if RULES["plausible"](self.loss.low, self.loss.high, self.allowed) else "surely more"

    def shown(self, loss: float) -> str:
        return drop(loss, self.share)

    def tiles(self) -> list[dict[str, Any]]:
        """The loss, the test, the verdict, and the samples that it takes, each a label, a value and lines under it."""
        of, limit = self.loss, self.allowed
        ends = f"95 % interval: {self.shown(of.low)} to {self.shown(of.high)}"
        tested = f"p = {of.p:.2g}" if of.p is not None else "interval"
        out: list[dict[str, Any]] = [
            {"label": "Loss against float", "value": self.shown(of.loss), "lines": [ends]},
            {"label": "Test", "value": tested, "lines": [how(of), counted(of)]},
        ]
        if limit is None:
            told = f"{self.shown(of.resolved)} from no loss, 4 times in 5"
            return [*out, {"label": "So many samples tell", "value": f"{of.samples:,}", "lines": [told]}]
        out.append({"label": f"Allowed: {self.shown(limit)}", "value": self.verdict, "lines": [ASKS.get(self.rule, "")]})
        if limit > 0:
            told = f"to tell {self.shown(limit)} from no loss 4 times in 5; there are {of.samples:,}"
            out.append({"label": "Samples needed", "value": f"about {of.needed(limit):,}", "lines": [told]})
        return out

    def drawing(self) -> str:
        """The interval on the scale of losses, beside no loss and the allowed one."""
        times, of = 100.0 if self.share else 1.0, self.loss
        low, loss, high = (times * value for value in (of.low, of.loss, of.high))
        limits = [] if self.allowed is None else [times * self.allowed]
        x, marks = linear([low, loss, high, 0.0, *limits], (EDGE, HALF - EDGE), 5)
        title = "loss of the score against float" + (", points" if self.share else "")
        return figure(
            "acceptance",
            HALF,
            FLOOR + 40,
            "Loss against float with its interval",
            f"{self.shown(of.loss)}, from {self.shown(of.low)} to {self.shown(of.high)}",
            *(rule(x(v), 26, x(v), FLOOR) for v in marks),
            bottom_axis(x, marks, FLOOR, "{:g}".format, title),
            rule(x(0), 26, x(0), FLOOR, "limit-soft") + text(x(0), 16, "no loss", anchor="middle", class_="tick"),
            bar(
                x(low),
                MIDDLE - 7,
                x(high) - x(low),
                14,
                class_="soft",
                said=f"95 %: {self.shown(of.low)} to {self.shown(of.high)}",
            ),
            *(limited(x(limit), abs(x(limit) - x(0)) < 70) for limit in limits),
            dot(x(loss), MIDDLE, class_="on", said=f"measured: {self.shown(of.loss)}", r=5.5),
            class_="short",
        )


def limited(x: float, near: bool) -> str:
    """The line of the allowed loss; its word stands aside where that of no loss is near."""
    word = text(x + (6 if near else 0), 40 if near else 16, "allowed", anchor=None if near else "middle", class_="limit-word")
    return rule(x, 26, x, FLOOR, "limit") + word


def how(of: Loss) -> str:
    """How the interval was found."""
    if of.worse is None:
        return "samples drawn again in pairs, 2,000 times"
    return "share of samples that differ, exact" if of.better is None else "McNemar, exact"


def counted(of: Loss) -> str:
    """The samples that count."""
    if of.worse is None:
        return ""
    return f"{of.worse:,} differ" if of.better is None else f"{of.worse:,} worse, {of.better:,} better"
