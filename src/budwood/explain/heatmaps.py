"""What in an image speaks for a class, as data: the record of its maps, and what is left of an image without it.

Methods that ask what happens without a part of an image need something to put there. It is the image's own mean colour:
black is dark on a bright image and grey bright on a dark one, and so would be evidence where dark areas tell a class. A
blurred image was tried: on solar cells a network finds it as defective as the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.loading import Pixels
from budwood.display import Displayed
from budwood.errors import RecipeError, did_you_mean
from budwood.text import counted

METHODS: Final = ("grad-cam", "layer-cam", "integrated-gradients", "occlusion")
AT_A_PLACE: Final = ("grad-cam", "layer-cam")  # those that look at a map inside the network

Maps = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Attribution(Displayed):
    """What speaks for a class in each of n images, by one method.

    Attributes:
        method: Name of the method, of `METHODS`.
        place: Stage whose map was used; None for methods that look at the image itself.
        classes: int64 [n], the classes that are explained.
        probabilities: float32 [n], their probabilities, 0 to 1.
        maps: float32 [n, size, size] of 0 to 1, each divided by its own largest value; what speaks against the
            class is 0.
        peaks: float32 [n], the largest value of each map before that division.
        empty: bool [n], true where nothing speaks for the class and the map is 0 throughout.
        errors: float32 [n], for integrated gradients only: how far their sum is from the difference of the logits
            that they should add up to (0 is exact); else None.
        pixels: The images as the network sees them, uint8 [n, size, size, 3]; None where they are not kept.
        names: Names of all classes; empty where they are not kept.
    """

    method: str
    place: str | None
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    maps: Maps
    peaks: NDArray[np.float32]
    empty: NDArray[np.bool_]
    errors: NDArray[np.float32] | None = None
    pixels: Pixels | None = None
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        place = f" at {self.place}" if self.place else ""
        return f"Attribution({self.method}{place}: {counted(len(self.maps), 'image')})"


def refuse_unknown_method(name: str) -> None:
    """Raise an error for a method of attribution that does not exist.

    Args:
        name: Name of the method.

    Raises:
        RecipeError: When the name is not one of `METHODS`; the hint suggests one.
    """
    if name not in METHODS:
        raise RecipeError(f"method: there is no method {name!r}.", did_you_mean(name, METHODS))


def scale_maps(raw: Maps) -> tuple[Maps, NDArray[np.float32], NDArray[np.bool_]]:
    """Scale each map to 0..1 by its largest value.

    Values below 0, and those that are not finite, count as 0.

    Args:
        raw: float32 [n, side, side].

    Returns:
        The maps float32 [n, side, side], their largest values float32 [n], and which are empty bool [n].
    """
    maps = np.maximum(np.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0), 0).astype(np.float32)
    peaks = maps.max(axis=(1, 2), initial=0.0)
    empty = peaks <= 0
    divisors = np.where(empty, 1, peaks).astype(np.float32)
    return np.asarray(maps / divisors[:, None, None], np.float32), peaks, empty


def fill_mean_colour(pixels: Pixels) -> Pixels:
    """Replace each image by its mean colour.

    Args:
        pixels: uint8 [n, size, size, 3].

    Returns:
        uint8 [n, size, size, 3], each image of one colour.
    """
    mean = pixels.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(mean, pixels.shape).copy()
