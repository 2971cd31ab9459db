"""What a user names on the command line, as a float graph: an `.onnx` file, or a function that returns a torch module."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.errors import require
from bitladder.ir.graph import Graph
from bitladder.recipe import imported


def network(net: str, weights: str | None, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph of NET; `arrays` are calibration data, whose first samples a torch module is exported with."""
    file, colon, function = net.rpartition(":")
    if colon and file.endswith(".py"):
        module = made(file, function)
        if weights is not None:
            fill(module, weights)
        graph = imported(module, {k: a[:2] for k, a in arrays.items() if k != "y"})
    elif net.endswith(".onnx"):
        if weights is not None:
            raise ValueError("network: --weights goes with file.py:function; an .onnx file has its own")
        if not Path(net).is_file():
            raise FileNotFoundError(f"network: {net!r} does not exist; check the path")
        graph = imported(net, None)
    else:
        raise ValueError(
            f"network: must be an .onnx file or file.py:function, got {net!r}; export it, or write such a function"
        )
    check_finite(graph)
    return graph


def net_of(net: str) -> Any:
    """What NET names, not yet a graph: a torch module or the path of a file."""
    file, colon, function = net.rpartition(":")
    if colon and file.endswith(".py"):
        return made(file, function)
    if not net.endswith((".onnx", ".ladder")):
        raise ValueError(f"network: must be an .onnx file, a .ladder file or file.py:function, got {net!r}; export it first")
    if not Path(net).is_file():
        raise FileNotFoundError(f"network: {net!r} does not exist; check the path")
    return net


def made(file: str, function: str) -> Any:
    """What `function` of the Python file `file` returns: a torch module or an exported program."""
    torch = require("torch", "torch", "network")
    if not Path(file).is_file():
        raise FileNotFoundError(f"network: {file!r} does not exist; check the path")
    namespace = executed(Path(file))
    if not callable(getattr(namespace, function, None)):
        raise ValueError(f"network: {file!r} has no function {function!r}; name one that returns the torch module")
    try:
        module = getattr(namespace, function)()
    except Exception as error:
        raise ValueError(f"network: {function!r} of {file!r} failed with {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module | torch.export.ExportedProgram):
        raise ValueError(f"network: {function!r} of {file!r} must return a torch module, got {type(module).__name__}")
    return module


def executed(path: Path) -> Any:
    """The module of a Python file, whose folder it may import from."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    namespace = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(namespace)
    except Exception as error:
        raise ValueError(f"network: {str(path)!r} failed with {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return namespace


def fill(module: Any, weights: str) -> None:
    """Put the tensors of a safetensors file into `module`, all of them."""
    read = require("safetensors.torch", "torch", "network")
    if not Path(weights).is_file():
        raise FileNotFoundError(f"network: weights {weights!r} do not exist; check the path")
    try:
        tensors = read.load_file(weights)
    except Exception as error:
        raise ValueError(f"network: weights {weights!r} are no safetensors file ({error})") from None
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    wrong = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    for names, what in ((missing, "lack"), (extra, "have, and the module does not,"), (wrong, "have in another shape")):
        if names := [n for n in names if not n.endswith("num_batches_tracked")]:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"network: weights {weights!r} {what} {', '.join(names[:3])}{more}; give the weights of this module"
            )
    module.load_state_dict(tensors, strict=False)


def check_finite(graph: Graph) -> None:
    """Return if no constant holds NaN, and no weight or bias infinity."""
    learned = {name for node in graph.nodes if node.op in ("conv", "conv_transpose", "linear") for name in node.inputs[1:]}
    for name, c in graph.constants.items():
        if not isinstance(c, np.ndarray) or c.dtype.kind != "f":
            continue
        if np.isnan(c).any() or (name in learned and not np.isfinite(c).all()):
            what = "NaN" if np.isnan(c).any() else "infinity"
            raise ValueError(f"network: constant {name!r} holds {what}, must be finite; repair or retrain the network")
