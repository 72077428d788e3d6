"""Where images have several labels: what is missed, what is called wrongly, and which of both happen together.

A confusion matrix needs one true and one predicted class for each image. Here each label is a yes or no of its own, and
an image may be wrong in several; what takes the place of a confusion is a label that is missed where another one is
called wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelMistakes:
    """How often one label was decided wrongly.

    Attributes:
        name: Name of the label.
        threshold: The probability from which on an image has it, 0 to 1.
        having: Number of images that have it.
        missed: Number of those that were not called it.
        lacking: Number of images that do not have it.
        added: Number of those that were called it.
    """

    name: str
    threshold: float
    having: int
    missed: int
    lacking: int
    added: int


@dataclass(frozen=True)
class MistakenTogether:
    """Images on which one label was missed and another one was called wrongly.

    Attributes:
        missed: The label that they have.
        added: The label that they were called and do not have.
        count: Number of these images.
        of: Number of images on which `missed` was missed.
    """

    missed: str
    added: str
    count: int
    of: int


def count_label_mistakes(
    targets: Flags, called: Flags, names: Sequence[str], thresholds: Sequence[float]
) -> tuple[LabelMistakes, ...]:
    """Count the mistakes of each label.

    Args:
        targets: Which labels each image has, bool [n, classes].
        called: Which it was called, bool [n, classes].
        names: Names of the labels.
        thresholds: The probability from which on an image has each.

    Returns:
        The labels, the one with most mistakes first.
    """
    having, missed = targets.sum(axis=0), (targets & ~called).sum(axis=0)
    added = (called & ~targets).sum(axis=0)
    rows = zip(names, thresholds, having.tolist(), missed.tolist(), added.tolist(), strict=True)
    made = [LabelMistakes(name, limit, n, miss, len(targets) - n, more) for name, limit, n, miss, more in rows]
    return tuple(sorted(made, key=lambda one: -(one.missed + one.added)))


def list_mistaken_together(
    targets: Flags, called: Flags, names: Sequence[str], most: int
) -> tuple[MistakenTogether, ...]:
    """List pairs of labels of which one was missed and the other called wrongly on the same images.

    Args:
        targets: Which labels each image has, bool [n, classes].
        called: Which it was called, bool [n, classes].
        names: Names of the labels.
        most: Number of pairs to list, at most.

    Returns:
        The pairs, the most frequent first.
    """
    missed, added = targets & ~called, called & ~targets
    counts = missed.T.astype(np.int64) @ added.astype(np.int64)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    places = [np.unravel_index(place, counts.shape) for place in order.tolist()]
    return tuple(
        MistakenTogether(names[row], names[column], int(counts[row, column]), int(missed[:, row].sum()))
        for row, column in places
        if counts[row, column]
    )
