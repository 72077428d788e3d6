"""What a network says of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.errors import DataError
from budwood.text import show_unprintable

TOP = 3
NONE_OF_THESE: Final = "none of these"


@dataclass(frozen=True, repr=False)
class ImagePrediction:
    """What a network says of one image.

    Attributes:
        path: Path of the file; `image 0` and so on where the image is none.
        top: Most probable classes with their probabilities, in descending order; empty if the image could not be
            read, as all that follows is then.
        problem: Why the image could not be read; empty if it could.
        probabilities: Calibrated probability of each class, float64 [classes].
        labels: The classes that it is called, by costs or thresholds where the run has them: one, or where images have
            several labels any number.
        decisions: Where images have several labels, whether it has each, bool [classes]; None where they have one.
        label: The same in words.
        confidence: How probable the label is; where images have several labels, exactly this set.
        refused: Whether it shows none of the classes, by its strangeness, whatever it would be called; None where the
            run cannot tell.
        strangeness: How strange it is, larger for stranger; None where the run cannot tell.
        candidates: The prediction set: the classes that may be true; None where the run has no sets.
        notes: How the image differs strongly from those that the network was trained on.
        features: What the head received, float32 [features], where that was asked for.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    problem: str = ""
    probabilities: NDArray[np.float64] | None = field(default=None, compare=False)
    labels: tuple[str, ...] = ()
    decisions: tuple[bool, ...] | None = None
    label: str = ""
    confidence: float | None = None
    refused: bool | None = None
    strangeness: float | None = None
    candidates: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    features: NDArray[np.float32] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        said = self.problem or ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in self.top)
        refused = f"{NONE_OF_THESE}; " if self.refused else ""
        return show_unprintable(f"ImagePrediction({self.path!r}: {refused}{said})")

    @property
    def answer(self) -> str:
        """Return what to call the image: its label, `none of these` where it is refused, empty if it is unreadable."""
        return NONE_OF_THESE if self.refused else self.label


def refuse_bad_top(top: int) -> None:
    """Raise `DataError` for a number of likeliest classes that is none."""
    if not isinstance(top, int) or top < 1:
        raise DataError(f"top: expected a whole number from 1 on, found {top!r}.", "Write 3 for the three likeliest.")


def list_top_classes(
    probabilities: NDArray[np.float64], classes: Sequence[str], top: int = TOP
) -> list[tuple[tuple[str, float], ...]]:
    """List the most probable classes of each image.

    Args:
        probabilities: float64 [n, classes].
        classes: Class names.
        top: Number of classes to list, at most.

    Returns:
        For each image its classes with their probabilities, in descending order; of equals, the first class first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        tuple((classes[c], float(row[c])) for c in best.tolist())
        for best, row in zip(order, probabilities, strict=True)
    ]
