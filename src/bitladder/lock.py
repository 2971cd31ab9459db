"""Lock files: what a network was made of, with what, and which bytes came out, so that making it again can be held to them.

A lock is JSON: the recipe, hashes of the network and of the data as they were read, versions, and the SHA-256 of the file.
Paths, times and names are not in it. The machine is, but only to be told: another one may well make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bitladder import __version__, file, native
from bitladder.disk import replacing
from bitladder.ir.graph import Graph

VERSION = 1
PACKAGES = ("numpy", "torch", "scipy")  # that compute
SHORT = 12  # letters of a hash that a line shows
SECTIONS = ("recipe", "inputs", "versions")
UNMADE = "to be measured"  # of a table that is not there yet


def beside(path: str) -> str:
    """The lock that goes with a recipe or a file.

    >>> beside("some/recipe.yaml")
    'some/recipe.lock'
    """
    return str(Path(path).with_suffix(".lock"))


def lock(
    recipe: Mapping[str, Any], net: Graph, data: Mapping[str, Mapping[str, np.ndarray]], table: str | None = None
) -> dict[str, Any]:
    """What a file will be made of; `made` is not in it yet. data: arrays by name, of calibration, evaluation and so on.

    table: the file of a sensitivity table, which may be made only later.
    """
    hashes = {"network": hash_of_graph(net), **{name: hash_of_arrays(arrays) for name, arrays in data.items()}}
    found = {
        "lock": VERSION,
        "seed": recipe.get("seed", 0),
        "recipe": dict(recipe),
        "inputs": hashes if table is None else {**hashes, "table": hash_of_table(table)},
        "versions": versions(),
        "machine": machine(),
    }
    return json.loads(json.dumps(found))  # as it will be read


def versions() -> dict[str, str]:
    """Versions of what computes, and on how many threads."""
    found = {"bitladder": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {"threads": str(threads())}


def threads() -> int:
    """How many threads sums of floats are shared among, which decides their last digits."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else os.cpu_count() or 1


def machine() -> str:
    """What kind of machine this is."""
    return f"{platform.system()} {platform.machine()} {native.isas()[0] if native.core else 'without native core'}"


def hash_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays by name: of their types, shapes and bytes."""
    h = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        h.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        h.update(np.ascontiguousarray(array).data if array.size else b"")
    return h.hexdigest()


def hash_of_graph(graph: Graph) -> str:
    """The SHA-256 of a float network: of the file that it would be as it is."""
    return hashlib.sha256(file.to_bytes(graph)).hexdigest()


def hash_of_table(path: str) -> str:
    """The SHA-256 of the file of a table, or that there is none yet."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else UNMADE


# ------------------------------------------------------------------------------------------------------------- files


def read(path: str) -> dict[str, Any]:
    """What a lock file says."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"locked: {path!r} does not exist; make it with --lock") from None
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"locked: {path!r} is no lock file ({why}); make it again with --lock") from None
    sections = (*SECTIONS, "made")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in sections):
        raise ValueError(f"locked: {path!r} is no lock file, it must have {', '.join(sections)}; make it again with --lock")
    if found.get("lock") != VERSION:
        raise ValueError(f"locked: {path!r} is of version {found.get('lock')!r}, must be {VERSION}; make it again with --lock")
    return found


def write(path: str, found: Mapping[str, Any], made: str | os.PathLike[str], table: str | None = None) -> None:
    """Write the lock of a file that was made. table: that of a table which may have been measured for it."""
    data = Path(made).read_bytes()
    if table is not None:
        found = {**found, "inputs": {**found["inputs"], "table": hash_of_table(table)}}
    text = json.dumps({**found, "made": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}, indent=2)
    with replacing(path) as f:
        f.write(f"{text}\n".encode())


def check(path: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Return if what a file will be made of is what the lock says."""
    if found := list(differences(then, now)):
        raise ValueError(f"locked: {path!r} differs in {'; '.join(found)}; put it back, or make a new lock with --lock")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs, each in some words."""
    for section in SECTIONS:
        before, after = then[section], now[section]
        for key in [*before, *(k for k in after if k not in before)]:
            if before.get(key) != after.get(key):
                yield f"{section} {key}: {shown(before.get(key))} in the lock, {shown(after.get(key))} here"


def shown(value: Any) -> str:
    """A value of a lock, hashes short."""
    if value is None:
        return "nothing"
    said = value if isinstance(value, str) else json.dumps(value)
    return said[:SHORT] + ("..." if len(said) == 64 else "") if len(said) >= 64 else said


def check_made(path: str, then: Mapping[str, Any], now: Mapping[str, Any], made: str | os.PathLike[str]) -> None:
    """Return if the file that was made has the bytes of the lock."""
    got, must = hashlib.sha256(Path(made).read_bytes()).hexdigest(), str(then["made"].get("sha256"))
    if got != must:
        where = "" if then.get("machine") == now["machine"] else f" (made on {then.get('machine')}, this is {now['machine']})"
        raise ValueError(
            f"locked: the file must have SHA-256 {shown(must)} as {path!r} says, got {shown(got)} of the same recipe, inputs "
            f"and versions{where}; it is kept as {os.fspath(made)!r}, make a new lock with --lock"
        )
