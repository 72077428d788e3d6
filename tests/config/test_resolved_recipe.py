"""A resolved recipe has no gaps, and each section has only what its name uses."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from budwood.config.augmentations import Augmentation
from budwood.config.losses import BinaryCrossEntropy, CrossEntropy, Focal
from budwood.config.optimizers import LBFGS, SGD, AdamW
from budwood.config.options import LOSS_OPTIONS, OPTIMIZER_OPTIONS, SCHEDULE_OPTIONS
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.config.schedules import Cosine, MultiStep
from budwood.errors import RecipeError

EXTRA: dict[str, dict[str, Any]] = {"multistep": {"schedule_at": [2]}}


def gaps(record: Any) -> list[str]:
    """The fields of a record, and of records in it, that hold None."""
    found = []
    for field in fields(record):
        value = getattr(record, field.name)
        found += [field.name] if value is None else gaps(value) if is_dataclass(value) else []
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZER_OPTIONS)
@pytest.mark.parametrize("schedule", SCHEDULE_OPTIONS)
@pytest.mark.parametrize("loss", [name for name in LOSS_OPTIONS if name != "binary_cross_entropy"])
def test_there_are_no_gaps(optimizer: str, schedule: str, loss: str) -> None:
    if optimizer == "lbfgs":
        recipe = Recipe()
    else:
        recipe = Recipe(optimizer=optimizer, schedule=schedule, loss=loss, **EXTRA.get(schedule, {}))
    assert gaps(resolve(recipe, False, 224)) == []


def test_sections_are_of_the_kind_that_is_named() -> None:
    recipe = Recipe(
        freeze="none",
        optimizer="sgd",
        lr=0.1,
        nesterov=True,
        weight_decay=0.01,
        layer_decay=0.5,
        schedule="cosine",
        schedule_t_max=7,
        warmup=2,
        loss="focal",
        focal_gamma=1.5,
        label_smoothing=0.1,
        crop_scale=0.5,
    )
    found = resolve(recipe, False, 64)
    assert found.optimizer == SGD(lr=0.1, weight_decay=0.01, layer_decay=0.5, nesterov=True)
    assert found.schedule == Cosine(warmup=2.0, t_max=7)
    assert found.loss == Focal(gamma=1.5, label_smoothing=0.1)
    assert found.augmentation == Augmentation({"crop_scale": 0.5})
    assert found.augments
    multistep = resolve(Recipe(freeze="none", schedule="multistep", schedule_at="3,8"), False, 64)
    assert multistep.schedule == MultiStep(0.0, at=(3, 8))


def test_what_has_no_limit_is_infinite_and_nothing_asked_changes_no_image() -> None:
    found = resolve(Recipe(freeze="none", time="10m"), False, 64)
    assert (found.limits.epochs, found.limits.patience, found.limits.seconds) == (math.inf, math.inf, 600)
    assert (found.clip, found.ema, found.versions) == (math.inf, 0, 0)
    assert not found.augments
    assert resolve(Recipe(freeze="none", rotation=5, fill="black"), False, 64).augments
    assert resolve(Recipe(freeze="none", mixup=0.2), False, 64).augments


def test_the_rates_that_stand_in_are_those_of_the_optimizer() -> None:
    assert resolve(Recipe(optimizer="adamw"), False, 64).optimizer == AdamW()
    tuned = resolve(Recipe(optimizer="adamw", freeze="none"), False, 64)
    assert tuned.steps.lr == pytest.approx(3e-4)


def test_a_rate_that_a_trial_is_to_find_stands_open_until_it_is_settled() -> None:
    found = resolve(Recipe(freeze="none", lr="auto"), False, 64)
    assert found.steps.lr_from_trial
    settled = found.with_rate(0.02)
    assert (settled.steps.lr, settled.steps.lr_from_trial) == (0.02, False)


def test_a_head_that_is_solved_takes_no_steps() -> None:
    found = resolve(Recipe(regularisation=0.5), False, 64)
    assert found.optimizer == LBFGS(0.5)
    with pytest.raises(RecipeError, match="lbfgs solves a linear head and takes no steps"):
        found.steps  # noqa: B018


def test_several_labels_have_a_loss_of_their_own() -> None:
    assert resolve(Recipe(optimizer="adam"), True, 64).loss == BinaryCrossEntropy()
    assert resolve(Recipe(optimizer="adam"), False, 64).loss == CrossEntropy()
    assert resolve(Recipe(), True, 64).optimizer.name == "adam", "such a head is not solved"
    with pytest.raises(RecipeError, match="label_smoothing: not used for multi-label data"):
        resolve(Recipe(optimizer="adam", label_smoothing=0.1), True, 64)
