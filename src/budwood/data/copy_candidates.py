"""Which images may show the same picture: nearest neighbours under a description that turning does not change.

An image is described by the low frequencies of its thumbnail (discrete cosine transform). A mirror image changes the
signs of coefficients only, a turned one also swaps the two axes, so absolute values, with both axes taken together,
are the same for all eight positions. A copy that was cropped is near to what the original describes once its own
borders are cut off, so each image searches twice: as it is, and without its borders.

The search is exact for small data. For more images they are put in cells around sampled images, and only the nearest
cells are searched, so the work grows much less than the square of the number of images, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.images import THUMBNAIL_SIDE

FREQUENCIES: Final = 8  # of the cosine transform, along each axis
NEIGHBOURS: Final = 16  # images that each search of an image may propose
VIEWS: Final = 6  # images that an image is held against to see whether many share its view
SIMILAR: Final = 0.6  # cosine of two descriptions from which a pair is looked at
BORDER: Final = 3  # pixels of a thumbnail that the second search leaves out on each side: 4.7 %
_CELL: Final = 500  # images in a cell, on average
_PROBES: Final = 8  # cells that are searched
_SAMPLE: Final = 20_000  # images that give the mean description, or are searched for a shared view
_FEW: Final = 100  # images whose mean, which may be that of copies alone, is trusted by half
_CHUNK: Final = 4096
_BLOCK: Final = 8_000_000  # similarities held at once

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Spectra:
    """Low frequencies of thumbnails, as `compute_spectra` gives them.

    Attributes:
        whole: Of whole thumbnails, float16 [n, FREQUENCIES, FREQUENCIES].
        inner: Of thumbnails without `BORDER` pixels on each side, float16 of the same shape.
    """

    whole: NDArray[np.float16]
    inner: NDArray[np.float16]


def stack_thumbnails(thumbs: Sequence[bytes]) -> NDArray[np.uint8]:
    """Stack thumbnails into one array.

    Args:
        thumbs: Grey thumbnails of n images, as in `ImageMetadata`.

    Returns:
        uint8 [n, THUMBNAIL_SIDE, THUMBNAIL_SIDE].
    """
    return np.frombuffer(b"".join(thumbs), np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)


def compute_spectra(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the low frequencies of thumbnails, without their mean and scaled to length 1.

    Args:
        thumbs: uint8 [n, side, side].

    Returns:
        Coefficients of the two-dimensional cosine transform, float32 [n, FREQUENCIES, FREQUENCIES].
    """
    side = thumbs.shape[1]
    angles = np.pi / side * np.outer(np.arange(FREQUENCIES), np.arange(side) + 0.5)
    basis = (np.cos(angles) * np.sqrt(2 / side)).astype(np.float32)
    spectra = np.asarray(basis @ thumbs.astype(np.float32) @ basis.T, np.float32)
    spectra[:, 0, 0] = 0
    return np.asarray(spectra / np.maximum(np.linalg.norm(spectra, axis=(1, 2), keepdims=True), 1e-6), np.float32)


def compute_all_spectra(thumbs: Sequence[bytes]) -> Spectra:
    """Compute the low frequencies of thumbnails with and without their borders, a chunk at a time.

    Args:
        thumbs: Grey thumbnails of n images.

    Returns:
        The spectra, 256 bytes an image.
    """
    spectra = Spectra(*(np.empty((len(thumbs), FREQUENCIES, FREQUENCIES), np.float16) for _ in range(2)))
    for start in range(0, len(thumbs), _CHUNK):
        chunk = stack_thumbnails(thumbs[start : start + _CHUNK])
        spectra.whole[start : start + _CHUNK] = compute_spectra(chunk)
        spectra.inner[start : start + _CHUNK] = compute_spectra(chunk[:, BORDER:-BORDER, BORDER:-BORDER])
    return spectra


