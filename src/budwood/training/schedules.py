"""How the learning rate changes, and which epoch is kept: pure functions of where training stands.

Nothing is kept between steps, so a training that is resumed needs no state of its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from budwood.config.recipe import Recipe

ONE_CYCLE_RISE: Final = 0.3  # share of the steps in which one-cycle rises; Smith and Topin 2019 as torch.optim has it
ONE_CYCLE_START: Final = 1 / 25
ONE_CYCLE_END: Final = ONE_CYCLE_START / 1e4
PLATEAU_THRESHOLD: Final = 1e-4  # relative fall of the validation loss that counts


def find_best_epoch(history: Sequence[Mapping[str, float]], recipe: Recipe) -> int:
    """The epoch that validation prefers, from 1; the earliest of equals."""
    chosen = recipe.select or "loss"
    scores = [-row["val_loss"] if chosen == "loss" else row[f"val_{chosen}"] for row in history]
    return scores.index(max(scores)) + 1


def compute_rate_factor(
    recipe: Recipe, step: int, steps_an_epoch: int, val_losses: Sequence[float], epochs: float | None = None
) -> float:
    """The factor on the learning rate for one step.

    `step` counts optimizer steps from 0 over all epochs; `val_losses` has one value for every finished epoch; `epochs`
    is how many there will be, where that is not the recipe's number: fractional or infinite when time is the limit.
    """
    epochs = epochs or float(recipe.epochs or math.inf)
    warm = (recipe.warmup or 0.0) * steps_an_epoch
    rise = min(1.0, (step + 1) / warm) if warm else 1.0
    epoch = step / steps_an_epoch if recipe.schedule_by == "step" else step // steps_an_epoch
    return rise * _schedule_factor(recipe, step, epoch, epochs, steps_an_epoch, val_losses)


def _schedule_factor(
    recipe: Recipe, step: int, epoch: float, epochs: float, steps_an_epoch: int, val_losses: Sequence[float]
) -> float:
    factor = recipe.schedule_factor or 1.0
    if recipe.schedule == "step":
        return float(factor ** (epoch // (recipe.schedule_every or 1)))
    if recipe.schedule == "multistep":
        return float(factor ** sum(epoch >= at for at in recipe.schedule_at or ()))
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * epoch / (recipe.schedule_t_max or epochs))) / 2
    if recipe.schedule == "onecycle":
        return _one_cycle_factor(step, epochs * steps_an_epoch)
    if recipe.schedule == "plateau":
        return float(factor ** _count_plateaus(val_losses, recipe.schedule_patience or 0))
    return 1.0


def _one_cycle_factor(step: int, steps: float) -> float:
    """Up from a 25th and down to almost nothing, each along a cosine."""
    peak = ONE_CYCLE_RISE * steps - 1
    if step <= peak:
        return _interpolate_cosine(ONE_CYCLE_START, 1.0, step / max(peak, 1e-9))
    return _interpolate_cosine(1.0, ONE_CYCLE_END, (step - peak) / max(steps - 1 - peak, 1e-9))


def _interpolate_cosine(start: float, end: float, share: float) -> float:
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
