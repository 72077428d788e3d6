"""Recipes to optimizers of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from budwood.config.recipe import Recipe

OPTIMIZERS: Final[dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]]] = {
    "sgd": lambda groups, recipe: torch.optim.SGD(
        groups, momentum=recipe.momentum or 0.0, nesterov=bool(recipe.nesterov)
    ),
    "adam": lambda groups, recipe: torch.optim.Adam(groups),
    "adamw": lambda groups, recipe: torch.optim.AdamW(groups),
    "nadam": lambda groups, recipe: torch.optim.NAdam(groups),
    "adamax": lambda groups, recipe: torch.optim.Adamax(groups),
    "adagrad": lambda groups, recipe: torch.optim.Adagrad(groups),
    "adadelta": lambda groups, recipe: torch.optim.Adadelta(groups),
    "rmsprop": lambda groups, recipe: torch.optim.RMSprop(groups, momentum=recipe.momentum or 0.0),
}
