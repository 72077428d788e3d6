"""What metrics ask of a kind of labels; `label_task` has the two kinds.

Labels are here what scikit-learn takes: class numbers int32 [n], or bool [n, classes] where an image may have several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from budwood.evaluation.intervals import Values

Labels = NDArray[Any]
Logits = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassCounts:
    """Images by class, int64 [..., classes]: called it and of it, of it, called it."""

    correct: Counts
    support: Counts
    predicted: Counts


class Scoring(Protocol):
    """What metrics ask of a kind of labels."""

    def to_targets(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which classes each image has: bool [n, classes]."""

    def decide(self, logits: Logits) -> NDArray[np.bool_]:
        """Return which classes are predicted for each image: bool [n, classes]."""

    def is_correct(self, labels: Labels, logits: Logits) -> NDArray[np.bool_]:
        """Return whether each image is correct, in every class where it has several: bool [n]."""

    def losses(self, labels: Labels, logits: Logits) -> Values:
        """Return the loss of each image, nats: float64 [n]."""

    def rank_scores(self, logits: Logits) -> Values:
        """Return the scores that rank the images for each class: float64 [n, classes]."""

    def mistake_losses(self, logits: Logits) -> Values:
        """Return the loss that each image would have if it were called wrongly, nats: float64 [n]."""
