"""What differs between two files, as a third: `diff` makes it, `patch` makes the second file of the first and it.

A delta names its base and its result by their SHA-256. Headers are edits of the base's; tensors that did not change are a word,
those of the same format and shape their differences, all others their parts as they are (docs/file-format.md, Deltas).
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitladder.codec.parts import CODERS, RAW, Part
from bitladder.disk import check_writable, replacing
from bitladder.errors import Malformed
from bitladder.file.container import DELTA, Kind, Reader, pack
from bitladder.file.edits import edit, edited, same
from bitladder.file.fields import Field, Tree, are_counts, is_count, is_row, is_text
from bitladder.file.source import of_bytes
from bitladder.file.taken import Net
from bitladder.file.units import CODER, Tile, Unit, in_order, slots
from bitladder.file.words import Words, bad

PARTS, DIFFERENCE = range(2)  # how a unit is told: by its parts, of which the base has the first, or by its difference
MOST_SEGMENTS = 64  # of a layer, besides the first
Where = str | os.PathLike[str]
Given = tuple[Tree, bytes]  # the header of a layer of a delta, and its bytes

ANY = Field(lambda x: True, "an edit")
FILE = Field(lambda x: isinstance(x, list) and [type(v) for v in x] == [int, bytes] and len(x[1]) == 32, "a length and a hash")
NUMBERS = Field(lambda x: isinstance(x, list) and all(k is None or is_count(k) for k in x), "a list of numbers or nulls")
UNITS = Field(
    lambda x: isinstance(x, list) and all(u is None or (isinstance(u, list) and all(map(are_counts, u))) for u in x),
    "a list of nulls and lists of lists of counts",
)
ROWS = Field(lambda x: isinstance(x, list) and len(x) == 1 and is_row(x[0]), "one length and checksum")
ROOT = {
    "base": FILE,
    "result": FILE,
    "coder": Field(lambda x: x is None or x in list(CODERS), f"null or one of {', '.join(CODERS)}"),
    "network": ANY,
    "layers": NUMBERS,
    "order": Field(lambda x: isinstance(x, bytes), "a string of bytes"),
    "policy": Field(is_text, "text"),
}
LAYER = {
    "name": Field(is_text, "text"),
    "base": Field(lambda x: x is None or is_count(x), "the number of a layer, or null"),
    "tree": ANY,
    "units": UNITS,
    "segments": ROWS,
}
KIND = Kind(DELTA, ROOT, LAYER)


@dataclass(frozen=True)
class Summary:
    """Bytes of base, result and delta, and the names of tensors by what became of them."""

    base: int
    result: int
    delta: int
    same: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


def diff(a: Where, b: Where, path: Where) -> Summary:
    """Write to `path` what `patch` needs to make the file `b` of the file `a`, whole or not at all."""
    check_writable(path)
    base, result = (Net.of(Path(p).read_bytes(), os.fspath(p)) for p in (a, b))
    data = delta(base, result)
    with replacing(path) as f:
        f.write(data)
    return summary(base, result, len(data))


def patch(a: Where, d: Where, path: Where) -> Summary:
    """Write to `path` the file that the delta `d` makes of the file `a`, whole or not at all: as `diff` saw it."""
    check_writable(path)
    base, change, name = Path(a).read_bytes(), Path(d).read_bytes(), os.fspath(d)
    data = patched(base, change, os.fspath(a), name)
    with replacing(path) as f:
        f.write(data)
    return summary(Net.of(base, os.fspath(a)), Net.of(data, name), len(change))


def summary(a: Net, b: Net, size: int) -> Summary:
    """What became of the tensors of `a` in `b`, with the bytes of the delta."""
    rows = [{e["name"]: e for k in range(len(net.reader.layers)) for e in net.outline(k)["tensors"]} for net in (a, b)]
    both = [n for n in rows[1] if n in rows[0]]
    kept = {n for n in both if same(rows[0][n], rows[1][n]) and agree(a, b, n)}
    return Summary(
        len(a.data),
        len(b.data),
        size,
        tuple(n for n in both if n in kept),
        tuple(n for n in both if n not in kept),
        tuple(n for n in rows[1] if n not in rows[0]),
        tuple(n for n in rows[0] if n not in rows[1]),
    )


def agree(a: Net, b: Net, name: str) -> bool:
    """Whether the numbers of a tensor are the same in both, however they are coded."""
    old, new = a.units(name), b.units(name)
    if {k: u.what for k, u in old.items()} != {k: u.what for k, u in new.items()}:
        return False
    return all(u.parts == new[k].parts or u.values.tobytes() == new[k].values.tobytes() for k, u in old.items())


# --------------------------------------------------------------------------------------------------------------- diff


def delta(a: Net, b: Net) -> bytes:
    """A delta that makes `b` of `a`: by tensors, or with `b` as it is where those cannot be written again or take more."""
    made = next((made for coder in coders(b) if (made := tried(a, b, coder)) is not None), None)
    return made if made is not None and len(made) <= len(b.data) else min(filter(None, (made, whole(a, b))), key=len)


def tried(a: Net, b: Net, coder: str) -> bytes | None:
    """A delta by tensors for a `b` written by `coder`, None if it does not lead to `b`."""
    try:
        made = difference(a, b, coder)
        return made if patched(a.data, made) == b.data else None
    except ValueError:
        return None


def coders(b: Net) -> list[str]:
    """The coders that may have written a file: those that know all codings of its codes."""
    coded = [unit for name in b.entries for unit in b.units(name).values() if isinstance(unit.what, Tile)]
    used = {part.coding for unit in coded for part in unit.parts} - {RAW}
    return [coder for coder, codings in CODERS.items() if used <= set(codings)]


def whole(a: Net, b: Net) -> bytes:
    """A delta that holds `b` as it is."""
    layer: Tree = {"name": "", "base": None, "tree": None, "units": []}
    return sealed(a, b, None, None, [], [(layer, b.data)])


def sealed(a: Net, b: Net, coder: str | None, network: Any, layers: Sequence[int | None], given: Sequence[Given]) -> bytes:
    """The bytes of a delta; `layers` names those that are the base's, `given` has the others."""
    ends = {"base": named(a.data), "result": named(b.data), "coder": coder, "network": network, "layers": list(layers)}
    trees, segments = [tree for tree, _ in given], [[body] for _, body in given]
    return pack({**ends, "policy": "layer"}, trees, segments, range(len(given)), CODER, DELTA)


