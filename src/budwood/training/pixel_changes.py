"""What changes the values of pixels: colours, erased boxes, policies of many changes.

Pictures are float32 [n, 3, height, width] from 0 to 255 on any device; each changes by what was drawn for it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budwood.inference.pytorch_backend import LUMA
from budwood.training.affine_maps import Floats, sample_aspects

ERASED: Final = (0.02, 0.33)  # share of the picture that is erased (Zhong et al. 2020)


def sample_factors(n: int, size: int, random: np.random.Generator, **limits: float) -> Floats:
    """Sample factors on a colour.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        **limits: The one option of the colour: its largest change, share.

    Returns:
        Factors float64 [n]; 1 for no change.
    """
    (limit,) = limits.values()
    return random.uniform(max(0.0, 1 - limit), 1 + limit, n)


def sample_turns(n: int, size: int, random: np.random.Generator, *, hue: float) -> Floats:
    """Sample shifts of the hue.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        hue: Largest shift, share of the colour circle.

    Returns:
        Shifts float64 [n], as shares of the colour circle.
    """
    return random.uniform(-1, 1, n) * hue


def sample_boxes(n: int, size: int, random: np.random.Generator, *, erase: float) -> NDArray[np.int64]:
    """Sample boxes to erase; their aspect is that of a crop.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        erase: Chance of each.

    Returns:
        int64 [n, 4]: top, bottom, left, right in pixels; empty boxes where nothing is erased.
    """
    area = random.uniform(*ERASED, n) * (random.random(n) < erase)
    aspect = sample_aspects(n, random)
    height, width = (np.minimum(np.sqrt(area * a) * size, size).round() for a in (aspect, 1 / aspect))
    top, left = ((random.random(n) * (size - side + 1)).astype(np.int64) for side in (height, width))
    return np.stack([top, top + height.astype(np.int64), left, left + width.astype(np.int64)], axis=1)


def change_brightness(pictures: Tensor, factors: Floats, *, brightness: float) -> Tensor:
    """Change the brightness, as torchvision does.

    Args:
        pictures: float32 [n, 3, height, width].
        factors: float64 [n]; 0 is black, 1 no change.
        brightness: The option, of which the factors are.

    Returns:
        The changed pictures.
    """
    return (pictures * _to_column(factors, pictures)).clamp(0, 255)


def change_contrast(pictures: Tensor, factors: Floats, *, contrast: float) -> Tensor:
    """Change the contrast, as torchvision does.

    Args:
        pictures: float32 [n, 3, height, width].
        factors: float64 [n]; 0 is grey, 1 no change.
        contrast: The option, of which the factors are.

    Returns:
        The changed pictures.
    """
    grey = _convert_to_grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(grey, pictures, _to_column(factors, pictures)).clamp(0, 255)


def change_saturation(pictures: Tensor, factors: Floats, *, saturation: float) -> Tensor:
    """Change the saturation, as torchvision does.

    Args:
        pictures: float32 [n, 3, height, width].
        factors: float64 [n]; 0 is greyscale, 1 no change.
        saturation: The option, of which the factors are.

    Returns:
        The changed pictures.
    """
    return torch.lerp(_convert_to_grey(pictures), pictures, _to_column(factors, pictures)).clamp(0, 255)


def change_hue(pictures: Tensor, turns: Floats, *, hue: float) -> Tensor:
    """Turn the hue, at the same brightest and darkest channel.

    Args:
        pictures: float32 [n, 3, height, width].
        turns: float64 [n], shares of the colour circle.
        hue: The option, of which the turns are.

    Returns:
        The changed pictures.
    """
    most, least = pictures.amax(dim=1, keepdim=True), pictures.amin(dim=1, keepdim=True)
    range_ = (most - least).clamp(min=1e-6)
    red, green, blue = pictures.unbind(dim=1)
    top = pictures.argmax(dim=1)
    by_channel = torch.stack([green - blue, blue - red, red - green], dim=1) / range_
    angle = by_channel.gather(1, top.unsqueeze(1)) + 2 * top.unsqueeze(1)
    angle = angle + 6 * _to_column(turns, pictures)
    channel = torch.tensor([5.0, 3.0, 1.0], device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
    place = torch.remainder(angle + channel, 6)
    return most - (most - least) * torch.minimum(place, 4 - place).clamp(0, 1)


def erase_boxes(pictures: Tensor, boxes: NDArray[np.int64], *, erase: float) -> Tensor:
    """Fill boxes with the mean colour of their picture.

    Args:
        pictures: float32 [n, 3, height, width].
        boxes: int64 [n, 4], as `sample_boxes` draws them.
        erase: The option, of which the boxes are.

    Returns:
        The changed pictures.
    """
    rows = np.flatnonzero((boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2]))
    if not len(rows):
        return pictures
    pictures = pictures.clone()
    for row in rows.tolist():
        top, bottom, left, right = boxes[row].tolist()
        pictures[row, :, top:bottom, left:right] = pictures[row].mean(dim=(1, 2), keepdim=True)
    return pictures


def apply_policy(pictures: Tensor, seeds: NDArray[np.int64], *, policy: str) -> Tensor:
    """Apply RandAugment (Cubuk et al. 2020) or TrivialAugment (Mueller and Hutter 2021) as torchvision has them.

    Args:
        pictures: float32 [n, 3, height, width].
        seeds: A seed for each picture, int64 [n].
        policy: randaugment or trivialaugment.

    Returns:
        The changed pictures, of whole values.
    """
    from torchvision.transforms import v2

    change = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
    whole = pictures.round().clamp(0, 255).to(torch.uint8)
    results = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(whole, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            results.append(change(picture))
    return torch.stack(results).to(pictures.dtype)


def _convert_to_grey(pictures: Tensor) -> Tensor:
    luma = torch.tensor(LUMA, device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
    return (pictures * luma).sum(dim=1, keepdim=True)


def _to_column(values: Floats, pictures: Tensor) -> Tensor:
    return torch.from_numpy(values).to(pictures.dtype).to(pictures.device).view(-1, 1, 1, 1)
