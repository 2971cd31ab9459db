"""Writes the seeds of csrc/fuzz/file.cc to a folder: small networks with weights in every format, in every order.

PYTHONPATH=src:tests python csrc/fuzz/seeds.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from networks import coded, convnet, odd_graph

from bitladder.file.writing import to_file
from bitladder.ir.graph import Graph, Node, PerWidth, Value

FORMATS = """int2 uint3 int5/tensor int4/2 int9 uint16 fixed2 ufixed1 fixed17 ufixed8 fixed24 q2.5 uq0.4 ternary ternary/tensor
    nested1:tree nested3:tree/tensor nested2:sign nested8:sign nested5 nested8 nested4:tree""".split()


def linear(text):
    """A linear layer of a few weights in one format, with biases for two widths where there are widths."""
    w = coded(text, (3, 5))
    b = np.arange(3, dtype=np.float32)
    constants = {"w": w, "b": PerWidth("w", {1: b, 2: -b}) if text.startswith("nested") else b}
    nodes = (Node("linear", ("x", "w", "b"), ("y",), {}, (0.0, None)), Node("softmax", ("y",), ("z",), {"axis": -1}))
    return Graph((Value("x", "float32", ("n", 5)),), ("z",), nodes, constants, {}, {"min_bits": {"w": 1}})


def main(folder):
    graphs = {f"linear_{text}".replace("/", "-").replace(":", "-"): linear(text) for text in FORMATS}
    graphs |= {"conv": convnet(), "sign": convnet("nested6:sign", "nested4", "fixed8"), "odd": odd_graph()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs.items():
        (folder / f"{name}.ladder").write_bytes(to_file(graph, "raw"))
        (folder / f"{name}_tiles.ladder").write_bytes(to_file(graph, "raw", "layer", tile=6))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
