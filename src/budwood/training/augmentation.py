"""Augmentation as values: what happens is drawn for every image of a batch, then applied to the batch at once.

What moves pixels is one affine map an image and one resampling for the batch, however many augmentations it comes of.
Images are float32 [n, height, width, 3] from 0 to 255 on any device, as are the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from budwood.config.augmentations import AUGMENTATIONS, Augmentation
from budwood.config.registry import load_function
from budwood.training.affine_maps import Floats
from budwood.training.own_transforms import apply_own

FILLS: Final = {"reflect": "reflection", "border": "border", "black": "zeros"}
Drawn = NDArray[np.float64] | NDArray[np.int64]
_IDENTITY: Final = np.eye(3)


@dataclass(frozen=True)
class AugmentationParameters:
    """What happens to each image of a batch of n.

    Attributes:
        drawn: What was drawn for each augmentation that is used, arrays [n, ...] by its name.
        seeds: Seeds int64 [n] of what draws for itself, as policies and the user's own do.
    """

    drawn: Mapping[str, Drawn]
    seeds: NDArray[np.int64]

    @property
    def maps(self) -> Floats:
        """Return the affine map of all that moves pixels, float64 [n, 2, 3].

        It leads from places of the result to places of the image, both from -1 to 1, x first.
        """
        moving = [name for name in AUGMENTATIONS.entries if name in self.drawn and _is_geometric(name)]
        return self.compose(moving)

    def compose(self, names: Iterable[str]) -> Floats:
        """Compose the affine maps of augmentations.

        Args:
            names: Their names, in the order in which they are applied.

        Returns:
            Maps float64 [n, 2, 3].
        """
        maps = [self.drawn[name] for name in names]
        return reduce(np.matmul, maps, np.broadcast_to(_IDENTITY, (len(self.seeds), 3, 3)))[:, :2]


def sample_parameters(ranges: Augmentation, n: int, size: int, random: np.random.Generator) -> AugmentationParameters:
    """Sample the augmentation of a batch within its ranges.

    Args:
        ranges: The ranges and chances.
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.

    Returns:
        What happens to each image.
    """

    def sample(name: str) -> Drawn:
        draw = cast("Callable[..., Drawn]", load_function(AUGMENTATIONS.get(name).sample))
        return draw(n, size, random, **ranges.options_of(name))

    places = {name: AUGMENTATIONS.get(name).drawn for name in AUGMENTATIONS.entries}
    always = sorted((place, name) for name, place in places.items() if place is not None)
    drawn = {name: sample(name) for _, name in always}
    seeds = random.integers(0, 2**31, n)
    later = [name for name in ranges.used if name not in drawn]
    drawn |= {name: sample(name) if AUGMENTATIONS.get(name).sample else seeds for name in later}
    return AugmentationParameters({name: drawn[name] for name in ranges.used}, seeds)


def augment(images: Tensor, what: AugmentationParameters, ranges: Augmentation) -> Tensor:
    """Augment the images of a batch, in the order of the table of augmentations, and by the user's own at last.

    Args:
        images: float32 [n, height, width, 3] from 0 to 255, on any device.
        what: What happens to each image, as `sample_parameters` draws it.
        ranges: The ranges it was drawn from; fill and own augmentations are read here.

    Returns:
        The changed images, of the same shape, type, range and device.

    Raises:
        RecipeError: A user's own augmentation cannot be imported, fails, or returns something other than images of the
            kind and size that it was given.
    """
    pictures = images.permute(0, 3, 1, 2)
    for geometric, names in groupby(ranges.used, _is_geometric):
        if geometric:
            pictures = _warp(pictures, what.compose(names), ranges.fill)
            continue
        for name in names:
            change = cast("Callable[..., Tensor]", load_function(AUGMENTATIONS.get(name).apply))
            pictures = change(pictures, what.drawn[name], **ranges.options_of(name))
    for number, own in enumerate(ranges.own):
        pictures = apply_own(own, pictures, what.seeds + 2**31 * number)
    return pictures.permute(0, 2, 3, 1)


def _is_geometric(name: str) -> bool:
    return AUGMENTATIONS.get(name).kind == "geometric"


def _warp(pictures: Tensor, maps: Floats, fill: str) -> Tensor:
    if np.array_equal(maps, np.broadcast_to(_IDENTITY[:2], maps.shape)):
        return pictures
    theta = torch.from_numpy(maps).to(pictures.dtype).to(pictures.device)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode=FILLS[fill], align_corners=False)
