"""Augmentation as values: parameters are drawn for every image of a batch, then applied to the batch at once.

All that moves pixels (flips, rotation, shifts, shear, zoom, crops) is one affine map an image and one resampling for
the batch. Images are float32 [n, height, width, 3] from 0 to 255 on any device, as are the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from budwood.config.registry import import_entry
from budwood.config.resolved_recipe import Augmentation, ResizedCrop
from budwood.errors import RecipeError
from budwood.inference.pytorch_backend import LUMA

ASPECT: Final = (3 / 4, 4 / 3)  # of a random resized crop, as torchvision has it
ERASED: Final = (0.02, 0.33)  # share of the picture that is erased (Zhong et al. 2020)
FILLS: Final = {"reflect": "reflection", "border": "border", "black": "zeros"}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AugmentationParameters:
    """What happens to each image of a batch of n.

    Attributes:
        maps: Affine maps float64 [n, 2, 3] from places of the result to places of the image, both from -1 to 1,
            x first.
        brightness: Factors float64 [n]; 1 for no change.
        contrast: Factors float64 [n]; 1 for no change.
        saturation: Factors float64 [n]; 1 for no change.
        hue: Shifts of the hue float64 [n], as shares of the colour circle.
        boxes: Boxes that are erased, int64 [n, 4]: top, bottom, left, right in pixels; empty where nothing is.
        seeds: Seeds int64 [n] of a policy (RandAugment, TrivialAugment) and of the user's own transforms.
    """

    maps: Floats
    brightness: Floats
    contrast: Floats
    saturation: Floats
    hue: Floats
    boxes: NDArray[np.int64]
    seeds: NDArray[np.int64]


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
    return AugmentationParameters(
        maps=_sample_transforms(ranges, n, size, random),
        brightness=_sample_factors(ranges.brightness, n, random),
        contrast=_sample_factors(ranges.contrast, n, random),
        saturation=_sample_factors(ranges.saturation, n, random),
        hue=random.uniform(-1, 1, n) * ranges.hue,
        boxes=_sample_boxes(ranges.erase, n, size, random),
        seeds=random.integers(0, 2**31, n),
    )


def augment(images: Tensor, what: AugmentationParameters, ranges: Augmentation) -> Tensor:
    """Augment the images of a batch.

    The order is: policy, affine map, colours, erasing, the user's own transforms.

    Args:
        images: float32 [n, height, width, 3] from 0 to 255, on any device.
        what: What happens to each image, as `sample_parameters` draws it.
        ranges: The ranges it was drawn from; policy, fill and own transforms are read here.

    Returns:
        The changed images, of the same shape, type, range and device.

    Raises:
        RecipeError: A user's own transform cannot be imported, or returns something other than a tensor of the
            shape that it was given.
    """
    pictures = images.permute(0, 3, 1, 2)
    if ranges.policy != "none":
        pictures = _apply_policy(pictures, what.seeds, ranges)
    if not np.array_equal(what.maps, np.broadcast_to(_IDENTITY, what.maps.shape)):
        pictures = _warp(pictures, what.maps, ranges.fill)
    pictures = _erase_boxes(_adjust_colours(pictures, what), what.boxes)
    for transform in ranges.transforms:
        pictures = _by_own(transform, pictures, what.seeds)
    return pictures.permute(0, 2, 3, 1)


_IDENTITY: Final = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _sample_transforms(ranges: Augmentation, n: int, size: int, random: np.random.Generator) -> Floats:
    """The composition, from the result back to the picture: shift, then turn, shear and zoom, then flip, then crop."""
    angle = np.deg2rad(random.uniform(-1, 1, n) * ranges.rotation)
    shear = np.tan(np.deg2rad(random.uniform(-1, 1, n) * ranges.shear))
    zoom = 1 / (1 + random.uniform(-1, 1, n) * ranges.zoom)
    shift = random.uniform(-2, 2, (n, 2)) * [ranges.shift_x, ranges.shift_y]
    cos, sin, one, none = np.cos(angle), np.sin(angle), np.ones(n), np.zeros(n)
    turn = _stack_matrices([[cos, -sin, none], [sin, cos, none]])
    slant = _stack_matrices([[one, shear, none], [none, one, none]])
    scale = _stack_matrices([[zoom, none, none], [none, zoom, none]])
    move = _stack_matrices([[one, none, -shift[:, 0]], [none, one, -shift[:, 1]]])
    flip = _stack_matrices(
        [
            [np.where(random.random(n) < ranges.flip, -1.0, 1.0), none, none],
            [none, np.where(random.random(n) < ranges.flip_vertical, -1.0, 1.0), none],
        ]
    )
    crop = _sample_crops(ranges, n, size, random)
    return (crop @ flip @ scale @ slant @ turn @ move)[:, :2]


def _sample_crops(ranges: Augmentation, n: int, size: int, random: np.random.Generator) -> Floats:
    """Random crop with padding: a shift by whole pixels; random resized crop: a box of some area and aspect."""
    reach = ranges.crop_padding
    offset = random.integers(-reach, reach + 1, (n, 2)) * (2 / size)
    resized = isinstance(ranges.crop, ResizedCrop)
    area = random.uniform(ranges.crop.scale if isinstance(ranges.crop, ResizedCrop) else 1.0, 1.0, n)
    aspect = _sample_aspects(n, random) if resized else np.ones(n)
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    x, y = (random.uniform(-1, 1, n) * (1 - side) for side in (width, height))
    none = np.zeros(n)
    return _stack_matrices([[width, none, x + offset[:, 0]], [none, height, y + offset[:, 1]]])


def _sample_aspects(n: int, random: np.random.Generator) -> Floats:
    """Aspects between the two limits, as likely wide as tall."""
    return np.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1]), n))


def _stack_matrices(rows: list[list[Floats]]) -> Floats:
    """Rows of two as matrices [n, 3, 3]."""
    n = len(rows[0][0])
    top = np.stack([np.stack(row, axis=1) for row in rows], axis=1)
    return np.concatenate([top, np.broadcast_to([[[0.0, 0.0, 1.0]]], (n, 1, 3))], axis=1)


def _sample_factors(limit: float, n: int, random: np.random.Generator) -> Floats:
    return random.uniform(max(0.0, 1 - limit), 1 + limit, n)


def _sample_boxes(chance: float, n: int, size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Boxes to erase, empty where nothing is; their aspect is that of a crop."""
    area = random.uniform(*ERASED, n) * (random.random(n) < chance)
    aspect = _sample_aspects(n, random)
    height, width = (np.minimum(np.sqrt(area * a) * size, size).round() for a in (aspect, 1 / aspect))
    top, left = ((random.random(n) * (size - side + 1)).astype(np.int64) for side in (height, width))
    return np.stack([top, top + height.astype(np.int64), left, left + width.astype(np.int64)], axis=1)


