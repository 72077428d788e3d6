"""Networks to be looked at, and whether a look has left a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from budwood.config.recipe import Recipe
from budwood.explain.probe import NetworkProbe, make_probe
from budwood.networks.network_plan import NetworkPlan, ParameterCount
from budwood.networks.plan import spec_of
from budwood.networks.spec import NetworkSpec
from budwood.networks.surgery import plan_network
from budwood.networks.weights import describe_random

SMALL = {"model": "cnn", "widths": [8, 8, 16], "pools": [1, 1, 2], "fc": [16], "conv_norm": True, "size": 32}


def plan_with(**fields: Any) -> NetworkPlan:
    """A plan of no network, with these fields."""
    nothing: dict[str, Any] = {
        "name": "nothing",
        "source": "budwood",
        "size": 32,
        "channels": 3,
        "mean": (0.0,),
        "std": (1.0,),
        "head": "head",
        "origins": (),
        "accuracy": None,
        "before": (),
        "stages": (),
        "cut": None,
        "pool": "own",
        "features": 1,
        "shape": (1,),
        "prefix": None,
        "prefix_shape": None,
        "parameters": ParameterCount(0, 0),
        "macs": 0,
    }
    return NetworkPlan(**{**nothing, **fields})


def opened(cache: Path, **options: Any) -> NetworkProbe:
    """A network with random weights and three classes."""
    recipe = Recipe(**{"weights": "none", "optimizer": "adam", **options})
    return make_probe(spec_of(recipe, 3, describe_random("default", 0), cache), ("a", "b", "c"))


def untrained(recipe: Recipe, classes: int) -> NetworkSpec:
    """A network with the random weights of its recipe's seed; nothing is remembered of it."""
    return NetworkSpec(recipe, plan_network(recipe, classes), classes, describe_random("default", recipe.seed or 0))


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A module whose tensors, modes, hooks and gradients are after the block, bit by bit, what they were before."""
    tensors, rest = _state(module)
    yield
    after, others = _state(module)
    assert others == rest
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())


def _state(module: nn.Module) -> tuple[dict[str, Tensor], list[Any]]:
    parts = [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    needs = [(parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}, [*parts, *needs]
