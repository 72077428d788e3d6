"""Decoupled weight decay is that of formulae written by hand, and of PyTorch where it has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from budwood.config.optimizers import Adam, StepOptimizer
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.training.linear_head import make_numpy_optimizer
from budwood.training.optimizers import make_optimizer

RATES = (0.1, 0.1, 0.03, 0.03, 0.001)
WEIGHT_DECAY = 0.3
Step = Callable[[float, float, int, dict[str, float]], float]  # rate, gradient, step from 1, memory: what is taken off


def _adam(lr: float, gradient: float, step: int, memory: dict[str, float]) -> float:
    """Kingma and Ba 2015, algorithm 1."""
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * gradient**2
    mean, square = memory["m"] / (1 - 0.9**step), memory["v"] / (1 - 0.999**step)
    return lr * mean / (math.sqrt(square) + 1e-8)


def _adamax(lr: float, gradient: float, step: int, memory: dict[str, float]) -> float:
    """Kingma and Ba 2015, algorithm 2."""
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * gradient
    memory["u"] = max(0.999 * memory.get("u", 0.0), abs(gradient) + 1e-8)
    return lr / (1 - 0.9**step) * memory["m"] / memory["u"]


def _nadam(lr: float, gradient: float, step: int, memory: dict[str, float]) -> float:
    """Dozat 2016, with the schedule of the momentum of its section on Keras: mu_t = 0.9 (1 - 0.5 * 0.96^(0.004 t))."""
    now, then = (0.9 * (1 - 0.5 * math.pow(0.96, at * 0.004)) for at in (step, step + 1))
    memory["product"] = memory.get("product", 1.0) * now
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * gradient**2
    square = memory["v"] / (1 - 0.999**step)
    mean = then * memory["m"] / (1 - memory["product"] * then) + (1 - now) * gradient / (1 - memory["product"])
    return lr * mean / (math.sqrt(square) + 1e-8)


FORMULAE: dict[str, Step] = {"adam": _adam, "adamax": _adamax, "nadam": _nadam}


def _by_hand(step_of: Step, decay: str, weight: float, gradients: list[float]) -> float:
    memory: dict[str, float] = {}
    for step, (lr, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        if decay == "decoupled":
            weight *= 1 - lr * WEIGHT_DECAY
        weight -= step_of(lr, gradient + (WEIGHT_DECAY * weight if decay == "l2" else 0.0), step, memory)
    return weight


def _section(**options: Any) -> StepOptimizer:
    return resolve(Recipe(freeze="none", weight_decay=WEIGHT_DECAY, **options), False, 32).steps


def _descend(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, gradients: np.ndarray) -> list[float]:
    for lr, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    return [float(value) for value in parameter.detach()]


@pytest.mark.parametrize("decay", ["l2", "decoupled"])
@pytest.mark.parametrize("name", FORMULAE)
def test_weight_decay_is_in_the_gradient_or_taken_off_the_weights(name: str, decay: str) -> None:
    random = np.random.default_rng(3)
    start, gradients = random.normal(size=4), random.normal(size=(len(RATES), 4))
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    untouched = torch.nn.Parameter(torch.ones(2))
    group: Any = {"params": [parameter, untouched], "names": ["a", "b"], "lr": 0.1, "weight_decay": WEIGHT_DECAY}
    found = _descend(make_optimizer(_section(optimizer=name, decay=decay), [group]), parameter, gradients)
    expected = [_by_hand(FORMULAE[name], decay, start[n], list(gradients[:, n])) for n in range(4)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert untouched.tolist() == [1.0, 1.0], "what has no gradient is not moved"


def test_adam_with_decoupled_decay_is_adamw() -> None:
    random = np.random.default_rng(5)
    start, gradients = random.normal(size=4), random.normal(size=(len(RATES), 4))
    ours, theirs = (torch.nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
    group: Any = {"params": [ours], "names": ["a"], "lr": 0.1, "weight_decay": WEIGHT_DECAY}
    made = make_optimizer(_section(optimizer="adam", decay="decoupled"), [group])
    reference = torch.optim.AdamW([theirs], weight_decay=WEIGHT_DECAY)
    assert _descend(made, ours, gradients) == pytest.approx(_descend(reference, theirs, gradients), abs=1e-12)


@pytest.mark.parametrize("decay", ["l2", "decoupled"])
def test_the_optimizer_of_a_head_alone_decays_alike(decay: Any) -> None:
    gradients = np.random.default_rng(7).normal(size=(8, 4)).astype(np.float32)
    weights = np.linspace(-1, 1, 4, dtype=np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    reference = (torch.optim.AdamW if decay == "decoupled" else torch.optim.Adam)([parameter], 0.1, weight_decay=0.3)
    move = make_numpy_optimizer(Adam(lr=0.1, weight_decay=0.3, decay=decay))
    for gradient in gradients:
        move(weights, gradient)
        parameter.grad = torch.from_numpy(gradient)
        reference.step()
    assert weights == pytest.approx(parameter.detach().numpy(), abs=1e-5)


def test_decay_belongs_to_adam_s_family_and_is_not_written_where_it_is_not_given() -> None:
    assert "decay" not in Recipe(optimizer="nadam").table()
    assert Recipe(optimizer="adam", decay="decoupled", epochs=2).head_alone, "NumPy has it, too"
    for optimizer in ("adamw", "sgd", "adagrad"):
        message = f"decay: optimizer '{optimizer}' does not use it; it is an option of adam, nadam and adamax"
        with pytest.raises(RecipeError, match=message):
            Recipe(optimizer=optimizer, decay="decoupled")
    with pytest.raises(RecipeError, match="decay: input should be 'l2' or 'decoupled', found 'weights'"):
        Recipe(optimizer="adam", decay="weights")
