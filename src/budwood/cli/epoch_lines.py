"""A line for each epoch while a command trains: the same in a terminal, a log and a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from budwood.text import format_seconds

if TYPE_CHECKING:
    from budwood.config.recipe import Recipe
    from budwood.progress import Progress

ENOUGH: Final = 30  # lines of epochs that were all over before the first could be told
SCORES: Final = {"mean_average_precision": "mAP", "accuracy": "accuracy"}  # of validation, the first that there is


class EpochLines:
    """Says each epoch of a training in a line as it ends: losses, accuracy, learning rate and the time left.

    It is called with the whole history after every epoch, as `bw.train` calls `on_epoch_end`.
    """

    def __init__(
        self,
        progress: Progress,
        recipe: Recipe | None = None,
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            progress: Where the lines go.
            recipe: The recipe that is trained; None where several are, as in a search.
            limit: Seconds from now at which training ends at the latest; None: no limit.
            clock: Returns the present time, seconds.
        """
        self._progress, self._clock, self._limit = progress, clock, limit
        self._epochs = _count_epochs(recipe) if recipe else None
        self._started, self._first = clock(), (0, 0.0)
        self._told: list[Mapping[str, float]] = []

    def __call__(self, history: Sequence[Mapping[str, float]]) -> None:
        """Say the epochs that were not said yet.

        Args:
            history: All epochs so far; of the next training of a search it begins anew.
        """
        rows, now = [row for row in history if "epoch" in row], self._clock()
        if not self._told or rows[: len(self._told)] != self._told:  # the first of a training, or of what is left of it
            self._told, self._first = rows[:-1], (len(rows), now)
        for row in rows[len(self._told) :]:
            self._progress.note(format_epoch(row, self._epochs, self._describe_left(len(rows), now)))
        self._told = rows

    def tell_unsaid(self, history: Sequence[Mapping[str, float]]) -> None:
        """Say the epochs of a training that was over before one of them was said, as of a head alone.

        Args:
            history: All epochs; of very many some, evenly chosen, with the last.
        """
        rows = [row for row in history if "epoch" in row]
        if self._told or not rows:
            return
        every = -(-len(rows) // ENOUGH)
        for number, row in enumerate(rows, 1):
            if number % every == 0 or number == len(rows):
                self._progress.note(format_epoch(row, self._epochs))

    def _describe_left(self, done: int, now: float) -> str:
        """The time that is left: as much as the epochs to come take at the pace so far, or until the limit.

        Before the first epoch other things were done, so that it alone says too much.
        """
        ends = [] if self._limit is None else [max(self._started + self._limit - now, 0.0)]
        known, since = self._first
        if self._epochs is not None:
            pace = (now - since) / (done - known) if done > known else now - self._started
            ends.append((self._epochs - done) * pace)
        if not ends:
            return ""
        first = self._epochs is not None and done == known and done < self._epochs
        return f"{'at most ' if first else ''}{format_seconds(min(ends))} left"


def format_epoch(row: Mapping[str, float], epochs: int | None, left: str = "") -> str:
    """Format an epoch in a line.

    Args:
        row: Its row of the history.
        epochs: Number of epochs in all; None where that is not known.
        left: What is said of the time that is left.

    Returns:
        For example "epoch  3/20  loss 0.412, validation 0.395  accuracy 91.2 %  rate 0.001  20 s left".
    """
    number = f"{row['epoch']:.0f}"
    parts = [f"epoch {number.rjust(len(str(epochs)))}/{epochs}" if epochs is not None else f"epoch {number}"]
    losses = [("loss", row.get("train_loss")), ("validation", row.get("val_loss"))]
    parts.append(", ".join(f"{name} {loss:.3f}" for name, loss in losses if loss is not None))
    score = next((name for name in SCORES if f"val_{name}" in row), None)
    if score:
        parts.append(f"{SCORES[score]} {100 * row[f'val_{score}']:.1f} %")
    if "lr" in row:
        parts.append(f"rate {row['lr']:.2g}")
    return "  ".join(filter(None, [*parts, left]))


def _count_epochs(recipe: Recipe) -> int | None:
    """The epochs that a recipe asks for; None where the time alone limits them."""
    if recipe.phases:
        return sum(phase.epochs for phase in recipe.phases)
    return recipe.epochs
