"""The exception tree: every mistake a user can meet, drawn once.

    BudwoodError
    ├── DataError      the images, labels, splits or archives handed in
    ├── RecipeError    an option that is unknown, out of range or does not apply
    │   └── DivergedError  a loss that is no longer a number
    ├── WeightsError   weights that are missing or do not fit
    ├── RunError       a run directory that is missing, incomplete or of another version
    ├── StudyError     a study file with mistakes, or a study of which nothing could be trained
    └── StorageError   no space, no permission

A message says where, what was expected and what was found; the hint says what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class BudwoodError(Exception):
    """The user's input is at fault: the command line shows `message` and `hint` and exits with 2."""

    code: ClassVar[str] = "input"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(BudwoodError):
    """The images, labels, splits or archives that were handed in cannot be used."""

    code = "data"


class RecipeError(BudwoodError):
    """A recipe option is unknown, out of range or does not apply."""

    code = "recipe"


class DivergedError(RecipeError):
    """The loss is no longer a number: another learning rate may help."""


def diverged(epoch: int, step: int, rate: float) -> DivergedError:
    """Make the error of a loss that is no longer a number.

    Args:
        epoch: The epoch in which it happened, from 1.
        step: The optimizer's step in that epoch, from 1.
        rate: The learning rate of that step.

    Returns:
        The error, to be raised by the loop that met it.
    """
    return DivergedError(
        f"The loss is no longer a number in epoch {epoch}, step {step}, at a learning rate of {rate:.3g}.",
        "Lower the learning rate, for example by a factor of ten.",
    )


class WeightsError(BudwoodError):
    """Pretrained weights are missing or do not fit the network."""

    code = "weights"


class RunError(BudwoodError):
    """A run directory is missing, incomplete or cannot do what was asked."""

    code = "run"


class StudyError(BudwoodError):
    """A study file has mistakes, or nothing of a study could be trained."""

    code = "study"


class StorageError(BudwoodError):
    """A disk is full or a folder cannot be written."""

    code = "storage"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The sentence that lists the valid names, with the closest one first if one is close."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    lead = f"Did you mean {close[0]!r}? " if close else ""
    return f"{lead}Valid: {', '.join(names)}."
