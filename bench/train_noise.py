"""Quantization noise on a language model of code (S11): int4 in three ways, and product codebooks 20 times smaller.

A small transformer completes the Python standard library's source, byte by byte. It is trained once as floats; every method
goes on from there, and so does the float network that it is compared with, for as many steps on the same batches; that one also
teaches the network in product codebooks. Perplexity is per byte, on files that none has seen. Each run keeps its state every
few steps, and goes on from there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from bench import source
from bench.options import Options, tell
from bench.result import Figure, Result, Row
from bench.training import alone
from bench.work import FOLDER, Work, digest
from bitladder.formats import Int, Product
from bitladder.train.noise import Noise
from bitladder.train.product import Products
from bitladder.train.student import distilled

RATE, TUNING = 3e-3, 3e-3  # of Adam: from scratch, and going on from there
PEER = "float"
INT4 = Int(4, per="tensor")  # one range for a whole weight, as in the published method
FULL_AT = 0.7  # of a run, when noise that grows from nothing is everywhere
BEGUN = "    def __init__(self, "  # is completed
SMALLER, WITHIN = 20.0, 1.15
GROUPS = ("blocks.*.up.weight", "blocks.*.down.weight", "bytes.weight", "places.weight", "blocks.*.weight")
EVERY = 50  # steps between two states kept, and between two fits of scales


@dataclass(frozen=True)
class Size:
    """The network, how much it learns, its product codebooks, and the stretches of text to report on.

    tables: of bytes and places, finer: they are few weights, and every answer depends on them.
    """

    width: int
    layers: int
    length: int
    batch: int
    steps: int
    more: int
    centroids: Product
    tables: Product
    stretches: int


FULL = Size(256, 4, 128, 16, 2000, 600, Product(4, 32, "tensor"), Product(2, 64, "tensor"), 512)
QUICK = Size(128, 3, 64, 16, 600, 200, Product(4, 32, "tensor"), Product(2, 32, "tensor"), 256)
Net = Any
Rate = float | Callable[[int], float]


@dataclass(frozen=True)
class Task:
    """What is learned, from which text, and where a run keeps its state."""

    size: Size
    text: source.Code
    folder: Path

    def after(self, more: int, then: int = 0) -> range:
        """So many steps after those of the float network, and after `then` others."""
        return range(self.size.steps + then, self.size.steps + then + more)


@dataclass
class Course:
    """A run of training: what says, what learns, what its state is, and what a step ends with."""

    say: Callable[[Any], Any]
    learning: list[Any]
    held: dict[str, Any]
    ended: Callable[[], None] = lambda: None
    teacher: Net = None  # whose answers are half of what it learns from

    @classmethod
    def of(cls, net: Net) -> Course:
        """That of a network as it is."""
        return cls(net, list(net.parameters()), {"net": net})

    @classmethod
    def noisy(cls, noise: Noise, teacher: Net = None) -> Course:
        """That of a network with noise."""
        return cls(noise, list(noise.module.parameters()), {"net": noise.module, "noise": noise}, noise.step, teacher)

    def loss(self, text: Any, then: Any) -> Any:
        """Nats per byte; with a teacher, of half of them."""
        said = self.say(text)
        plain = source.loss(said, then)
        if self.teacher is None:
            return plain
        with torch.no_grad():
            taught = self.teacher(text)
        return (plain + distilled(said, taught, axis=2)) / 2


def rows(data: Path, quick: bool) -> list[Row]:
    """Perplexity per byte of each method beside a float network's that learned for as long, with half a 95 % interval."""
    size, text = QUICK if quick else FULL, source.code()
    here = [Path(file).read_text(encoding="utf-8") for file in (source.__file__, __file__)]
    work = Work.of("train_noise", size, len(text.learn), here)
    task = Task(size, text, FOLDER / "train_noise" / digest([work.about.encode()]))
    torch.manual_seed(0)
    begun = source.Writer(size.width, size.layers, size.length)
    trained(Course.of(begun), task, "float", range(size.steps), RATE)
    floats, longer = (going_on(task, begun, task.after(times * size.more)) for times in (1, 3))
    short = task.after(size.more)
    peer = {"int4": work("float", lambda: judged(floats, {}, task)).value}
    peer["products"] = work("float, longer", lambda: judged(longer, {}, task)).value
    found = {
        "int4 after training": work("post", lambda: judged(floats, Noise(floats, {"*": INT4}).quantized(), task)).value,
        "int4 quantization-aware": work("aware", lambda: in_int4(task, begun, short, 1.0)).value,
        "int4 with noise": work("noise", lambda: in_int4(task, begun, short, growing(size.more))).value,
    }
    products = work("products", lambda: in_products(task, begun, longer)).value
    out = [row(name, ours, peer["int4"]) for name, ours in found.items()]
    out.append(row("products", products[1:], peer["products"]))
    return [*out, Row.of("source code: products, times smaller than floats", float(products[0]), SMALLER, "asked for")]


def row(what: str, ours: np.ndarray, peer: np.ndarray) -> Row:
    """One comparison; the interval is of paired stretches of text, in perplexity."""
    difference = ours - peer
    said = math.exp(float(ours.mean()))
    half = said * 1.96 * float(difference.std()) / math.sqrt(len(difference))
    return Row.of(f"source code: {what}, perplexity per byte", said, math.exp(float(peer.mean())), PEER, half)


