"""The peers that quantize: Brevitas, Model Compression Toolkit, AIMET, NNCF and ONNX Runtime, each run by a driver of its own.

A driver (`peers/drive_NAME.py`) gets the network, calibration images, test images, a width and settings, and says which class
its quantized network gives each image, what its weights take, and how long quantizing took. Peers that do not install where
we are have an environment of their own. What a peer did is kept in `bench/.work/quantizers/` until its driver, its pins, its
settings, the network or the images change; so is that it took too long. Seconds are of the processor.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench import cifar, resnet, work
from bench.environment import HERE, Environment, Missing, Unavailable
from bench.nncodec import stored
from bench.options import Options, tell
from bench.work import Work, digest

MOST_SECONDS = 20 * 60  # of the processor, for quantizing at one setting
WAIT = 6 * 3600  # seconds until a driver is given up
SCALE_BYTES = 4  # of every number that says what codes mean
FRAME = HERE / "frame.py"


@dataclass(frozen=True)
class Setting:
    """One way of a peer to quantize, at the widths it is measured at; `args` are its driver's. deep: on ResNet-56 too.

    slow: it, or most of what its peer does, learns for many minutes; `accuracy_slow` measures it, and others with --full only.
    """

    name: str
    args: Mapping[str, Any]
    bits: tuple[int, ...] = (8, 4, 3, 2)
    deep: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Quantizer:
    """A peer: its name, that of its files, its package, its settings, and whether it has an environment of its own."""

    name: str
    key: str
    package: str
    settings: Sequence[Setting]
    apart: bool = True

    @property
    def environment(self) -> Environment:
        return Environment(self.key)

    @property
    def driver(self) -> Path:
        return HERE / f"drive_{self.key}.py"

    def sources(self) -> list[bytes]:
        """What its results depend on, of files here."""
        pins = self.environment.requirements.read_bytes() if self.apart else self.version().encode()
        return [self.driver.read_bytes(), FRAME.read_bytes(), pins]

    def version(self) -> str:
        """The version that is measured; raises `Missing` if there is none."""
        if self.apart:
            return self.environment.pins()[self.package]
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            raise Missing(f"{self.key}: pip install '.[bench]' brings it") from None

    def interpreter(self) -> Path:
        """The Python that runs its driver."""
        return self.environment.interpreter() if self.apart else Path(sys.executable)


PLAIN = {"order": True, "equalize": 0}  # what Brevitas is best with: by activations, channels not equalized
BREVITAS = (
    Setting("GPTQ, its defaults", {"method": "gptq"}),
    Setting("GPTQ, act order", {"method": "gptq", **PLAIN}, deep=True),
    Setting("Qronos, act order", {"method": "qronos", **PLAIN}, deep=True),
    Setting("GPFQ, act order", {"method": "gpfq", **PLAIN}, (4, 3, 2)),
    Setting("Qronos, act order, MSE scales", {"method": "qronos", "scales": "mse", **PLAIN}, (4, 3, 2)),
    Setting("Qronos, act order, zero points", {"method": "qronos", "weights": "asym", **PLAIN}, (3, 2), deep=True),
    Setting("Qronos, act order, ends at 8 bits", {"method": "qronos", "ends": 8, **PLAIN}, (3, 2), deep=True),
    Setting("Qronos, act order, MSE scales, ends at 8 bits", {"method": "qronos", "scales": "mse", "ends": 8, **PLAIN}, (3, 2)),
    Setting(
        "learned rounding, 1000 steps a layer",
        {"method": "learned", "iters": 1000, "equalize": 0},
        (4, 3, 2),
        deep=True,
        slow=True,
    ),
)
NNCF = (
    Setting("defaults (fast bias correction)", {}, (8,), deep=True),
    Setting("accurate bias correction", {"fast_bias_correction": False, "subset_size": 512}, (8,), deep=True),
    Setting(
        "accurate bias correction, mixed preset", {"fast_bias_correction": False, "subset_size": 512, "preset": "MIXED"}, (8,)
    ),
)
ONNXRUNTIME = (
    Setting("min-max", {"ranges": "MinMax"}, (8, 4), deep=True),
    Setting("entropy", {"ranges": "Entropy"}, (8, 4), deep=True),
    Setting("percentile", {"ranges": "Percentile"}, (8, 4)),
)
ALL = [2, 3, 4, 5, 6, 8]  # widths that MCT's plans may mix; its own target offers 2, 4 and 8
MCT = (
    Setting("one width", {}, (8, 4, 3, 2), deep=True),
    Setting("plan of 2, 4, 8 bits", {"widths": [2, 4, 8]}, (4, 3)),
    Setting("plan of 2 to 8 bits", {"widths": ALL}, (4, 3)),
    Setting("EPTQ, 50 epochs", {"epochs": 50}, (4, 3, 2), deep=True, slow=True),
    Setting("plan of 2 to 8 bits, EPTQ, 50 epochs", {"widths": ALL, "epochs": 50}, (4, 3), slow=True),
)
STEPS = 1500  # of AdaRound, a layer; AIMET recommends 15000, which take hours on one core
AIMET = (
    Setting("range by error", {"method": "none"}, deep=True, slow=True),
    Setting("SeqMSE, 20 candidates", {"method": "seqmse", "candidates": 20}, (4, 3, 2), deep=True, slow=True),
    Setting(f"AdaRound, cut to {STEPS} steps a layer", {"method": "adaround", "steps": STEPS}, (4, 3, 2), deep=True, slow=True),
    Setting(
        f"equalized, AdaRound, cut to {STEPS} steps a layer",
        {"method": "adaround", "steps": STEPS, "equalize": True},
        (4, 3),
        deep=True,
        slow=True,
    ),
)
QUANTIZERS = (
    Quantizer("Brevitas", "brevitas", "brevitas", BREVITAS),
    Quantizer("Model Compression Toolkit", "mct", "model-compression-toolkit", MCT),
    Quantizer("AIMET", "aimet", "aimet-torch", AIMET),
    Quantizer("NNCF", "nncf", "nncf", NNCF, apart=False),
    Quantizer("ONNX Runtime", "onnxruntime", "onnxruntime", ONNXRUNTIME, apart=False),
)


@dataclass(frozen=True)
class Made:
    """What a peer made of a network: bytes of its weights, their mean bits, seconds, and which test images it gets right.

    why: the reason if there is nothing of all this.
    """

    name: str
    bytes: float = np.nan
    bits: float = np.nan
    seconds: float = np.nan
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    why: str = ""


def weight_bytes(layers: Sequence[Sequence[Any]]) -> int:
    """Bytes of weights as packed, layer by layer, and of the numbers of their scales: the same count for peers and for us.

    >>> weight_bytes([["conv", 9, 3, 1], ["linear", 16, 8, 0]])
    24
    """
    return sum(-(-size * bits // 8) + SCALE_BYTES * scales for _, size, bits, scales in layers)


def mean_bits(layers: Sequence[Sequence[Any]]) -> float:
    """Bits of a weight in the mean over all weights."""
    return float(sum(size * bits for _, size, bits, _ in layers) / sum(size for _, size, _, _ in layers))


@dataclass
class Bench:
    """Peers on one ResNet: what each setting makes of it, measured once."""

    options: Options
    depth: int
    calibration: cifar.Split
    test: cifar.Split
    slow: tuple[bool, ...] = (False,)  # what `slow` may be of a setting that is measured
    cuts: dict[str, str] = field(default_factory=dict)  # of settings that took too long: at which width, after how long

    def all(self, bits: int, among: Sequence[Quantizer]) -> Iterator[Made]:
        """What every peer makes at a width, setting by setting; peers that cannot be had say why."""
        for peer in among:
            wanted = (s for s in peer.settings if bits in s.bits and (s.deep or self.depth == 20) and s.slow in self.slow)
            try:
                yield from (self.made(peer, bits, setting) for setting in wanted)
            except Missing as error:
                tell(str(error))
                yield Made(peer.name, why=f"not installed: {error}")

    def made(self, peer: Quantizer, bits: int, setting: Setting) -> Made:
        """What one setting makes, from the folder of results where it is there; raises `Missing` if the peer cannot be had."""
        name = f"{peer.name} {peer.version()}, {setting.name}"
        how = f"{peer.key} {dict(setting.args)}"
        if how in self.cuts:
            return Made(name, why=f"{self.cuts[how]}, and as much to learn here: not run")
        images = (self.calibration.images, self.test.images)
        about = digest([*peer.sources(), self.weights().read_bytes(), *(i.tobytes() for i in images)])
        kept = Work(work.FOLDER / "quantizers", about)
        try:
            value = kept(f"{peer.key} {self.depth} {bits} {dict(setting.args)}", lambda: self.ran(peer, bits, setting)).value
        except Missing:
            raise
        except Unavailable as error:
            tell(str(error))
            return Made(name, why=str(error))
        if len(value) == 1:
            self.cuts[how] = f"cut at {bits} bits after {value[0]:.0f} processor seconds"
            return Made(name, why=self.cuts[how])
        return Made(name, value[0], value[1], value[2], value[3:].astype(bool))

    def weights(self) -> Path:
        return resnet.path(self.options.data, self.depth)

    def ran(self, peer: Quantizer, bits: int, setting: Setting) -> np.ndarray:
        """Bytes, mean bits and seconds of a setting, and hits; the seconds alone if it was cut."""
        tell(f"resnet{self.depth}: {peer.name}, {setting.name}, {bits} bits")
        python = peer.interpreter()
        with tempfile.TemporaryDirectory() as name:
            task = self.task(Path(name)) | {"bits": bits, "settings": dict(setting.args)}
            said = peer.environment.run(
                [python, peer.driver], f"{setting.name}, {bits} bits", json.dumps(task), Path(name), WAIT, self.options.threads
            )
            found = json.loads(said.splitlines()[-1])
            if "cut" in found:
                return np.array([found["cut"]], float)
            with np.load(task["out"]) as kept:
                hits = kept["classes"] == self.test.labels
        size, mean = weight_bytes(found["layers"]), mean_bits(found["layers"])
        tell(f"    {100 * hits.mean():.2f} %, {size} bytes, {mean:.3f} bits, {found['seconds']:.0f} s")
        return np.array([size, mean, found["seconds"], *hits])

    def task(self, folder: Path) -> dict[str, Any]:
        """What every driver is told, with the files it reads."""
        state = stored(resnet.load(self.options.data, self.depth).state_dict())
        np.savez(folder / "state.npz", **state)  # type: ignore[arg-type]
        np.save(folder / "calibration.npy", self.calibration.images)
        np.save(folder / "images.npy", self.test.images)
        files = {"state": "state.npz", "calibration": "calibration.npy", "images": "images.npy", "out": "out.npz"}
        return {
            "root": str(Path(__file__).resolve().parent.parent),
            "blocks": (self.depth - 2) // 6,
            "threads": self.options.threads,
            "most": MOST_SECONDS,
            **{key: str(folder / file) for key, file in files.items()},
        }
