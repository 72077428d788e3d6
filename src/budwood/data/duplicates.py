"""Which files show the same picture: exact copies by content, near copies by what they look like.

Near copies are candidates of a random-hyperplane hash (Charikar 2002) of a 16 x 16 grey thumbnail: files whose
hashes are neighbours in one of several sorted orders are compared, so the work grows as n log n. A candidate
pair is a near copy when the thumbnails correlate at 0.999 or more, which survives another size, compression,
brightness or contrast but not another scene: the 2,624 solar cells of ELPV, which all look alike, hold none.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAME: Final = 0.999  # correlation of thumbnails
ORDERS: Final = 12  # sorted orders that are searched
NEIGHBOURS: Final = 12  # files ahead that each file is compared with in each order
_FLAT: Final = 2.0  # grey levels of deviation under which a thumbnail shows nothing to compare
_CHUNK: Final = 20_000

Pairs = NDArray[np.int64]


def find_near_pairs(thumbs: NDArray[np.uint8]) -> Pairs:
    """Find the pairs of thumbnails that look the same.

    Thumbnails with hardly any contrast are not compared with anything.

    Args:
        thumbs: Grey thumbnails, one a row, uint8 [n, THUMBNAIL_SIDE * THUMBNAIL_SIDE].

    Returns:
        Row numbers, int64 [pairs, 2], sorted, with the smaller number first in each pair.
    """
    rows = np.flatnonzero(_measure_contrast(thumbs) >= _FLAT)
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    bits = _hash_thumbnails(thumbs, rows)
    pairs = [
        _find_pairs_in_order(thumbs, rows, np.argsort(_rotate_words(bits, order), kind="stable"))
        for order in range(ORDERS)
    ]
    return np.unique(np.concatenate(pairs), axis=0)


def label_components(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """Label the connected components of rows that pairs link.

    Args:
        n: Number of rows.
        pairs: Linked rows, int64 [pairs, 2].

    Returns:
        The component of each row, int64 [n], named by the smallest row number in it.
    """
    parent: dict[int, int] = {}  # of the rows that are not the smallest of their group

    def root(row: int) -> int:
        while (above := parent.get(row, row)) != row:
            parent[row] = parent.get(above, above)
            row = above
        return row

    for first, second in pairs.tolist():
        a, b = root(first), root(second)
        if a != b:
            parent[max(a, b)] = min(a, b)
    touched = np.unique(pairs)
    groups = np.arange(n, dtype=np.int64)
    groups[touched] = [root(row) for row in touched.tolist()]
    return groups


def link_equal_values(values: NDArray[np.generic]) -> Pairs:
    """Link rows of equal value, each to the next row of the same value.

    Args:
        values: Values to compare, [n].

    Returns:
        Row numbers, int64 [links, 2].
    """
    order = np.argsort(values, kind="stable")
    equal = values[order[1:]] == values[order[:-1]]
    return np.stack([order[:-1][equal], order[1:][equal]], axis=1).astype(np.int64)


def _measure_contrast(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The standard deviation of each thumbnail in grey levels, a chunk at a time: float32 [n]."""
    contrast = np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), _CHUNK):
        contrast[start : start + _CHUNK] = thumbs[start : start + _CHUNK].std(axis=1, dtype=np.float32)
    return contrast


def _standardise(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = thumbs.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / norms, np.float32)


def _hash_thumbnails(thumbs: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One 64-bit word a row: the sides of 64 fixed hyperplanes through the mean of all thumbnails."""
    planes = np.random.default_rng(0).standard_normal((thumbs.shape[1], 64), dtype=np.float32)
    sample = rows[:: max(1, len(rows) // _CHUNK)]
    centre = _standardise(thumbs[sample]).mean(axis=0)
    words = [
        np.packbits((_standardise(thumbs[rows[i : i + _CHUNK]]) - centre) @ planes > 0, axis=1).view(np.uint64).ravel()
        for i in range(0, len(rows), _CHUNK)
    ]
    return np.concatenate(words)


def _rotate_words(words: NDArray[np.uint64], order: int) -> NDArray[np.uint64]:
    shift = np.uint64((order * 64) // ORDERS)
    return (words << shift) | (words >> np.uint64((64 - int(shift)) % 64)) if shift else words


def _find_pairs_in_order(thumbs: NDArray[np.uint8], rows: NDArray[np.int64], order: NDArray[np.int64]) -> Pairs:
    ordered = rows[order]
    pairs = []
    for start in range(0, len(ordered), _CHUNK):
        window = ordered[start : start + _CHUNK + NEIGHBOURS]
        values = _standardise(thumbs[window])
        for ahead in range(1, min(NEIGHBOURS, len(window) - 1) + 1):
            alike = np.einsum("ij,ij->i", values[:-ahead], values[ahead:]) >= SAME
            pairs.append(np.stack([window[:-ahead][alike], window[ahead:][alike]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1) if pairs else np.empty((0, 2), np.int64)
