"""The peers that are timed, at the settings that are fastest: ONNX Runtime and OpenVINO, in float and in int8.

A peer makes a file of a network once (`bench/.work/peers/`, kept between runs) and opens it for a number of threads; what
comes back is a call that runs it on the example. Everything goes in and out as numpy arrays, as it does with us.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import work
from bench.nets import Net
from bench.options import tell
from bitladder.peers import Arrays, onnxruntime, openvino
from bitladder.timing import Run

FOLDER = work.FOLDER / "peers"
MADE_BY = ("torch", "onnx", "onnxruntime", "openvino", "nncf")
SOURCES = ("nets.py", "minilm.py", "resnet.py", "peers.py")


def kept(name: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file of that name, made unless it is there; the name of the file changes with code and versions."""
    here = Path(__file__).parent
    made_by = [metadata.version(p).encode() for p in MADE_BY if util.find_spec(p)]
    parts = [name.encode(), *made_by, *((here / s).read_bytes() for s in SOURCES)]
    path = FOLDER / f"{name}-{work.digest(parts)[:12]}.{suffix}"
    if not path.exists():
        tell(f"making {name}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{path.name}")
        with quiet():
            make(part)
        for made in FOLDER.glob(f"{part.stem}.*"):
            made.replace(made.with_name(made.name.removeprefix("part-")))
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the tools print of themselves."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


# ------------------------------------------------------------------------------------------------------ ONNX Runtime


def onnx_file(net: Net) -> Path:
    """The network in float as torch exports it, for one sample."""

    def make(path: Path) -> None:
        given = tuple(torch.from_numpy(a) for a in net.example.values())
        torch.onnx.export(net.module, given, str(path), input_names=list(net.example), dynamo=True, external_data=False)

    return kept(f"{net.name}-float", "onnx", make)


class Samples:
    """Calibration samples one by one, in the shape that ONNX Runtime's quantizer wants."""

    def __init__(self, net: Net):
        count = len(next(iter(net.calibration.values())))
        self.each = iter([{name: a[i : i + 1] for name, a in net.calibration.items()} for i in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.each, None)


def onnx_int8(net: Net) -> Path:
    """Weights int8 per channel, activations uint8: static QDQ, or for transformers dynamic, which is a little faster there."""
    from onnxruntime import quantization as q

    def make(path: Path) -> None:
        ready = path.with_suffix(".ready")
        q.shape_inference.quant_pre_process(str(onnx_file(net)), str(ready), skip_symbolic_shape=True)
        kinds: dict[str, Any] = {"per_channel": True, "weight_type": q.QuantType.QInt8}
        if net.transformer:
            q.quantize_dynamic(str(ready), str(path), **kinds)
        else:
            q.quantize_static(str(ready), str(path), Samples(net), activation_type=q.QuantType.QUInt8, **kinds)
        ready.unlink()

    return kept(f"{net.name}-int8", "onnx", make)


# ---------------------------------------------------------------------------------------------------------- OpenVINO


def openvino_file(net: Net) -> Path:
    """The network in float."""
    import openvino as ov

    def make(path: Path) -> None:
        ov.save_model(ov.convert_model(str(onnx_file(net))), str(path), compress_to_fp16=False)

    return kept(f"{net.name}-float", "xml", make)


def openvino_int8(net: Net) -> Path:
    """NNCF's quantization after training, at its defaults; transformers by their model type."""
    import nncf
    import openvino as ov

    def make(path: Path) -> None:
        model = ov.Core().read_model(str(openvino_file(net)))
        names = [i.any_name for i in model.inputs]
        samples = [dict(zip(names, s.values(), strict=True)) for s in Samples(net).each]
        kind = nncf.ModelType.TRANSFORMER if net.transformer else None
        made = nncf.quantize(model, nncf.Dataset(samples), model_type=kind, subset_size=len(samples))
        ov.save_model(made, str(path), compress_to_fp16=False)

    return kept(f"{net.name}-int8", "xml", make)


# ------------------------------------------------------------------------------------------------------------- peers


@dataclass(frozen=True)
class Peer:
    """A runtime at one precision: the file it makes of a network, and how it opens that."""

    needs: tuple[str, ...]
    file: Callable[[Net], Path]
    session: Callable[[Any, Arrays, int], Run]

    def open(self, net: Net, threads: int) -> Run:
        """A call that runs the network's example."""
        return self.session(self.file(net), net.example, threads)


ONNX = ("onnx", "onnxscript", "onnxruntime")
OPENVINO = (*ONNX, "openvino", "nncf")
INT8 = {
    "ONNX Runtime int8": Peer(ONNX, onnx_int8, onnxruntime),
    "OpenVINO int8": Peer(OPENVINO, openvino_int8, openvino),
}
FLOAT = {
    "ONNX Runtime float": Peer(ONNX, onnx_file, onnxruntime),
    "OpenVINO float": Peer(OPENVINO, openvino_file, openvino),
}


def calls(net: Net, threads: int, among: Mapping[str, Peer] = INT8 | FLOAT) -> dict[str, Run]:
    """A call for each peer that is there."""
    return {name: peer.open(net, threads) for name, peer in among.items() if there(name, peer.needs)}


def there(name: str, needs: Sequence[str]) -> bool:
    """Whether a peer's packages are installed; if not it is named on standard error."""
    missing = [package for package in needs if util.find_spec(package) is None]
    if missing:
        tell(f"{name} is left out: {missing[0]} is not installed; pip install '.[bench]' brings it")
    return not missing
