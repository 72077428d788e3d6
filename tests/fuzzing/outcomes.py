"""What came of one damaged file, and of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JOB: Final = "train, test, predict"  # the result that stands for a job with all files of a folder, no file of its own


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged file.

    Attributes:
        kind: What was damaged: image, archive or state.
        what: The damage, in words by which it is found again.
        result: What Budwood made of it, in a word or two.
        broken: The promise that was not kept; empty where all were.
    """

    kind: str
    what: str
    result: str
    broken: str = ""
