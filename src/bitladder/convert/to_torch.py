"""A graph as a torch module: trainable where its weights are floats, and equal to the reference where they are integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bitladder.convert.torch_ops import TORCH_OPS, tensor
from bitladder.formats.tensor import QTensor
from bitladder.ir.graph import Graph
from bitladder.runtime.reference import run

# Which inputs of an operator are learned, when they are constant floats; None: whichever they are.
LEARNED: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("conv", "conv_transpose", "linear", "instance_norm", "group_norm", "batch_norm", "layer_norm"), (1, 2)),
    **dict.fromkeys(("lstm", "gru", "rnn"), (1, 2, 3)),
    **dict.fromkeys(("prelu", "rms_norm"), (1,)),
    **dict.fromkeys(("embedding", "gather", "reshape", "transpose", "unsqueeze", "slice"), (0,)),
    **dict.fromkeys(("add", "mul", "matmul", "einsum", "concat", "expand"), None),
}
STATISTICS = (3, 4)  # of batch_norm
MOMENTUM = 0.1


def to_torch(graph: Graph, *, train_norm: bool = False) -> GraphModule:
    """The module that computes `graph`; `to_graph` gives the graph back with what training made of the weights.

    train_norm: in train mode, batch_norm nodes use the batch's statistics and keep running ones.
    """
    return GraphModule(graph, train_norm=train_norm)


def learned(graph: Graph) -> set[str]:
    """The names of the float constants that training may change: weights, not statistics, limits or fixed factors.

    A constant that the importer named itself (`const.3`) stands for a number in the module's code.
    """
    found = set()
    for node in graph.nodes:
        slots = LEARNED.get(node.op, ())
        for k, name in enumerate(node.inputs):
            c = graph.constants.get(name)
            if (slots is None or k in slots) and isinstance(c, np.ndarray) and c.dtype.kind == "f" and c.size > 1:
                found.add(name)
    return {name for name in found - in_integers(graph) if not name.startswith("const.")}


def in_integers(graph: Graph) -> set[str]:
    """The names of what integer nodes read: their biases become integers with the weights, and stay as they are."""
    coded = [n for n in graph.nodes if any(isinstance(graph.constants.get(i), QTensor) for i in n.inputs)]
    return {name for node in coded for name in node.inputs}


def statistics(graph: Graph) -> set[str]:
    """The names of running means and variances."""
    return {node.inputs[k] for node in graph.nodes if node.op == "batch_norm" for k in STATISTICS}


def batch_statistics(
    x: torch.Tensor, scale: torch.Tensor, b: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, *, epsilon: float = 1e-5
) -> torch.Tensor:
    """`batch_norm` in training: with the batch's own statistics, which move `mean` and `var`."""
    return F.batch_norm(x, mean, var, scale, b, True, MOMENTUM, epsilon)


class GraphModule(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the checker
    """A graph as a module. Weights are parameters and statistics buffers, in `state_dict` under the graph's own names."""

    def __init__(self, graph: Graph, *, train_norm: bool = False):
        super().__init__()
        self.graph, self.train_norm = graph, train_norm
        self._fixed: dict[str, torch.Tensor] = {}
        self._homes: dict[str, tuple[torch.nn.Module, str]] = {}
        trained, kept, integers = learned(graph), statistics(graph), in_integers(graph)
        for name, c in graph.constants.items():
            if not isinstance(c, np.ndarray) or name in integers:
                continue  # the reference reads those as they are
            if name in trained:
                self._homes[name] = place(self, name, torch.nn.Parameter(tensor(c)))
            elif name in kept:
                self._homes[name] = place(self, name, tensor(c))
            else:
                self._fixed[name] = tensor(c)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:  # what .to(device) and .double() go through
        self._fixed = {name: fn(value) for name, value in self._fixed.items()}
        return super()._apply(fn, recurse)

    def held(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every parameter and statistic with the name of the value it is."""
        return ((name, getattr(home, attribute)) for name, (home, attribute) in self._homes.items())

    def weights(self) -> dict[str, torch.nn.Parameter]:
        """The parameters by the names that their values have in the graph."""
        return {name: value for name, value in self.held() if isinstance(value, torch.nn.Parameter)}

    def known(self) -> dict[str, torch.Tensor]:
        """Every constant that is a tensor, current values: what `run` takes in place of the graph's own arrays."""
        return {**self._fixed, **dict(self.held())}

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs for inputs in the graph's order: one tensor, or a tuple of them."""
        names = [v.name for v in self.graph.inputs]
        if len(inputs) != len(names):
            raise TypeError(f"forward: takes {len(names)} tensors ({', '.join(names)}), got {len(inputs)}")
        live = self.training and self.train_norm
        ops = {**TORCH_OPS, "batch_norm": batch_statistics} if live else TORCH_OPS
        made = run(self.graph, dict(zip(names, inputs, strict=True)), ops=ops, known=self.known())
        outputs = tuple(made[name] for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def to_graph(self) -> Graph:
        """The graph with the weights and statistics as they are now."""
        now = {name: value.detach().cpu().numpy().copy() for name, value in self.held()}
        return self.graph.with_(constants={**self.graph.constants, **now})


def place(module: torch.nn.Module, name: str, value: torch.Tensor) -> tuple[torch.nn.Module, str]:
    """Where a tensor is kept: under its dotted name in nested modules, or, if that cannot be, under a name without dots."""
    *path, last = name.split(".")
    home: torch.nn.Module | None = module
    for part in path:
        home = nested(home, part) if home is not None else None
    if home is None or not last or hasattr(home, last):
        home, last = module, name.replace(".", "_")
        while hasattr(home, last):
            last += "_"
    if isinstance(value, torch.nn.Parameter):
        home.register_parameter(last, value)
    else:
        home.register_buffer(last, value)
    return home, last


def nested(home: torch.nn.Module, part: str) -> torch.nn.Module | None:
    """The module called `part` inside another, made if need be; None if something else has that name."""
    if part in home._modules:
        return home._modules[part]
    if not part or hasattr(home, part):
        return None
    home.add_module(part, torch.nn.Module())
    return home._modules[part]