def named(data: bytes) -> list[Any]:
    """What a file is known by: its length and its SHA-256."""
    return [len(data), hashlib.sha256(data).digest()]


def difference(a: Net, b: Net, coder: str) -> bytes:
    """A delta by tensors, for a `b` written by `coder`."""
    places = {layer["name"]: number for number, layer in enumerate(a.reader.layers)}
    layers: list[int | None] = []
    given: list[Given] = []
    for number, layer in enumerate(b.reader.layers):
        base = places.pop(layer["name"], None)
        change = edit({} if base is None else a.outline(base), b.outline(number))
        found = [told(a, b, tree["name"], coder) for tree in layer["tensors"]]
        if base is not None and change is None and all(row is None for row, _ in found):
            layers.append(base)
            continue
        layers.append(None)
        tree = {"name": layer["name"], "base": base, "tree": change, "units": [row for row, _ in found]}
        given.append((tree, b"".join(body for _, body in found)))
    return sealed(a, b, coder, edit(a.network, b.network), layers, given)


def told(a: Net, b: Net, name: str, coder: str) -> tuple[list[list[int]] | None, bytes]:
    """What a delta says of the units of a tensor, None if all are the base's; and the bytes that go with it."""
    old, new = a.units(name), b.units(name)
    if {k: u.parts for k, u in old.items()} == {k: u.parts for k, u in new.items()}:
        return None, b""
    found = [unit_told(old.get(key), unit, coder) for key, unit in new.items()]
    rows = [[*mode, *(n for part in parts for n in (part.coding, len(part.body)))] for mode, parts in found]
    return rows, b"".join(part.body for _, parts in found for part in parts)


def unit_told(base: Unit | None, unit: Unit, coder: str) -> tuple[list[int], list[Part]]:
    """How a unit is told, and the parts that go with it: what the base lacks, or the difference to it if that is less."""
    known = () if base is None else base.parts
    pairs = zip(known, unit.parts, strict=False)
    shared = next((k for k, (x, y) in enumerate(pairs) if x != y), min(len(known), len(unit.parts)))
    given = list(unit.parts[shared:])
    if given and base is not None and base.what == unit.what and unit.what.encode(unit.values, coder) == list(unit.parts):
        part = unit.what.difference(unit.values, base.values)
        if len(part.body) < sum(len(p.body) for p in given):
            return [DIFFERENCE], [part]
    return [PARTS, shared], given


# -------------------------------------------------------------------------------------------------------------- patch