def _warp(pictures: Tensor, maps: Floats, fill: str) -> Tensor:
    theta = torch.from_numpy(maps).to(pictures.dtype).to(pictures.device)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode=FILLS[fill], align_corners=False)


def _adjust_colours(pictures: Tensor, what: AugmentationParameters) -> Tensor:
    """Brightness, contrast, saturation and hue as torchvision has them, each image by its own factor."""
    if (what.brightness != 1).any():
        pictures = (pictures * _to_column(what.brightness, pictures)).clamp(0, 255)
    if (what.contrast != 1).any():
        grey = _convert_to_grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
        pictures = torch.lerp(grey, pictures, _to_column(what.contrast, pictures)).clamp(0, 255)
    if (what.saturation != 1).any():
        pictures = torch.lerp(_convert_to_grey(pictures), pictures, _to_column(what.saturation, pictures)).clamp(0, 255)
    return _turn_hue(pictures, what.hue) if what.hue.any() else pictures


def _turn_hue(pictures: Tensor, turns: Floats) -> Tensor:
    """The hue turned by shares of its circle, at the same brightest and darkest channel."""
    most, least = pictures.amax(dim=1, keepdim=True), pictures.amin(dim=1, keepdim=True)
    range_ = (most - least).clamp(min=1e-6)
    red, green, blue = pictures.unbind(dim=1)
    top = pictures.argmax(dim=1)
    by_channel = torch.stack([green - blue, blue - red, red - green], dim=1) / range_
    hue = by_channel.gather(1, top.unsqueeze(1)) + 2 * top.unsqueeze(1)
    hue = hue + 6 * _to_column(turns, pictures)
    channel = torch.tensor([5.0, 3.0, 1.0], device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
    place = torch.remainder(hue + channel, 6)
    return most - (most - least) * torch.minimum(place, 4 - place).clamp(0, 1)


def _erase_boxes(pictures: Tensor, boxes: NDArray[np.int64]) -> Tensor:
    """Boxes filled with the mean colour of their picture."""
    rows = np.flatnonzero((boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2]))
    if not len(rows):
        return pictures
    pictures = pictures.clone()
    for row in rows.tolist():
        top, bottom, left, right = boxes[row].tolist()
        pictures[row, :, top:bottom, left:right] = pictures[row].mean(dim=(1, 2), keepdim=True)
    return pictures


def _apply_policy(pictures: Tensor, seeds: NDArray[np.int64], ranges: Augmentation) -> Tensor:
    """RandAugment (Cubuk et al. 2020) or TrivialAugment (Mueller and Hutter 2021) as torchvision has them."""
    from torchvision.transforms import v2

    policy = v2.RandAugment() if ranges.policy == "randaugment" else v2.TrivialAugmentWide()
    whole = pictures.round().clamp(0, 255).to(torch.uint8)
    results = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(whole, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            results.append(policy(picture))
    return torch.stack(results).to(pictures.dtype)


def _by_own(transform: str, pictures: Tensor, seeds: NDArray[np.int64]) -> Tensor:
    """A user's own change of a batch, float32 [n, 3, height, width] from 0 to 255, seeded by its first image."""
    change = import_entry(transform, "transform")
    changed = change(pictures, torch.Generator().manual_seed(int(seeds[0])))
    if not isinstance(changed, Tensor) or changed.shape != pictures.shape:
        found = f"the shape {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
        raise RecipeError(
            f"transform: {transform} gave {found}, expected a tensor of the shape {list(pictures.shape)}.",
            "Return a batch of the shape of the one that it is given.",
        )
    return changed.to(pictures.dtype).clamp(0, 255)


def _convert_to_grey(pictures: Tensor) -> Tensor:
    luma = torch.tensor(LUMA, device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
    return (pictures * luma).sum(dim=1, keepdim=True)


def _to_column(values: Floats, pictures: Tensor) -> Tensor:
    return torch.from_numpy(values).to(pictures.dtype).to(pictures.device).view(-1, 1, 1, 1)
