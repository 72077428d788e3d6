"""Images counted by class, and the figures that follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Values
from budwood.evaluation.scoring import ClassCounts, Labels, Logits, Scoring


def count_images(task: Scoring, labels: Labels, logits: Logits) -> list[NDArray[np.bool_]]:
    """Return whether each class is a true positive, a label and predicted for each image: bool [n, classes] each."""
    targets, decided = task.to_targets(labels), task.decide(logits)
    return [targets & decided, targets, decided]


def sum_counts(counts: Sequence[NDArray[np.bool_]]) -> ClassCounts:
    """Return the sums over the images of what `count_images` gives: [classes] each."""
    return ClassCounts(*(np.asarray(count.sum(axis=0), np.int64) for count in counts))


def compute_f1(counts: ClassCounts) -> Values:
    """Return the F1 of each class, float64 [..., classes]; NaN where no image is of it or called it."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * counts.correct / (counts.support + counts.predicted))


def compute_recall(counts: ClassCounts) -> Values:
    """Return the recall of each class, float64 [..., classes]; NaN where no image is of it."""
    with np.errstate(invalid="ignore"):
        return np.asarray(counts.correct / counts.support)


def mean_over_present(values: Values, support: NDArray[Any]) -> Values:
    """Return the mean over the classes that have an image: float64 [...]."""
    present = support > 0
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1))
