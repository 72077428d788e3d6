"""What networks there are: size, parameters, published accuracy, and whether the weights are on this machine."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.config.recipe import Recipe
from budwood.networks.registry import PACKAGED, Network, find_network, list_networks
from budwood.networks.weights import is_local

COUNTED: Final = 40  # networks of timm whose parameters are counted for a list; timm does not publish them


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one network for a list of networks.

    Attributes:
        name: Name of the network within its source.
        source: `budwood`, `torchvision` or `timm`.
        size: Side of its input in pixels.
        parameters: Number of parameters with its own head; None where it was not counted.
        accuracy: Published top-1 accuracy on ImageNet, 0 to 1; None where the source does not publish it.
        local: Whether its ImageNet weights are on this machine.
    """

    name: str
    source: str
    size: int
    parameters: int | None
    accuracy: float | None
    local: bool


def list_models(pattern: str | None, cache: Path) -> tuple[list[ModelInfo], int]:
    """List the networks whose names match a pattern.

    Without a pattern the list has Budwood's own networks, torchvision's, those of timm whose weights are on this
    machine, and those of timm whose weights an installable package ships. timm does not publish numbers of
    parameters, so they are counted only where the list has at most 40 networks of timm.

    Args:
        pattern: Shell pattern of names, such as `resnet*`, case-sensitive; None for no pattern.
        cache: Folder of Budwood's cache, in which weights are looked for.

    Returns:
        The networks, source by source, and how many of timm were left out; 0 with a pattern.
    """
    listed = []
    left_out = 0
    for source, names in list_networks().items():
        for name in names:
            if pattern is not None and not fnmatch.fnmatchcase(name, pattern):
                continue
            net = _find_listed(source, name)
            local = is_local(net.origins, cache)
            if pattern is None and source == "timm" and not local and name not in PACKAGED:
                left_out += 1
            else:
                listed.append((net, local))
    counted = sum(net.source == "timm" for net, _ in listed) <= COUNTED
    return [_make_info(net, local, counted) for net, local in listed], left_out


def _find_listed(source: str, name: str) -> Network:
    options = Recipe(model=name).own_options if source == "budwood" else None
    return find_network(f"{source}:{name}", options)


def _make_info(net: Network, local: bool, counted: bool) -> ModelInfo:
    parameters = net.parameters
    if parameters is None and (net.source == "budwood" or counted):
        parameters = _count(net)
    return ModelInfo(net.name, net.source, net.size, parameters, net.accuracy, local)


def _count(net: Network) -> int:
    """The parameters of a network as its source makes it, without making their values."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in net.make(3, net.size).parameters())
