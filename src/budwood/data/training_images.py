"""What a run's training images were like, in a few figures, and how a new image differs strongly from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.images import ImageShape

STRONGLY: Final = 4  # times smaller or larger
NEARLY_ALL: Final = 0.99  # share of images that makes a property that of all
RARE: Final = 0.01  # share of images, at either end, that says nothing of the usual sizes
_GREY: Final = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class TrainingImages:
    """What training images were like.

    Attributes:
        width: Their median width in pixels.
        height: Their median height in pixels.
        smallest: Side of a square of as many pixels as the smallest image, without the rarest.
        largest: The same of the largest.
        grey: Whether nearly all were stored as grey; None where they are mixed.
        deep: Whether nearly all had values of more than 8 bits; None where they are mixed.
    """

    width: int
    height: int
    smallest: float
    largest: float
    grey: bool | None
    deep: bool | None


def describe_training_images(
    widths: NDArray[np.int32], heights: NDArray[np.int32], modes: Sequence[str], notes: Sequence[str]
) -> TrainingImages | None:
    """Describe training images by what their scan has noted.

    Args:
        widths: Pixels, int32 [n].
        heights: Pixels, int32 [n].
        modes: Pillow's name of the stored mode of each.
        notes: What the scan noted of each: `16-bit` stands for more than 8 bits.

    Returns:
        The description; None of no images.
    """
    if not len(widths):
        return None
    sides = np.sqrt(widths.astype(np.float64) * heights)
    grey = sum(map(_is_grey, modes)) / len(modes)
    deep = sum("16-bit" in note for note in notes) / len(notes)
    return TrainingImages(
        int(np.median(widths)),
        int(np.median(heights)),
        float(np.quantile(sides, RARE)),
        float(np.quantile(sides, 1 - RARE)),
        _settle(grey),
        _settle(deep),
    )


def note_differences(image: ImageShape, training: TrainingImages) -> tuple[str, ...]:
    """Note how an image differs strongly from those that a run was trained on.

    Args:
        image: What the image is like.
        training: What the training images were like.

    Returns:
        Clauses such as `8 bits, trained on 16`; none where it does not.
    """
    notes = []
    if training.deep is not None and image.deep != training.deep:
        notes.append("more than 8 bits, trained on 8" if image.deep else "8 bits, trained on 16")
    grey = None if image.mode == "P" else _is_grey(image.mode)
    if training.grey is not None and grey is not None and grey != training.grey:
        notes.append("grey, trained on colour" if grey else "colour, trained on grey")
    side = (image.width * image.height) ** 0.5
    if side * STRONGLY < training.smallest or side > STRONGLY * training.largest:
        word = "smaller" if side < training.smallest else "larger"
        usual = f"{training.width} x {training.height}"
        notes.append(f"much {word}: {image.width} x {image.height}, trained on {usual}")
    return tuple(notes)


def _settle(share: float) -> bool | None:
    """Whether a property is that of nearly all images, or of nearly none; None for something between."""
    return None if 1 - NEARLY_ALL < share < NEARLY_ALL else share >= NEARLY_ALL


def _is_grey(mode: str) -> bool:
    return mode in _GREY or mode.startswith("I;16")
