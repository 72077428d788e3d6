"""Maps of what speaks for a class, laid over their images so that both can be read.

The image loses its colours and is stretched to its own darkest and brightest, so that a dark solar cell is as readable
as a bright photograph. A map's colours are ordered by lightness and told apart by colour-blind people; they tint the
image, the more the higher the value, and what is in the image stays visible through them. A few cells of a fine map
can be far above all others, so the colours end at the value that one pixel in a hundred exceeds; a line runs at half of
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from budwood.data.loading import Pixels
from budwood.explain.heatmaps import Maps

SIDE: Final = 224  # pixels of a picture
GAP: Final = 6
PAPER: Final = (255, 255, 255)
INK: Final = (40, 44, 48)
LETTERS: Final = 13  # pixels high
COLOURS: Final = (  # for values of 0, 0.25 ... 1: pale yellow, orange, red, magenta, violet
    (255, 240, 150),
    (253, 187, 74),
    (236, 104, 74),
    (178, 32, 106),
    (106, 16, 136),
)
LIFT: Final = 0.25  # how far the image's black is lightened
SHADE: Final = 0.45  # how dark the tint of a black place is; that of a white one is the colour itself
STRONGEST: Final = 0.75  # opacity of the largest value
HALF: Final = 0.5
TOP: Final = 99  # percentile of a map that has the last colour

Plane = NDArray[np.float32]


def draw_overlay(image: Pixels, values: Maps, side: int = SIDE) -> Image.Image:
    """Draw an image in grey with its map in colours over it.

    An empty map leaves the image in grey.

    Args:
        image: uint8 [size, size, 3].
        values: The map, float32 [cells, cells] of 0 to 1.
        side: Side of the picture in pixels.

    Returns:
        An RGB picture of `side` x `side` pixels.
    """
    grey = _stretch_contrast(image, side)
    spoken = _stretch_map(_enlarge_map(values, side))
    opacity = (STRONGEST * np.minimum(1, spoken * 2) * (0.4 + 0.6 * spoken))[..., None]
    plain = (LIFT + (1 - LIFT) * grey)[..., None] * 255
    tint = colour_map(spoken) * (SHADE + (1 - SHADE) * grey)[..., None]
    made = plain * (1 - opacity) + tint * opacity
    return _draw_contour(made, spoken)


def draw_map_strip(image: Pixels, maps: Sequence[Maps], side: int = SIDE) -> Image.Image:
    """Draw an image beside copies of it with each of its maps.

    Args:
        image: uint8 [size, size, 3].
        maps: Maps of the image, float32 [cells, cells] of 0 to 1.
        side: Side of each picture in pixels.

    Returns:
        One row: the image, then one picture for each map.
    """
    pictures = [_resize_picture(image, side), *(draw_overlay(image, values, side) for values in maps)]
    return _join_row(pictures, side)


def draw_gallery(
    pixels: Pixels, maps: Mapping[str, Maps], captions: Sequence[str] = (), side: int = SIDE
) -> Image.Image:
    """Draw one row for each image: the image, then its map by each method.

    The names of the methods stand above their columns.

    Args:
        pixels: uint8 [n, size, size, 3].
        maps: Maps float32 [n, cells, cells] of 0 to 1, by name of the method.
        captions: One text for each image, drawn below its row; empty for none.
        side: Side of each picture in pixels.

    Returns:
        The gallery, an RGB picture on white.
    """
    rows = [
        draw_map_strip(image, [every[number] for every in maps.values()], side) for number, image in enumerate(pixels)
    ]
    line = LETTERS + 2 * GAP
    step = side + (line if captions else GAP)
    width = (side + GAP) * (1 + len(maps)) + GAP
    made = Image.new("RGB", (width, line + step * len(rows) + GAP), PAPER)
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(LETTERS)
    for column, name in enumerate(("image", *maps)):
        pen.text((GAP + column * (side + GAP), GAP), name, INK, font)
    for number, row in enumerate(rows):
        made.paste(row, (GAP, line + number * step))
        if captions:
            pen.text((GAP, line + number * step + side + 2), captions[number], INK, font)
    return made


def draw_legend(width: int = SIDE, height: int = 12) -> Image.Image:
    """Draw the colours from 0 (left) to the largest value (right), as they look over a bright image.

    Args:
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        The colour bar.
    """
    values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (width, width))
    white = np.full((width, width, 3), 255, np.uint8)
    white[: width // 4] = 0  # so that the rest is its brightest
    return draw_overlay(white, values, width).crop((0, width // 2, width, width // 2 + height))


def colour_map(values: Plane) -> Plane:
    """Map values to colours from pale yellow to violet.

    Args:
        values: float32 [...] of 0 to 1.

    Returns:
        float32 [..., 3] of 0 to 255.
    """
    places = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, places, [colour[channel] for colour in COLOURS]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _resize_picture(image: Pixels, side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)


def _stretch_contrast(image: Pixels, side: int) -> Plane:
    """The image in grey, 0 to 1, from its darkest to its brightest hundredth."""
    grey = np.asarray(_resize_picture(image, side).convert("L"), np.float32)
    low, high = np.percentile(grey, [1, 99])
    return np.asarray(np.clip((grey - low) / max(float(high - low), 1), 0, 1), np.float32)


def _stretch_map(values: Plane) -> Plane:
    """A map that ends at the value that one pixel in a hundred exceeds; at its largest where that is 0."""
    top = float(np.percentile(values, TOP)) or float(values.max())
    return np.asarray(np.clip(values / top, 0, 1), np.float32) if top > 0 else np.zeros_like(values)


def _enlarge_map(values: Maps, side: int) -> Plane:
    plane = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR), np.float32)


def _draw_contour(made: Plane, values: Plane) -> Image.Image:
    """The picture with a dark line in a white one where values reach half of the largest."""
    inside = values >= HALF
    padded = np.pad(inside, 1, mode="edge")
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    line = inside & ~around
    spread = np.pad(line, 1)
    halo = (spread[:-2, 1:-1] | spread[2:, 1:-1] | spread[1:-1, :-2] | spread[1:-1, 2:]) & ~inside
    made[halo] = PAPER
    made[line] = INK
    return Image.fromarray(np.clip(made, 0, 255).astype(np.uint8))


def _join_row(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    made = Image.new("RGB", ((side + GAP) * len(pictures) - GAP, side), PAPER)
    for column, picture in enumerate(pictures):
        made.paste(picture, (column * (side + GAP), 0))
    return made
