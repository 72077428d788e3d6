"""The values of images with more than 8 bits a channel, as their files have them.

Pillow gives those of grey images. Of colours with 16 bits it keeps the high bytes only, so these files are decoded a
second time for the low ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from budwood.data.formats import open_image
from budwood.data.value_range import StoredValues

GREY_MODES: Final = ("I", "F")  # besides those that begin with I;16
_PHOTOMETRIC: Final = 262
_MIN_IS_WHITE: Final = 0
_BITS: Final = 258
_SAMPLE_FORMAT: Final = 339
_UNSIGNED: Final = 1
_BOUNDS: Final = ((280, 281), (340, 341))  # MinSampleValue and MaxSampleValue, SMinSampleValue and SMaxSampleValue
_NATIVE: Final = "16L" if sys.byteorder == "little" else "16B"
_SWAPPED: Final = {"16L": "16B", "16B": "16L"}
_SWAPPED_COLOURS: Final = ("RGB", "RGBX", "RGBA")


@dataclass(frozen=True, slots=True)
class DeepImage:
    """Values of more than 8 bits.

    Attributes:
        values: uint16, int32, uint32 or float32, [height, width] or [height, width, 3].
        alpha: Opacity, uint8 [height, width]; None where all is opaque.
        inverted: Whether small values are white.
        declared: Smallest and largest value that the file's header tells of; None where it tells of none.
    """

    values: NDArray[Any]
    alpha: NDArray[np.uint8] | None = None
    inverted: bool = False
    declared: tuple[float, float] | None = None

    def measure(self) -> StoredValues:
        """Measure the values, and those that the header tells of.

        Returns:
            The smallest and the largest; NaN where a value is none.
        """
        low, high = float(self.values.min()), float(self.values.max())
        if self.declared:
            low, high = min(low, self.declared[0]), max(high, self.declared[1])
        return StoredValues(low, high, self.values.dtype.kind == "f")


def is_deep_grey(image: Image.Image) -> bool:
    """Return whether an image is grey with more than 8 bits.

    Args:
        image: The image.

    Returns:
        True for Pillow's modes of 16 and 32 bits.
    """
    return image.mode.startswith("I;16") or image.mode in GREY_MODES


def read_deep_grey(image: Image.Image) -> DeepImage:
    """Read the values of a grey image.

    Args:
        image: A loaded image for which `is_deep_grey`.

    Returns:
        Its values.
    """
    values = np.asarray(image)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return DeepImage(values)
    tags = image.tag_v2
    bits, kind = _read_first(tags.get(_BITS), 16), _read_first(tags.get(_SAMPLE_FORMAT), _UNSIGNED)
    if image.mode == "I" and bits == 32 and kind == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow knows only signed values of 32 bits
    inverted = _read_first(tags.get(_PHOTOMETRIC), 1) == _MIN_IS_WHITE
    return DeepImage(values, None, inverted, _read_declared(tags, int(bits)))


def find_deep_colours(image: Image.Image) -> str | None:
    """Find out whether a file holds colours of 16 bits.

    Args:
        image: An opened image that is not loaded yet.

    Returns:
        Pillow's raw mode by which the low bytes are decoded; None where colours have 8 bits.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return None
    args = tiles[0][3]
    raw = args[0] if isinstance(args, tuple) and args else args
    if raw == "LA;16B":
        return "RGBA"  # the four bytes of grey and opacity
    colours, _, order = raw.partition(";") if isinstance(raw, str) else ("", "", "")
    swapped = _SWAPPED.get(_NATIVE if order == "16N" else order)
    return f"{colours};{swapped}" if swapped and colours in _SWAPPED_COLOURS else None


def read_deep_colours(image: Image.Image, data: bytes, raw: str) -> DeepImage:
    """Read the values of colours of 16 bits.

    Args:
        image: The loaded image, with the high bytes.
        data: The file that it was opened from.
        raw: What `find_deep_colours` found before it was loaded.

    Returns:
        Its values.
    """
    other = open_image(data)
    other.tile = [tile._replace(args=_replace_raw(tile.args, raw)) for tile in other.tile]
    other.load()
    high, low = np.asarray(image), np.asarray(other)
    if raw == "RGBA":
        return DeepImage(low[..., 0].astype(np.uint16) << 8 | low[..., 1], low[..., 2])
    values = high[..., :3].astype(np.uint16)
    values <<= 8
    values |= low[..., :3]
    return DeepImage(values, high[..., 3] if high.shape[2] == 4 else None)


def _replace_raw(args: Any, raw: str) -> Any:
    return (raw, *args[1:]) if isinstance(args, tuple) else raw


def _read_declared(tags: Mapping[int, Any], bits: int) -> tuple[float, float] | None:
    """The values that a TIFF file's header tells of, unless it only repeats the range of its type."""
    if 8 < bits < 16:
        return 0.0, float(2**bits - 1)
    for smallest, largest in _BOUNDS:
        low, high = _read_first(tags.get(smallest), 0), _read_first(tags.get(largest), 2**bits - 1)
        if largest in tags and 0 < high < 2 ** (bits - 1) and low < high:
            return float(low), float(high)
    return None


def _read_first(value: Any, default: float) -> float:
    """The value of a tag, or the first of several."""
    first = value[0] if isinstance(value, tuple) and value else value
    return float(first) if isinstance(first, int | float) else default
