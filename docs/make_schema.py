"""Writes docs/recipe.schema.json from the signature of `quantize`; a test holds the two together."""

from __future__ import annotations

import json
from pathlib import Path

from bitladder.recipes import schema

FILE = Path(__file__).with_name("recipe.schema.json")


def text() -> str:
    """The whole file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"wrote {FILE}")
