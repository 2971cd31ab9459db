"""Rounding of product codebooks with error feedback: block after block, each making up for what those before it lost.

What `ptq.feedback` does for single weights, for blocks (van Baalen et al., GPTVQ, 2024). With G the gram matrix of a layer's
inputs and U the upper Cholesky factor of its inverse: if later inputs make up for the error e of block b as well as they can,
it costs the squared length of e U_bb^-1, so each block takes the centroid for which that is least. Then every code is chosen
again given all others, which never adds error.
"""

from __future__ import annotations

import numpy as np

from bitladder.formats import Encoding, Product, QTensor
from bitladder.formats.tensor import store
from bitladder.ptq.feedback import SWEEPS, damped


def rounded(w: np.ndarray, encoding: Encoding, gram: np.ndarray) -> QTensor:
    """`w` (outputs, inputs, ...) as codes of blocks, with error feedback under gram matrices (groups, inputs, inputs)."""
    fmt = encoding.format
    assert isinstance(fmt, Product)
    outputs, rest = w.shape[0], w[0, 0].size
    flat = w.reshape(outputs, -1).astype(np.float64)
    scale = np.broadcast_to(np.asarray(encoding.params["scale"], np.float64), (outputs,))
    table = encoding.params["centroids"].astype(np.float64)
    blocks = block_columns(w.shape[1], rest, fmt.dim)
    codes = np.empty((outputs, len(blocks)), np.int64)
    each = outputs // len(gram)
    for g, matrix in enumerate(gram):
        rows = slice(g * each, (g + 1) * each)
        codes[rows] = climb(flat[rows], scale[rows], table, blocks, damped(matrix))
    return QTensor(encoding, store(codes.reshape(outputs, w.shape[1] // fmt.dim, *w.shape[2:]), fmt))


def block_columns(inputs: int, rest: int, dim: int) -> np.ndarray:
    """The columns (blocks, dim) of each block of a weight (outputs, inputs, ...) whose other axes have `rest` places.

    >>> block_columns(4, 2, 2)
    array([[0, 2],
           [1, 3],
           [4, 6],
           [5, 7]])
    """
    return np.moveaxis(np.arange(inputs * rest).reshape(inputs // dim, dim, rest), 1, 2).reshape(-1, dim)


def climb(w: np.ndarray, scale: np.ndarray, table: np.ndarray, blocks: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Codes (outputs, blocks) of one group; blocks of most energy are rounded first."""
    order = np.argsort(-np.diag(gram)[blocks].sum(1), kind="stable")
    columns = blocks[order].ravel()
    gram, w = gram[np.ix_(columns, columns)], w[:, columns]
    found = settle(w, feed(w, scale, table, gram), scale, table, gram)
    codes = np.empty_like(found)
    codes[:, order] = found
    return codes


def chosen(target: np.ndarray, scale: np.ndarray, table: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """For each target (outputs, dim) the centroid c of least length of (target - scale c) metric, the first of equals."""
    points = table @ metric
    distance = scale[:, None] * (points**2).sum(1) / 2 - (target @ metric) @ points.T
    return distance.argmin(1)


def feed(w: np.ndarray, scale: np.ndarray, table: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Codes of `w`, blocks left to right, each error spread over the columns to its right."""
    dim = table.shape[1]
    inverse = np.linalg.inv(gram)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w, codes = w.copy(), np.empty((len(w), w.shape[1] // dim), np.int64)
    for k in range(codes.shape[1]):
        block = slice(k * dim, (k + 1) * dim)
        metric = np.linalg.inv(upper[block, block])
        codes[:, k] = chosen(w[:, block], scale, table, metric)
        error = w[:, block] - table[codes[:, k]] * scale[:, None]
        w[:, block.stop :] -= error @ metric @ upper[block, block.stop :]
    return codes


def settle(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, table: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """`codes` after every one was chosen again, given all others, so that the error under `gram` is least; it never rises."""
    dim, codes = table.shape[1], codes.copy()
    value = table[codes].reshape(w.shape) * scale[:, None]
    pull = (w - value) @ gram
    for _ in range(SWEEPS):
        for k in range(codes.shape[1]):
            block = slice(k * dim, (k + 1) * dim)
            inner = gram[block, block]
            best = value[:, block] + pull[:, block] @ np.linalg.inv(inner)
            codes[:, k] = chosen(best, scale, table, np.linalg.cholesky(inner))
            moved = table[codes[:, k]] * scale[:, None] - value[:, block]
            value[:, block] += moved
            pull -= moved @ gram[block]
    return codes
