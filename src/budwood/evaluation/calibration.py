"""Whether confidence can be trusted: how often answers are right at each confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric, Values, proportion_interval


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of similar confidence.

    Attributes:
        confidence: Their mean confidence, 0 to 1.
        accuracy: The share of them that is right.
    """

    confidence: float
    accuracy: Metric


def bin_confidence(confidence: Values, correct: NDArray[np.bool_], bins: int = 10) -> list[ReliabilityBin]:
    """Return confidence against accuracy: for each bin that holds an answer its mean confidence and its accuracy.

    Args:
        confidence: The probability of each answer, float64 [answers].
        correct: Whether each is right, bool [answers].
        bins: Bins of equal width from 0 to 1.

    Returns:
        The bins, by rising confidence.
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            float(confidence[which == b].mean()),
            proportion_interval(int(correct[which == b].sum()), int(np.sum(which == b))),
        )
        for b in np.unique(which).tolist()
    ]
