"""Images counted by class, of a split and of its bootstrap samples, and the figures that follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import RESAMPLES, Values, iterate_bootstrap_weights
from budwood.evaluation.scoring import ClassCounts, Counts, Labels, Logits, Scoring


def count_images(task: Scoring, labels: Labels, logits: Logits) -> list[NDArray[np.bool_]]:
    """Return whether each class is a true positive, a label and predicted for each image: bool [n, classes] each."""
    targets, decided = task.to_targets(labels), task.decide(logits)
    return [targets & decided, targets, decided]


def resample_images(task: Scoring, labels: Labels, logits: Logits) -> ClassCounts:
    """Return the counts of RESAMPLES bootstrap samples of the images: [resamples, classes] each."""
    counts = count_images(task, labels, logits)
    return ClassCounts(
        *(np.concatenate([part @ count for part in iterate_bootstrap_weights(len(labels))]) for count in counts)
    )


def resample_confusion(matrix: Counts) -> ClassCounts:
    """Return the same from a confusion matrix int64 [classes, classes], whose cells are drawn: [resamples, classes]."""
    classes, n = len(matrix), int(matrix.sum())
    true, guess = np.nonzero(matrix)
    correct, support, predicted = (np.zeros((RESAMPLES, classes), np.int64) for _ in range(3))
    if n:
        drawn = np.random.default_rng(0).multinomial(n, matrix[true, guess] / n, RESAMPLES)
        _add_by(true, drawn, support)
        _add_by(guess, drawn, predicted)
        _add_by(true[true == guess], drawn[:, true == guess], correct)
    return ClassCounts(correct, support, predicted)


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


def mean_over_present(values: Values, counts: ClassCounts) -> Values:
    """Return the mean over the classes that have an image: float64 [...]."""
    present = counts.support > 0
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1))


def _add_by(column: NDArray[np.intp], drawn: Counts, total: Counts) -> None:
    """Sum the columns of `drawn` that belong to one class into that column of `total`."""
    if not len(column):
        return
    order = np.argsort(column, kind="stable")
    names, starts = np.unique(column[order], return_index=True)
    total[:, names] = np.add.reduceat(drawn[:, order], starts, axis=1)