def figures(found: list[Row]) -> Mapping[str, Figure]:
    """The order of the three int4 networks, what products lose, and how much smaller they are."""
    post, aware, noise, products, times = (float(r.ours) for r in found)  # type: ignore[arg-type]  # measured, all
    peer = float(found[3].peer)  # type: ignore[arg-type]  # measured too
    return {
        "noise: perplexity of int4 aware over int4 after training": Figure.below(aware / post, 1.0),
        "noise: perplexity of int4 with noise over int4 aware": Figure.below(noise / aware, 1.0),
        "noise: perplexity of products over float": Figure.at_most(products / peer, WITHIN),
        "noise: products smaller by": Figure.at_least(times, SMALLER),
    }


def going_on(task: Task, begun: Net, steps: range) -> Net:
    """The float network after more steps."""
    net = copy.deepcopy(begun)
    trained(Course.of(net), task, "float, on", steps, TUNING)
    return net


def growing(steps: int) -> Callable[[int], float]:
    """A rate that rises evenly from 0 to 1."""
    return lambda step: min(1.0, step / (FULL_AT * steps))


def in_int4(task: Task, begun: Net, steps: range, rate: Rate) -> np.ndarray:
    """Nats after more steps with a part of all weights in int4; at the end all are."""
    noise = Noise(copy.deepcopy(begun), {"*": INT4}, rate, every=EVERY)
    trained(Course.noisy(noise), task, f"int4 {'with noise' if callable(rate) else 'aware'}", steps, TUNING)
    return judged(noise.module, noise.quantized(), task)


def in_products(task: Task, begun: Net, teacher: Net) -> np.ndarray:
    """Times smaller, then nats, of the network in product codebooks: noise first, then group by group, taught all along."""
    size, net = task.size, copy.deepcopy(begun)
    plan = {"*": size.centroids, "bytes.weight": size.tables, "places.weight": size.tables}
    noise = Noise(net, plan, growing(size.more), every=EVERY)
    trained(Course.noisy(noise, teacher), task, "products, noise", task.after(size.more), TUNING)
    products, done = Products(net), size.more
    for i, pattern in enumerate(GROUPS):
        products.freeze(pattern, plan.get(pattern, size.centroids))
        course = Course(products, [*products.tables(), *products.rest()], {"net": net, "products": products}, teacher=teacher)
        steps = task.after(size.more // (1 if i + 1 == len(GROUPS) else 4), done)
        trained(course, task, f"products, {i}", steps, TUNING)
        done += len(steps)
    smaller = 4 * sum(p.numel() for p in net.parameters()) / products.nbytes()
    return np.concatenate([[smaller], judged(net, products.weights(), task)])


def judged(net: Net, weights: Mapping[str, Any], task: Task) -> np.ndarray:
    """Nats per byte of test text, computed with other weights; and a line that they complete."""
    held = {name: w.detach() for name, w in weights.items()}

    def say(x: Any) -> Any:
        return functional_call(net, held, (x,))

    tell(f"completes: {source.completed(say, BEGUN, 40, task.size.length)!r}")
    return source.nats(say, task.text.test, task.size.length, task.size.stretches)


def trained(course: Course, task: Task, name: str, steps: range, rate: float) -> None:
    """Train over `steps`, at a rate that rises for a twentieth of them and then falls to zero; or go on as it was left."""
    path = task.folder / f"{name} {steps.start} {steps.stop}.pt".replace(" ", "_")
    adam = torch.optim.AdamW(course.learning, rate, weight_decay=0.0)
    left = range(resume(path, course, adam, steps), steps.stop)
    for step, (x, y) in zip(left, source.batches(task.text.learn, left, task.size.batch, task.size.length, 0), strict=True):
        part = (step - steps.start) / len(steps)
        for group in adam.param_groups:
            group["lr"] = rate * min(1, 20 * (part + 1 / len(steps))) * (1 + math.cos(math.pi * part)) / 2
        adam.zero_grad()
        loss = course.loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(course.learning, 1.0)
        adam.step()
        course.ended()
        if (step + 1) % EVERY == 0 or step + 1 == steps.stop:
            keep(path, course, adam, step + 1)
            tell(f"{name}: step {step + 1} of {steps.stop}, {loss.item():.3f} nats per byte")


def keep(path: Path, course: Course, adam: Any, at: int) -> None:
    """Write where a run stands, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    held = {name: thing.state_dict() for name, thing in course.held.items()}
    torch.save({"at": at, "adam": adam.state_dict(), "held": held}, part)
    part.replace(path)


def resume(path: Path, course: Course, adam: Any, steps: range) -> int:
    """The step to go on from, with everything as it was then."""
    if not path.exists():
        return steps.start
    kept = torch.load(path, weights_only=True)
    for name, thing in course.held.items():
        thing.load_state_dict(kept["held"][name])
    adam.load_state_dict(kept["adam"])
    return int(kept["at"])


def bench(options: Options) -> Result:
    """Rows and figures of this method."""
    return alone("train_noise", options, rows, figures)
