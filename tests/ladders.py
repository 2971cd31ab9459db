"""Files taken apart, changed and put together again with checksums that are right: what tests of readers need."""

import zlib

import numpy as np

from bitladder import file
from bitladder.codec import dense, parts, planes
from bitladder.file.container import Reader, seal, texts
from bitladder.file.words import Words


def apart(data):
    """A file as one tree: `network`, `layers`, and `bodies`, its segments in the order of the file."""
    reader = Reader(file.source(data))
    words, left = Words(reader.network["order"], "order"), [iter(rows) for rows in reader.segments]
    rows = []
    while words.left:
        rows.append(next(left[words.varint()]))
    return {"network": reader.network, "layers": reader.layers, "bodies": [data[s.begin : s.end] for s in rows]}


def together(tree, **prelude):
    """The file of such a tree, whatever it says; `prelude`: minor version and flags."""
    return seal(*texts(tree["network"], tree["layers"]), tree["bodies"], **prelude)


def changed(data, change, **prelude):
    """A file with its trees changed by a function."""
    tree = apart(data)
    change(tree)
    return together(tree, **prelude)


def setting(*keys, value):
    """A change of one place in a tree."""

    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


def removing(*keys):
    """A change that takes one place away."""

    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


def pair(body, before):
    """Bytes xor those they are near to."""
    return bytes(a ^ b for a, b in zip(body, before, strict=True)) if before else body


def with_codings(monkeypatch):
    """One coding of every kind, made of zlib, so that coded parts are tested whatever coders there are."""

    def plane(codes, bits, p, sign):
        return zlib.compress(planes.to_planes(codes, bits)[p])

    def with_plane(body, codes, number, sign):
        return codes << 1 | planes.from_planes([unzipped(body)], 1, codes.size).reshape(codes.shape)

    def raw(a):
        return None if a is None else a.tobytes()

    monkeypatch.setattr(parts, "CODERS", {**parts.CODERS, "best": (parts.BEST,)})
    monkeypatch.setattr(parts, "WORTH", 1000.0)
    for table, pair_of in (
        (
            parts.CODES,
            (
                lambda codes, kind: zlib.compress(dense.pack(codes, kind.bits)),
                lambda body, grid, kind: dense.unpack(unzipped(body), kind.bits, grid.size, kind.low < 0),
            ),
        ),
        (parts.PLANES, (plane, with_plane)),
        (
            parts.NUMBERS,
            (
                lambda a, before: zlib.compress(pair(a.tobytes(), raw(before))),
                lambda body, dtype, count, before: np.frombuffer(pair(unzipped(body), raw(before)), dtype),
            ),
        ),
        (
            parts.TEXT,
            (
                lambda text, before: compressed(text, before),
                lambda body, length, before: exactly(decompressed(body, before), length),
            ),
        ),
    ):
        monkeypatch.setitem(table, parts.BEST, pair_of)


def compressed(text, before):
    z = zlib.compressobj(zdict=before[-32768:] or b"0")
    return z.compress(text) + z.flush()


def decompressed(body, before):
    try:
        return zlib.decompressobj(zdict=before[-32768:] or b"0").decompress(body)
    except zlib.error as error:
        raise ValueError(str(error)) from None


def unzipped(body):
    try:
        return zlib.decompress(body)
    except zlib.error as error:
        raise ValueError(str(error)) from None


def exactly(text, length):
    if len(text) != length:
        raise ValueError(f"codec: a header must have {length} bytes, got {len(text)}")
    return text