def patched(base: bytes, change: bytes, a: str = "base", d: str = "delta") -> bytes:
    """The file that a delta makes of its base; `a` and `d` are what errors call them."""
    reader = Reader(of_bytes(change, d), kind=KIND)
    reader.require(reader.total)
    want, got = reader.network["base"], named(base)
    if want != got:
        need, has = (f"{size} bytes with SHA-256 {digest.hex()}" for size, digest in (want, got))
        raise Malformed(f"patch: {d!r} needs a base of {need}, got {a!r} of {has}; give the file that it was made from")
    try:
        data = rebuilt(Net.of(base, a), reader) if reader.network["coder"] else reader.segment(0, 0)
    except Malformed:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise bad(f"{d!r} says what does not fit its base") from None
    if named(data) != reader.network["result"]:
        need = reader.network["result"][1].hex()
        text = f"patch: {d!r} does not lead to the file with SHA-256 {need}: it is damaged, or another version wrote it"
        raise Malformed(f"{text}; fetch that file whole")
    return data


def rebuilt(a: Net, reader: Reader) -> bytes:
    """The file that a delta makes of `a`, not yet known to be the right one."""
    network, coder = edited(a.network, reader.network["network"]), reader.network["coder"]
    trees, bodies = list[Tree](), list[list[bytes]]()
    for tree, rows, body in layers_of(a, reader):
        trees.append(tree)
        bodies.append(filled(a, tree, rows, Words(body, f"layer {tree['name']!r}"), coder))
    return pack(network, trees, bodies, network["order"], coder)


def layers_of(a: Net, reader: Reader) -> Iterator[tuple[Tree, Sequence[Any] | None, bytes]]:
    """The outline of each layer of the result, what the delta says of its units, and the bytes that go with that.

    Each layer of the base serves once, each tensor comes once: so the result is no larger than base and delta allow.
    """
    given, unused, names = iter(range(len(reader.layers))), set(range(len(a.reader.layers))), set[str]()
    for number in reader.network["layers"]:
        at = next(given, None) if number is None else None
        layer: Tree = {"base": number, "tree": None, "units": None} if at is None else reader.layers[at]
        base = layer["base"]
        if base is not None:
            unused.remove(base)
        elif at is None:
            raise bad("a layer is named that is not there")
        tree = edited({} if base is None else a.outline(base), layer["tree"])
        found = [entry["name"] for entry in tree["tensors"]]
        if len(names | set(found)) != len(names) + len(found):
            raise bad(f"a tensor of layer {tree['name']!r} comes twice")
        names |= set(found)
        yield copy.deepcopy(tree), layer["units"], b"" if at is None else reader.segment(at, 0)
    if next(given, None) is not None:
        raise bad("a layer is not named")


def filled(a: Net, tree: Tree, rows: Sequence[Any] | None, words: Words, coder: str) -> list[bytes]:
    """The segments of a layer, whose parts get their codings and lengths in its header `tree`."""
    found: dict[int, bytes] = {}
    for entry, row in zip(tree["tensors"], [None] * len(tree["tensors"]) if rows is None else rows, strict=True):
        old, places = a.units(entry["name"]), slots(entry)
        told = [[PARTS, len(given)] for given in places.values()] if row is None else row
        for (key, given), (mode, *sizes) in zip(places.items(), told, strict=True):
            for place, part in zip(given, unit_parts(old.get(key), mode, sizes, words, coder), strict=True):
                place[1:] = [part.coding, len(part.body)]
                found[id(place)] = part.body
    words.end()
    everything = [part for entry in tree["tensors"] for part in in_order(entry)]
    last = max((segment for segment, _, _ in everything), default=0)
    if last > MOST_SEGMENTS:
        raise bad(f"layer {tree['name']!r} has a segment {last}, must be at most {MOST_SEGMENTS}")
    out: list[list[bytes]] = [[] for _ in range(1 + last)]
    for place in everything:
        out[place[0]].append(found[id(place)])
    return list(map(b"".join, out))


def unit_parts(base: Unit | None, mode: int, sizes: Sequence[int], words: Words, coder: str) -> Sequence[Part]:
    """The parts of a unit that is told in this way; what the base lacks comes next."""
    shared = sizes[0] if mode == PARTS else 0
    rest = sizes[1:] if mode == PARTS else sizes
    given = [Part(coding, words.take(size)) for coding, size in zip(rest[::2], rest[1::2], strict=True)]
    if base is None or mode == PARTS:
        return [*(base.parts[:shared] if base is not None else ()), *given]
    return base.what.encode(base.what.restored(given[0], base.values), coder)
