"""A small language model of code, and the code it learns: the standard library of the Python that runs this, byte by byte."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Tensor = Any
LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "turtledemo")
SYMBOLS = 128  # bytes beyond ASCII are the last one
APART, CHOOSE, TEST = 9, 7, 4  # of so many files, those to choose settings by and those to report on


@dataclass(frozen=True)
class Code:
    """Source text as bytes: what is learned from, other files to choose settings by, and others again to report on."""

    learn: np.ndarray
    choose: np.ndarray
    test: np.ndarray


def code(least: int = 0) -> Code:
    """The standard library's source, file by file in the order of names; the same for the same Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in sorted(root.rglob("*.py")) if not set(p.relative_to(root).parts) & set(LEFT_OUT)]
    texts = [np.minimum(np.frombuffer(p.read_bytes() + b"\n", np.uint8), SYMBOLS - 1) for p in files]
    if not texts:
        raise FileNotFoundError(f"bench: Python source must be found in {root}, got none; install Python's standard library")
    learn = [t for i, t in enumerate(texts) if i % APART not in (CHOOSE, TEST)]
    return Code(np.concatenate(learn), *(np.concatenate(texts[at::APART]) for at in (CHOOSE, TEST)))


def batches(text: np.ndarray, steps: range, batch: int, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One batch for each step, at places drawn by seed and step: step s needs no history."""
    for step in steps:
        draw = np.random.Generator(np.random.Philox(key=[seed, step]))
        starts = draw.integers(0, len(text) - length - 1, batch)
        rows = torch.from_numpy(np.stack([text[at : at + length + 1] for at in starts]).astype(np.int64))
        yield rows[:, :-1], rows[:, 1:]


class Block(nn.Module):
    """Attention to what came before, then two layers, each added to what it read."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(b, n, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Writer(nn.Module):
    """The next byte of source text; the table of bytes is read and written with (tied)."""

    def __init__(self, width: int, layers: int, length: int, heads: int = 4):
        super().__init__()
        self.bytes, self.places = nn.Embedding(SYMBOLS, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, SYMBOLS, bias=False)
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)
        self.head.weight = self.bytes.weight

    def forward(self, text: Tensor) -> Tensor:
        x = self.bytes(text) + self.places(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def loss(said: Tensor, text: Tensor) -> Tensor:
    """Nats per byte."""
    return F.cross_entropy(said.flatten(0, 1), text.flatten())


def nats(say: Any, text: np.ndarray, length: int, rows: int) -> np.ndarray:
    """Nats per byte in each of `rows` stretches of text, evenly apart; the first quarter of a stretch is only read."""
    starts = np.linspace(0, len(text) - length - 1, rows).astype(int)
    x = torch.from_numpy(np.stack([text[at : at + length + 1] for at in starts]).astype(np.int64))
    with torch.no_grad():
        parts = []
        for part in x.split(32):
            lost = F.cross_entropy(say(part[:, :-1]).transpose(1, 2), part[:, 1:], reduction="none")
            parts.append(lost[:, length // 4 :].mean(1).double())
    return torch.cat(parts).numpy()


def completed(say: Any, begun: str, more: int, length: int) -> str:
    """`begun` with the likeliest next bytes."""
    text = torch.tensor([list(begun.encode("ascii"))])
    for _ in range(more):
        with torch.no_grad():
            said = say(text[:, -length:])
        text = torch.cat([text, said[:, -1:].argmax(-1)], 1)
    return bytes(text[0].tolist()).decode("ascii")
