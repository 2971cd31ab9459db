"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well; if it does not, nothing has changed.

    Bytes go to a sibling of `path`, reach the disk, and only then get its name. A full disk, an exception or Ctrl-C
    removes the sibling.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(folder + "/a") as f:
    ...         _ = f.write(b"all of it")
    ...     os.listdir(folder)
    ['a']
    """
    target = Path(os.path.realpath(path))
    check_writable(path)
    sibling = fresh_sibling(target)
    try:
        with open(sibling, "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(sibling, target)
    except BaseException:
        with suppress(OSError):
            sibling.unlink()
        raise
    sync_folder(target.parent)


def fresh_sibling(target: Path) -> Path:
    """A name beside `target` that no other process uses."""
    return target.with_name(f".{target.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; where folders cannot be opened (Windows) there is nothing to do."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Return if a file could be written at `path`; otherwise say in one line why not. Nothing is left behind."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"write: {os.fspath(path)!r} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"write: folder {os.fspath(target.parent)!r} does not exist; make it first")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"write: {os.fspath(path)!r} is read-only; choose another name or allow writing to it")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        text = f"write: cannot write in folder {os.fspath(target.parent)!r} ({error.strerror}); choose another place"
        raise PermissionError(text) from None
