"""What a score of strangeness keeps of the training images, and the threshold at which images are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.novelty import (
    BANK,
    MEANS,
    WHITENING,
    Features,
    Floats,
    NoveltyMethod,
    normalise,
)

MOST_IMAGES: Final = 10_000  # training images of a bank
MOST_VALUES: Final = 2**24  # values of a bank, at two bytes each
REFUSED: Final = 0.05  # share of known images that is refused, unless another is asked for
FEWEST_NEIGHBOURS: Final = 5
MOST_NEIGHBOURS: Final = 50
HALVED: Final = 64  # rows of a triangle from which on it is inverted by halves


@dataclass(frozen=True)
class KnownImages:
    """Features of images with the classes that they show.

    Attributes:
        features: What the head receives, float32 [n, features].
        targets: Which classes each image has, bool [n, classes].
        multilabel: Whether an image may have several, or none.
    """

    features: Features
    targets: NDArray[np.bool_]
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.features)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the class of each image; the first where it has several, the number of classes where it has none."""
        first = self.targets.argmax(axis=1)
        return np.asarray(np.where(self.targets.any(axis=1), first, self.targets.shape[1]), np.int64)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> KnownImages:
        """Return some of the images."""
        return KnownImages(self.features[rows], self.targets[rows], self.multilabel)


def draw_evenly(labels: NDArray[np.integer[Any]], most: int) -> NDArray[np.int64]:
    """Draw the same share of every class, the first images of each; of every class at least one where `most` allows it.

    Args:
        labels: Class of each image, whole numbers [n], in an order that tells nothing, such as that of content ids.
        most: Number of images, at least 1.

    Returns:
        Row numbers in ascending order, int64; all where there are no more than `most`.
    """
    n = len(labels)
    if n <= most:
        return np.arange(n)
    order = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    share = np.empty(n)
    share[order] = (np.arange(n) - np.repeat(first, counts)) / np.repeat(counts, counts)
    return np.sort(np.argsort(share, kind="stable")[:most])


def limit_bank(features: int) -> int:
    """Return how many training images a bank holds at most, for features of such a length."""
    return max(1, min(MOST_IMAGES, MOST_VALUES // max(features, 1)))


def limit_bytes(features: int, training: int, classes: int) -> int:
    """Return how many bytes a run keeps at most to tell strangers: those of a bank, or of a covariance with means.

    Args:
        features: Their number for an image.
        training: Number of training images.
        classes: Number of classes.
    """
    bank = 2 * features * min(training, limit_bank(features))
    return max(bank, 4 * features * (features + classes))


def choose_neighbour(images: int, classes: int) -> int:
    """Choose the k of knn: one image in a hundred, from 5 to 50, but at most half of what a class has on average.

    Args:
        images: Number of images of the bank, at least 1.
        classes: Number of classes that they show.

    Returns:
        The k, at least 1 and at most `images`.
    """
    wished = min(max(FEWEST_NEIGHBOURS, images // 100), MOST_NEIGHBOURS)
    return max(1, min(wished, images // (2 * max(classes, 1)), images))


def fit_arrays(method: NoveltyMethod, training: KnownImages) -> dict[str, NDArray[np.float32]]:
    """Make what a method keeps of the training images.

    Args:
        method: Which score.
        training: The images, of a bank already drawn.

    Returns:
        The arrays of `NoveltyScorer`; those of a bank have values that 16 bits hold.
    """
    if method == "energy":
        return {}
    rows = normalise(training.features)
    if method == "knn":
        return {BANK: rows.astype(np.float16).astype(np.float32)}
    means, spread = compute_class_means(rows, training.labels)
    whitening = whiten(shrink_covariance(spread)[0])
    return {MEANS: means @ whitening, WHITENING: whitening}


def compute_class_means(rows: Features, labels: NDArray[np.int64]) -> tuple[Features, Features]:
    """Return the mean of each class that has images, float32 [present, d], and every image's distance from its own."""
    _, place = np.unique(labels, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    counts = np.diff(np.append(starts, len(place)))
    means = np.asarray(np.add.reduceat(rows[order], starts, axis=0) / counts[:, None], np.float32)
    return means, rows - means[place]


def shrink_covariance(spread: Features) -> tuple[Features, float]:
    """Compute the covariance of centred rows, shrunk towards a multiple of the unit matrix (Ledoit and Wolf 2004).

    Args:
        spread: float32 [n, d], of mean 0 in every class.

    Returns:
        The covariance, float32 [d, d], and by how much it was shrunk, 0 to 1.
    """
    n, d = spread.shape
    raw = np.asarray(spread.T @ spread / np.float32(n), np.float64)
    level = float(np.trace(raw)) / d
    size = float(np.square(raw).sum())
    between = max(size - d * level**2, 0.0)
    noise = max(float(np.square(np.square(spread.astype(np.float64)).sum(axis=1)).sum()) / n**2 - size / n, 0.0)
    share = min(noise / between, 1.0) if between > 0 else 1.0
    raw *= 1 - share
    raw[np.diag_indices(d)] += share * level if level > 0 else 1.0
    return raw.astype(np.float32), share


def whiten(covariance: Features) -> Features:
    """Return the matrix, float32 [d, d], that rows are multiplied with to have the unit matrix as covariance.

    A covariance that rounding has made indefinite has a little more added to its diagonal.
    """
    matrix, level = covariance.copy(), float(np.trace(covariance)) / len(covariance)
    for added in (1e-6, 1e-4, 1e-2):
        matrix[np.diag_indices(len(matrix))] = np.diag(covariance) + np.float32(added * level)
        try:
            return np.ascontiguousarray(invert_triangle(np.linalg.cholesky(matrix)).T)
        except np.linalg.LinAlgError:
            continue
    raise AssertionError("a shrunk covariance is positive definite")


def invert_triangle(lower: Features) -> Features:
    """Invert a lower triangular matrix, float32 [d, d], by halves, several times faster than NumPy."""
    d = len(lower)
    if d <= HALVED:
        return np.asarray(np.linalg.inv(lower))
    half = d // 2
    first, last = invert_triangle(lower[:half, :half]), invert_triangle(lower[half:, half:])
    inverse = np.zeros_like(lower)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[half:, :half] = -last @ (lower[half:, :half] @ first)
    return inverse


def find_threshold(scores: Floats, share: float) -> float:
    """Find the score from which on images are refused, so that at most a share of known ones is.

    It is the quantile of split conformal prediction: of new images like the known ones, in the mean over sets of so
    many, at most the share is refused. Of fewer than 1 / share - 1 images no score can promise that, and the largest is
    taken.

    Args:
        scores: Scores of known images that the score was not fitted on, float64 [n], at least one.
        share: Share of known images to refuse, 0 to 1.

    Returns:
        The threshold; an image with a larger score is refused.
    """
    rank = min(len(scores), max(1, math.ceil((len(scores) + 1) * (1 - share) - 1e-9)))
    return float(np.sort(scores)[rank - 1])


def pack_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float16] | NDArray[np.float32]]:
    """Return the arrays as they are written: a bank in 16 bits a value."""
    return {name: array.astype(np.float16) if name == BANK else array for name, array in arrays.items()}
