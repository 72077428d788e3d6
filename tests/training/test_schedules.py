"""Every schedule is PyTorch's, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as reference

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.training.schedules import compute_rate_factor

EPOCHS, STEPS = 12, 5
Made = Callable[[torch.optim.Optimizer], Any]


def _factors(**options: Any) -> list[float]:
    recipe = Recipe(optimizer="sgd", freeze="none", epochs=EPOCHS, **options)
    resolved = resolve(recipe, False, 32)
    return [
        compute_rate_factor(resolved.schedule, step, STEPS, [], resolved.limits.epochs)
        for step in range(EPOCHS * STEPS)
    ]


def _torch(made: Made, by_step: bool) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = made(optimizer)
    rates = []
    for step in range(EPOCHS * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if by_step or step % STEPS == STEPS - 1:
            schedule.step()
    return rates


@pytest.mark.parametrize(
    ("options", "made", "by_step"),
    [
        ({}, lambda o: reference.ConstantLR(o, 1.0), False),
        ({"schedule": "step", "schedule_every": 5}, lambda o: reference.StepLR(o, 5), False),
        (
            {"schedule": "multistep", "schedule_at": "3,8", "schedule_factor": 0.5},
            lambda o: reference.MultiStepLR(o, [3, 8], 0.5),
            False,
        ),
        ({"schedule": "cosine", "schedule_by": "epoch"}, lambda o: reference.CosineAnnealingLR(o, EPOCHS), False),
        (
            {"schedule": "cosine", "schedule_by": "epoch", "schedule_t_max": 200},
            lambda o: reference.CosineAnnealingLR(o, 200),
            False,
        ),
        ({"schedule": "cosine"}, lambda o: reference.CosineAnnealingLR(o, EPOCHS * STEPS), True),
        (
            {"schedule": "onecycle"},
            lambda o: reference.OneCycleLR(o, 1.0, EPOCHS * STEPS, cycle_momentum=False),
            True,
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_schedule_is_that_of_torch(options: dict[str, Any], made: Made, by_step: bool) -> None:
    assert _factors(**options) == pytest.approx(_torch(made, by_step), abs=1e-9)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_the_rate_falls_on_a_plateau_as_in_torch(patience: int) -> None:
    losses = np.round(np.random.default_rng(3).random(40) + np.linspace(1, 0, 40), 2).tolist()
    recipe = Recipe(freeze="none", epochs=40, schedule="plateau", schedule_patience=patience, schedule_factor=0.5)
    schedule_of = resolve(recipe, False, 32).schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = reference.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    for epoch, loss in enumerate(losses):
        rate = pytest.approx(optimizer.param_groups[0]["lr"], abs=2e-8)  # torch lowers it by 1e-8 at least
        assert compute_rate_factor(schedule_of, epoch * STEPS, STEPS, losses[:epoch], 40) == rate
        schedule.step(loss)


def test_a_warm_up_grows_to_the_schedules_own_value() -> None:
    plain, warm = _factors(schedule="cosine"), _factors(schedule="cosine", warmup=2)
    assert [w / p for w, p in zip(warm, plain, strict=True)][:12] == pytest.approx(
        [(n + 1) / 10 for n in range(10)] + [1, 1]
    )
    assert warm[10:] == plain[10:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule_every": 3}, "schedule_every: schedule 'constant' does not use it; it is an option of step"),
        (
            {"schedule": "cosine", "schedule_factor": 0.5},
            "schedule_factor: schedule 'cosine' does not use it; it is an ",
        ),
        ({"schedule": "multistep"}, "schedule_at: expected the epochs of the changes"),
        ({"schedule": "linear"}, "schedule: input should be 'constant', 'step'"),
        ({"focal_gamma": 1.0}, "focal_gamma: loss 'cross_entropy' does not use it; it is an option of focal"),
        ({"nesterov": True, "momentum": 0.0, "optimizer": "sgd"}, "nesterov: expected a momentum above 0"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov: optimizer 'adam' does not use it"),
        ({"momentum": 1.0, "optimizer": "rmsprop"}, "momentum: expected under 1"),
    ],
)
def test_what_does_not_apply_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(freeze="none", **options)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda progress: "fast", "gave 'fast' at 50% of training, expected a number from 0 on"),
        (lambda progress: -progress, "gave -0.5 at 50%"),
        (lambda progress: 1 / (progress - 0.5), r"failed \(ZeroDivisionError: .*\) in .*test_schedules.py, line \d+"),
    ],
)
def test_what_is_wrong_with_a_schedule_of_ones_own_is_said(schedule: Any, message: str) -> None:
    resolved = resolve(Recipe(freeze="none", schedule=schedule), False, 16).schedule
    with pytest.raises(RecipeError, match=f"schedule: .*{message}"):
        compute_rate_factor(resolved, 10, 5, [], 4)
