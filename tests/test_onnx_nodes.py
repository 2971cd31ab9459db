"""Every operator that the importer claims passes every node test that ONNX ships, except those listed here with a reason."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from bitladder.convert.from_onnx import from_onnx  # noqa: E402
from bitladder.convert.onnx_spelt import REAL  # noqa: E402
from bitladder.convert.onnx_words import WORDS  # noqa: E402
from bitladder.ir.ops_elementwise import SMALL_INTS  # noqa: E402
from bitladder.runtime.reference import run  # noqa: E402

CLAIMED = frozenset(WORDS) | frozenset(op for op in REAL if "." not in op)
LEAST = 1510  # cases that pass; raise it when there are more

EXCLUDED = {  # a pattern for names of cases: why they need not pass
    r"FLOAT8|FLOAT4E|FLOAT6E|E8M0|float8|float4e|float6e|e4m3|e5m2|e2m1": "no integer stands behind floats of 8 bits and less",
    r"bf16|to_BFLOAT16|celu_bfloat16": "bfloat16 is computed in float32",
    r"string|STRING": "no strings",
    r"_sequence|_seq$|_seq_none$|optional|_opt$": "no sequences, no optional values",
    r"training(?!_default|_zero_ratio(_default)?(_mask)?$)|batchnorm.*training": "training",
}


def operators(case) -> set[str]:
    """The operators of a case, with their domain unless it is the standard one."""
    nodes = case.model.graph.node
    return {op for node in nodes for op in [f"{node.domain}.{node.op_type}" if node.domain else node.op_type]}


def excluded(case) -> bool:
    return any(re.search(pattern, case.name) for pattern in EXCLUDED)


@functools.cache
def cases() -> dict[str, list]:
    """The cases that are claimed, by the operator they are about: an expanded one belongs to what it expands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    subject = {c.name: next((n.op_type for n in c.model.graph.node if n.op_type != "Constant"), "Constant") for c in found}
    out: dict[str, list] = {}
    for case in found:
        base = re.sub(r"_expanded.*", "", case.name)
        kind = "excluded" if excluded(case) else "claimed" if operators(case) <= CLAIMED else "unclaimed"
        name = subject.get(base, subject[case.name])
        out.setdefault((name if name in CLAIMED else "expanded") if kind == "claimed" else f"({kind})", []).append(case)
    return out


def plain(value) -> np.ndarray:
    """An input or an expected output as we hold it."""
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    if array.dtype.name in SMALL_INTS:
        return array.astype(np.int8 if SMALL_INTS[array.dtype.name][1] else np.uint8)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def check(case) -> None:
    """Imports and runs a case."""
    graph = from_onnx(case.model)
    for inputs, outputs in case.data_sets:
        named = zip((v.name for v in case.model.graph.input), inputs, strict=False)
        made = run(graph, {name: plain(x) for name, x in named if x is not None})
        for value, expected in zip(case.model.graph.output, map(plain, outputs), strict=True):
            got = np.asarray(made[value.name])
            assert (got.shape, got.dtype) == (expected.shape, expected.dtype), case.name
            np.testing.assert_allclose(got, expected, case.rtol, case.atol, err_msg=case.name)


@pytest.mark.parametrize("op", [*sorted(CLAIMED), "expanded"])
def test_cases_of(op):
    """Every case of an operator passes."""
    failed = []
    for case in cases().get(op, []):
        try:
            check(case)
        except Exception as error:
            failed.append(f"{case.name}: {type(error).__name__} {' '.join(str(error).split())[:200]}")
    assert not failed, "\n".join(failed)


def test_how_many():
    """As many cases pass as ever did (each is checked above)."""
    counts = Counter({op: len(found) for op, found in cases().items()})
    out, unclaimed = counts.pop("(excluded)"), counts.pop("(unclaimed)")
    print(f"{counts.total()} pass, {out} excluded, {unclaimed} use operators that are not claimed")
    assert counts.total() >= LEAST
    assert sum(op not in CLAIMED for op in counts) <= 1
