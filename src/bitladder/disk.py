"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SCRAP = re.compile(r"\.\d+\.[0-9a-f]{8}")  # what follows a file's name in that of its sibling
STALE = 3600  # seconds that a sibling was not written to before it is taken for one that a killed process left
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well; if it does not, nothing has changed.

    Bytes go to a sibling of `path`, reach the disk, and only then get its name. A full disk, an exception or Ctrl-C
    removes the sibling; one that a killed process left goes with the next write an hour later.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(folder + "/a") as f:
    ...         _ = f.write(b"all of it")
    ...     os.listdir(folder)
    ['a']
    """
    target = Path(os.path.realpath(path))
    check_writable(path)
    sweep(target)
    sibling = fresh_sibling(target)
    try:
        with open(sibling, "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(sibling, target)
    except BaseException as error:
        with suppress(OSError):
            sibling.unlink()
        if isinstance(error, OSError) and error.filename in (None, os.fspath(sibling)) and error.strerror:
            raise unwritten(path, error) from None
        raise
    try:
        sync_folder(target.parent)
    except OSError as error:
        text = f"write: {os.fspath(path)!r} is written, but may not outlive a power cut ({error.strerror}); check the disk"
        raise OSError(text) from None


def unwritten(path: str | os.PathLike[str], error: OSError) -> OSError:
    """The same error, saying what was not written and what to do."""
    advice = "make room or choose another place" if error.errno in FULL else "check the disk or choose another place"
    told = type(error)(f"write: {os.fspath(path)!r} cannot be written ({error.strerror}), nothing was changed; {advice}")
    told.errno = error.errno
    return told


def fresh_sibling(target: Path) -> Path:
    """A name beside `target` that no other process uses."""
    return target.with_name(f"{beside(target)}.{os.getpid()}.{secrets.token_hex(4)}")


def beside(target: Path) -> str:
    """How the names of all siblings of `target` begin."""
    return f".{target.name[:100]}"


def sweep(target: Path) -> None:
    """Remove the siblings of `target` that nothing has written to for an hour."""
    begin = beside(target)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(begin) and SCRAP.fullmatch(entry.name, len(begin)):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - STALE:
                        os.unlink(entry.path)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; where folders cannot be opened (Windows) or synced there is nothing to do."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        with suppress(OSError):
            os.close(handle)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Return if a file could be written at `path`; otherwise say in one line why not. Nothing is left behind."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"write: {os.fspath(path)!r} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"write: folder {os.fspath(target.parent)!r} does not exist; make it first")
    if target.exists() and not target.is_file():
        raise FileExistsError(
            f"write: {os.fspath(path)!r} is a device or a pipe, which a file would replace; give the name of a file"
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"write: {os.fspath(path)!r} is read-only; choose another name or allow writing to it")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        text = f"write: cannot write in folder {os.fspath(target.parent)!r} ({error.strerror}); choose another place"
        raise PermissionError(text) from None
