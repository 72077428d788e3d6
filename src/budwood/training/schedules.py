"""How the learning rate changes, and which epoch is kept: pure functions of where training stands.

Nothing is kept between steps, so a training that is resumed needs no state of its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budwood.config.options import Cosine, CustomSchedule, MultiStep, Plateau, Schedule, StepDecay
from budwood.config.registry import Registry, import_entry

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


def find_best_epoch(history: Sequence[Mapping[str, float]], select: str) -> int:
    """Find the epoch that validation prefers.

    Args:
        history: One row an epoch, with the validation figure that `select` names.
        select: `loss` (lowest is best) or a metric (highest is best).

    Returns:
        The epoch from 1; the earliest of equals.
    """
    scores = [-row["val_loss"] if select == "loss" else row[f"val_{select}"] for row in history]
    return scores.index(max(scores)) + 1


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
    if isinstance(schedule, CustomSchedule):
        return rise * _custom(schedule, position)
    return rise * FACTORS.get(schedule.name)(schedule, position)


def _constant(schedule: Schedule, at: Position) -> float:
    return 1.0


def _step(schedule: StepDecay, at: Position) -> float:
    return float(schedule.factor ** (at.epoch(schedule.by) // schedule.every))


def _multistep(schedule: MultiStep, at: Position) -> float:
    return float(schedule.factor ** sum(at.epoch(schedule.by) >= change for change in schedule.at))


def _interpolate_cosine(schedule: Cosine, at: Position) -> float:
    whole = at.epochs if schedule.t_max == "end" else schedule.t_max
    return (1 + math.cos(math.pi * at.epoch(schedule.by) / whole)) / 2


def _one_cycle_factor(schedule: Schedule, at: Position) -> float:
    """Up from a 25th and down to almost nothing, each along a cosine."""
    peak = ONE_CYCLE_RISE * at.steps - 1
    if at.step <= peak:
        return _between(ONE_CYCLE_START, 1.0, at.step / max(peak, 1e-9))
    return _between(1.0, ONE_CYCLE_END, (at.step - peak) / max(at.steps - 1 - peak, 1e-9))


def _plateau(schedule: Plateau, at: Position) -> float:
    return float(schedule.factor ** _count_plateaus(at.losses, schedule.patience))


def _custom(schedule: CustomSchedule, at: Position) -> float:
    """What a user's own function makes of the share of training that is done; 0 where its end is not known."""
    factor: Callable[[float], float] = import_entry(schedule.name, "schedule")
    return float(factor(min(at.step / at.steps, 1.0)))


# What each schedule of `options` does.
FACTORS: Final[Registry[Callable[[Any, Position], float]]] = Registry(
    "schedule",
    {
        "constant": _constant,
        "step": _step,
        "multistep": _multistep,
        "cosine": _interpolate_cosine,
        "onecycle": _one_cycle_factor,
        "plateau": _plateau,
    },
)


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
