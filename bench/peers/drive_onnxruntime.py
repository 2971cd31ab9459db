"""ONNX Runtime's static quantization, QDQ, per channel; run by bench/quantizers.py where we are installed.

settings: `ranges` of activations (MinMax, Entropy, Percentile).
"""

import tempfile
from pathlib import Path

import frame
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime import quantization as q

WEIGHTS = {8: q.QuantType.QInt8, 4: q.QuantType.QInt4}


class Samples(q.CalibrationDataReader):
    """Calibration images one by one."""

    def __init__(self, name, images):
        self.each = iter([{name: images[i : i + 1]} for i in range(len(images))])

    def get_next(self):
        return next(self.each, None)


def quantize(net, calibration, bits, settings):
    """The quantized network as a function, and its layers."""
    folder = Path(tempfile.mkdtemp(dir="."))
    plain, ready, made = folder / "plain.onnx", folder / "ready.onnx", folder / "made.onnx"
    name = frame.exported(net, plain)
    q.shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
    q.quantize_static(
        str(ready), str(made), Samples(name, calibration), per_channel=True, weight_type=WEIGHTS[bits],
        activation_type=q.QuantType.QUInt8, calibrate_method=q.CalibrationMethod[settings["ranges"]],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {name: np.ascontiguousarray(images)})[0], layers(onnx.load(str(made)), bits)


def layers(model, bits):
    """The weights that are stored as integers."""
    stored = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and len(stored.get(node.input[0], onnx.TensorProto()).dims) > 1:
            codes, scale = (numpy_helper.to_array(stored[n]) for n in node.input[:2])
            zero = numpy_helper.to_array(stored[node.input[2]]).astype(np.int32) if len(node.input) > 2 else np.zeros(1)
            found[node.input[0]] = frame.Layer(
                node.input[0], codes.astype(np.int32), bits, scale.size * (2 if zero.any() else 1)
            )
    return list(found.values())


if __name__ == "__main__":
    frame.main(quantize)
