"""A graph from a torch module: exported in eval mode with a free batch axis, one handler for each aten operator.

Programs are taken undecomposed: they keep conv2d, batch_norm, linear, layer_norm and scaled_dot_product_attention as
one node each. Only what has no handler is decomposed, and only a program that writes into views is made functional.
Constants keep their names in the module's `state_dict`; a value is called by the module that makes it
(`layer1.0.conv1`), or by module and operator where one module makes several (`layer1.0.add`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_leaves, tree_map

from bitladder.convert.aten import ATEN
from bitladder.convert.aten_math import dtype_text
from bitladder.convert.aten_shapes import shape_of
from bitladder.convert.build import Builder, Ref
from bitladder.errors import Unsupported
from bitladder.ir.graph import Graph, Value

FLOAT_MAX = np.finfo(np.float32).max
DEPTH = 4  # decompositions are made of operators that may need one themselves
VIEWS = ("slice", "select", "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "flatten", "expand", "chunk")


def from_torch(module: torch.nn.Module | ExportedProgram, example_inputs: Any = None) -> Graph:
    """The graph of `module`, which is exported on `example_inputs` (a tensor, a tuple, or a dict of arguments by name).

    Axis 0 of every input is free where the module allows it; where it does not, `meta["batch"]` says so.
    """
    if not isinstance(module, ExportedProgram):
        module, note = exported(module, example_inputs)
        return from_torch(module).with_(meta=note)
    program = functional(module)
    if missing := unknown(program):
        program, missing = decomposed(program, missing)
    if missing:
        raise Unsupported(refusal(missing))
    return imported(program)


def exported(module: torch.nn.Module, example: Any) -> tuple[ExportedProgram, dict[str, Any]]:
    """The exported program of `module` in eval mode, and a note for the graph's meta if its batch is fixed."""
    if example is None:
        raise TypeError("from_torch: needs example inputs to export a module; pass a tensor, a tuple, or a dict by name")
    args, kwargs = arguments(example)
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch warns about its own internals (flat weights of an LSTM, tree specs)
            return export(module, args, kwargs)
    finally:
        for m, training in modes.items():
            m.training = training


