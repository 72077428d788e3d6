"""What the training loop shows and says: its bar, and why it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from budwood.config.resolved_recipe import Limits
from budwood.progress import Progress
from budwood.training.checkpoints import LoopState
from budwood.training.clock import Clock
from budwood.training.state import TrainingState


@contextmanager
def show_bar(
    model: TrainingState, state: LoopState, images: int, clock: Clock, progress: Progress
) -> Iterator[Callable[[], None]]:
    """Show a bar in images, or in seconds where only the time is limited.

    Args:
        model: The network in training.
        state: The state of the loop.
        images: Number of training images.
        clock: The clock of the training.
        progress: Where the bar goes.

    Yields:
        A function that moves the bar to where `state` is.
    """
    epochs, shown_position = model.recipe.limits.epochs, 0
    endless = math.isinf(epochs)
    total = math.ceil(clock.budget or 0) if endless else int(epochs) * images
    with progress.bar(f"Training {model.part.spec.plan.name}", total) as advance:

        def move() -> None:
            nonlocal shown_position
            position = int(clock.seconds) if endless else (state.epoch - 1) * images + state.seen
            advance(position - shown_position)
            shown_position = position

        move()
        yield move


def is_out_of_patience(state: LoopState, limits: Limits) -> bool:
    """Return whether no epoch was better for too long.

    Args:
        state: The state of the loop.
        limits: How long training may go on.

    Returns:
        Whether that is so.
    """
    return len(state.history) - state.best_epoch >= limits.patience


def tell_early_end(state: LoopState, limits: Limits, progress: Progress, stopped: str) -> None:
    """Say why training ended, where it was before the last epoch.

    Args:
        state: The state of the loop.
        limits: How long training may go on.
        progress: Where the note goes.
        stopped: The callback that has ended it, and why; empty where none has.
    """
    epoch = len(state.history)
    if stopped:
        progress.note(f"Stopped in epoch {epoch} by the callback {stopped}.")
        return
    if epoch >= limits.epochs:
        return
    if is_out_of_patience(state, limits):
        since = f"epoch {state.best_epoch}" if state.best_epoch else "the start"
        progress.note(f"Stopped after epoch {epoch}: no improvement since {since}.")
    else:
        progress.note(f"Stopped in epoch {epoch}: the time limit was reached.")