def find_candidates(spectra: Spectra) -> tuple[Pairs, NDArray[np.int64]]:
    """Find pairs of images that may show the same picture, mirrored, turned, cropped or changed in brightness.

    Args:
        spectra: The low frequencies of n images.

    Returns:
        Row numbers, int64 [pairs, 2], sorted, with the smaller number first in each pair; and which nearest
        neighbour one is of the other, int64 [pairs], from 0.
    """
    count = len(spectra.whole)
    if count < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    whole, inner = _describe_all(spectra.whole), _describe_all(spectra.inner)
    sample = np.random.default_rng(0).permutation(count)
    mean = whole[sample[:_SAMPLE]].mean(axis=0) * (count / (count + _FEW))
    for described in (whole, inner):
        described -= mean
        described /= np.maximum(np.linalg.norm(described, axis=1, keepdims=True), 1e-6)
    centres = whole[sample[: max(1, count // _CELL)]]
    cell = _find_cells(whole, centres, 1)[:, 0]
    members = np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=len(centres)))[:-1])
    matches = np.concatenate([_search(described, whole, centres, members) for described in (whole, inner)])
    first, second, rank = matches[:, :2].min(axis=1), matches[:, :2].max(axis=1), matches[:, 2]
    order = np.lexsort((rank, second, first))
    pairs = np.stack([first, second], axis=1)[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], rank[order][new]


def find_views(spectra: Spectra, rows: NDArray[np.int64]) -> Pairs:
    """Find, for some images, the images that look most like them as a whole, to see whether they share a view.

    Unlike candidates, these may differ in what sets an image apart. Of many images a sample is searched.

    Args:
        spectra: The low frequencies of n images.
        rows: Images to find others for, int64 [m].

    Returns:
        Row numbers, int64 [pairs, 2], sorted, with the smaller number first in each pair.
    """
    sample = np.sort(np.random.default_rng(0).permutation(len(spectra.whole))[:_SAMPLE])
    others = _describe_all(spectra.whole[sample])
    count = min(VIEWS + 1, len(sample))
    matches = []
    step = max(1, _BLOCK // len(sample))
    for start in range(0, len(rows), step):
        asking = rows[start : start + step]
        near = _describe_all(spectra.whole[asking]) @ others.T
        best = sample[np.argpartition(-near, count - 1, axis=1)[:, :count]]
        matches.append(np.stack([np.repeat(asking, count), best.ravel()], axis=1))
    pairs = np.sort(np.concatenate(matches), axis=1) if matches else np.empty((0, 2), np.int64)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _describe_all(spectra: NDArray[np.float16]) -> NDArray[np.float32]:
    parts = [_describe(spectra[start : start + _CHUNK].astype(np.float32)) for start in range(0, len(spectra), _CHUNK)]
    return np.concatenate(parts)


def _describe(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values that are equal for the eight positions of an image; roots, so that no single frequency decides."""
    roots = np.sqrt(np.abs(spectra))
    turned = roots.transpose(0, 2, 1)
    upper = np.triu(np.ones(roots.shape[1:], bool))
    lower = ~upper
    together, apart = (roots + turned) / np.sqrt(2), np.abs(roots - turned) / np.sqrt(2)
    return np.concatenate([together[:, upper], apart[:, lower]], axis=1)


def _find_cells(described: NDArray[np.float32], centres: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The cells nearest to each description: int64 [m, count]."""
    count = min(count, len(centres))
    cells = np.empty((len(described), count), np.int64)
    step = max(1, _BLOCK // len(centres))
    for start in range(0, len(described), step):
        near = described[start : start + step] @ centres.T
        cells[start : start + step] = np.argpartition(-near, count - 1, axis=1)[:, :count]
    return cells


def _search(
    described: NDArray[np.float32],
    whole: NDArray[np.float32],
    centres: NDArray[np.float32],
    members: Sequence[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The nearest images of each description, out of the cells nearest to it: image, other and rank, [matches, 3]."""
    probed = _find_cells(described, centres, _PROBES)
    asking = np.argsort(probed.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(probed.ravel(), minlength=len(centres)))
    matches = []
    for cell, queries in enumerate(np.split(asking // probed.shape[1], ends[:-1])):
        step = max(1, _BLOCK // max(1, len(members[cell])))
        parts = (queries[start : start + step] for start in range(0, len(queries), step))
        matches += [_compare(described, whole, part, members[cell]) for part in parts]
    query, other, near = (np.concatenate(part) for part in zip(*matches, strict=True))
    order = np.lexsort((-near, query))
    query, other = query[order], other[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    return np.stack([query, other, rank], axis=1)[rank < NEIGHBOURS]


def _compare(
    described: NDArray[np.float32], whole: NDArray[np.float32], queries: NDArray[np.int64], members: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The members most similar to each query, other than itself: queries, members and their similarity."""
    near = described[queries] @ whole[members].T
    near[queries[:, None] == members] = -1
    least = np.full(len(queries), SIMILAR, np.float32)
    if len(members) > NEIGHBOURS:
        least = np.maximum(least, np.partition(near, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS])
    row, column = np.nonzero(near >= least[:, None])
    return queries[row], members[column], near[row, column]
