"""Recipes to optimizers of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, TypedDict, cast

import torch

from budwood.config.optimizers import CustomOptimizer, Decay, StepOptimizer
from budwood.config.registry import import_entry, load_function
from budwood.errors import RecipeError
from budwood.networks.freezing import NORMS, Frozen, map_parameters_to_stages
from budwood.networks.stages import Staged
from budwood.training.own_calls import telling_failures

Factory = Callable[..., torch.optim.Optimizer]  # of groups of parameters, and the options of the optimizer by name
DECOUPLED: Final = "decoupled_weight_decay_rate"  # of a group
BY_GROUP: Final = {field.name for field in fields(StepOptimizer)}


class ParameterGroup(TypedDict):
    """A group of parameters as `torch.optim` takes it.

    Attributes:
        params: The parameters.
        names: Their names in the network.
        lr: Their learning rate.
        weight_decay: The strength of their weight decay.
    """

    params: list[torch.nn.Parameter]
    names: list[str]
    lr: float
    weight_decay: float


def make_optimizer(section: StepOptimizer, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe.

    Args:
        section: The options of the optimizer.
        groups: The parameter groups, as `group_parameters` returns them: each with its own `lr` and `weight_decay`.

    Returns:
        The optimizer of these groups.

    Raises:
        RecipeError: A user's own factory cannot be imported, fails, or does not return a `torch.optim.Optimizer`.
    """
    if isinstance(section, CustomOptimizer):
        make = import_entry(section.name, "optimizer")
        with telling_failures(section.name, "optimizer"):
            optimizer = make(groups, lr=section.lr, weight_decay=section.weight_decay)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise RecipeError(
                f"optimizer: {section.name} made a {type(optimizer).__name__}, expected a torch.optim.Optimizer.",
                "Write a function of (params, lr, weight_decay) that returns one.",
            )
        return optimizer
    own = {field.name: getattr(section, field.name) for field in fields(section) if field.name not in BY_GROUP}
    return cast("Factory", load_function(section.function))(groups, **own)


def make_adam(groups: list[dict[str, Any]], *, decay: Decay) -> torch.optim.Optimizer:
    """Make Adam.

    Args:
        groups: The parameter groups.
        decay: How weight decay acts.

    Returns:
        The optimizer.
    """
    return torch.optim.Adam(groups, decoupled_weight_decay=decay == "decoupled")


def make_nadam(groups: list[dict[str, Any]], *, decay: Decay) -> torch.optim.Optimizer:
    """Make NAdam.

    Args:
        groups: The parameter groups.
        decay: How weight decay acts.

    Returns:
        The optimizer.
    """
    return torch.optim.NAdam(groups, decoupled_weight_decay=decay == "decoupled")


def make_adamax(groups: list[dict[str, Any]], *, decay: Decay) -> torch.optim.Optimizer:
    """Make Adamax.

    PyTorch has no decoupled weight decay for it; as in AdamW (Loshchilov and Hutter 2019), weights are multiplied by
    1 - lr * weight_decay before each step.

    Args:
        groups: The parameter groups.
        decay: How weight decay acts.

    Returns:
        The optimizer.
    """
    if decay == "l2":
        return torch.optim.Adamax(groups)
    optimizer = torch.optim.Adamax(
        [{**group, "weight_decay": 0.0, DECOUPLED: group["weight_decay"]} for group in groups]
    )
    optimizer.register_step_pre_hook(_shrink_weights)
    return optimizer


def _shrink_weights(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    """The decoupled weight decay of one step."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group[DECOUPLED])


def parameter_groups(network: Staged, frozen: Frozen, section: StepOptimizer) -> list[ParameterGroup]:
    """Groups for an optimizer: what is trained, with its rate by stage and its weight decay by kind.

    The head has the recipe's rate; each stage before it that of the next times `layer_decay`. Biases and the parameters
    of norms have no weight decay when `decay_norms` is false.
    """
    named = dict(network.module.named_parameters())
    norms = {
        id(parameter)
        for part in network.module.modules()
        if isinstance(part, NORMS)
        for parameter in part.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for distance, names in enumerate(reversed(map_parameters_to_stages(network).values())):
        for name in names:
            if name in frozen.parameters:
                continue
            light = not section.decay_norms and (id(named[name]) in norms or named[name].ndim == 1)
            key = (section.lr * section.layer_decay**distance, 0.0 if light else section.weight_decay)
            group = groups.setdefault(key, {"params": [], "names": [], "lr": key[0], "weight_decay": key[1]})
            group["params"].append(named[name])
            group["names"].append(name)
    return list(groups.values())
