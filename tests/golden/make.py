"""Makes the golden files that are not there yet, with what they compute: `python tests/golden/make.py`.

A golden file is never made again: every later version must read it and compute the same. `--anew` makes all of them, before a
release only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "src"), str(HERE.parent)]

from networks import odd_graph  # noqa: E402

from bench.robust.subjects import chain, small  # noqa: E402
from bitladder import file  # noqa: E402
from bitladder.codec.parts import CODERS  # noqa: E402
from bitladder.file import delta  # noqa: E402
from bitladder.file.writing import to_file  # noqa: E402
from bitladder.formats import QTensor, parse  # noqa: E402
from bitladder.ir.graph import Graph  # noqa: E402
from bitladder.runtime.reference import run  # noqa: E402

UNIFORM = ("int8", "int5/tensor", "uint4", "fixed6", "fixed8/tensor", "q2.5", "ternary", "ternary/tensor")
FLOATS = ("int4/3", "float")  # weights whose sums are floats: answers are near, not the same
NESTED = ("nested8", "nested6:tree", "nested5:sign", "nested4/tensor", "nested1")
LATER = ("codebook4", "codebook3/tensor", "log4", "product4x16")  # written once there are such formats
DELTAS = {"changed": "plane-best"}  # files that also are the difference against another one
MOST = 6000


def known(text: str) -> bool:
    """Whether there is such a format."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def gains(graph: Graph) -> dict[tuple[str, int], float]:
    """Made up: every plane is worth a quarter of the one before, and later weights are worth more."""
    tensors = [(n, c) for n, c in graph.constants.items() if isinstance(c, QTensor) and hasattr(c.format, "at")]
    return {(n, p): (1 + i) * 0.25**p for i, (n, c) in enumerate(tensors) for p in range(1, c.format.bits + 1)}


def bytes_of(graph: Graph, coder: str, order: str = "plane", **options: int) -> bytes:
    """The file of a network."""
    return to_file(graph, coder, order, gains(graph) if order == "importance" else None, **options)


def wanted() -> dict[str, Callable[[], bytes]]:
    """What makes each golden file."""
    nested = small(formats=("nested8", "nested6:tree", "nested5:sign"), least=3)
    changed = nested.with_(constants={**nested.constants, "b3": nested.constants["b3"] * np.float32(1.5)})  # type: ignore[operator]
    out: dict[str, Callable[[], bytes]] = {
        f"{order}-{coder}": lambda order=order, coder=coder: bytes_of(nested, coder, order)  # type: ignore[misc]
        for order, coder in (("plane", "best"), ("plane", "raw"), ("layer", "fast"), ("importance", "best"))
    }
    for coder in CODERS:
        out[f"uniform-{coder}"] = lambda coder=coder: bytes_of(chain(UNIFORM), coder)  # type: ignore[misc]
        out[f"nested-{coder}"] = lambda coder=coder: bytes_of(chain(NESTED), coder)  # type: ignore[misc]
    out["changed"] = lambda: bytes_of(changed, "best")
    out["tiles"] = lambda: bytes_of(chain(("nested3", "int4"), seed=1), "best", tile=24)
    out["floats"] = lambda: bytes_of(chain(FLOATS, seed=3), "best")
    out["odd"] = lambda: bytes_of(odd_graph(), "best")
    for text in filter(known, LATER):
        out[f"format-{text.replace('/', '-')}"] = lambda text=text: bytes_of(chain((text, "int8"), seed=2), "best")  # type: ignore[misc]
    return out


def inputs(graph: Graph) -> dict[str, np.ndarray]:
    """What a golden network is asked: three samples, free axes being their number."""
    rng = np.random.default_rng(7)
    shapes = {v.name: [3 if isinstance(n, str) else n for n in v.shape or ()] for v in graph.inputs}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def answers(graph: Graph) -> dict[str, np.ndarray]:
    """What the reference computes, by output and width."""
    widths = range(1, 9)
    return {f"{k} at {b}": np.asarray(v) for b in widths for k, v in run(graph.at(b), inputs(graph)).items()}


def main() -> None:
    notes = HERE / "expected.json"
    said = json.loads(notes.read_text()) if notes.exists() and "--anew" not in sys.argv else {}
    for name, make in wanted().items():
        if name in said:
            continue
        data = make()
        assert len(data) <= MOST, f"{name} has {len(data)} bytes, must have at most {MOST}"
        (HERE / f"{name}.ladder").write_bytes(data)
        said[name] = {"bytes": len(data), "identity": file.identity(data), "sha256": hashlib.sha256(data).hexdigest()}
        if name != "odd":  # which is not for running
            np.savez_compressed(HERE / f"{name}.npz", **answers(file.load(data)))
        print(f"{name}: {len(data)} bytes")
    for name, base in DELTAS.items():
        if not (path := HERE / f"{name}.delta").exists() or "--anew" in sys.argv:
            delta.diff(HERE / f"{base}.ladder", HERE / f"{name}.ladder", path)
            print(f"{path.name}: {path.stat().st_size} bytes")
    notes.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
