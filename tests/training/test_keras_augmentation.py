"""Augmentation against what Keras documents of ImageDataGenerator, as affine matrices of rows and columns.

A place (row, column) of the result, seen from the middle, is led by a matrix to a place of the image:

    rotation, degrees     [[cos, -sin], [sin, cos]]
    shifts, share of side row + height_shift * height, column + width_shift * width
    shear, degrees        [[1, -sin], [0, cos]]
    zoom, share           [[zx, 0], [0, zy]], both from 1 - zoom to 1 + zoom, each drawn on its own

What lies outside is that of the nearest pixel (fill_mode "nearest", here `fill = "border"`). In earlier versions of
Keras the middle lay one pixel further down and to the right (height / 2 + 0.5), by mistake: here it is the middle.
SciPy, which Keras uses, is the reference for pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.training.augmentation import augment, sample_parameters

SIZE = 28
COUNT = 12
PICTURES = np.random.default_rng(4).uniform(0, 255, (COUNT, SIZE, SIZE, 3)).astype(np.float32)
Matrix = NDArray[np.float64]


def _rotate(theta: float) -> Matrix:
    cos, sin = np.cos(np.deg2rad(theta)), np.sin(np.deg2rad(theta))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _shift(rows: float, columns: float) -> Matrix:
    return np.array([[1, 0, rows], [0, 1, columns], [0, 0, 1]], np.float64)


def _shear(angle: float) -> Matrix:
    return np.array([[1, -np.sin(np.deg2rad(angle)), 0], [0, np.cos(np.deg2rad(angle)), 0], [0, 0, 1]])


def _zoom(rows: float, columns: float) -> Matrix:
    return np.array([[rows, 0, 0], [0, columns, 0], [0, 0, 1]], np.float64)


def _transform(picture: NDArray[np.float32], matrix: Matrix, mode: str = "nearest") -> NDArray[np.float64]:
    """A picture [height, width, 3] by the matrix of places, about its middle, with linear interpolation."""
    middle = (SIZE - 1) / 2
    whole = _shift(middle, middle) @ matrix @ _shift(-middle, -middle)
    planes = np.moveaxis(picture.astype(np.float64), -1, 0)
    moved = [ndimage.affine_transform(plane, whole[:2, :2], whole[:2, 2], order=1, mode=mode) for plane in planes]
    return np.stack(moved, axis=-1)


def _augment(**options: Any) -> tuple[NDArray[np.float32], Matrix]:
    """The pictures after an augmentation, and the drawn maps from places (x, y) of -1 to 1 to places, [n, 2, 3]."""
    recipe = resolve(Recipe(freeze="none", **options), False, SIZE).augmentation
    what = sample_parameters(recipe, COUNT, SIZE, np.random.default_rng(0))
    return augment(torch.from_numpy(PICTURES), what, recipe).numpy(), what.maps


def _agree(found: NDArray[np.float32], matrices: list[Matrix]) -> None:
    expected = [_transform(picture, matrix) for picture, matrix in zip(PICTURES, matrices, strict=True)]
    assert np.abs(found - np.stack(expected)).max() < 0.05, "of 255, the edges included"


def test_rotation_is_in_degrees_and_uniform() -> None:
    found, maps = _augment(rotation=20, fill="border")
    angles = -np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 10 < np.abs(angles).max() <= 20
    _agree(found, [_rotate(angle) for angle in angles])


def test_shifts_are_shares_of_height_and_width() -> None:
    found, maps = _augment(shift_x=0.2, shift_y=0.1, fill="border")
    columns, rows = maps[:, 0, 2] * SIZE / 2, maps[:, 1, 2] * SIZE / 2
    assert 0.1 * SIZE < np.abs(columns).max() <= 0.2 * SIZE
    assert 0.05 * SIZE < np.abs(rows).max() <= 0.1 * SIZE
    _agree(found, [_shift(*both) for both in zip(rows, columns, strict=True)])


def test_zoom_apart_is_the_factor_of_the_places() -> None:
    found, maps = _augment(zoom_x=0.2, zoom_y=0.2, fill="border")
    columns, rows = maps[:, 0, 0], maps[:, 1, 1]
    for factors in (columns, rows):
        assert 0.8 <= factors.min() < 0.9 < 1.1 < factors.max() <= 1.2
    _agree(found, [_zoom(*both) for both in zip(rows, columns, strict=True)])


def test_flips_mirror_the_axes() -> None:
    assert np.abs(_augment(flip=1)[0] - PICTURES[:, :, ::-1]).max() < 0.01
    assert np.abs(_augment(flip_vertical=1)[0] - PICTURES[:, ::-1]).max() < 0.01


def test_flip_and_zoom_together_are_keras_both() -> None:
    """Keras flips what it has moved; a flip and a zoom about the middle may change places."""
    found, maps = _augment(zoom_x=0.2, zoom_y=0.2, flip=0.5, fill="border")
    assert set(np.sign(maps[:, 0, 0])) == {-1, 1}
    expected = [
        _transform(picture, _zoom(one[1, 1], abs(one[0, 0])))[:, :: int(np.sign(one[0, 0]))]
        for picture, one in zip(PICTURES, maps, strict=True)
    ]
    assert np.abs(found - np.stack(expected)).max() < 0.05


def test_shear_of_0_2_is_0_2_degrees_and_hardly_moves_a_pixel() -> None:
    """`shear_range = 0.2` is an angle in degrees: a tutorial's "20 %" shears by 0.2 degrees, not by 11.3 or 20.

    Ours moves rows sideways, x + tan(angle) y; Keras' moves columns up and down, and narrows by the cosine. With
    rows and columns exchanged they are one at such angles.
    """
    found, maps = _augment(shear=0.2, fill="border")
    angles = np.rad2deg(np.arctan(maps[:, 0, 1]))
    assert 0.1 < np.abs(angles).max() <= 0.2
    exchanged = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float64)
    _agree(found, [exchanged @ _shear(-angle) @ exchanged for angle in angles])
    assert np.abs(maps[:, 0, 1]).max() * 224 / 2 < 0.4, "pixels at the edge of an image of 224"


def test_a_large_shear_is_an_angle_too_but_keeps_the_width() -> None:
    found, maps = _augment(shear=20, fill="border")
    slopes = maps[:, 0, 1]
    assert np.tan(np.deg2rad(10)) < np.abs(slopes).max() <= np.tan(np.deg2rad(20))
    _agree(found, [np.array([[1, 0, 0], [slope, 1, 0], [0, 0, 1]]) for slope in slopes])
    keras = _shear(20)
    assert keras[1, 1] == pytest.approx(0.94, abs=1e-3), "which narrows the image by 6 % at 20 degrees"


def test_black_is_keras_constant_fill() -> None:
    found, maps = _augment(shift_x=0.3, fill="black")
    columns = maps[:, 0, 2] * SIZE / 2
    expected = [_transform(p, _shift(0, c), "grid-constant") for p, c in zip(PICTURES, columns, strict=True)]
    assert np.abs(found - np.stack(expected)).max() < 0.05
