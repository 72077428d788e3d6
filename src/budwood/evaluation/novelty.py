"""How strange an image is to a network: three scores of its features and logits, larger for stranger images.

- `knn`: the distance to the k-th nearest training image in the space of normalised features (Sun et al. 2022).
- `mahalanobis`: the distance to the nearest class mean, measured by the covariance within classes (Lee et al. 2018), of
  normalised features (Mueller and Hein 2025).
- `energy`: minus the logarithm of the sum of exponentials of the logits (Liu et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.scoring import Logits

Floats = NDArray[np.float64]
Features = NDArray[np.float32]
NoveltyMethod = Literal["knn", "mahalanobis", "energy"]
BANK: Final = "bank"  # of knn: normalised features of training images, float32 [images, features]
MEANS: Final = "means"  # of mahalanobis: float32 [classes, features], whitened
WHITENING: Final = "whitening"  # of mahalanobis: float32 [d, d]; normalised features @ whitening are whitened
ARRAYS: Final[tuple[str, ...]] = (BANK, MEANS, WHITENING)
NEIGHBOUR: Final = 5  # the k of knn
BLOCK: Final = 256  # images whose distances are computed at a time


@dataclass(frozen=True)
class NoveltyScorer:
    """One method with what it knows of the training images, and the score from which on an image is refused.

    Attributes:
        method: Which score.
        arrays: What the method needs: `bank`, or `means` and `whitening`, or nothing.
        threshold: An image whose score is larger is none of the classes.
        neighbour: The k of knn; at most the images of the bank.
    """

    method: NoveltyMethod
    arrays: Mapping[str, NDArray[np.float32]]
    threshold: float
    neighbour: int = NEIGHBOUR

    def score(self, features: Features, logits: Logits) -> Floats:
        """Return how strange images are.

        Args:
            features: What the head receives, float32 [n, features].
            logits: float32 [n, classes], as the network gives them, without temperature.

        Returns:
            float64 [n], larger for stranger images; infinite for one with a value that is not finite, so that it is
            refused.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            scores = self._score(features, logits)
        return np.where(np.isfinite(scores), scores, np.inf)

    def _score(self, features: Features, logits: Logits) -> Floats:
        if self.method == "energy":
            return score_energy(logits)
        if self.method == "knn":
            return score_neighbours(features, self.arrays[BANK], self.neighbour)
        return score_mahalanobis(features, self.arrays[MEANS], self.arrays[WHITENING])


def score_energy(logits: Logits) -> Floats:
    """Return the energy of logits, float32 [n, classes]: float64 [n]."""
    return np.asarray(-np.logaddexp.reduce(logits.astype(np.float64), axis=1))


def normalise(features: Features) -> Features:
    """Return features, float32 [n, d], each divided by its length."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, np.float32(1e-12)), np.float32)


def score_neighbours(features: Features, bank: Features, neighbour: int) -> Floats:
    """Return the distance of each image to its k-th nearest one of a bank, in the space of normalised features.

    Args:
        features: float32 [n, d], not normalised.
        bank: float32 [images, d], normalised.
        neighbour: The k, 1 to the images of the bank.

    Returns:
        Euclidean distances, float64 [n], 0 to 2.
    """
    rows = normalise(features)
    scores = np.empty(len(rows))
    for first in range(0, len(rows), BLOCK):
        similarity = rows[first : first + BLOCK] @ bank.T
        kth = np.partition(similarity, -neighbour, axis=1)[:, -neighbour].astype(np.float64)
        scores[first : first + BLOCK] = np.sqrt(np.maximum(2 - 2 * kth, 0))
    return scores


def score_mahalanobis(features: Features, means: Features, whitening: Features) -> Floats:
    """Return the distance of each image to the nearest class mean, measured in the covariance within classes.

    Args:
        features: float32 [n, d], not normalised.
        means: Whitened means of the classes' normalised features, float32 [classes, d].
        whitening: float32 [d, d]: normalised features @ whitening have the unit matrix as covariance within classes.

    Returns:
        Distances, float64 [n].
    """
    rows = features.astype(np.float64)  # rounding to float32 would count where training images hardly vary
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    centre = means.astype(np.float64).mean(axis=0)  # from here, what is expanded below hardly cancels
    white, around = rows @ whitening.astype(np.float64) - centre, means - centre
    squares = (white**2).sum(axis=1)[:, None] - 2 * white @ around.T + (around**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0)))
