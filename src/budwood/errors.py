"""The exception tree: every mistake a user can meet, drawn once.

    BudwoodError
    ├── DataError      the images, labels, splits or archives handed in
    ├── RecipeError    an option that is unknown, out of range or does not apply
    │   └── DivergedError  a loss that is no longer a number
    ├── WeightsError   weights that are missing or do not fit
    ├── RunError       a run directory that is missing, incomplete or of another version
    ├── PublishError   a model that cannot be published
    ├── StudyError     a study file with mistakes, or a study of which nothing could be trained
    ├── StorageError   no space, no permission
    └── ArgumentError  a value of a type that a function of the Python interface does not take

A message says where, what was expected and what was found; the hint says what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class BudwoodError(Exception):
    """Base class of all errors that the user's input causes.

    The command line shows `message` and `hint` and exits with status 2.

    Attributes:
        code: Short name of the kind of error, one for each branch of the tree.
        message: Where it happened, what was expected and what was found.
        hint: What to do about it; empty if there is nothing to suggest.
    """

    code: ClassVar[str] = "input"

    def __init__(self, message: str, hint: str = "") -> None:
        """Store the message and the hint.

        Args:
            message: Where it happened, what was expected and what was found.
            hint: What to do about it; empty for no hint.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(BudwoodError):
    """Error for images, labels, splits or archives that cannot be used.

    Attributes:
        files: Files that the error is about, each with what is wrong with it; empty where it is about none.
    """

    code = "data"

    def __init__(self, message: str, hint: str = "", files: Sequence[tuple[str, str]] = ()) -> None:
        """Store the message, the hint and the files.

        Args:
            message: Where it happened, what was expected and what was found.
            hint: What to do about it; empty for no hint.
            files: Path of each file, with what is wrong with it.
        """
        super().__init__(message, hint)
        self.files = tuple(files)


class RecipeError(BudwoodError):
    """Error for a recipe option that is unknown, out of range or does not apply."""

    code = "recipe"


class DivergedError(RecipeError):
    """Error for a loss that is no longer a number; another learning rate may help."""


def diverged(epoch: int, step: int, rate: float) -> DivergedError:
    """Make the error for a loss that is no longer a number.

    Args:
        epoch: Epoch in which it happened, from 1.
        step: Optimiser step within that epoch, from 1.
        rate: Learning rate of that step.

    Returns:
        The error, for the training loop to raise.
    """
    return DivergedError(
        f"The loss is no longer a number in epoch {epoch}, step {step}, at a learning rate of {rate:.3g}.",
        "Lower the learning rate, for example by a factor of ten.",
    )


class WeightsError(BudwoodError):
    """Error for pretrained weights that are missing or do not fit the network."""

    code = "weights"


class RunError(BudwoodError):
    """Error for a run folder that is missing, incomplete or cannot do what was asked."""

    code = "run"


class PublishError(BudwoodError):
    """Error for a model that cannot be published: no token, no network, or a name that the hub refuses."""

    code = "publish"


class StudyError(BudwoodError):
    """Error for a study file with mistakes, or a study of which nothing could be trained."""

    code = "study"


class ArgumentError(BudwoodError, TypeError):
    """Error for a value of another type than a function takes."""

    code = "argument"


class StorageError(BudwoodError):
    """Error for a full disk or a folder that cannot be written."""

    code = "storage"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Write the sentence that lists the valid names, the closest match first.

    Args:
        name: Name that was not found.
        valid: Names that would have been accepted, in any order.

    Returns:
        The sentence for a hint. It suggests a name only if one is close to `name`.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    lead = f"Did you mean {close[0]!r}? " if close else ""
    return f"{lead}Valid: {', '.join(names)}."
