"""What a finding is, and what findings are made from: one network with one run of the reference and its times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter

import numpy as np

from bitladder.device import Terminal, terminal
from bitladder.engine import Engine, StepTime
from bitladder.formats import Encoding, Int, QTensor
from bitladder.ir.graph import Graph, Node, Value
from bitladder.model import Model
from bitladder.verify import BORDERS, Truth

ROUNDS = 9  # of a profile; each step counts with its best
PROBE = (64, 1024, 1024)  # rows, inputs and outputs of the product that shows the peak
FAR = 0.25  # of peak or bandwidth: what uses less is held back by something else
MOST_PROBED = 256 << 20  # bytes read to see the bandwidth, at most


@dataclass(frozen=True)
class Finding:
    """One thing to know: `about` speed, values or size; what, at which nodes, how much, and what to do. `wrong`: mend it."""

    about: str
    what: str
    where: tuple[str, ...] = ()
    fix: str = ""
    milliseconds: float | None = None
    share: float | None = None  # of the time, the codes or the bytes
    bytes: int | None = None
    wrong: bool = False


@dataclass(frozen=True)
class Cost:
    """A step with what it took: its shares of the time, of the peak of multiply-accumulates and of the bandwidth."""

    step: StepTime
    share: float
    of_peak: float
    of_bandwidth: float  # 0 where the weights fit the nearest cache

    @property
    def bound(self) -> str:
        """What holds it back."""
        if self.step.kernel == "reference":
            return "reference"
        if max(self.of_peak, self.of_bandwidth) < FAR:
            return "overhead"
        return "memory" if self.of_bandwidth > self.of_peak else "products"


@dataclass(frozen=True)
class Patient:
    """A network under examination at the width it runs at."""

    path: str
    model: Model
    feeds: Mapping[str, np.ndarray]
    real: bool  # whether feeds are data of the network's kind
    threads: int
    truth: Truth
    steps: tuple[StepTime, ...]

    @classmethod
    def of(
        cls,
        path: str,
        model: Model,
        feeds: Mapping[str, np.ndarray],
        real: bool,
        threads: int,
        progress: Callable[[str, int, int], None],
    ) -> Patient:
        """The network run once on the reference, and some times on one sample to see its times."""
        progress("reference", 0, 0)
        truth = Truth.of(model.graph, feeds)
        progress("time", 0, 0)
        return cls(path, model, feeds, real, threads, truth, tuple(profile(model.engine, one_of(model, feeds), model.bits)))

    @property
    def graph(self) -> Graph:
        return self.model.graph

    @cached_property
    def sample(self) -> dict[str, np.ndarray]:
        """One sample, as much as is timed."""
        return one_of(self.model, self.feeds)

    @property
    def milliseconds(self) -> float:
        """Of all steps."""
        return sum(s.milliseconds for s in self.steps)

    @cached_property
    def machine(self) -> Terminal:
        return terminal()

    @cached_property
    def peak(self) -> float:
        """Multiply-accumulates in a millisecond, of a product that suits the core, on as many threads."""
        best = [s for s in profile(Engine(product(*PROBE), threads=self.threads), rows(*PROBE[:2])) if s.macs]
        return best[0].macs / best[0].milliseconds if best else 0.0

    @cached_property
    def bandwidth(self) -> float:
        """Bytes read in a millisecond from behind the last cache, by one core."""
        size = min(2 * max((*self.machine.caches, 32 << 20)), MOST_PROBED)
        a = np.ones(size // 8)
        return size / (1e3 * min(seconds(a.sum) for _ in range(5)))

    @cached_property
    def costs(self) -> list[Cost]:
        """Every step that is a node's own, the dearest first."""
        whole, near = max(self.milliseconds, 1e-9), min(self.machine.caches, default=32 << 10)

        def cost(s: StepTime) -> Cost:
            ms = max(s.milliseconds, 1e-6)
            peak = s.macs / ms / self.peak if s.macs and self.peak else 0.0
            read = s.nbytes / ms / self.bandwidth if s.nbytes > near else 0.0
            return Cost(s, s.milliseconds / whole, peak, read)

        return sorted(map(cost, self.steps), key=lambda c: -c.step.milliseconds)

    def share(self, milliseconds: float) -> float:
        """Of the time of all steps."""
        return milliseconds / max(self.milliseconds, 1e-9)

    def time_of(self, names: tuple[str, ...]) -> float:
        """Milliseconds of the steps of some nodes, borders not counted."""
        wanted = set(names)
        return sum(s.milliseconds for s in self.steps if s.node in wanted and s.kernel not in BORDERS)


def one_of(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first sample, or the batch where the network takes no other number."""
    free = all(v.shape is None or (v.shape and not isinstance(v.shape[0], int)) for v in model.whole.inputs)
    return {name: a[:1] if free and a.ndim else a for name, a in feeds.items()}


def profile(engine: Engine, feeds: Mapping[str, np.ndarray], bits: object = None, rounds: int = ROUNDS) -> list[StepTime]:
    """The steps of a run, each with the best of some runs."""
    engine.run(feeds, bits)  # type: ignore[arg-type]  # whatever a model has
    runs = [engine.profile(feeds, bits) for _ in range(rounds)]  # type: ignore[arg-type]
    return [replace(same[0], milliseconds=min(s.milliseconds for s in same)) for same in zip(*runs, strict=True)]


def seconds(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def product(count: int, inputs: int, outputs: int) -> Graph:
    """A network of one product in 8 bits."""
    codes = np.random.default_rng(0).integers(-127, 128, (outputs, inputs), np.int8)
    params = {"scale": np.full(outputs, 1e-2, np.float32), "zero_point": np.zeros(outputs, np.float32)}
    byte = {"scale": np.float32(0.02).reshape(()), "zero_point": np.float32(128).reshape(())}
    coded = Encoding(Int(8, per="tensor", unsigned=True), byte)
    return Graph(
        inputs=(Value("x", "float32", (count, inputs)),),
        outputs=("y",),
        nodes=(Node("linear", ("x", "w"), ("y",)),),
        constants={"w": QTensor(Encoding(Int(8), params, (0,)), codes)},
        encodings={"x": coded, "y": coded},
    )


def rows(count: int, inputs: int) -> dict[str, np.ndarray]:
    """Inputs of that product."""
    return {"x": np.random.default_rng(1).normal(size=(count, inputs)).astype(np.float32)}
