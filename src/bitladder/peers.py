"""Other runtimes that can be timed beside ours, opened at the settings that are fastest for one sample at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.errors import require
from bitladder.timing import Run

Arrays = Mapping[str, np.ndarray]
SUMMING = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Convolution", "Deconvolution", "FullyConnected")
BYTES = ("i8", "u8")
File = str | PathLike[str] | bytes  # a path, or the file itself


def onnxruntime(file: File, feeds: Arrays, threads: int) -> Run:
    """A call that runs an ONNX file on these inputs, taken in their order."""
    ort = require("onnxruntime", "onnx", "bench")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    given = file if isinstance(file, bytes) else fspath(file)
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    named = dict(zip([i.name for i in session.get_inputs()], feeds.values(), strict=True))
    return lambda: session.run(None, named)


def openvino(file: File, feeds: Arrays, threads: int) -> Run:
    """A call that runs an ONNX file or a model of OpenVINO's, one stream for the least time of one sample."""
    ov = require("openvino", "bench", "bench")
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(fspath(file), "CPU", settings).create_infer_request()
    given = list(feeds.values())
    return lambda: request.infer(given, share_inputs=True, share_outputs=True)


def float_in_onnxruntime(file: File) -> list[str]:
    """The outputs of layers that ONNX Runtime sums in float, after its own rewrites of an ONNX file."""
    ort, onnx = require("onnxruntime", "onnx", "bench"), require("onnx", "onnx", "bench")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(file if isinstance(file, bytes) else fspath(file), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return [n.output[0] for n in nodes if n.op_type.removeprefix("Fused") in SUMMING]


def float_in_openvino(file: File) -> list[str]:
    """The layers that OpenVINO sums in float, by the names that it gives them."""
    ov = require("openvino", "bench", "bench")
    nodes = ov.Core().compile_model(fspath(file), "CPU", {"PERFORMANCE_HINT": "LATENCY"}).get_runtime_model().get_ordered_ops()
    said = [(n.get_friendly_name(), *(n.get_rt_info()[k].value for k in ("layerType", "runtimePrecision"))) for n in nodes]
    return [name for name, kind, precision in said if kind in SUMMING and precision not in BYTES]


IN_FLOAT: dict[str, Callable[[File], list[str]]] = {"onnxruntime": float_in_onnxruntime, "openvino": float_in_openvino}
PEERS: dict[str, Callable[[File, Arrays, int], Run]] = {"onnxruntime": onnxruntime, "openvino": openvino}
