"""ONNX Runtime's matrix of few bits: a model of one MatMulNBits node with random codes, a scale for each block of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """Bits of a code, inputs that share a scale, and the accuracy level (4: activations become int8)."""

    bits: int
    block: int = 32
    level: int = 4

    def __str__(self) -> str:
        return f"MatMulNBits {self.bits} bits, blocks of {self.block}, level {self.level}"


def model(inputs: int, outputs: int, setting: Setting, seed: int = 0) -> bytes:
    """An ONNX model of one node: x (1, inputs) times the matrix."""
    from onnx import TensorProto, helper, numpy_helper

    draw, blocks = np.random.default_rng(seed), -(-inputs // setting.block)
    codes = draw.integers(0, 256, (outputs, blocks, setting.block * setting.bits // 8), np.uint8)
    scales = draw.random((outputs, blocks) if setting.bits == 2 else outputs * blocks, np.float32) * np.float32(0.01)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=setting.bits,
        block_size=setting.block,
        accuracy_level=setting.level,
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", inputs), ("y", outputs))]
    arrays = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales.reshape(outputs, blocks), "scales")]
    graph = helper.make_graph([node], "matrix", ends[:1], ends[1:], arrays)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
