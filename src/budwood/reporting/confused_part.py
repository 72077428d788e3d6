"""The most confused part of a confusion matrix that is too large to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PART_SHOWN: Final = 12  # classes of the part
OTHERS: Final = "all others"


def cut_confused_part(
    counts: Sequence[Sequence[int]], classes: Sequence[str], most: int = PART_SHOWN
) -> tuple[list[list[int]], list[str]]:
    """Cut the classes out of a confusion matrix that are mixed up most often.

    Args:
        counts: Images by true (row) and predicted class (column).
        classes: Names of the classes.
        most: Number of classes of the part, at most.

    Returns:
        A matrix of the part with a last row and column for all other classes together, and the names of both. No class
        is left where no image was mistaken.
    """
    pairs = [
        (count, true, guess)
        for true, row in enumerate(counts)
        for guess, count in enumerate(row)
        if guess != true and count
    ]
    chosen: list[int] = []
    for _, true, guess in sorted(pairs, key=lambda pair: -pair[0]):
        new = [one for one in (true, guess) if one not in chosen]
        if len(chosen) + len(new) <= most:
            chosen += new
    if not chosen:
        return [], []
    chosen.sort()
    others = [number for number in range(len(classes)) if number not in set(chosen)]
    groups = [*([one] for one in chosen), others]
    part = [[sum(counts[true][guess] for true in rows for guess in columns) for columns in groups] for rows in groups]
    return part, [*(classes[one] for one in chosen), OTHERS]
