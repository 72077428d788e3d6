"""Accuracy against coverage: how right the network is on the images that it is surest of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric, proportion_interval

Floats = NDArray[np.float64]
SHARES: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
FEWEST: Final = 10  # images that a point is of, at least


@dataclass(frozen=True)
class SelectivePoint:
    """What is answered at a threshold of confidence.

    Attributes:
        share: The share of images that are at least as sure, 0 to 1.
        threshold: Their least confidence, 0 to 1.
        accuracy: The share of them that is right.
    """

    share: float
    threshold: float
    accuracy: Metric


def trace_accuracy(confidence: Floats, correct: NDArray[np.bool_]) -> list[SelectivePoint]:
    """Trace the accuracy of the surest images, from all of them to half.

    Args:
        confidence: The probability of each answer, float64 [n].
        correct: Whether each is right, bool [n].

    Returns:
        Points by falling share, each of at least 10 images.
    """
    order = np.argsort(-confidence, kind="stable")
    n, right = len(order), np.cumsum(correct[order])
    counts = [count for share in SHARES if (count := round(share * n)) >= FEWEST]
    return [
        SelectivePoint(
            count / n, float(confidence[order[count - 1]]), proportion_interval(int(right[count - 1]), count)
        )
        for count in dict.fromkeys(counts)
    ]
