"""NNCF's quantization after training, on OpenVINO; run by bench/quantizers.py where we are installed.

settings: arguments of `nncf.quantize`.
"""

import tempfile
from pathlib import Path

import frame
import nncf
import numpy as np
import openvino as ov


def quantize(net, calibration, bits, settings):
    """The quantized network as a function, and its layers."""
    if bits != 8:
        raise ValueError(f"drive_nncf: bits must be 8, got {bits}; NNCF refuses others")
    path = Path(tempfile.mkdtemp(dir=".")) / "plain.onnx"
    frame.exported(net, path)
    model = ov.convert_model(str(path))
    given = dict(settings)
    if "preset" in given:
        given["preset"] = nncf.QuantizationPreset[given["preset"]]
    data = nncf.Dataset([calibration[i : i + 1] for i in range(len(calibration))])
    made = nncf.quantize(model, data, **given)
    call = ov.Core().compile_model(made, "CPU")
    return lambda images: call(np.ascontiguousarray(images))[0], layers(made)


def layers(model):
    """The weights that are stored as integers."""
    found = []
    for op in model.get_ops():
        if op.get_type_name() == "Constant" and op.get_element_type() in (ov.Type.i8, ov.Type.u8) and len(op.shape) > 1:
            codes = op.data.astype(np.int32)
            found.append(frame.Layer(op.get_friendly_name(), codes, 8, len(codes)))
    return found


if __name__ == "__main__":
    frame.main(quantize)
