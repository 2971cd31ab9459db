"""NNCodec 2 (the neural network coding standard ISO/IEC 15938-17, its DeepCABAC core) as a peer, in an environment of its own.

It wants numpy below 2, pandas below 3, torchvision, OpenCV and more, so it does not go where we are installed. It is built
once into `bench/.work/nncodec/` from `peers/nncodec.txt`, without what it requires, for what it codes is a dictionary of
arrays; `peers/drive_nncodec.py` keeps the modules that wrap it for training from being imported. Everything it runs is
bounded in time; where it cannot be had there is one line that says why.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import HERE, Environment, Unavailable

ENVIRONMENT = Environment("nncodec", alone=True)
REQUIREMENTS, DRIVER = ENVIRONMENT.requirements, HERE / "drive_nncodec.py"
REPEATS = 3
SPEED_QP = -24  # the setting whose times are compared
BN_EPS = 1e-5

Arrays = Mapping[str, np.ndarray]
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Coded:
    """A network as NNCodec codes it: size of the stream, seconds (quantizing is part of encoding), and what is decoded."""

    bytes: int
    encode: float
    quantize: float
    decode: float
    weights: Arrays


def version() -> dict[str, str]:
    """Its version, as versions of packages are reported; nothing if it could not be had."""
    try:
        ENVIRONMENT.interpreter()
    except Unavailable:
        return {}
    return {"nncodec": ENVIRONMENT.pins()["nncodec"]}


def code(weights: Arrays, settings: Settings, blocks: Mapping[str, Any] | None = None, repeats: int = REPEATS) -> Coded:
    """A dictionary of float32 arrays coded and decoded with `settings` of its `compress`."""
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "weights.npz", Path(name) / "decoded.npz"
        np.savez(given, **{k: np.asarray(w, np.float32) for k, w in weights.items()})  # type: ignore[arg-type]
        job = {"weights": str(given), "out": str(out), "blocks": blocks, "settings": dict(settings), "repeats": repeats}
        found = json.loads(ENVIRONMENT.run([ENVIRONMENT.interpreter(), DRIVER], "coding", json.dumps(job), Path(name)))
        with np.load(out) as kept:
            decoded = {k: kept[k] for k in kept.files}
    return Coded(**found, weights=decoded)


# --------------------------------------------------------------------------------------------------------- settings


def settings(deep: bool = False) -> dict[str, dict[str, Any]]:
    """The settings that its curve is measured at, by name: its defaults, and what makes it better.

    deep: for deep networks, which take a minute a setting, only those that are best on ResNet-20.

    `dq` is dependent (trellis) quantization; `folded` stores a scale and a bias for each batch norm instead of four vectors
    (`bnf`), at coarser steps that cost no accuracy (`nonweight_qp`); `size` gives large layers larger steps (`opt_qp`); `rate`
    quantizes for rate and distortion (`lambda_scale`). Left out: codebooks, which fall back to uniform steps on these networks,
    and `ioq`, `lsa` and `fine_tune`, which need data.
    """
    folded: dict[str, Any] = {"bnf": True, "nonweight_qp": -45}
    families: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        "dq": ({"use_dq": True}, (-28, -24, -20, -16)),
        "no dq": ({"use_dq": False}, (-28, -24, -20, -16)),
        "dq, folded": ({"use_dq": True, **folded}, (-30, -28, -27, -26, -25, -24, -23, -22, -21, -20, -18)),
        "no dq, folded": ({"use_dq": False, **folded}, (-24, -22, -20, -18)),
        "dq, folded, rate": ({"use_dq": True, "lambda_scale": 0.2, **folded}, (-26, -24, -22, -20)),
        "dq, folded, size": ({"use_dq": True, "opt_qp": True, **folded}, (-32, -30, -28, -26)),
    }
    if deep:
        families = {"dq, folded": (families["dq, folded"][0], (-26, -25, -24, -23, -22, -21, -20))}
    return {f"{name}, qp {qp}": {"qp": qp, **how} for name, (how, qps) in families.items() for qp in qps}


# --------------------------------------------------------------------------------------------------------- networks

BN = {"weight": "bn.gamma", "bias": "bn.beta", "running_mean": "bn.mean", "running_var": "bn.var"}


def stored(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of the arrays of a torch state that a network needs to run: all but the counters of batches."""
    return {name: np.asarray(w).copy() for name, w in state.items() if not name.endswith("num_batches_tracked")}


def blocks(state: Arrays) -> dict[str, dict[str, str]]:
    """Which arrays of a ResNet belong together, as NNCodec wants to be told: convN and bnN are one block.

    >>> blocks({"conv1.weight": None, "bn1.running_var": None})["block_identifier"]
    {'conv1.weight': 'conv1', 'bn1.running_var': 'conv1'}
    """
    parts = {name: name.rpartition(".")[::2] for name in state}
    kinds = {n: BN[end] if is_norm(stem) else end for n, (stem, end) in parts.items()}
    return {"block_identifier": {n: stem.replace("bn", "conv") for n, (stem, _) in parts.items()}, "parameter_type": kinds}


def is_norm(stem: str) -> bool:
    return stem.rpartition(".")[2].startswith("bn")


def restored(decoded: Arrays) -> dict[str, np.ndarray]:
    """Decoded arrays by the names that the network has: a folded batch norm adds its bias and does nothing else."""
    made = {}
    for name, w in decoded.items():
        stem = name.removesuffix(".weight.bias")
        if stem == name:
            made[name] = w
            continue
        norm = stem.replace("conv", "bn")
        one = np.ones(len(w), np.float32)
        made |= {f"{norm}.weight": one, f"{norm}.bias": w, f"{norm}.running_mean": 0 * one}
        made[f"{norm}.running_var"] = (1 - BN_EPS) * one
    return made
