"""How the learning rate changes, and which epoch is kept: pure functions of where training stands.

Nothing is kept between steps, so a training that is resumed needs no state of its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, SupportsFloat, cast

from budwood.config.metric_registry import LAST, LOSS
from budwood.config.registry import load_function, make_entry
from budwood.config.schedules import Cosine, CustomSchedule, MultiStep, Plateau, Schedule, StepDecay
from budwood.errors import RecipeError
from budwood.training.own_calls import telling_failures

ONE_CYCLE_RISE: Final = 0.3  # share of the steps in which one-cycle rises; Smith and Topin 2019 as torch.optim has it
ONE_CYCLE_START: Final = 1 / 25
ONE_CYCLE_END: Final = ONE_CYCLE_START / 1e4
PLATEAU_THRESHOLD: Final = 1e-4  # relative fall of the validation loss that counts


@dataclass(frozen=True)
class Position:
    """How far a training has come, as schedules see it.

    Attributes:
        step: Optimizer steps that are done, over all epochs.
        steps_an_epoch: Steps of one epoch.
        epochs: Epochs in all: fractional or infinite where time is the limit.
        losses: Validation loss (nats) of every finished epoch.
    """

    step: int
    steps_an_epoch: int
    epochs: float
    losses: Sequence[float]

    @property
    def steps(self) -> float:
        """Return the number of steps of the whole training."""
        return self.epochs * self.steps_an_epoch

    def epoch(self, by: str) -> float:
        """Return the number of epochs that are done.

        Args:
            by: `step` for a fractional number, `epoch` for a whole one.

        Returns:
            The number of epochs.
        """
        return self.step / self.steps_an_epoch if by == "step" else self.step // self.steps_an_epoch


def find_best_epoch(
    history: Sequence[Mapping[str, float]], select: str, start: Mapping[str, float] | None = None
) -> int:
    """Find the epoch that is kept: the one that validation prefers, or the last.

    Args:
        history: One row an epoch, with the validation figure that `select` names.
        select: `loss` (lowest is best), a metric (highest is best), or `last`: the last epoch is kept.
        start: The same figures of what training started from; None: it is not among those to be kept.

    Returns:
        The epoch from 1, or 0 for the start; the earliest of equals.
    """
    if select == LAST:
        return len(history)
    rows = [start, *history] if start else history
    scores = [score_row(row, select) for row in rows]
    return scores.index(max(scores)) + (not start)


def score_row(row: Mapping[str, float], select: str) -> float:
    """Return how good validation says that a network is.

    Args:
        row: Its validation figures, as columns of a history.
        select: `loss` or `last` (by the loss), or a metric.

    Returns:
        The score; higher is better.
    """
    return -row["val_loss"] if select in (LOSS, LAST) else row[f"val_{select}"]


def compute_rate_factor(
    schedule: Schedule, step: int, steps_an_epoch: int, val_losses: Sequence[float], epochs: float
) -> float:
    """Compute the factor on the learning rate for one step, warm-up included.

    Args:
        schedule: The options of the schedule.
        step: Optimizer steps that are done, over all epochs.
        steps_an_epoch: Steps of one epoch.
        val_losses: Validation loss (nats) of every finished epoch.
        epochs: Epochs in all: fractional or infinite where time is the limit.

    Returns:
        The factor, usually between 0 and 1.

    Raises:
        RecipeError: A user's own schedule cannot be imported.
    """
    warm = schedule.warmup * steps_an_epoch
    rise = min(1.0, (step + 1) / warm) if warm else 1.0
    position = Position(step, steps_an_epoch, epochs, val_losses)
    factor = cast("Callable[[Schedule, Position], float]", load_function(schedule.function))
    return rise * factor(schedule, position)


def stay_constant(schedule: Schedule, at: Position) -> float:
    """Leave the rate as it is.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    return 1.0


def decay_at_intervals(schedule: StepDecay, at: Position) -> float:
    """Multiply the rate by a factor at regular intervals.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    return float(schedule.factor ** (at.epoch("epoch") // schedule.every))


def decay_at_epochs(schedule: MultiStep, at: Position) -> float:
    """Multiply the rate by a factor at given epochs.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    return float(schedule.factor ** sum(at.epoch("epoch") >= change for change in schedule.at))


def follow_cosine(schedule: Cosine, at: Position) -> float:
    """Lower the rate along a cosine.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    whole = at.epochs if schedule.t_max == "end" else schedule.t_max
    return (1 + math.cos(math.pi * at.epoch(schedule.by) / whole)) / 2


def follow_one_cycle(schedule: Schedule, at: Position) -> float:
    """Raise the rate from a 25th and lower it to almost nothing, each along a cosine.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    peak = ONE_CYCLE_RISE * at.steps - 1
    if at.step <= peak:
        return _between(ONE_CYCLE_START, 1.0, at.step / max(peak, 1e-9))
    return _between(1.0, ONE_CYCLE_END, (at.step - peak) / max(at.steps - 1 - peak, 1e-9))


def decay_on_plateaus(schedule: Plateau, at: Position) -> float:
    """Multiply the rate by a factor whenever the validation loss has stopped falling.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.
    """
    return float(schedule.factor ** _count_plateaus(at.losses, schedule.patience))


def follow_own(schedule: CustomSchedule, at: Position) -> float:
    """Ask a user's own function for the factor at the share of training that is done; 0 where its end is not known.

    Args:
        schedule: Its options.
        at: How far training has come.

    Returns:
        The factor on the rate.

    Raises:
        RecipeError: It cannot be imported, fails, or gives something other than a number from 0 on.
    """
    factor: Callable[[float], float] = make_entry(schedule.name, "schedule")
    progress = min(at.step / at.steps, 1.0)
    with telling_failures(schedule.name, "schedule"):
        given = factor(progress)
    number = float(given) if isinstance(given, SupportsFloat) else math.nan
    if not math.isfinite(number) or number < 0:
        raise RecipeError(
            f"schedule: {schedule.name} gave {given!r} at {progress:.0%} of training, expected a number from 0 on.",
            "Return the factor on the learning rate: 1 leaves it as it is.",
        )
    return number


def _between(start: float, end: float, share: float) -> float:
    """From start to end along a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _count_plateaus(losses: Sequence[float], patience: int) -> int:
    """How often the loss had not fallen for more than `patience` epochs."""
    best, bad, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            count, bad = count + 1, 0
    return count