def export(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[ExportedProgram, dict[str, Any]]:
    """The program with a free batch axis, else with the example's sizes and a note that says why."""
    two_args, two_kwargs = tree_map(at_least_two, (args, kwargs))
    shapes = torch.export.ShapesCollection()
    for leaf in tensors(two_args, two_kwargs):
        shapes[leaf] = {0: Dim.AUTO}
    try:
        program = torch.export.export(module, two_args, two_kwargs, dynamic_shapes=shapes)
        firsts = [shape_of(val)[0] for val in given(program)]
        if any(isinstance(n, str) for n in firsts) and all(
            isinstance(n, str) or n == leaf.shape[0] for n, leaf in zip(firsts, tensors(args, kwargs), strict=True)
        ):
            return program, {}
        why = "the module asks for it"
    except Exception as error:  # whatever the exporter raises; a module that cannot be exported at all raises below
        why = str(error).strip().splitlines()[0]
    sizes = [tuple(leaf.shape) for leaf in tensors(args, kwargs)]
    return torch.export.export(module, args, kwargs), {"batch": f"fixed: exported for shapes {sizes} only, because {why}"}


def tensors(*tree: Any) -> list[torch.Tensor]:
    """The tensors with at least one axis among arguments."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.ndim]


def given(program: ExportedProgram) -> list[torch.Tensor]:
    """The tensors with at least one axis among a program's inputs, as the exporter saw them."""
    names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    return tensors([n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in names])


def arguments(example: Any) -> tuple[tuple, dict[str, Any]]:
    """Positional and named arguments from what a user gives as example."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def at_least_two(a: Any) -> Any:
    """`a` with two rows where it has one: an exporter takes a 1 for a fact."""
    return torch.cat([a, a]) if isinstance(a, torch.Tensor) and a.ndim and a.shape[0] == 1 else a


def functional(program: ExportedProgram) -> ExportedProgram:
    """`program` itself, or without writes where one goes into a view (a write into a whole value is only a new name)."""
    for node in program.graph.nodes:
        if node.op == "call_function" and writes(node.target):
            place = node.args[0]
            if word(place.target) in VIEWS or any(word(user.target) in VIEWS for user in place.users):
                return decompose(program, {})
    return program


def writes(target: Any) -> bool:
    """Whether an operator changes its first argument."""
    return isinstance(target, OpOverload) and target._schema.is_mutable


def decompose(program: ExportedProgram, table: dict) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(table)


def decomposed(program: ExportedProgram, missing: dict[str, list]) -> tuple[ExportedProgram, dict[str, list]]:
    """`program` with the operators that have no handler taken apart as far as torch knows how, and those still missing."""
    known = torch.export.default_decompositions()
    for _ in range(DEPTH):
        targets = {node.target for nodes in missing.values() for node in nodes if isinstance(node.target, OpOverload)}
        table = {t: known[t] for t in targets if t in known}  # not .get: the table is a dict in name only
        table |= {t: t.decompose for t in targets if t not in table and t._can_decompose()}
        if not table:
            break
        program = decompose(program, table)
        missing = unknown(program)
    return program, missing


def word(target: Any) -> str:
    """The key of an fx target in `ATEN`: an operator's name without namespace, overload and in-place mark.

    >>> word(torch.ops.aten.relu_.default)
    'relu'
    """
    if isinstance(target, str):
        return ""
    if not isinstance(target, OpOverload):
        return f"{target.__module__.strip('_')}.{target.__name__}" if hasattr(target, "__module__") else str(target)
    space, _, name = target._schema.name.partition("::")
    name = name if name.endswith("__") else name.removesuffix("_")
    return name if space == "aten" else f"{space}.{name}"


def unknown(program: ExportedProgram) -> dict[str, list]:
    """The nodes that nothing in `ATEN` can import, by operator."""
    out: dict[str, list] = {}
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "output") and (node.op != "call_function" or word(node.target) not in ATEN):
            out.setdefault(str(node.target), []).append(node)
    return out


def refusal(missing: Mapping[str, list]) -> str:
    listed = ", ".join(f"{op} ({len(nodes)}x, first at {nodes[0].name!r})" for op, nodes in sorted(missing.items()))
    return (
        f"from_torch: every operator of the program must be one that a graph has a word for, got {listed}; "
        "rewrite these in the module with other operators, or export the part of the network around them"
    )


def imported(program: ExportedProgram) -> Graph:
    """The graph of a program that holds known operators only."""
    build = Builder()
    env: dict[Any, Any] = {}
    inputs = placed(program, build, env)
    names = spoken(program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            build.begin(names[node])
            env[node] = called(build, node, env)
            if writes(node.target):
                env[node.args[0]] = env[node]
    return build.graph(inputs, returned(program, env))


def placed(program: ExportedProgram, build: Builder, env: dict[Any, Any]) -> tuple[Value, ...]:
    """The graph's inputs; constants go to the builder, and both are entered in `env`."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    held = {**program.state_dict, **program.constants}
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    inputs = []
    for node in nodes:
        val = node.meta.get("val")
        env[node] = val
        if specs[node.name].kind is InputKind.USER_INPUT and isinstance(val, torch.Tensor):
            ref = env[node] = Ref(build.free(node.name), shape_of(val), dtype_text(val.dtype))
            free = ("batch" if k == 0 and isinstance(n, str) else n for k, n in enumerate(shape_of(val)))
            inputs.append(Value(ref.name, ref.dtype, tuple(free)))
    for node in nodes:  # after the inputs, whose names are the user's
        spec = specs[node.name]
        if spec.kind is not InputKind.USER_INPUT and isinstance(tensor := held[spec.target], torch.Tensor):
            env[node] = build.tensor(spec.target, array(tensor))
    return tuple(inputs)


def array(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor's values in the dtype they have in a graph; infinities, as in masks, become the largest floats."""
    values = tensor.detach().cpu().to(getattr(torch, dtype_text(tensor.dtype)), copy=True).contiguous().numpy()
    return np.clip(values, -FLOAT_MAX, FLOAT_MAX) if values.dtype == np.float32 else values


def spoken(program: ExportedProgram) -> dict[Any, str]:
    """What to call the value of each node: by its module if that has one node, else by module and operator."""
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and word(n.target) in ATEN]
    paths = {n: path(n) for n in nodes}
    crowd = Counter(p for n, p in paths.items() if not word(n.target).startswith("operator."))
    out = {}
    for n, p in paths.items():
        op = word(n.target).rpartition(".")[2].strip("_")
        out[n] = (p if crowd[p] == 1 else f"{p}.{op}") if p else op
    return out


def path(node: Any) -> str:
    """The dotted path of the innermost module that a node belongs to."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    name = stack[-1][0] if stack else ""
    return "" if name.startswith("_empty") else name.partition("@")[0]


def called(build: Builder, node: Any, env: Mapping[Any, Any]) -> Any:
    """What a call makes: a `Ref`, a tuple of them, or a number."""
    args = torch.fx.node.map_arg(node.args, env.__getitem__)
    kwargs = torch.fx.node.map_arg(node.kwargs, env.__getitem__)
    made = node.meta.get("val")
    try:
        return shaped(ATEN[word(node.target)](build, bound(node.target, args, kwargs, made)), made)
    except Unsupported as error:
        raise Unsupported(f"from_torch: {node.target} at {node.name!r} {error}") from None


def shaped(value: Any, made: Any) -> Any:
    """What a handler gave, with the shapes that the exporter saw."""
    if isinstance(value, tuple | list):
        return tuple(shaped(v, m) for v, m in zip(value, made, strict=False))
    if isinstance(value, Ref) and isinstance(made, torch.Tensor):
        return replace(value, shape=shape_of(made), dtype=dtype_text(made.dtype))
    return value


class Args:
    """The arguments of one call by their names in the operator's schema, and `out`, what the exporter saw it make."""

    def __init__(self, given: Mapping[str, Any], out: Any):
        self.__dict__.update(given)
        self.out = out

    def __getattr__(self, name: str) -> Any:  # an argument that this overload does not have
        return None


def bound(target: Any, args: tuple, kwargs: Mapping[str, Any], made: Any) -> Args:
    """The arguments of a call with the schema's defaults filled in; for a plain function, `args` alone."""
    if not isinstance(target, OpOverload):
        return Args({"args": args}, made)
    schema = target._schema.arguments
    given = {a.name: a.default_value for a in schema if a.has_default_value()}
    given |= {a.name: value for a, value in zip(schema, args, strict=False)}
    return Args(given | dict(kwargs), made)


def returned(program: ExportedProgram, env: Mapping[Any, Any]) -> list[Ref]:
    """The values that the program gives its user, in order; changed buffers and plain numbers are left out."""
    node = next(n for n in program.graph.nodes if n.op == "output")
    specs = program.graph_signature.output_specs
    kept = [a for a, s in zip(node.args[0], specs, strict=True) if s.kind is OutputKind.USER_OUTPUT]
    refs = [env[a] for a in kept if isinstance(a, torch.fx.Node)]
    return [r for r in refs if isinstance(r, Ref)]
