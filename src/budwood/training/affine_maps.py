"""What moves pixels, drawn as affine maps: from places of the result to places of the image.

Maps are float64 [n, 3, 3], and places run from -1 to 1, x first. What is not used draws what it always drew, so that
every seed gives the images that it always gave.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

ASPECT: Final = (3 / 4, 4 / 3)  # of a random resized crop, as torchvision has it
Floats = NDArray[np.float64]


def sample_rotations(n: int, size: int, random: np.random.Generator, *, rotation: float) -> Floats:
    """Sample rotations.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        rotation: Largest angle, degrees.

    Returns:
        Maps float64 [n, 3, 3].
    """
    angle = np.deg2rad(random.uniform(-1, 1, n) * rotation)
    cos, sin, none = np.cos(angle), np.sin(angle), np.zeros(n)
    return _stack_matrices([[cos, -sin, none], [sin, cos, none]])


def sample_shears(n: int, size: int, random: np.random.Generator, *, shear: float) -> Floats:
    """Sample shears along x.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        shear: Largest angle, degrees.

    Returns:
        Maps float64 [n, 3, 3].
    """
    slope, one, none = np.tan(np.deg2rad(random.uniform(-1, 1, n) * shear)), np.ones(n), np.zeros(n)
    return _stack_matrices([[one, slope, none], [none, one, none]])


def sample_zooms(n: int, size: int, random: np.random.Generator, *, zoom: float) -> Floats:
    """Sample zooms in and out.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        zoom: Largest change of the size, share.

    Returns:
        Maps float64 [n, 3, 3].
    """
    scale, none = 1 / (1 + random.uniform(-1, 1, n) * zoom), np.zeros(n)
    return _stack_matrices([[scale, none, none], [none, scale, none]])


def sample_zooms_apart(
    n: int, size: int, random: np.random.Generator, *, zoom_x: float | None, zoom_y: float | None
) -> Floats:
    """Sample zooms of width and height, each on its own, as Keras' `zoom_range` does.

    The factor is that of the part of the image which is seen: above 1 the image becomes smaller.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        zoom_x: Largest change of the width that is seen, share; None: none.
        zoom_y: Largest change of the height that is seen, share; None: none.

    Returns:
        Maps float64 [n, 3, 3].
    """
    seen, none = 1 + random.uniform(-1, 1, (n, 2)) * [zoom_x or 0.0, zoom_y or 0.0], np.zeros(n)
    return _stack_matrices([[seen[:, 0], none, none], [none, seen[:, 1], none]])


def sample_shifts(n: int, size: int, random: np.random.Generator, *, shift_x: float, shift_y: float) -> Floats:
    """Sample shifts.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        shift_x: Largest shift sideways, share of the width.
        shift_y: Largest shift up or down, share of the height.

    Returns:
        Maps float64 [n, 3, 3].
    """
    shift, one, none = random.uniform(-2, 2, (n, 2)) * [shift_x, shift_y], np.ones(n), np.zeros(n)
    return _stack_matrices([[one, none, -shift[:, 0]], [none, one, -shift[:, 1]]])


def sample_flips(n: int, size: int, random: np.random.Generator, *, flip: float) -> Floats:
    """Sample mirror images, left to right.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        flip: Chance of each.

    Returns:
        Maps float64 [n, 3, 3].
    """
    sign, one, none = np.where(random.random(n) < flip, -1.0, 1.0), np.ones(n), np.zeros(n)
    return _stack_matrices([[sign, none, none], [none, one, none]])


def sample_vertical_flips(n: int, size: int, random: np.random.Generator, *, flip_vertical: float) -> Floats:
    """Sample mirror images, upside down.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        flip_vertical: Chance of each.

    Returns:
        Maps float64 [n, 3, 3].
    """
    sign, one, none = np.where(random.random(n) < flip_vertical, -1.0, 1.0), np.ones(n), np.zeros(n)
    return _stack_matrices([[one, none, none], [none, sign, none]])


def sample_padded_crops(n: int, size: int, random: np.random.Generator, *, crop_padding: int) -> Floats:
    """Sample crops after padding: shifts by whole pixels.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        crop_padding: Pixels of padding.

    Returns:
        Maps float64 [n, 3, 3].
    """
    offset = np.asarray(random.integers(-crop_padding, crop_padding + 1, (n, 2)) * (2 / size), np.float64)
    one, none = np.ones(n), np.zeros(n)
    return _stack_matrices([[one, none, offset[:, 0]], [none, one, offset[:, 1]]])


def sample_resized_crops(n: int, size: int, random: np.random.Generator, *, crop_scale: float | None) -> Floats:
    """Sample random resized crops: boxes of some area and aspect.

    Args:
        n: Number of images.
        size: Side of the images, pixels.
        random: The generator to draw from.
        crop_scale: Smallest share of the area; None: the whole image.

    Returns:
        Maps float64 [n, 3, 3].
    """
    area = random.uniform(1.0 if crop_scale is None else crop_scale, 1.0, n)
    aspect = np.ones(n) if crop_scale is None else sample_aspects(n, random)
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    x, y = (random.uniform(-1, 1, n) * (1 - side) for side in (width, height))
    none = np.zeros(n)
    return _stack_matrices([[width, none, x], [none, height, y]])


def sample_aspects(n: int, random: np.random.Generator) -> Floats:
    """Sample aspects between the two limits, as likely wide as tall.

    Args:
        n: How many.
        random: The generator to draw from.

    Returns:
        Ratios of width to height, float64 [n].
    """
    return np.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1]), n))


def _stack_matrices(rows: list[list[Floats]]) -> Floats:
    """Rows of two as matrices [n, 3, 3]."""
    n = len(rows[0][0])
    top = np.stack([np.stack(row, axis=1) for row in rows], axis=1)
    return np.concatenate([top, np.broadcast_to([[[0.0, 0.0, 1.0]]], (n, 1, 3))], axis=1)
