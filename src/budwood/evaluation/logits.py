"""What logits say: probabilities, losses and the confusion matrix, each of one image after another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Values
from budwood.evaluation.scoring import Counts, Logits


def probabilities(logits: Logits) -> Values:
    """Compute the softmax of logits.

    Args:
        logits: Logits, float32 [n, classes].

    Returns:
        Probabilities, float64 [n, classes]; each row adds up to 1.
    """
    return np.exp(_log_softmax(logits))


def sigmoid(logits: Logits) -> Values:
    """Compute the probability of each class where images have several labels.

    Args:
        logits: Logits, float32 [n, classes].

    Returns:
        Probabilities, float64 [n, classes], each class by itself.
    """
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))))


def binary_cross_entropy(targets: NDArray[np.bool_], logits: Logits) -> Values:
    """Compute the binary cross-entropy of each image, as a mean over classes.

    Args:
        targets: Which classes each image has, bool [n, classes].
        logits: Logits, float32 [n, classes].

    Returns:
        The loss of each image in nats, float64 [n].
    """
    signed = np.where(targets, logits, -logits).astype(np.float64)
    return np.asarray(np.logaddexp(0, -signed).mean(axis=1))


def cross_entropy(labels: NDArray[np.int32], logits: Logits) -> Values:
    """Compute the cross-entropy of each image.

    Args:
        labels: True classes, int32 [n].
        logits: Logits, float32 [n, classes].

    Returns:
        The loss of each image in nats, float64 [n].
    """
    return np.asarray(-_log_softmax(logits)[np.arange(len(labels)), labels])


def confusion(labels: NDArray[np.int32], logits: Logits) -> Counts:
    """Compute the confusion matrix.

    Args:
        labels: True classes, int32 [n].
        logits: Logits, float32 [n, classes].

    Returns:
        Number of images by true class (row) and predicted class (column), int64 [classes, classes].
    """
    classes = logits.shape[1]
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _log_softmax(logits: Logits) -> Values:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
