"""How near the embeddings of a sentence encoder of few bits stay to those in float: all-MiniLM-L6-v2 on real sentences.

Weights are quantized, words and places too; activations stay in float, or have 8 bits where it says
so. Sentences are the first ones of docstrings: those that count are of Python's standard library, those that it is calibrated
on are of NumPy and SciPy, one after the other.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bitladder as bl
from bench import minilm
from bench.options import Options, tell
from bench.result import Figure, Result, Row, machine, versions
from bench.source import LEFT_OUT
from bench.work import Work, digest
from bitladder import file
from bitladder.convert.to_torch import to_torch

SENTENCES, BATCH = 1000, 50
TOKENS = 64  # of a sentence, padding included
CALIBRATION = 512  # passages of as many tokens, sentence after sentence: padding would count as much as words do
TAKEN = 1600  # sentences of each package
OTHERS = ("numpy", "scipy")  # packages whose docstrings have them
FEWEST, MOST = 4, 40  # words of a sentence
FLOAT = {"a=*": "float"}
FOURS = {"*": "int4/32", "places*": "codebook4:squares"}  # a few columns of the places are far larger than all others
MAIN = "4 bits (int4 in groups of 32, places in codebooks), in sequence"
PLANS: dict[str, dict[str, Any]] = {
    "int8": {"plan": {"*": "int8", **FLOAT}, "rounding": "nearest"},
    "int4, nearest": {"plan": {"*": "int4", **FLOAT}, "rounding": "nearest"},
    "int4, groups of 32, nearest": {"plan": {"*": "int4/32", **FLOAT}, "rounding": "nearest"},
    MAIN: {"plan": {**FOURS, **FLOAT}, "rounding": "sequence", "effort": "best"},
    f"{MAIN}, activations int8": {"plan": FOURS, "rounding": "sequence", "effort": "best"},
}
GOALS = {8: ("int8", 0.999), 4: (MAIN, 0.99)}


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a source file, from its beginning to its end."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def first_sentences(root: Path) -> list[str]:
    """The different first sentences of the docstrings under a folder, in the order of its files; tests are left out."""
    files = [p for p in sorted(root.rglob("*.py")) if not set(p.relative_to(root).parts) & set(LEFT_OUT)]
    found: dict[str, None] = {}
    for path in files:
        for text in docstrings(path):
            sentence = " ".join(text.split("\n\n")[0].split()).partition(". ")[0]
            if FEWEST <= len(sentence.split()) <= MOST and sentence.isascii():
                found[sentence] = None
    return list(found)


def sentences(count: int = SENTENCES) -> list[str]:
    """Those of the standard library that count, evenly apart."""
    return evenly(first_sentences(Path(sysconfig.get_paths()["stdlib"])), count)


def others() -> str:
    """Those to calibrate on as one text, the packages taking turns; none of them is one that counts."""
    counts = set(sentences())
    roots = [Path(str(importlib.import_module(name).__file__)).parent for name in OTHERS]
    each = [evenly([s for s in first_sentences(root) if s not in counts], TAKEN) for root in roots]
    return " ".join(f"{s.rstrip('.')}." for turn in itertools.zip_longest(*each) for s in turn if s)


def evenly(texts: list[str], count: int) -> list[str]:
    """So many of them, evenly apart."""
    return [texts[i] for i in np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)]


def tokens(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and masks (sentences, tokens): padded, and what is longer is cut."""
    words = minilm.tokenizer()
    ids, mask = (np.zeros((len(texts), TOKENS), np.int64) for _ in range(2))
    for row, on, text in zip(ids, mask, texts, strict=True):
        found = words.encode(text).ids[:TOKENS]
        row[: len(found)], on[: len(found)] = found, 1
    return ids, mask


def embeddings(net: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An embedding of length one for each sentence."""
    parts = [tuple(torch.from_numpy(a[at : at + BATCH]) for a in (ids, mask)) for at in range(0, len(ids), BATCH)]
    with torch.inference_mode():
        out = torch.cat([net(*part) for part in parts]).double()
    return (out / out.norm(dim=1, keepdim=True)).numpy()


def rows(quick: bool = False) -> tuple[list[Row], dict[str, Figure]]:
    """Cosines, bytes and seconds of every plan, and the figures. Without the encoder's package nothing is measured.

    quick: only the plans that figures are of.
    """
    try:
        net, said, calibration = minilm.load(), tokens(sentences()), minilm.passages(CALIBRATION, TOKENS, others())
    except minilm.Missing as error:
        tell(str(error))
        return [], {f"minilm_cosine_{bits}": Figure.at_least(None, goal) for bits, (_, goal) in GOALS.items()}
    calib = dict(zip(("ids", "mask"), calibration, strict=True))
    about = digest(a.tobytes() for a in (*calibration, *said))
    work, wanted = Work.of("embeddings", PLANS, about), embeddings(net, *said)

    def made(name: str) -> np.ndarray:
        tell(f"minilm: {name}")
        model = bl.quantize(net, calib, **PLANS[name])
        found = embeddings(to_torch(model.graph).eval(), *said)
        return np.array([len(file.to_bytes(model.whole, "best")), *(found * wanted).sum(1)])

    names = [name for name, _ in GOALS.values()] if quick else list(PLANS)
    found = {name: work(f"minilm, {name}", lambda name=name: made(name)) for name in names}
    out = []
    for name, measured in found.items():
        cosines = measured.value[1:]
        half = 1.96 * float(cosines.std()) / len(cosines) ** 0.5
        out.append(Row(f"minilm, {name}, mean cosine of {len(cosines)} sentences to float", float(cosines.mean()), spread=half))
        out.append(Row(f"minilm, {name}, least cosine", float(cosines.min())))
        out.append(Row(f"minilm, {name}, bytes of the file", float(measured.value[0])))
        out.append(Row(f"minilm, {name}, processor seconds", measured.seconds))
    return out, {
        f"minilm_cosine_{bits}": Figure.at_least(float(found[name].value[1:].mean()), goal)
        for bits, (name, goal) in GOALS.items()
    }


def bench(options: Options) -> Result:
    """Every plan, rows and figures."""
    torch.set_num_threads(options.threads)
    found, figures = rows(options.quick)
    return Result("embeddings", tuple(found), figures, machine(options.threads, options.command), versions())
