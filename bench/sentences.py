"""Coders on the sentence encoder all-MiniLM-L6-v2: 22.7 million weights, for speed and the weight of headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from bench import coded, minilm, nncodec
from bench.coded import Codes, Speed, code_rows
from bench.environment import Unavailable
from bench.options import Options, tell
from bench.result import Row
from bitladder.convert.from_torch import from_torch
from bitladder.formats import Format, Int, Nested
from bitladder.ir.rewrite import simplify

QPS = (-28, -24, -20)
PLANS: dict[str, Format] = {"int4": Int(4), "int8": Int(8), "nested8": Nested(8, matter={8: 1.0})}
TOKENS, PASSAGES = 128, {True: 16, False: 64}


@dataclass
class Measured:
    """Weights a second by coder and plan, and which share of a 4-bit file is no part of any layer."""

    speeds: dict[str, float] = field(default_factory=dict)
    header: float | None = None


def matrices(quick: bool) -> dict[str, np.ndarray]:
    """The weights that are quantized; quick: without the embedding of words, which is half of them."""
    given = {n: np.asarray(w) for n, w in minilm.load().state_dict().items() if w.ndim > 1 and w.is_floating_point()}
    return {n: w for n, w in given.items() if not (quick and n.startswith("words"))}


def similarity(arrays: Mapping[str, np.ndarray], count: int) -> float:
    """The mean cosine between embeddings of passages with these arrays and with those the encoder came with."""
    ids, mask = (torch.from_numpy(a) for a in minilm.passages(count, TOKENS))
    net = minilm.load()
    with torch.inference_mode():
        wanted = net(ids, mask)
        net.load_state_dict({**net.state_dict(), **{n: torch.from_numpy(np.array(w)) for n, w in arrays.items()}})
        return float((wanted * net(ids, mask)).sum(1).mean())


def ours(quick: bool) -> Iterator[tuple[str, dict[str, Codes], dict[str, Speed], float]]:
    """By plan: the codes nearest to the weights, coded, and how near the embeddings are to those in float."""
    weights = matrices(quick)
    for name, fmt in PLANS.items():
        tell(f"minilm: {name}")
        tensors = coded.rounded(weights, fmt)
        codes = {n: coded.codes_of(t) for n, t in tensors.items()}
        yield name, codes, coded.speeds(codes), similarity({n: t.decode() for n, t in tensors.items()}, PASSAGES[quick])


def peer(qp: int, quick: bool) -> list[Row]:
    """NNCodec on the same matrices: bits a weight of the stream, seconds, cosine."""
    tell(f"minilm: NNCodec at qp {qp}")
    weights = matrices(quick)
    count = sum(w.size for w in weights.values())
    made = nncodec.code(weights, {"use_dq": True, "qp": qp}, repeats=1)
    found = {
        "bits a weight": 8 * made.bytes / count,
        "cosine to float": similarity(made.weights, PASSAGES[quick]),
        "encode, s": made.encode,
        "decode, s": made.decode,
        "decode, million weights a second": count / made.decode / 1e6,
    }
    return [Row(f"minilm, {word}", None, value, f"NNCodec, dq, qp {qp}") for word, value in found.items()]


def header() -> float:
    """The share of a file of 4-bit codes (about 10 MB) that is prelude, tables and headers."""
    ids, mask = (torch.from_numpy(a) for a in minilm.passages(1, TOKENS))
    graph = simplify(from_torch(minilm.load(), (ids, mask)))
    weights = {name: np.asarray(graph.constants[name]) for name, _ in graph.weights()}
    data = coded.file_bytes(graph.with_(constants={**graph.constants, **coded.rounded(weights, Int(4))}))
    return coded.header_bytes(data) / len(data)


def rows(options: Options) -> tuple[list[Row], Measured]:
    """Every row, and what figures need. Without the encoder's package nothing is measured."""
    found, made = Measured(), []
    try:
        for name, codes, speeds, near in ours(options.quick):
            count = sum(c.codes.size for c in codes.values())
            found.speeds |= {f"{coder}_{name}": count / s.decode for coder, s in speeds.items()}
            made += code_rows(f"minilm, {name}", codes, speeds)
            made.append(Row(f"minilm, {name}, cosine to float", near))
        found.header = header()
        made.append(Row("minilm, int4, prelude and headers over the file", found.header))
        for qp in QPS[1:2] if options.quick else QPS:
            made += peer(qp, options.quick)
    except minilm.Missing as error:
        tell(str(error))
    except Unavailable as error:
        made.append(Row("minilm, bits a weight", None, None, str(error)))
    return made, found
