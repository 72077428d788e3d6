"""What the widths and heights of the training images say: how they best become squares, and whether larger ones pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.options import Resize
from budwood.data.dataset import Dataset
from budwood.data.listing import SPLITS

NEAR_SQUARE: Final = 1.15  # long side by short side: cropping loses at most an eighth of such an image
ELONGATED: Final = 2.0  # long side by short side: cropping loses at least half of such an image
FEW: Final = 0.1  # share of the images that may be elongated where the others decide
LARGER: Final = 1.25  # of a network's own size
STEP: Final = 32  # pixels: the networks halve the side five times
UPSCALED: Final = 0.85  # short side by size: as much as this is enlarged without asking for pixels that are not there
SMALLEST: Final = 128  # pixels: under it pretrained networks of 224 lose much, whatever the images
ENLARGED: Final = 2.5  # input size by short side: images of 64 pixels lose next to nothing at 160
LARGEST: Final = 1024  # pixels: the largest `size` of a recipe


@dataclass(frozen=True)
class ResizeChoice:
    """How images may become squares, by their shapes.

    Attributes:
        candidates: Values of a recipe's `resize` that are worth comparing, the most plausible first.
        why: The reason, one sentence.
    """

    candidates: tuple[Resize, ...]
    why: str


def choose_resize(dataset: Dataset) -> ResizeChoice:
    """Choose how the images of a data set may become squares, by the shapes of its training images.

    An image's aspect is its longer side by its shorter one, whichever is upright. Where the median is at most 1.15 and
    at most a tenth of the images are longer than 2, `crop` loses little and keeps the proportions, so there is nothing
    to compare. Where the median is 2 or more, `crop` would lose half of the typical image: `squash` keeps all of it,
    and what it does to the proportions is the same for all images. Between them neither is known to be better:
    `crop` first, which keeps what the network was trained on, and `squash`. `pad` is never proposed: it spends pixels
    on black borders, which pretrained networks have not seen.

    Args:
        dataset: Data set with training images.

    Returns:
        The candidates, and why.
    """
    width, height = _list_sides(dataset)
    aspect = np.maximum(width, height) / np.minimum(width, height)
    median, long = float(np.median(aspect)), float(np.mean(aspect > ELONGATED))
    if float(aspect.max()) == 1:
        return ResizeChoice(("crop",), "all training images are square, so nothing is cut off")
    typical = f"the typical training image is {median:.2f} times as long as it is wide"
    lost = f"cropping it loses {1 - 1 / median:.0%}"
    if median >= ELONGATED:
        return ResizeChoice(("squash",), f"{typical}: {lost}, squashing nothing")
    if median > NEAR_SQUARE:
        return ResizeChoice(("crop", "squash"), f"{typical}: {lost}, squashing distorts it")
    if long > FEW:
        return ResizeChoice(
            ("crop", "squash"), f"{long:.0%} of the training images are more than {ELONGATED:g} times as long as wide"
        )
    return ResizeChoice(("crop",), f"{typical}, so cropping loses little of it")


def choose_larger_size(own_size: int, dataset: Dataset) -> int | None:
    """Choose an input size above a network's own, where the training images have the pixels for it.

    It is about 1.25 times the own size, a multiple of 32. The images have enough pixels where the median of their
    shorter sides is at least 0.85 times that size. Smaller images stay at the network's own size, and those of 28 or 64
    pixels are enlarged to it: a pretrained network answers best to things of the size that it has seen.

    Args:
        own_size: Side in pixels of the images that the network's weights were trained on.
        dataset: Data set with training images.

    Returns:
        The size in pixels; None where the images are too small, or no such size lies above the own one.
    """
    larger = round(own_size * LARGER / STEP) * STEP
    short = float(np.median(np.minimum(*_list_sides(dataset))))
    return larger if own_size < larger <= LARGEST and short >= UPSCALED * larger else None


def choose_smallest_size(own_size: int, dataset: Dataset) -> int:
    """Choose how small the input may become where time is short, without losing pixels of the images.

    Args:
        own_size: Side in pixels of the images that the network's weights were trained on.
        dataset: Data set with training images.

    Returns:
        A multiple of 32, about 2.5 times the median of the shorter sides, from 128 to the own size.
    """
    width, height = _list_sides(dataset)
    wanted = ENLARGED * float(np.median(np.minimum(width, height))) if len(width) else own_size
    return int(min(own_size, max(SMALLEST, -(-wanted // STEP) * STEP)))


def _list_sides(dataset: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """The widths and heights of the training images in pixels, upright."""
    rows = (dataset.column("split") == SPLITS.index("train")) & dataset.column("used")
    return dataset.column("width")[rows], dataset.column("height")[rows]
