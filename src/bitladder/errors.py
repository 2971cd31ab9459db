"""The errors a user can meet.

    ValueError
    |-- Unsupported     a network holds something we have no word for
    `-- Malformed       a file is not what it says it is
        `-- Truncated   the file ends before what was asked for

Wrong arguments raise the built-in types. Every text has one shape: doing what, to which named thing, must be what,
got what, so do what.
"""

from typing import Any


class Unsupported(ValueError):
    """A network, format or operator that cannot be expressed here; the text names every one of them."""


class Malformed(ValueError):
    """A file whose bytes contradict themselves."""


class Truncated(Malformed):
    """A file that ends before the part that was asked for; `needed` is the number of bytes that would do."""

    def __init__(self, text: str, needed: int = 0):
        super().__init__(text)
        self.needed = needed


class Missing(ImportError):
    """An optional dependency that is not installed; the text says which extra brings it."""


def require(module: str, extra: str, doing: str) -> Any:
    """The imported `module`, or one line that says which extra brings it.

    >>> require("json", "torch", "load").__name__
    'json'
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        top = module.partition(".")[0]
        raise Missing(f"{doing}: needs {top}, which is not installed; run: pip install 'bitladder[{extra}]'") from None
