"""The fewest bits per layer that keep a network's accuracy, in one small file that runs at any precision.

>>> import bitladder as bl
>>> str(bl.parse("nested8:tree")), bl.Int(4, group=64).bits
('nested8:tree', 4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each name lives. Nothing is imported before it is used, so `import bitladder` costs next to nothing.
HOME = {
    "Model": "bitladder.model",
    "load": "bitladder.model",
    "diff": "bitladder.file.delta",
    "patch": "bitladder.file.delta",
    "Codebook": "bitladder.formats",
    "Fixed": "bitladder.formats",
    "Int": "bitladder.formats",
    "Log": "bitladder.formats",
    "Nested": "bitladder.formats",
    "Product": "bitladder.formats",
    "Ternary": "bitladder.formats",
    "parse": "bitladder.formats",
    "from_safetensors": "bitladder.recipe",
    "quantize": "bitladder.recipe",
    "finish": "bitladder.training",
    "prepare": "bitladder.training",
}

__all__ = [
    "Codebook",
    "Fixed",
    "Int",
    "Log",
    "Model",
    "Nested",
    "Product",
    "Ternary",
    "__version__",
    "diff",
    "finish",
    "from_safetensors",
    "load",
    "parse",
    "patch",
    "prepare",
    "quantize",
]

if TYPE_CHECKING:
    from bitladder.file.delta import diff, patch
    from bitladder.formats import Codebook, Fixed, Int, Log, Nested, Product, Ternary, parse
    from bitladder.model import Model, load
    from bitladder.recipe import from_safetensors, quantize
    from bitladder.training import finish, prepare


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"bitladder has no {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    value = getattr(import_module(HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
