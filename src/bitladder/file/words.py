"""Trees of plain values as bytes and back: whole numbers as varints, texts by their place in one table of strings.

A tree is what JSON could say, with exact numbers, infinities, NaN and strings of bytes. One value has one spelling.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bitladder.errors import Malformed

NULL, FALSE, TRUE, WHOLE, REAL, TEXT, LIST, MAP, BYTES = range(9)
NAN = bytes.fromhex("000000000000f87f")
DEEPEST = 32
LARGEST = 2**63
MOST_STRINGS = 2**20
MOST_TEXT = 2**16  # bytes of one string
MOST_VALUES = 2**20  # of a tree
MOST_HEARD = 2**26  # bytes of all texts in a tree, counted as often as they come
MOST_SHARED = 2**20  # bytes that all strings together may have beyond 16 times the bytes of their header


def bad(what: str) -> Malformed:
    return Malformed(f"load: {what}; the file is damaged")


# --------------------------------------------------------------------------------------------------------- writing


def varint(n: int) -> bytes:
    """A whole number from 0 to 2^64 - 1, seven bits a byte, the lowest first.

    >>> varint(0).hex(), varint(300).hex()
    ('00', 'ac02')
    """
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def zigzag(n: int) -> int:
    """Whole numbers of either sign as those from 0 up: 0, -1, 1, -2 are 0, 1, 2, 3.

    >>> zigzag(-2), zigzag(1)
    (3, 2)
    """
    return 2 * n if n >= 0 else -2 * n - 1


def plain(value: Any, where: str) -> Any:
    """`value` as a tree; numpy scalars and small arrays become numbers and lists; `where` names it in errors.

    >>> plain((1, np.float32(0.5)), "node 'y'")
    [1, 0.5]
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if not -LARGEST <= value < LARGEST:
            raise ValueError(f"save: {where} holds {value}, must fit in 64 bits")
        return int(value)
    if isinstance(value, str):
        return written(value, where)
    if isinstance(value, tuple | list):
        return [plain(v, where) for v in value]
    if isinstance(value, Mapping):
        if odd := [k for k in value if not isinstance(k, str)]:
            raise ValueError(f"save: {where} holds a mapping with the key {odd[0]!r}, keys must be text")
        return {written(k, where): plain(v, where) for k, v in value.items()}
    raise ValueError(f"save: {where} holds a {type(value).__name__}, must be numbers, text, lists and mappings")


