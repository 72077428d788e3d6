"""How large the weights of each stage are while they are trained, and the gradients that move them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from budwood.networks.freezing import map_parameters_to_stages
from budwood.networks.surgery import BuiltNetwork
from budwood.training.history import GRADIENT, WEIGHT

Stages = Mapping[str, Sequence[nn.Parameter]]


def group_by_stage(network: BuiltNetwork) -> dict[str, list[nn.Parameter]]:
    """Group the parameters of a network by stage.

    Args:
        network: The network.

    Returns:
        The parameters of each stage that has any, in order; those of the head come last, under `head`.
    """
    named = dict(network.module.named_parameters())
    return {stage: [named[name] for name in names] for stage, names in map_parameters_to_stages(network.staged).items()}


def measure_weight_norms(stages: Stages) -> dict[str, float]:
    """Measure the L2 norm of each stage's parameters.

    Args:
        stages: Parameters by stage.

    Returns:
        The norms as columns of a history.
    """
    return dict(zip((f"{WEIGHT}{stage}" for stage in stages), _measure_norms(list(stages.values())), strict=True))


def measure_gradient_norms(stages: Stages) -> list[float]:
    """Measure the L2 norm of each stage's gradients.

    Args:
        stages: Parameters by stage.

    Returns:
        The norms in the order of the stages; 0 for a stage that is frozen.
    """
    return _measure_norms(
        [[parameter.grad for parameter in owned if parameter.grad is not None] for owned in stages.values()]
    )


def make_history_columns(norms: Sequence[float], stages: Stages) -> dict[str, float]:
    """Name gradient norms as columns of a history.

    Args:
        norms: One norm for each stage.
        stages: Parameters by stage, in the same order.

    Returns:
        The norms by column.
    """
    return dict(zip((f"{GRADIENT}{stage}" for stage in stages), norms, strict=True))


def _measure_norms(groups: Sequence[Sequence[Tensor]]) -> list[float]:
    """The L2 norm over each group of tensors, 0 for an empty one; handed over from the device at once."""
    with torch.no_grad():
        norms = [get_total_norm(list(group)) for group in groups if group]
        values = iter(torch.stack(norms).tolist() if norms else [])
    return [next(values) if group else 0.0 for group in groups]
