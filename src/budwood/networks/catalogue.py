"""What networks there are: size, parameters, published accuracy, and whether the weights are on this machine."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.config.recipe import Recipe
from budwood.networks.registry import PACKAGED, Network, names, network
from budwood.networks.weights import local

COUNTED: Final = 40  # networks of timm whose parameters are counted for a list; timm does not publish them


@dataclass(frozen=True)
class Entry:
    """One network: side of its input in pixels, parameters with its own head, top-1 on ImageNet (0 to 1)."""

    name: str
    source: str
    size: int
    parameters: int | None
    accuracy: float | None
    local: bool


def entries(pattern: str | None, cache: Path) -> tuple[list[Entry], int]:
    """The networks whose names match a pattern, and how many more there are.

    Without a pattern: Budwood's own, torchvision's, and those of timm whose weights are on this machine.
    """
    found = []
    others = 0
    for source, listed in names().items():
        for name in listed:
            if pattern is not None and not fnmatch.fnmatchcase(name, pattern):
                continue
            net = _network(source, name)
            here = local(net.origins, cache)
            if pattern is None and source == "timm" and not here and name not in PACKAGED:
                others += 1
            else:
                found.append((net, here))
    counted = sum(net.source == "timm" for net, _ in found) <= COUNTED
    return [_entry(net, here, counted) for net, here in found], others


def _network(source: str, name: str) -> Network:
    options = Recipe(model=name).own_options if source == "budwood" else None
    return network(f"{source}:{name}", options)


def _entry(net: Network, here: bool, counted: bool) -> Entry:
    parameters = net.parameters
    if parameters is None and (net.source == "budwood" or counted):
        parameters = _count(net)
    return Entry(net.name, net.source, net.size, parameters, net.accuracy, here)


def _count(net: Network) -> int:
    """The parameters of a network as its source makes it, without making their values."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in net.make(3, net.size).parameters())