def written(text: str, where: str) -> str:
    """`text`, if it can be written."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"save: {where} holds the text {text[:40]!r}, which is not Unicode; mend it") from None
    if size > MOST_TEXT:
        raise ValueError(f"save: {where} holds a text of {size} bytes, must be at most {MOST_TEXT}; shorten it")
    return str(text)


def strings(trees: Iterable[Any]) -> list[str]:
    """Every text in some trees once, rising."""
    found: set[str] = set()
    level = list(trees)
    while level:
        found.update(v for v in level if isinstance(v, str))
        found.update(k for v in level if isinstance(v, Mapping) for k in v)
        level = [x for v in level if isinstance(v, list | Mapping) for x in (v.values() if isinstance(v, Mapping) else v)]
    return sorted((written(text, "a name") for text in found), key=str.encode)


def table(texts: Sequence[str]) -> bytes:
    """A table of rising strings, each by what it shares with the one before.

    >>> table(["conv1", "conv2"]).hex(" ")
    '02 00 05 63 6f 6e 76 31 04 01 32'
    """
    out = bytearray(varint(len(texts)))
    before = b""
    for text in texts:
        data = text.encode()
        shared = next((k for k, (a, b) in enumerate(zip(before, data, strict=False)) if a != b), min(len(before), len(data)))
        out += varint(shared) + varint(len(data) - shared) + data[shared:]
        before = data
    return bytes(out)


def tree(value: Any, index: Mapping[str, int]) -> bytes:
    """The bytes of a tree whose texts have the places `index`."""
    out = bytearray()
    spell(value, index, out)
    return bytes(out)


def spell(value: Any, index: Mapping[str, int], out: bytearray) -> None:
    if value is None:
        out.append(NULL)
    elif isinstance(value, bool):
        out.append(TRUE if value else FALSE)
    elif isinstance(value, int):
        out += bytes([WHOLE]) + varint(zigzag(value))
    elif isinstance(value, float):
        out += bytes([REAL]) + (NAN if math.isnan(value) else struct.pack("<d", value))
    elif isinstance(value, str):
        out += bytes([TEXT]) + varint(index[value])
    elif isinstance(value, bytes):
        out += bytes([BYTES]) + varint(len(value)) + value
    elif isinstance(value, Mapping):
        out += bytes([MAP]) + varint(len(value))
        for place, key in sorted((index[k], k) for k in value):
            out += varint(place)
            spell(value[key], index, out)
    else:
        out += bytes([LIST]) + varint(len(value))
        for v in value:
            spell(v, index, out)


# --------------------------------------------------------------------------------------------------------- reading


class Words:
    """Bytes that are read from the first to the last; `what` names them in errors."""

    def __init__(self, data: bytes, what: str, texts: Sequence[str] = ()):
        self.data, self.what, self.texts, self.at = data, what, texts, 0
        self.values = self.heard = 0  # how many there were, and bytes of text in them

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise bad(f"{self.what} ends after {len(self.data)} bytes, must have {self.at + size} at least")
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        """The next whole number, in its shortest form."""
        n = shift = 0
        while True:
            byte = self.take(1)[0]
            n |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 63:
                raise bad(f"{self.what} has a number of more than ten bytes")
        if (byte == 0 and shift) or n >= 2**64:
            raise bad(f"{self.what} has a number that is not in its shortest form, or above 64 bits")
        return n

    def count(self, least: int) -> int:
        """The number of things to come, of at least `least` bytes each."""
        n = self.varint()
        if n * least > self.left:
            raise bad(f"{self.what} has a list of {n}, more than the {self.left} bytes that are left can hold")
        return n

    def text(self) -> str:
        """The string whose place comes next."""
        place = self.varint()
        if place >= len(self.texts):
            raise bad(f"{self.what} names string {place}, must be below {len(self.texts)}")
        text = self.texts[place]
        self.heard += len(text) if text.isascii() else len(text.encode())
        if self.heard > MOST_HEARD:
            raise bad(f"{self.what} has more than {MOST_HEARD} bytes of text")
        return text

    def value(self, depth: int = 1) -> Any:
        """The next value."""
        if depth > DEEPEST:
            raise bad(f"{self.what} is nested more than {DEEPEST} deep")
        self.values += 1
        if self.values > MOST_VALUES:
            raise bad(f"{self.what} has more than {MOST_VALUES} values")
        tag = self.take(1)[0]
        if tag >= len(READ):
            raise bad(f"{self.what} has a value of kind {tag}, must be below {len(READ)}")
        return READ[tag](self, depth)

    def whole(self) -> int:
        """The next whole number of either sign."""
        n = self.varint()
        return n // 2 if n % 2 == 0 else -(n + 1) // 2

    def real(self) -> float:
        """The next double."""
        data = self.take(8)
        value: float = struct.unpack("<d", data)[0]
        if math.isnan(value) and data != NAN:
            raise bad(f"{self.what} has a NaN of another spelling than {NAN.hex()}")
        return value

    def map(self, depth: int) -> dict[str, Any]:
        """The values by name of the next map."""
        out: dict[str, Any] = {}
        last: str | None = None
        for _ in range(self.count(2)):
            key = self.text()
            if last is not None and key <= last:
                raise bad(f"{self.what} has keys that do not rise, or one twice")
            out[key] = self.value(depth + 1)
            last = key
        return out

    def end(self) -> None:
        """Return if nothing is left."""
        if self.left:
            raise bad(f"{self.what} has {self.left} bytes after its end")


READ: tuple[Callable[[Words, int], Any], ...] = (
    lambda words, depth: None,
    lambda words, depth: False,
    lambda words, depth: True,
    lambda words, depth: words.whole(),
    lambda words, depth: words.real(),
    lambda words, depth: words.text(),
    lambda words, depth: [words.value(depth + 1) for _ in range(words.count(1))],
    lambda words, depth: words.map(depth),
    lambda words, depth: words.take(words.count(1)),
)


def read_table(words: Words) -> list[str]:
    """The strings of the table that comes next; together no more than a small multiple of all its bytes."""
    count, room = words.count(2), MOST_SHARED + 16 * len(words.data)
    if count > MOST_STRINGS:
        raise bad(f"{words.what} has {count} strings, must be at most {MOST_STRINGS}")
    out: list[str] = []
    before = b""
    for number in range(count):
        shared, rest = words.varint(), words.varint()
        if shared > len(before) or shared + rest > MOST_TEXT or (room := room - shared - rest) < 0:
            raise bad(f"string {number} of {words.what} shares {shared} bytes and adds {rest}, which is too much")
        data = before[:shared] + words.take(rest)
        if number and (data <= before or data[shared : shared + 1] == before[shared : shared + 1]):
            raise bad(f"string {number} of {words.what} does not rise, or could share more with the one before")
        try:
            out.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise bad(f"string {number} of {words.what} is not UTF-8") from None
        before = data
    return out


def read_tree(words: Words) -> Any:
    """The tree that comes next and is the last thing there."""
    value = words.value()
    words.end()
    return value
