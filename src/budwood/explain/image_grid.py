"""Grids of small pictures: filters, feature maps, and what a network looks for.

Gaps, and what is left over of the last row, are transparent, so that a grid looks right on light and on dark pages.
There is no text in a picture: labels belong to the page.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAP: Final = 2  # pixels between two tiles


def make_grid(tiles: NDArray[Any], columns: int, side: int, *, crisp: bool = False) -> Image.Image:
    """Arrange tiles in rows as a picture with transparency.

    Args:
        tiles: Grey [n, height, width] or coloured [n, height, width, 3], at least one; float in 0..1 (values beyond
            are clipped) or uint8.
        columns: Tiles in a row.
        side: Longer side of a drawn tile in pixels.
        crisp: Whether to enlarge by the nearest whole number, every value a square, instead of bicubic
            interpolation.

    Returns:
        The picture, of mode LA for grey tiles and RGBA for coloured ones.
    """
    drawn = [_make_tile(tile, side, crisp) for tile in _scale_to_bytes(tiles)]
    width, height = drawn[0].size
    across, down = min(columns, len(drawn)), -(-len(drawn) // columns)
    mode = "LA" if drawn[0].mode == "L" else "RGBA"
    canvas = Image.new(mode, (across * (width + GAP) - GAP, down * (height + GAP) - GAP))
    for number, tile in enumerate(drawn):
        row, column = divmod(number, columns)
        canvas.paste(tile.convert(mode), (column * (width + GAP), row * (height + GAP)))
    return canvas


def stretch(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each map by itself from its lowest value (0) to its highest (1).

    Args:
        values: float32 [..., height, width].

    Returns:
        float32 of the same shape; a map that is the same everywhere is 0.
    """
    low, high = (reduce(values, axis=(-2, -1), keepdims=True) for reduce in (np.min, np.max))
    spread = np.where(high > low, high - low, 1)
    made: NDArray[np.float32] = ((values - low) / spread).astype(np.float32)
    return made


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture as a PNG file, without loss.

    Args:
        image: The picture.

    Returns:
        The bytes of the file.
    """
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def make_png_uri(image: Image.Image) -> str:
    """Encode a picture as the data URI of a PNG file.

    Args:
        image: The picture.

    Returns:
        The data URI.
    """
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def _scale_to_bytes(tiles: NDArray[Any]) -> NDArray[np.uint8]:
    if tiles.dtype == np.uint8:
        return tiles
    made: NDArray[np.uint8] = np.rint(np.clip(tiles, 0, 1) * 255).astype(np.uint8)
    return made


def _make_tile(pixels: NDArray[np.uint8], side: int, crisp: bool) -> Image.Image:
    """One tile in its size on the page."""
    tile = Image.fromarray(pixels)
    factor = side / max(tile.size)
    if crisp:
        factor = max(1, round(factor))
    size = (max(1, round(tile.width * factor)), max(1, round(tile.height * factor)))
    return tile.resize(size, Image.Resampling.NEAREST if crisp else Image.Resampling.BICUBIC)
