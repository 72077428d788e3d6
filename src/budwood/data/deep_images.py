"""The values of images with more than 8 bits a channel, as their files have them.

Pillow gives those of grey images. Of colours with 16 bits it keeps the high bytes only, so these files are decoded a
second time for the low ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from budwood.data.formats import open_image
from budwood.data.value_range import StoredValues, ValueRange, scale_to_8_bits

GREY_MODES: Final = ("I", "F")  # besides those that begin with I;16
_PHOTOMETRIC: Final = 262
_MIN_IS_WHITE: Final = 0
_BITS: Final = 258
_SAMPLE_FORMAT: Final = 339
_UNSIGNED: Final = 1
_BOUNDS: Final = ((280, 281), (340, 341))  # MinSampleValue and MaxSampleValue, SMinSampleValue and SMaxSampleValue
_NATIVE: Final = "16L" if sys.byteorder == "little" else "16B"
_SWAPPED: Final = {"16L": "16B", "16B": "16L"}
_GREY_WITH_OPACITY: Final = "RGBA"  # the raw mode by which its four bytes become four bands
_STRIP: Final = 2**20  # pixels
_SWAPPED_COLOURS: Final = ("RGB", "RGBX", "RGBA")


@dataclass(frozen=True, slots=True)
class DeepImage:
    """An image with values of more than 8 bits, of which a strip at a time is made an array, as arrays take much room.

    Attributes:
        image: The loaded image: grey, or the high bytes of its colours.
        low_bytes: The low bytes of colours; of grey with opacity, all four bytes of a pixel. None of grey.
        grey_with_opacity: Whether the image is grey with opacity.
        unsigned: Whether 32-bit values are unsigned, which Pillow does not know.
        inverted: Whether small values are white.
        declared: Smallest and largest value that the file's header tells of; None where it tells of none.
    """

    image: Image.Image
    low_bytes: Image.Image | None = None
    grey_with_opacity: bool = False
    unsigned: bool = False
    inverted: bool = False
    declared: tuple[float, float] | None = None

    def measure(self) -> StoredValues:
        """Measure the values, and those that the header tells of.

        Returns:
            The smallest and the largest; NaN where a value is none.
        """
        ends = np.array([(strip.min(), strip.max()) for _, strip in self._read_strips()], np.float64)
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        if self.declared:
            low, high = min(low, self.declared[0]), max(high, self.declared[1])
        return StoredValues(low, high, self.image.mode == "F")

    def scale(self, scale: ValueRange) -> Image.Image:
        """Scale the values to 8 bits.

        Args:
            scale: Values that become black and white.

        Returns:
            The image in mode L, or RGB where it has colours.
        """
        colours = self.low_bytes is not None and not self.grey_with_opacity
        result = Image.new("RGB" if colours else "L", self.image.size)
        for top, strip in self._read_strips():
            result.paste(Image.fromarray(scale_to_8_bits(strip, scale, self.inverted)), (0, top))
        return result

    def take_opacity(self) -> Image.Image | None:
        """Return the opacity in mode L; None where all is opaque."""
        if self.low_bytes is not None and self.grey_with_opacity:
            return self.low_bytes.getchannel("B")
        return self.image.getchannel("A") if self.image.mode == "RGBA" else None

    def _read_strips(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The first row of each strip, and its values: [rows, width] or [rows, width, 3]."""
        for top, strip in split_strips(self.image):
            if self.low_bytes is None:
                values = np.asarray(strip)
                yield top, values.view(np.uint32) if self.unsigned else values
                continue
            low = np.asarray(self.low_bytes.crop((0, top, strip.width, top + strip.height)))
            if self.grey_with_opacity:
                yield top, low[..., 0].astype(np.uint16) << 8 | low[..., 1]
            else:
                yield top, np.asarray(strip)[..., :3].astype(np.uint16) << 8 | low[..., :3]


def split_strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Split an image into strips of rows.

    Args:
        image: The image, with at least one pixel.

    Yields:
        The first row of each strip, and the strip, of about a million pixels.
    """
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


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
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return DeepImage(image)
    tags = image.tag_v2
    bits, kind = _read_first(tags.get(_BITS), 16), _read_first(tags.get(_SAMPLE_FORMAT), _UNSIGNED)
    return DeepImage(
        image,
        unsigned=image.mode == "I" and bits == 32 and kind == _UNSIGNED,
        inverted=_read_first(tags.get(_PHOTOMETRIC), 1) == _MIN_IS_WHITE,
        declared=_read_declared(tags, int(bits)),
    )


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
        return _GREY_WITH_OPACITY
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
    return DeepImage(image, other, raw == _GREY_WITH_OPACITY)


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
