"""Answers about new images, as a table for people and spreadsheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.text import format_csv

TOP = 3


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image file.

    Attributes:
        path: Path of the file.
        top: Most probable classes with their probabilities, in descending order; empty if the file could not be
            read.
        problem: Why the file could not be read; empty if it could.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    problem: str = ""


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


def save_csv(path: Path, answers: Sequence[ImagePrediction]) -> None:
    """Write predictions as a CSV table with one row a file.

    The columns are path, class and probability of the three most probable classes, and problem.

    Args:
        path: File to make or replace.
        answers: Predictions in the order of the rows, with at most three classes each.

    Raises:
        StorageError: When the file cannot be written.
    """
    header = [
        "path",
        *(name for rank in range(1, TOP + 1) for name in (f"class_{rank}", f"probability_{rank}")),
        "problem",
    ]

    with raise_storage_errors(path):
        write_text(path, format_csv([header, *(_csv_row(answer) for answer in answers)]))


def _csv_row(answer: ImagePrediction) -> list[str]:
    told = [text for name, share in answer.top for text in (name, f"{share:.6f}")]
    return [answer.path, *told, *[""] * (2 * TOP - len(told)), answer.problem]
